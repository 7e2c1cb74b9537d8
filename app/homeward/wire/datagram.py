# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP datagrams in whole IPv4 packets that were taken past the kernel's IP layer (RFC 768, RFC 791).

A foreign agent hears requests from addresses that no route leads to, and from stations that it has to know.
``link_frames.udp`` makes such packets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import BadChecksum, Truncated
from homeward.wire.cursor import Cursor
from homeward.wire.internet_checksum import checksum
from homeward.wire.ip_in_ip import open_outer

UDP: Final = 17

_LEAST: Final = 20
_UDP_HEADER: Final = struct.Struct("!HHHH")
_PSEUDO_HEADER: Final = struct.Struct("!4s4sxBH")


@dataclass(frozen=True, slots=True)
class UdpDatagram:
    """A UDP payload and what the headers around it said."""

    payload: bytes
    source: IPv4Address
    source_port: int
    destination: IPv4Address
    destination_port: int
    ttl: int


def read_udp_packet(packet: bytes, *, checksummed: bool = True) -> UdpDatagram:
    """Read a whole IPv4 packet that carries UDP; a WireError for anything else, and for a fragment.

    A checksum of 0 is none. With `checksummed` false it is not looked at: the kernel says so of packets that never
    left this machine, whose checksum nobody has filled in.
    """
    if len(packet) >= _LEAST and checksum(packet[: (packet[0] & 0x0F) * 4]):
        raise BadChecksum("the checksum of an IPv4 header is wrong")
    octets = open_outer(packet, UDP)
    cursor = Cursor(octets)
    source_port, destination_port, size, total = _UDP_HEADER.unpack(
        cursor.take(_UDP_HEADER.size, "UDP header")
    )
    if size < _UDP_HEADER.size or size > len(octets):
        raise Truncated(f"a UDP datagram of {size} octets, {len(octets)} are there")
    source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    whole = octets[:size]
    if (
        checksummed
        and total
        and checksum(_PSEUDO_HEADER.pack(source.packed, destination.packed, UDP, size) + whole)
    ):
        raise BadChecksum("the checksum of a UDP datagram is wrong")
    return UdpDatagram(
        whole[_UDP_HEADER.size :], source, source_port, destination, destination_port, packet[8]
    )
