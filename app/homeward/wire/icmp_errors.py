# SPDX-License-Identifier: GPL-2.0-or-later
"""ICMP errors that a tunnel's entry owes to the sender of a packet it cannot carry (RFC 792, RFC 1191, RFC 2003)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from homeward.wire.internet_checksum import checksum as checksum
from homeward.wire.ip_in_ip import check_ipv4

_ICMP: Final = 1
_UNREACHABLE: Final = 3
_FRAGMENTATION_NEEDED: Final = 4
_QUOTED: Final = 548  # RFC 1812 section 4.3.2.3: as much as fits into 576 octets with both headers


def fragmentation_needed(packet: bytes, mtu: int, source: IPv4Address) -> bytes:
    """The whole ICMP packet that tells the sender of `packet` to send no more than `mtu` octets (R-287).

    `source` is the router that speaks. Raises a WireError for what is not an IPv4 packet.
    """
    check_ipv4(packet)
    quoted = packet[:_QUOTED]
    message = struct.pack("!BBHHH", _UNREACHABLE, _FRAGMENTATION_NEEDED, 0, 0, mtu) + quoted
    message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0xC0, 20 + len(message), 0, 0, 64, _ICMP, 0, source.packed, packet[12:16]
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + message
