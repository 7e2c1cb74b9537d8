# SPDX-License-Identifier: GPL-2.0-or-later
"""Generic Routing Encapsulation of IPv4 in IPv4 (RFC 2784), in the form that Mobile IPv4 uses.

Sent without a checksum unless asked for. A received one is verified; keys, sequence numbers and source routes
are RFC 1701's, and a packet that has one of their bits is dropped (R-291).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import BadChecksum, UnknownMessage
from homeward.wire.cursor import Cursor
from homeward.wire.internet_checksum import checksum as internet_checksum
from homeward.wire.ip_in_ip import (
    TUNNEL_TTL,
    Decapsulated,
    check_ipv4,
    notice_congestion,
    open_outer,
    outer_header,
)

PROTOCOL: Final = 47
"""IANA's protocol number of GRE."""
OVERHEAD: Final = 24
"""Octets that encapsulation adds where no checksum is sent."""

_HEADER: Final = struct.Struct("!HH")
_CHECKSUM: Final = struct.Struct("!HH")
_CHECKSUM_PRESENT: Final = 0x8000
_RFC_1701: Final = 0x7C00
_VERSION: Final = 0x0007
_IPV4: Final = 0x0800


def encapsulate(
    inner: bytes,
    source: IPv4Address,
    destination: IPv4Address,
    *,
    ttl: int = TUNNEL_TTL,
    with_checksum: bool = False,
) -> bytes:
    """The outer packet for a raw socket with IP_HDRINCL; its header is made as IP-in-IP's is (R-284).

    Raises a WireError for what is not an IPv4 packet, or would be longer than one may be.
    """
    payload = wrap(inner, with_checksum=with_checksum)
    return outer_header(inner, PROTOCOL, source, destination, payload=len(payload), ttl=ttl) + payload


def decapsulate(outer: bytes) -> Decapsulated:
    """The packet inside; its TTL is left alone. Raises a WireError for anything that is not one whole packet."""
    inner = unwrap(open_outer(outer, PROTOCOL))
    noticed = notice_congestion(inner, outer[1])
    return Decapsulated(noticed, outer)


def wrap(inner: bytes, *, with_checksum: bool = False) -> bytes:
    """A GRE header and the IPv4 packet behind it; a WireError for anything but one IPv4 packet."""
    check_ipv4(inner)
    if not with_checksum:
        return _HEADER.pack(0, _IPV4) + inner
    header = _HEADER.pack(_CHECKSUM_PRESENT, _IPV4)
    total = internet_checksum(header + _CHECKSUM.pack(0, 0) + inner)
    return header + _CHECKSUM.pack(total, 0) + inner


def unwrap(octets: bytes) -> bytes:
    """The IPv4 packet behind a GRE header.

    UnknownMessage for RFC 1701's fields, another version or protocol, BadChecksum, and what ``check_ipv4`` raises.
    """
    cursor = Cursor(octets)
    flags = cursor.number(2, "GRE flags and version")
    protocol = cursor.number(2, "GRE protocol type")
    if flags & _RFC_1701:
        raise UnknownMessage(f"GRE flags {flags:#06x} ask for fields of RFC 1701")
    if flags & _VERSION:
        raise UnknownMessage(f"GRE version {flags & _VERSION} is not 0")
    if protocol != _IPV4:
        raise UnknownMessage(f"GRE carries protocol {protocol:#06x}, not IPv4")
    if flags & _CHECKSUM_PRESENT:
        cursor.take(_CHECKSUM.size, "GRE checksum")
        if internet_checksum(octets):
            raise BadChecksum("the checksum of a GRE packet is wrong")
    inner = cursor.rest()
    check_ipv4(inner)
    return inner
