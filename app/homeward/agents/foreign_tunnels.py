# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to each packet at the foreign agent's end of its tunnels (RFC 5944 4.2.2, RFC 3024 5, RFC 3519 4).

Packets for visitors come out of the tunnel of their own home agent and go to them, or nowhere: whatever is for nobody
here is never forwarded, since it would come round again. Packets of visitors go to their own home agent, or nowhere.
The kernel routes on both sides of this, so that TTLs are left alone here (R-285).
"""

from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from homeward.agents.path_mtu import AGE, LEAST
from homeward.agents.visitors import Visitor
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import WireError
from homeward.model.names import REGISTRATION_PORT
from homeward.model.nat_traversal import TunnelKind
from homeward.model.overhead import Layer, inner_mtu, layer_of
from homeward.wire import gre, ip_in_ip, minimal_encapsulation, udp_packets, udp_tunnel
from homeward.wire.ip_in_ip import Decapsulated, check_ipv4, inner_destination, inner_source

_FRAGMENT: Final = 0x3FFF  # More Fragments, and the offset
_PROTOCOL_AT: Final = 9


class VisitorDrop(Enum):
    """Why a packet went no further; the values are codes for logs and counters, and stay as they are."""

    MALFORMED = "malformed-packet"
    NO_VISITOR = "no-visitor"
    WRONG_TUNNEL_END = "tunnel-packet-not-from-the-home-agent"
    WRONG_ENCAPSULATION = "tunnel-packet-of-another-kind"
    SPOOFED = "visitor-spoofed"
    NO_REVERSE_TUNNEL = "reverse-tunnel-not-granted"
    WRONG_DELIVERY_STYLE = "delivery-style-not-agreed-on"


@dataclass(frozen=True, slots=True)
class ToHomeAgent:
    """Send these octets, a whole packet with its outer header, to the visitor's home agent."""

    octets: bytes
    visitor: Visitor


@dataclass(frozen=True, slots=True)
class ToVisitor:
    """Deliver this packet to the visitor's own station."""

    packet: bytes
    visitor: Visitor


class VisitorTunnels:
    """The visitors whose packets are carried, and the rules that each packet has to pass."""

    def __init__(self) -> None:
        self._visitors: dict[bytes, Visitor] = {}
        self._path_mtus: dict[IPv4Address, tuple[int, float]] = {}

    def admit(self, visitor: Visitor) -> None:
        """Carry this visitor's packets from the next one on."""
        self._visitors[visitor.home_address.packed] = visitor

    def expel(self, visitor: Visitor) -> None:
        """Carry none of its packets any more."""
        self._visitors.pop(visitor.home_address.packed, None)

    def from_visitor(self, packet: bytes) -> ToHomeAgent | VisitorDrop:
        """A packet that the kernel took from a visitor's own station by direct delivery (RFC 3024 5.1)."""
        try:
            check_ipv4(packet)
        except WireError:
            return VisitorDrop.MALFORMED
        visitor = self._visitors.get(inner_source(packet))
        if visitor is None:
            return VisitorDrop.NO_VISITOR
        if visitor.encapsulating:
            return VisitorDrop.WRONG_DELIVERY_STYLE
        return _into_tunnel(packet, visitor)

    def own_packet(self, packet: bytes, visitor: Visitor) -> ToHomeAgent | VisitorDrop:
        """A packet that we made for the visitor's tunnel, such as a keepalive, whatever it granted us."""
        return _into_tunnel(packet, replace(visitor, reverse_tunnel=True))

    def from_delivery(self, packet: bytes, interface: str) -> ToHomeAgent | VisitorDrop:
        """An IP-in-IP packet to our own address on an access link: encapsulating delivery (RFC 3024 5.2)."""
        try:
            arrived = ip_in_ip.decapsulate(packet)
        except WireError:
            return VisitorDrop.MALFORMED
        visitor = self._visitors.get(arrived.source.packed)
        if visitor is None or visitor.interface != interface:
            return VisitorDrop.NO_VISITOR
        if not visitor.encapsulating:
            return VisitorDrop.WRONG_DELIVERY_STYLE
        if inner_source(arrived.inner) != arrived.source.packed:
            return VisitorDrop.SPOOFED
        if arrived.destination not in (visitor.agent_address, visitor.care_of_address):
            return VisitorDrop.NO_VISITOR
        return _into_tunnel(arrived.inner, visitor)

    def from_home_agent(self, packet: bytes) -> ToVisitor | VisitorDrop:
        """A tunnel packet to one of our care-of addresses, from its outer header on."""
        try:
            check_ipv4(packet)
            arrived, encapsulation = _out_of_tunnel(packet)
        except WireError:
            return VisitorDrop.MALFORMED
        visitor = self._visitors.get(inner_destination(arrived.inner))
        if visitor is None:
            return VisitorDrop.NO_VISITOR
        if (arrived.source, arrived.destination) != (visitor.home_agent, visitor.care_of_address):
            return VisitorDrop.WRONG_TUNNEL_END
        if visitor.udp or not _is_agreed(encapsulation, visitor, arrived.inner):
            return VisitorDrop.WRONG_ENCAPSULATION
        return ToVisitor(arrived.inner, visitor)

    def from_udp(
        self,
        octets: bytes,
        source: tuple[IPv4Address, int],
        destination: IPv4Address,
        *,
        type_of_service: int = 0,
    ) -> ToVisitor | VisitorDrop:
        """A MIP Tunnel Data message to port 434 of one of our care-of addresses (R-231)."""
        try:
            data = udp_tunnel.decode_tunnel_data(octets)
            inner = udp_tunnel.unwrap(octets, _kind(data.kind), outer_tos=type_of_service)
        except WireError:
            return VisitorDrop.MALFORMED
        visitor = self._visitors.get(inner_destination(inner))
        if visitor is None:
            return VisitorDrop.NO_VISITOR
        if source != (visitor.home_agent, REGISTRATION_PORT) or destination != visitor.care_of_address:
            return VisitorDrop.WRONG_TUNNEL_END
        if not visitor.udp or data.kind != visitor.encapsulation.protocol:
            return VisitorDrop.WRONG_ENCAPSULATION
        return ToVisitor(inner, visitor)

    # --- path MTU ---

    def path_mtu_reported(self, home_agent: IPv4Address, mtu: int, boot: float) -> None:
        """A router on the way to a home agent could not take a tunnel packet whole (R-288)."""
        if any(visitor.home_agent == home_agent for visitor in self._visitors.values()):
            self._path_mtus[home_agent] = (max(mtu, LEAST), boot + AGE)

    def room(self, links: int, boot: float) -> int:
        """How long a visitor's packet may be to go into any tunnel whole, where our own links take `links` octets.

        The kernel cuts longer ones before they come to us, or tells their senders (R-239, R-287).
        """
        self._path_mtus = {who: known for who, known in self._path_mtus.items() if boot < known[1]}
        path = min((mtu for mtu, _ in self._path_mtus.values()), default=links)
        layers = {layer_of(visitor.encapsulation, udp=visitor.udp) for visitor in self._visitors.values()}
        return min(inner_mtu(min(path, links), (layer,)) for layer in {Layer.IP_IN_IP, *layers})


