# SPDX-License-Identifier: GPL-2.0-or-later
"""Minimal encapsulation within IP (RFC 2004): the inner header is folded into the outer one.

There is only one IP header, so that TTL, type of service with its congestion mark, Don't Fragment and options are the
inner packet's own all the way, and what the tunnel does to them is done to the packet.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import BadChecksum, WireError
from homeward.wire.cursor import Cursor
from homeward.wire.internet_checksum import checksum, put
from homeward.wire.ip_in_ip import Decapsulated, check_ipv4, open_outer

PROTOCOL: Final = 55
"""IANA's protocol number of minimal encapsulation."""
OVERHEAD: Final = 12
"""Octets that encapsulation adds at most: with the original source, which both ends of a binding have to send."""

_FORWARDING: Final = struct.Struct("!BBH4s")
_SOURCE_PRESENT: Final = 0x80
_FRAGMENT: Final = 0x3FFF  # More Fragments, and the offset
_PROTOCOL_AT: Final = 9
_CHECKSUM_AT: Final = 10


def encapsulate(inner: bytes, source: IPv4Address, destination: IPv4Address) -> bytes:
    """The packet with the tunnel's ends for addresses, its own behind the header.

    Raises a WireError for what is not an IPv4 packet, would be longer than one may be, or is a fragment: that
    must go another way (R-290).
    """
    check_ipv4(inner)
    if int.from_bytes(inner[6:8], "big") & _FRAGMENT:
        raise WireError("a fragment has no room for its place in minimal encapsulation")
    size = (inner[0] & 0x0F) * 4
    original_source = b"" if inner[12:16] == source.packed else inner[12:16]
    present = _SOURCE_PRESENT if original_source else 0
    forwarding = _FORWARDING.pack(inner[_PROTOCOL_AT], present, 0, inner[16:20]) + original_source
    total = len(inner) + len(forwarding)
    if total > 0xFFFF:
        raise WireError(f"an inner packet of {len(inner)} octets is too long to be encapsulated")
    header = _header(
        inner[:size], total=total, protocol=PROTOCOL, source=source.packed, destination=destination.packed
    )
    return header + put(forwarding, 2) + inner[size:]


def decapsulate(outer: bytes) -> Decapsulated:
    """The packet as it was before, but for the TTL that the tunnel took and the marks it left.

    Whose packets are admitted is the caller's to decide. Raises a WireError for anything that is not one whole packet,
    BadChecksum for a forwarding header that was damaged.
    """
    cursor = Cursor(open_outer(outer, PROTOCOL))
    forwarding = cursor.take(_FORWARDING.size, "minimal forwarding header")
    protocol, flags, _, destination = _FORWARDING.unpack(forwarding)
    source = outer[12:16]
    if flags & _SOURCE_PRESENT:
        source = cursor.take(4, "original source address")
        forwarding += source
    if checksum(forwarding):
        raise BadChecksum("the checksum of a minimal forwarding header is wrong")
    payload = cursor.rest()
    size = (outer[0] & 0x0F) * 4
    header = _header(
        outer[:size], total=size + len(payload), protocol=protocol, source=source, destination=destination
    )
    return Decapsulated(header + payload, outer)


def _header(header: bytes, *, total: int, protocol: int, source: bytes, destination: bytes) -> bytes:
    changed = header[:2] + total.to_bytes(2, "big") + header[4:_PROTOCOL_AT] + bytes([protocol, 0, 0])
    return put(changed + source + destination + header[20:], _CHECKSUM_AT)
