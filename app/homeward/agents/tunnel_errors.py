# SPDX-License-Identifier: GPL-2.0-or-later
"""ICMP errors about our own tunnel packets: what they say, and of which packet (RFC 2003 sections 4 and 5).

Host unreachable is passed on with patience. While a mobile node moves, its last care-of address is unreachable as a
rule, and applications are to see delay, not an error; so routers have to say it for a while, with nothing heard from
there in between. "Time exceeded" is a loop in the tunnel, which no patience mends: it is passed on at once.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from homeward.agents.path_mtu import QuotedHeader, read_header
from homeward.model.names import REGISTRATION_PORT
from homeward.wire.internet_checksum import checksum, put
from homeward.wire.udp_tunnel import TUNNEL_DATA_TYPE

PATIENCE: Final = 3.0
"""Seconds for which an endpoint must be reported unreachable before anybody is told."""
MEMORY: Final = 30.0
"""Seconds after which a report is about another time: routers limit how often they say the same."""

_ICMP_HEADER: Final = 8
_UNREACHABLE: Final = 3
_TIME_EXCEEDED: Final = 11
_TOO_BIG: Final = 4
_RELAYED_CODES: Final = frozenset({0, 1, 2})
"""Network, host and protocol; never port unreachable (3) or source route failed (5), which are the tunnel's own."""

_IP_IN_IP, _UDP, _GRE, _MINIMAL = 4, 17, 47, 55
_UDP_HEADER: Final = 8
_TUNNEL_DATA: Final = 4
_GRE_HEADER: Final = 4
_SOURCE_PRESENT: Final = 0x80


class Trouble(Enum):
    """What an error means to the sender of the packet inside."""

    TOO_BIG = "too big"
    UNREACHABLE = "unreachable"
    LOOP = "time exceeded in the tunnel"


@dataclass(frozen=True, slots=True)
class Report:
    """An error about a packet of ours. `inner` is what it quotes of the packet inside, from its header on; it may be
    cut short, or empty. `in_udp` and `protocol` are the tunnel's; `mtu` belongs to TOO_BIG."""

    trouble: Trouble
    outer: QuotedHeader
    inner: bytes
    protocol: int
    in_udp: bool
    mtu: int


def read_report(message: bytes, our_address: bytes) -> Report | None:
    """What an ICMP message says of a tunnel packet that we sent; None for everything that we do not act upon."""
    if len(message) < _ICMP_HEADER or checksum(message):
        return None
    trouble = _trouble(message[0], message[1])
    quoted = message[_ICMP_HEADER:]
    outer = read_header(quoted)
    if trouble is None or outer is None or outer.source != our_address or outer.fragment_offset:
        return None
    rest = quoted[outer.octets :]
    protocol, in_udp = outer.protocol, outer.protocol == _UDP
    if in_udp:
        if int.from_bytes(rest[:2], "big") != REGISTRATION_PORT or len(rest) < _UDP_HEADER:
            return None
        data = rest[_UDP_HEADER:]
        if data[:1] not in (b"", bytes([TUNNEL_DATA_TYPE])):
            return None  # an answer to a registration
        protocol, rest = data[1] if len(data) > 1 else 0, data[_TUNNEL_DATA:]
    elif protocol not in (_IP_IN_IP, _GRE, _MINIMAL):
        return None
    inner = _inner(quoted[: outer.octets], rest, protocol)
    return Report(trouble, outer, inner, protocol, in_udp, int.from_bytes(message[6:8], "big"))


def _trouble(kind: int, code: int) -> Trouble | None:
    if kind == _UNREACHABLE and code == _TOO_BIG:
        return Trouble.TOO_BIG
    if kind == _UNREACHABLE and code in _RELAYED_CODES:
        return Trouble.UNREACHABLE
    return Trouble.LOOP if (kind, code) == (_TIME_EXCEEDED, 0) else None


def _inner(outer: bytes, rest: bytes, protocol: int) -> bytes:
    if protocol == _GRE:
        return rest[_GRE_HEADER:]
    return _unfolded(outer, rest) if protocol == _MINIMAL else rest


def _unfolded(outer: bytes, rest: bytes) -> bytes:
    """The packet that minimal encapsulation folded into its outer header, as far as it is quoted."""
    if len(rest) < 12 or not rest[1] & _SOURCE_PRESENT:
        return b""
    total = int.from_bytes(outer[2:4], "big") - 12
    header = outer[:2] + total.to_bytes(2, "big") + outer[4:9] + rest[:1] + b"\0\0" + rest[8:12] + rest[4:8]
    return put(header + outer[20:], 10) + rest[12:]


class Reachability:
    """For how long far ends have been reported unreachable."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[float, float]] = {}

    def report(self, endpoint: int, boot: float) -> bool:
        """Note a report; whether it has gone on for long enough to be passed on."""
        since, last = self._since.get(endpoint, (boot, boot))
        if boot - last > MEMORY:
            since = boot
        self._since[endpoint] = (since, boot)
        return boot - since >= PATIENCE

    def heard_from(self, endpoint: int) -> None:
        """Something came from there, or it was registered anew."""
        if self._since:
            self._since.pop(endpoint, None)
