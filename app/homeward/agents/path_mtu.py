# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tunnel's path can carry, and how the senders of too big packets learn it (RFC 2003 sections 4.1, 5.1)."""

import struct
from dataclasses import dataclass
from typing import Final

from homeward.wire.internet_checksum import checksum

AGE: Final = 600.0
"""Seconds for which a smaller path MTU is believed (RFC 1191 section 6.3)."""
LEAST: Final = 576
"""No report below this is believed: it would only serve to make us ask for tiny packets."""

_MINIMUM: Final = 20
_DO_NOT_FRAGMENT: Final = 0x4000
_FRAGMENT_OFFSET: Final = 0x1FFF
_ICMP: Final = 1
_UNREACHABLE: Final = 3
_HOST_UNREACHABLE: Final = 1
_TOO_BIG: Final = 4
_ICMP_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_HEADER: Final = struct.Struct("!BBHHHBBH4s4s")
_QUOTE: Final = 548
"""An ICMP error quotes as much as fits 576 octets (RFC 1812 section 4.3.2.3)."""


@dataclass(frozen=True, slots=True)
class QuotedHeader:
    """An IPv4 header at the beginning of a packet that may be cut short behind it, as ICMP errors quote it."""

    octets: int
    total: int
    do_not_fragment: bool
    fragment_offset: int
    protocol: int
    source: bytes
    destination: bytes


def read_header(packet: bytes) -> QuotedHeader | None:
    """The IPv4 header in front, None when there is none."""
    if len(packet) < _MINIMUM:
        return None
    first, _, total, _, fragment, _, protocol, _, source, destination = _HEADER.unpack_from(packet)
    octets = (first & 0x0F) * 4
    if first >> 4 != 4 or octets < _MINIMUM or len(packet) < octets or total < octets:
        return None
    return QuotedHeader(
        octets,
        total,
        bool(fragment & _DO_NOT_FRAGMENT),
        fragment & _FRAGMENT_OFFSET,
        protocol,
        source,
        destination,
    )


class PathMtus:
    """The smaller path MTUs that routers reported, by the far end of the tunnel (R-288)."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, float]] = {}

    def report(self, endpoint: int, mtu: int, *, boot: float) -> bool:
        """Remember a report; whether it says anything new."""
        before = self.mtu(endpoint, boot=boot)
        self._known[endpoint] = (max(mtu, LEAST), boot + AGE)
        return before != max(mtu, LEAST)

    def mtu(self, endpoint: int, *, boot: float) -> int | None:
        """How long a tunnel packet may be, None when nothing was reported lately."""
        known = self._known.get(endpoint)
        if known is None:
            return None
        mtu, until = known
        if boot >= until:
            del self._known[endpoint]
            return None
        return mtu

    def forget(self, endpoint: int) -> None:
        """Nothing leads there any more."""
        self._known.pop(endpoint, None)


def too_big(packet: bytes, mtu: int) -> bytes | None:
    """The ICMP message "fragmentation needed, next-hop MTU `mtu`" about a packet, or None where none may be sent."""
    return _error_about(packet, _TOO_BIG, mtu)


def host_unreachable(packet: bytes) -> bytes | None:
    """The ICMP message "host unreachable" about a packet, or None where none may be sent."""
    return _error_about(packet, _HOST_UNREACHABLE, 0)


def _error_about(packet: bytes, code: int, mtu: int) -> bytes | None:
    """None about ICMP errors, about fragments but the first, and about packets that no single host sent
    (RFC 1812 section 4.3.2.7). `packet` may be cut short behind its header.
    """
    header = read_header(packet)
    if header is None or header.fragment_offset:
        return None
    if header.source == b"\0\0\0\0" or header.source[0] >= 224 or header.source[0] == 127:
        return None
    if header.protocol == _ICMP:
        kind = packet[header.octets] if len(packet) > header.octets else None
        if kind is None or kind in _ICMP_ERRORS:
            return None
    quote = packet[: min(_QUOTE, header.total)]
    head = struct.pack("!BBHHH", _UNREACHABLE, code, 0, 0, mtu)
    return head[:2] + struct.pack("!H", checksum(head + quote)) + head[4:] + quote
