# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to each packet at the home agent's end of its tunnels (RFC 2003, RFC 3024 4.3.2, RFC 5944 4.2.3).

The kernel routes. Packets for bound home addresses reach us with their TTL already decremented by it, as the forwarding
host's duty is (R-285), and what we take out of a tunnel it forwards like any other packet. So TTLs are left alone here.
"""

import struct
from collections.abc import ItemsView, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from homeward.agents.agent_events import Forward, StopForwarding
from homeward.agents.lingering import SLICE as SLICE
from homeward.agents.lingering import Lingering
from homeward.agents.path_mtu import LEAST, PathMtus, host_unreachable, read_header, too_big
from homeward.agents.tunnel_errors import Reachability, Report, Trouble, read_report
from homeward.agents.tunnel_records import (
    ALL_BUT_END,
    ENDS,
    FAR,
    KIND,
    KINDS,
    Record,
    far_end,
    record_of,
    tunnel_of,
)
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import WireError
from homeward.model.names import REGISTRATION_PORT
from homeward.model.nat_traversal import TunnelKind
from homeward.model.values import quick
from homeward.wire import gre, ip_in_ip, minimal_encapsulation, udp_packets, udp_tunnel
from homeward.wire.echo import decode_echo, encode_echo
from homeward.wire.ip_fragments import fragment, is_fragment, may_be_cut
from homeward.wire.ip_in_ip import Decapsulated, check_ipv4, inner_destination, inner_source
from homeward.wire.segment_size import clamp, may_open
from homeward.wire.unfinished_checksum import finished

SEGMENT_MTU: Final = 1400
"""Packets of this length pass in every mode over links of 1500 octets, and with a little to spare."""

LINGER: Final = 2.0
"""Seconds for which packets are taken from where a node was before; the mobile node does the same the other way."""

_FRONTS: Final = struct.Struct("!2sH2x4s2x8s2sH8x4s")
"""Of the outer header and the inner one: what rules go by, and the lengths."""
_HEADERS: Final = 40  # of IPv4 and TCP, without options
_ICMP: Final = 1

_OVERHEADS: Final = {(each.encapsulation.protocol, each.udp): each.overhead for each in KINDS.values()}


class Dropped(Enum):
    """Why a packet went no further; the values are codes for logs and counters, and stay as they are."""

    MALFORMED = "malformed-packet"
    NO_BINDING = "no-binding"
    LOOP = "tunnel-loop"
    SPOOFED = "reverse-tunnel-spoofed"
    NO_REVERSE_TUNNEL = "reverse-tunnel-not-granted"
    NOT_AGREED = "encapsulation-not-agreed"
    HALF_BOUND = "tunnel-half-bound"


@quick
@dataclass(frozen=True, slots=True)
class TunnelPacket:
    """Send these octets, a packet with its outer header, to `endpoint`."""

    octets: bytes
    endpoint: IPv4Address


@dataclass(frozen=True, slots=True)
class TellSender:
    """Tell `sender` what became of its packet by `icmp`, unless that is None."""

    sender: IPv4Address
    icmp: bytes | None


class TunnelTable:
    """The forwarding state, kept current by Forward and StopForwarding, and the rules that each packet has to pass.

    `link_mtu` is that of the narrowest link of ours; `path_mtus` are those of prefixes whose paths are known to be
    narrower, for networks where ICMP does not tell. `segment_mtu` is what TCP connections are kept fit for, 0 for
    not at all.
    """

    def __init__(
        self,
        address: IPv4Address,
        *,
        link_mtu: int = 1500,
        path_mtus: Sequence[tuple[IPv4Network, int]] = (),
        segment_mtu: int = SEGMENT_MTU,
    ) -> None:
        self._address = address
        self._own = address.packed
        self._link_mtu = link_mtu
        self._tunnels: dict[int, Record] = {}
        self._ending_at: dict[int, int | set[int]] = {}
        """By far end: the home address whose tunnel ends there, or all of them (agents' ends are shared)."""
        self._latest: tuple[Record, int, Forward] | None = None
        self._lingering = Lingering()
        self._path_mtus = PathMtus()
        self._changed: set[int] = set()
        self._reachability = Reachability()
        self.configure(path_mtus=path_mtus, segment_mtu=segment_mtu)

    def configure(self, *, path_mtus: Sequence[tuple[IPv4Network, int]], segment_mtu: int) -> None:
        """Go by these from the next packet on."""
        self._configured = [
            (int(prefix.network_address), int(prefix.netmask), mtu) for prefix, mtu in path_mtus
        ]
        self._segment_mtu = segment_mtu

    def __len__(self) -> int:
        return len(self._tunnels)

    def items(self) -> ItemsView[int, Record]:
        """All tunnels by their home addresses."""
        return self._tunnels.items()

    def apply(self, change: Forward | StopForwarding, boot: float = 0.0) -> list[tuple[int, Record]]:
        """Take a change over; it holds from the next packet on.

        A node that has moved had packets on their way from where it was: they are taken out of their tunnel for LINGER
        seconds more. Returns this node's tunnels out of which nothing is taken any more; `pop_closed` tells those whose
        time is over, and is to be asked now and then while there are any.
        """
        key = int(change.home_address)
        if isinstance(change, Forward):
            return self.lead(key, record_of(change), boot)
        closed: list[tuple[int, Record]] = []
        former, before = self._lingering.pop(key), self._tunnels.pop(key, None)
        if former is not None:
            closed.append((key, former))
        if before is not None:
            closed.append((key, before))
            self._end(far_end(before), key)
        return closed

    def lead(self, home_address: int, now: Record, boot: float) -> list[tuple[int, Record]]:
        """As `apply`, of a Forward that is packed already."""
        closed: list[tuple[int, Record]] = []
        former = self._lingering.pop(home_address)
        if former is not None:
            closed.append((home_address, former))
        before = self._tunnels.get(home_address)
        self._tunnels[home_address] = now
        end = far_end(now)
        if before is None or before[FAR] != now[FAR]:
            self._begin(end, home_address)
        else:
            self._reachability.heard_from(end)
        if before is None or before[ALL_BUT_END] == now[ALL_BUT_END]:
            return closed
        if before[ENDS] != now[ENDS]:
            self._lingering.put(home_address, before, until=boot + LINGER)
        else:
            closed.append((home_address, before))
        if before[FAR] != now[FAR]:
            self._end(far_end(before), home_address)
        return closed

    def record(self, home_address: int) -> Record | None:
        """A home address's tunnel as it stands."""
        return self._tunnels.get(home_address)

    def pop_closed(self, boot: float) -> list[tuple[int, Record]]:
        """Tunnels whose time is over although nothing else has changed; there may be more when there are SLICE."""
        return self._lingering.pop_ended(boot)

    @property
    def is_lingering(self) -> bool:
        """Whether `pop_closed` will have something to say."""
        return bool(self._lingering)

    def pop_changed(self) -> set[int]:
        """Far ends to which the way has become narrower, or wider again, by what was reported."""
        changed, self._changed = self._changed, set()
        return changed

    def ending_at(self, endpoint: int) -> list[tuple[int, Record]]:
        """All tunnels that end there, with their home addresses."""
        keys = self._ending_at.get(endpoint, ())
        return [(key, self._tunnels[key]) for key in ((keys,) if isinstance(keys, int) else keys)]

    def _tunnel(self, home_address: int) -> Forward | None:
        record = self._tunnels.get(home_address)
        if record is None:
            return None
        latest = self._latest  # packets come in trains, and a record is not read anew for each
        if latest is None or latest[0] is not record or latest[1] != home_address:
            latest = self._latest = record, home_address, tunnel_of(home_address, record)
        return latest[2]

    def _former(self, home_address: int, boot: float) -> Forward | None:
        record = self._lingering.get(home_address, boot)
        return None if record is None else tunnel_of(home_address, record)

    def outbound(self, packet: bytes, boot: float) -> tuple[TunnelPacket, ...] | TellSender | Dropped:
        """What to do with a packet that the kernel routed to a home address."""
        try:
            check_ipv4(packet)
        except WireError:
            return Dropped.MALFORMED
        tunnel = self._tunnel(_number(inner_destination(packet)))
        if tunnel is None:
            return Dropped.NO_BINDING
        if self._loops(packet, tunnel):
            return Dropped.LOOP
        if tunnel.udp and tunnel.port is None:
            return Dropped.HALF_BOUND
        room = self._room(tunnel, boot)
        if len(packet) > room and not may_be_cut(packet):
            return TellSender(IPv4Address(inner_source(packet)), too_big(packet, room))
        try:
            return self._enclose(self._clamped(packet, room), tunnel, room)
        except WireError:  # too long to be encapsulated at all
            return Dropped.MALFORMED

    def outbound_segments(
        self, segments: Sequence[bytes], boot: float
    ) -> Iterator[tuple[TunnelPacket, ...] | TellSender | Dropped]:
        """The same for what was one packet until it was cut: alike in all that rules and the outer header go by."""
        first = self.outbound(segments[0], boot)
        yield first
        outer, length = b"", len(segments[0])
        if isinstance(first, tuple) and len(first) == 1:
            octets, endpoint = first[0].octets, first[0].endpoint
            if octets[9] == ip_in_ip.PROTOCOL and octets[ip_in_ip.OVERHEAD :] == segments[0]:
                outer = octets[: ip_in_ip.OVERHEAD]
        for segment in segments[1:]:
            if outer and len(segment) == length:
                yield (TunnelPacket(outer + segment, endpoint),)
            else:
                yield self.outbound(segment, boot)

    def inbound(self, packet: bytes, boot: float = 0.0) -> bytes | Dropped:
        """The packet inside a tunnel packet that was addressed to us, if its sender may use that tunnel (R-202).

        The outer source must be the care-of address of the binding of the inner source, and that binding must have a
        reverse tunnel of that very kind. `packet` starts with the outer IPv4 header.
        """
        try:
            arrived = _opened(packet)
        except WireError:
            return Dropped.MALFORMED
        key = _number(inner_source(arrived.inner))
        now = tunnel = self._tunnel(key)
        if now is not None and not arrived.is_from(now.endpoint):
            tunnel = self._former(key, boot)
            if tunnel is not None and not arrived.is_from(tunnel.endpoint):
                tunnel = None
        if now is None or tunnel is None:
            return Dropped.SPOOFED
        if tunnel.udp or not _agreed(packet[9], arrived.inner, tunnel.encapsulation):
            return Dropped.NOT_AGREED
        if not tunnel.reverse_tunnel:
            return Dropped.NO_REVERSE_TUNNEL
        if tunnel is now:
            self._reachability.heard_from(int(tunnel.endpoint))
        return self._clamped(arrived.inner, self._room(now, boot))

    def inbound_all(self, packets: Sequence[bytes], boot: float) -> Iterator[bytes | Dropped]:
        """The same for packets that came at one moment: one that is like the one before in all that rules go by may go
        on as that did."""
        alike, room = None, 0
        for packet in packets:
            if len(packet) < _HEADERS:
                yield self.inbound(packet, boot)
                continue
            outer, whole, place, ends, front, inside, source = _FRONTS.unpack_from(packet)
            own = outer, place, ends, front, source
            if own == alike and whole == len(packet) == inside + ip_in_ip.OVERHEAD:
                yield self._clamped(finished(packet[ip_in_ip.OVERHEAD :]), room)
                continue
            inner, alike = self.inbound(packet, boot), None
            yield inner
            if isinstance(inner, bytes) and _is_plain(packet):
                tunnel = self._tunnel(_number(inner_source(inner)))
                if tunnel is not None and tunnel.endpoint.packed == packet[12:16]:
                    alike, room = own, self._room(tunnel, boot)

    def inbound_udp(
        self, payload: bytes, source: IPv4Address, port: int, *, tos: int = 0, boot: float = 0.0
    ) -> bytes | TunnelPacket | Dropped:
        """The same for MIP Tunnel Data (R-231); a keepalive is answered by a packet back into the tunnel (R-237).

        HALF_BOUND where the tunnel waits for its first keepalive: whether this is it, the home agent decides.
        """
        try:
            data = udp_tunnel.decode_tunnel_data(payload)
            inner = udp_tunnel.unwrap(payload, TunnelKind(data.kind), outer_tos=tos)
        except (WireError, ValueError):
            return Dropped.MALFORMED
        key = _number(inner_source(inner))
        now = tunnel = self._tunnel(key)
        if now is not None and now.udp and now.port is None and now.endpoint == source:
            return Dropped.HALF_BOUND
        if now is not None and not _comes_from(now, source, port):
            tunnel = self._former(key, boot)
        if now is None or tunnel is None or not _comes_from(tunnel, source, port):
            return Dropped.SPOOFED
        if data.kind != tunnel.encapsulation.protocol:
            return Dropped.NOT_AGREED
        answer = self._answered(inner, tunnel)
        if answer is not None:
            return answer
        if not tunnel.reverse_tunnel:
            return Dropped.NO_REVERSE_TUNNEL
        if tunnel is now:
            self._reachability.heard_from(int(tunnel.endpoint))
        return self._clamped(inner, self._room(now, boot))

    def error_reported(self, message: bytes, boot: float) -> TellSender | None:
        """An ICMP message came: remember what it says of the way to a care-of address, and pass the news on.

        Where too little is quoted of a packet that was too big, the next such packet brings the answer (R-287, R-288),
        and None is returned, as for everything that is not passed on.
        """
        report = read_report(message, self._address.packed)
        endpoint = 0 if report is None else _number(report.outer.destination)
        if report is None or endpoint not in self._ending_at:
            return None
        patient = False
        if report.trouble is Trouble.TOO_BIG:
            if self._path_mtus.report(endpoint, report.mtu, boot=boot):
                self._changed.add(endpoint)
        elif report.trouble is Trouble.UNREACHABLE:
            patient = not self._reachability.report(endpoint, boot)
        tunnel = self._quoted(report)
        if tunnel is None or patient:
            return None
        sender = IPv4Address(inner_source(report.inner))
        if report.trouble is Trouble.TOO_BIG:
            return TellSender(sender, too_big(report.inner, self._room(tunnel, boot)))
        return TellSender(sender, host_unreachable(report.inner))

    def _quoted(self, report: Report) -> Forward | None:
        """The tunnel of the packet that an error quotes, if it is one of ours as it stands now."""
        inner = read_header(report.inner)
        tunnel = self._tunnel(_number(inner.destination)) if inner is not None else None
        if tunnel is None or tunnel.endpoint.packed != report.outer.destination:
            return None
        return tunnel if tunnel.udp is report.in_udp else None

    def room(self, record: Record, boot: float) -> int:
        """How long a packet may be that goes into this tunnel in one piece, in octets."""
        return self._mtu(far_end(record), boot) - KINDS[record[KIND]].overhead

    def _room(self, tunnel: Forward, boot: float) -> int:
        return self._mtu(int(tunnel.endpoint), boot) - _OVERHEADS[tunnel.encapsulation.protocol, tunnel.udp]

    def _mtu(self, endpoint: int, boot: float) -> int:
        mtu = self._link_mtu
        if self._configured:
            mtu = min([mtu, *(path for prefix, mask, path in self._configured if endpoint & mask == prefix)])
        reported = self._path_mtus.mtu(endpoint, boot=boot)
        if reported is not None and reported < mtu:
            mtu = reported
        return max(LEAST, mtu)

    def _begin(self, endpoint: int, key: int) -> None:
        others = self._ending_at.get(endpoint)
        if others is None:
            self._ending_at[endpoint] = key
        elif isinstance(others, set):
            others.add(key)
        elif others != key:
            self._ending_at[endpoint] = {others, key}
        self._reachability.heard_from(endpoint)

    def _end(self, endpoint: int, key: int) -> None:
        others = self._ending_at[endpoint]
        if isinstance(others, set):
            others.discard(key)
            if others:
                return
        del self._ending_at[endpoint]
        self._path_mtus.forget(endpoint)
        self._reachability.heard_from(endpoint)

    def _enclose(self, packet: bytes, tunnel: Forward, room: int) -> tuple[TunnelPacket, ...]:
        """Cut before, never behind: a NAT or firewall knows nothing to do with parts of tunnel packets (R-239)."""
        if tunnel.encapsulation is Encapsulation.MINIMAL and (len(packet) > room or is_fragment(packet)):
            room -= ip_in_ip.OVERHEAD - minimal_encapsulation.OVERHEAD
        if len(packet) <= room:
            return (TunnelPacket(self._outer(packet, tunnel), tunnel.endpoint),)
        return tuple(
            TunnelPacket(self._outer(part, tunnel), tunnel.endpoint) for part in fragment_freely(packet, room)
        )

    def _outer(self, packet: bytes, tunnel: Forward) -> bytes:
        here, there = self._address, tunnel.endpoint
        if tunnel.udp:
            assert tunnel.port is not None
            kind = TunnelKind(tunnel.encapsulation.protocol)
            ends = (here, REGISTRATION_PORT), (there, tunnel.port)
            return udp_packets.encapsulate(packet, *ends, kind=kind)
        match tunnel.encapsulation:
            case Encapsulation.GRE:
                return gre.encapsulate(packet, here, there)
            case Encapsulation.MINIMAL if not is_fragment(packet):
                return minimal_encapsulation.encapsulate(packet, here, there)
            case _:  # also for fragments, which have no room in minimal encapsulation
                return ip_in_ip.encapsulate(packet, here, there)

    def _clamped(self, packet: bytes, room: int) -> bytes:
        if not self._segment_mtu or not may_open(packet):
            return packet
        return clamp(packet, min(room, self._segment_mtu) - _HEADERS)

    def _answered(self, inner: bytes, tunnel: Forward) -> TunnelPacket | None:
        """The answer to a keepalive (RFC 3519 section 4.9), which is due whether or not there is a reverse tunnel."""
        if inner_destination(inner) != self._address.packed or inner[9] != _ICMP:
            return None
        try:
            echo = decode_echo(inner)
            if echo.is_reply:
                return None
            return TunnelPacket(self._outer(encode_echo(echo.answer()), tunnel), tunnel.endpoint)
        except WireError:
            return None

    def _loops(self, packet: bytes, tunnel: Forward) -> bool:
        """RFC 2003 section 3.2 (R-286): from the tunnel's own exit, or one of our own tunnel packets come back.

        Other packets from our own address are this host's answers to mobile nodes (ICMP errors, echo replies), which
        must reach them; arriving from elsewhere the kernel drops such a source as martian.
        """
        source = inner_source(packet)
        if _number(source) == int(tunnel.endpoint):
            return True
        return source == self._own and (packet[9] in _PROTOCOLS or _is_tunnel_data(packet))


_OUR_PORT: Final = REGISTRATION_PORT.to_bytes(2, "big")
_TUNNEL_DATA: Final = bytes([udp_tunnel.TUNNEL_DATA_TYPE])
_PROTOCOLS: Final = frozenset(each.protocol for each in Encapsulation)
_OPENERS: Final = {
    ip_in_ip.PROTOCOL: ip_in_ip.decapsulate,
    gre.PROTOCOL: gre.decapsulate,
    minimal_encapsulation.PROTOCOL: minimal_encapsulation.decapsulate,
}


def _is_tunnel_data(packet: bytes) -> bool:
    """Whether it is a message of ours with a packet inside, not a reply."""
    at = (packet[0] & 0x0F) * 4
    header = packet[at : at + 9]
    return packet[9] == udp_packets.PROTOCOL and header[:2] == _OUR_PORT and header[8:] == _TUNNEL_DATA


def _comes_from(tunnel: Forward, source: IPv4Address, port: int) -> bool:
    return tunnel.udp and tunnel.port == port and tunnel.endpoint == source


def _number(address: bytes) -> int:
    return int.from_bytes(address, "big")


def fragment_freely(packet: bytes, room: int) -> tuple[bytes, ...]:
    """The packet in parts that fit; what must not be cut was refused before, unless it only just fits otherwise."""
    return fragment(packet, room) if len(packet) > room and may_be_cut(packet) else (packet,)


def _opened(packet: bytes) -> Decapsulated:
    if len(packet) < 20 or packet[9] not in _OPENERS:
        raise WireError("it is no tunnel packet")
    return _OPENERS[packet[9]](packet)


def _is_plain(packet: bytes) -> bool:
    """Whether it is IP in IP without options and without a mark of congestion, as nearly all are."""
    return packet[9] == ip_in_ip.PROTOCOL and packet[0] == packet[20] == 0x45 and not packet[1] & 1


def _agreed(protocol: int, inner: bytes, encapsulation: Encapsulation) -> bool:
    """Whether a tunnel packet is of the kind that its binding has; fragments may always be IP-in-IP (RFC 2004)."""
    if protocol == encapsulation.protocol:
        return True
    minimal = encapsulation is Encapsulation.MINIMAL
    return minimal and protocol == ip_in_ip.PROTOCOL and is_fragment(inner)