def _into_tunnel(inner: bytes, visitor: Visitor) -> ToHomeAgent | VisitorDrop:
    if not visitor.reverse_tunnel:
        return VisitorDrop.NO_REVERSE_TUNNEL
    ends = visitor.care_of_address, visitor.home_agent
    try:
        if visitor.udp:
            near, far = ((address, REGISTRATION_PORT) for address in ends)
            octets = udp_packets.encapsulate(inner, near, far, kind=_kind(visitor.encapsulation.protocol))
        elif visitor.encapsulation is Encapsulation.GRE:
            octets = gre.encapsulate(inner, *ends)
        elif visitor.encapsulation is Encapsulation.MINIMAL and not _is_fragment(inner):
            octets = minimal_encapsulation.encapsulate(inner, *ends)
        else:
            octets = ip_in_ip.encapsulate(inner, *ends)
    except WireError:  # not one IPv4 packet, or too long to be encapsulated at all
        return VisitorDrop.MALFORMED
    return ToHomeAgent(octets, visitor)


def _out_of_tunnel(packet: bytes) -> tuple[Decapsulated, Encapsulation]:
    protocol = packet[_PROTOCOL_AT]
    if protocol == gre.PROTOCOL:
        return gre.decapsulate(packet), Encapsulation.GRE
    if protocol == minimal_encapsulation.PROTOCOL:
        return minimal_encapsulation.decapsulate(packet), Encapsulation.MINIMAL
    return ip_in_ip.decapsulate(packet), Encapsulation.IP_IN_IP


def _is_agreed(encapsulation: Encapsulation, visitor: Visitor, inner: bytes) -> bool:
    if encapsulation is visitor.encapsulation:
        return True
    # Minimal encapsulation has no room for fragments, which then travel in IP-in-IP.
    minimal = visitor.encapsulation is Encapsulation.MINIMAL
    return minimal and encapsulation is Encapsulation.IP_IN_IP and _is_fragment(inner)


def _is_fragment(packet: bytes) -> bool:
    return bool(int.from_bytes(packet[6:8], "big") & _FRAGMENT)


def _kind(number: int) -> TunnelKind:
    return TunnelKind.GRE if number == TunnelKind.GRE else TunnelKind.IP_IN_IP
