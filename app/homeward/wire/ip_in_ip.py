# SPDX-License-Identifier: GPL-2.0-or-later
"""IP encapsulation within IP (RFC 2003), with explicit congestion notification carried across (RFC 6040).

Both directions handle whole IPv4 packets, as a TUN device and a raw socket give and take them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import TrailingOctets, Truncated, UnknownMessage, WireError
from homeward.model.values import quick
from homeward.wire.unfinished_checksum import finished

PROTOCOL: Final = 4
"""IANA's protocol number of IP-in-IP."""
OVERHEAD: Final = 20
"""Octets that encapsulation adds."""
TUNNEL_TTL: Final = 64
"""Enough to reach the other end; never inherited from the inner packet (R-284)."""

_NAMES: Final = {PROTOCOL: "IP-in-IP", 47: "GRE", 55: "minimal encapsulation"}
_MINIMUM: Final = 20
_PLAIN: Final = 0x45
_DONT_FRAGMENT: Final = 0x4000
_OUTER: Final = struct.Struct("!BBHHHBBHII")
_CONGESTION_EXPERIENCED: Final = 3
_ECN: Final = 0x03

# RFC 6040 section 4.2: (inner, outer) -> what the inner packet carries on; pairs that are absent leave it as it is.
_NOTICED: Final = {(1, 3): 3, (2, 3): 3, (2, 1): 1}


@quick
@dataclass(frozen=True, slots=True)
class Decapsulated:
    """An inner packet, and the outer header, or more, of the packet that it was in."""

    inner: bytes
    outer: bytes

    @property
    def source(self) -> IPv4Address:
        """The tunnel's end where it came from."""
        return IPv4Address(self.outer[12:16])

    @property
    def destination(self) -> IPv4Address:
        """The tunnel's end that it came to."""
        return IPv4Address(self.outer[16:20])

    def is_from(self, far_end: IPv4Address) -> bool:
        """Whether it came from this end; asked of each packet, so no address is made of it."""
        return int.from_bytes(self.outer[12:16], "big") == int(far_end)


def inner_source(packet: bytes) -> bytes:
    """The four octets of an IPv4 packet's source address."""
    return packet[12:16]


def inner_destination(packet: bytes) -> bytes:
    """The four octets of an IPv4 packet's destination address."""
    return packet[16:20]


def check_ipv4(packet: bytes) -> None:
    """Refuse what is not exactly one IPv4 packet: UnknownMessage, Truncated or TrailingOctets says why."""
    if len(packet) >= _MINIMUM and packet[0] == _PLAIN and (packet[2] << 8 | packet[3]) == len(packet):
        return  # as nearly all are, and this is asked several times of each
    if not packet:
        raise Truncated("an IPv4 packet is empty")
    if packet[0] >> 4 != 4:
        raise UnknownMessage(f"IP version {packet[0] >> 4} is not 4")
    header = (packet[0] & 0x0F) * 4
    if header < _MINIMUM or len(packet) < header:
        raise Truncated(f"an IPv4 header of {header} octets in a packet of {len(packet)}")
    total = int.from_bytes(packet[2:4], "big")
    if total < header or len(packet) < total:
        raise Truncated(f"an IPv4 packet of {total} octets, {len(packet)} are there")
    if len(packet) > total:
        raise TrailingOctets(f"an IPv4 packet of {total} octets, {len(packet)} are there")


def encapsulate(
    inner: bytes, source: IPv4Address, destination: IPv4Address, *, ttl: int = TUNNEL_TTL
) -> bytes:
    """The outer packet for a raw socket with IP_HDRINCL (R-284): the type of service is copied, Don't Fragment is
    set if it was, options are not copied, the inner packet stays as it is.

    Identification and checksum are zero: Linux fills both in when the packet is sent (raw(7)). Raises a WireError for
    what is not an IPv4 packet, or would be longer than one may be.
    """
    return outer_header(inner, PROTOCOL, source, destination, payload=len(inner), ttl=ttl) + inner


def outer_header(
    inner: bytes, protocol: int, source: IPv4Address, destination: IPv4Address, *, payload: int, ttl: int
) -> bytes:
    """The header in front of a tunnel's payload of that many octets, made after the inner packet's own header."""
    check_ipv4(inner)
    total = OVERHEAD + payload
    if total > 0xFFFF:
        raise WireError(f"an inner packet of {len(inner)} octets is too long to be encapsulated")
    flags = (inner[6] << 8) & _DONT_FRAGMENT
    # RFC 6040 section 4.1, normal mode: the congestion field is copied with the rest of the octet.
    return _OUTER.pack(0x45, inner[1], total, 0, flags, ttl, protocol, 0, int(source), int(destination))


def decapsulate(outer: bytes) -> Decapsulated:
    """The packet inside an IP-in-IP packet; its TTL is left alone (R-285).

    Whose packets are admitted is the caller's to decide (R-186, R-188). Raises a WireError for anything that is not one
    whole IPv4 packet inside another, for a fragment, and for a congestion mark on a packet whose transport
    cannot notice it (RFC 6040 section 4.2: to be dropped).
    """
    inner = open_outer(outer, PROTOCOL)
    check_ipv4(inner)
    noticed = notice_congestion(finished(inner), outer[1])
    return Decapsulated(noticed, outer)


def open_outer(outer: bytes, protocol: int) -> bytes:
    """What stands behind the header of a whole IPv4 packet of that protocol; a WireError for another, or a fragment."""
    check_ipv4(outer)
    if outer[9] != protocol:
        raise UnknownMessage(f"protocol {outer[9]} is not {_NAMES.get(protocol, protocol)}")
    if outer[7] or outer[6] & 0x3F:
        raise Truncated(f"a fragment of {_NAMES.get(protocol, protocol)}")
    return outer[(outer[0] & 0x0F) * 4 :]


def notice_congestion(inner: bytes, outer_tos: int) -> bytes:
    """The inner packet with the congestion mark of the outer header's type of service (RFC 6040 section 4.2).

    WireError for a mark on a packet whose transport cannot notice it: to be dropped.
    """
    if not outer_tos & 1:
        return inner  # no mark, or ECT(0), which says nothing new
    inner_ecn, outer_ecn = inner[1] & _ECN, outer_tos & _ECN
    if inner_ecn == 0 and outer_ecn == _CONGESTION_EXPERIENCED:
        raise WireError("congestion was marked on a packet whose transport does not know the mark")
    noticed = _NOTICED.get((inner_ecn, outer_ecn))
    if noticed is None:
        return inner
    changed = bytearray(inner)
    changed[1] = (inner[1] & ~_ECN) | noticed
    # RFC 1624, equation 3: the checksum follows the one 16-bit word that changed.
    old, new = int.from_bytes(inner[0:2], "big"), int.from_bytes(changed[0:2], "big")
    checksum = (~int.from_bytes(inner[10:12], "big") & 0xFFFF) + (~old & 0xFFFF) + new
    checksum = (checksum & 0xFFFF) + (checksum >> 16)
    checksum = (checksum & 0xFFFF) + (checksum >> 16)
    changed[10:12] = (~checksum & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)
