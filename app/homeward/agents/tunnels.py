# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to each packet at the home agent's end of its tunnels (RFC 2003, RFC 3024 4.3.2, RFC 5944 4.2.3).

The kernel routes. Packets for bound home addresses reach us with their TTL already decremented by it, as the forwarding
host's duty is (R-285), and what we take out of a tunnel it forwards like any other packet. So TTLs are left alone here.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from homeward.agents.agent_events import Forward, StopForwarding
from homeward.agents.path_mtu import PathMtus, read_header, too_big
from homeward.model.errors import WireError
from homeward.wire.ip_in_ip import (
    PROTOCOL,
    check_ipv4,
    decapsulate,
    encapsulate,
    inner_destination,
    inner_source,
)


class Dropped(Enum):
    """Why a packet went no further; the values are codes for logs and counters, and stay as they are."""

    MALFORMED = "malformed-packet"
    NO_BINDING = "no-binding"
    LOOP = "tunnel-loop"
    SPOOFED = "reverse-tunnel-spoofed"
    NO_REVERSE_TUNNEL = "reverse-tunnel-not-granted"


@dataclass(frozen=True, slots=True)
class TunnelPacket:
    """Send these octets, an IP-in-IP packet with its outer header, to `endpoint`."""

    octets: bytes
    endpoint: IPv4Address


@dataclass(frozen=True, slots=True)
class TooBig:
    """The path cannot take a packet whole and it may not be cut: tell `sender` by `icmp`, unless that is None."""

    sender: IPv4Address
    icmp: bytes | None


class TunnelTable:
    """The forwarding state, kept current by Forward and StopForwarding, and the rules that each packet has to pass."""

    def __init__(self, address: IPv4Address) -> None:
        self._address = address
        self._tunnels: dict[bytes, Forward] = {}
        self._users: dict[IPv4Address, int] = {}
        """How many tunnels end at a care-of address; a foreign agent's is shared."""
        self._path_mtus = PathMtus()

    def apply(self, change: Forward | StopForwarding) -> None:
        """Take a change over; it holds from the next packet on."""
        key = change.home_address.packed
        before = self._tunnels.pop(key, None)
        if isinstance(change, Forward):
            self._tunnels[key] = change
            self._users[change.endpoint] = self._users.get(change.endpoint, 0) + 1
        if before is not None:
            self._users[before.endpoint] -= 1
            if not self._users[before.endpoint]:
                del self._users[before.endpoint]
                self._path_mtus.forget(before.endpoint.packed)

    def outbound(self, packet: bytes, boot: float) -> TunnelPacket | TooBig | Dropped:
        """What to do with a packet that the kernel routed to a home address."""
        try:
            check_ipv4(packet)
        except WireError:
            return Dropped.MALFORMED
        tunnel = self._tunnels.get(inner_destination(packet))
        if tunnel is None:
            return Dropped.NO_BINDING
        if self._loops(packet, tunnel):
            return Dropped.LOOP
        room = self._path_mtus.room(tunnel.endpoint.packed, boot=boot)
        if room is not None and len(packet) > room and packet[6] & 0x40:
            return TooBig(IPv4Address(inner_source(packet)), too_big(packet, room))
        try:
            return TunnelPacket(encapsulate(packet, self._address, tunnel.endpoint), tunnel.endpoint)
        except WireError:  # too long to be encapsulated at all
            return Dropped.MALFORMED

    def inbound(self, packet: bytes) -> bytes | Dropped:
        """The packet inside a tunnel packet that was addressed to us, if its sender may use that tunnel (R-202).

        The outer source must be the care-of address of the binding of the inner source, and that binding must have a
        reverse tunnel. `packet` starts with the outer IPv4 header.
        """
        try:
            arrived = decapsulate(packet)
        except WireError:
            return Dropped.MALFORMED
        tunnel = self._tunnels.get(inner_source(arrived.inner))
        if tunnel is None or tunnel.endpoint != arrived.source:
            return Dropped.SPOOFED
        if not tunnel.reverse_tunnel:
            return Dropped.NO_REVERSE_TUNNEL
        return arrived.inner

    def path_mtu_reported(self, quoted: bytes, mtu: int, boot: float) -> TooBig | None:
        """A router on the way to a care-of address could not take a tunnel packet: remember it, and pass the news on.

        `quoted` is our tunnel packet as the router quoted it, from its outer header on. Where too little is quoted the
        next packet that is too big brings the answer (R-287, R-288), and None is returned, as for tunnels not ours.
        """
        outer = read_header(quoted)
        if outer is None or outer.protocol != PROTOCOL or outer.source != self._address.packed:
            return None
        if IPv4Address(outer.destination) not in self._users:
            return None
        room = self._path_mtus.report(outer.destination, mtu, boot=boot)
        rest = quoted[outer.octets :]
        inner = read_header(rest)
        tunnel = self._tunnels.get(inner.destination) if inner is not None else None
        if inner is None or tunnel is None or tunnel.endpoint.packed != outer.destination:
            return None
        return TooBig(IPv4Address(inner.source), too_big(rest, room))

    def _loops(self, packet: bytes, tunnel: Forward) -> bool:
        """RFC 2003 section 3.2 (R-286): from the tunnel's own exit, or one of our own tunnel packets come back.

        Other packets from our own address are this host's answers to mobile nodes (ICMP errors, echo replies), which
        must reach them; arriving from elsewhere the kernel drops such a source as martian.
        """
        source = inner_source(packet)
        if source == tunnel.endpoint.packed:
            return True
        return source == self._address.packed and packet[9] == PROTOCOL
