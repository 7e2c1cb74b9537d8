# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole packets of a tunnel in UDP, for a raw socket: each with its own type of service and Don't Fragment.

A UDP socket has one of either for all that it sends, so the home agent, which has many tunnels on one port, makes the
headers itself (RFC 3519 section 4.2).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from homeward.model.nat_traversal import TunnelKind
from homeward.wire.internet_checksum import checksum
from homeward.wire.ip_in_ip import TUNNEL_TTL, outer_header
from homeward.wire.udp_tunnel import wrap

PROTOCOL: Final = 17
"""IANA's protocol number of UDP."""
UDP_OCTETS: Final = 8

_UDP: Final = struct.Struct("!HHHH")
_PSEUDO: Final = struct.Struct("!4s4sBBH")


def encapsulate(
    inner: bytes,
    source: tuple[IPv4Address, int],
    destination: tuple[IPv4Address, int],
    *,
    kind: TunnelKind = TunnelKind.IP_IN_IP,
    ttl: int = TUNNEL_TTL,
) -> bytes:
    """The packet as MIP Tunnel Data from one address and port to another, for a raw socket with IP_HDRINCL.

    Raises a WireError for what is not an IPv4 packet, would be longer than one may be, or a kind that UDP cannot carry.
    """
    payload = wrap(inner, kind)
    size = UDP_OCTETS + len(payload)
    header = outer_header(inner, PROTOCOL, source[0], destination[0], payload=size, ttl=ttl)
    pseudo = _PSEUDO.pack(source[0].packed, destination[0].packed, 0, PROTOCOL, size)
    total = checksum(pseudo + _UDP.pack(source[1], destination[1], size, 0) + payload)
    # A sum of zero is sent as all ones, since zero says that there is none (RFC 768).
    return header + _UDP.pack(source[1], destination[1], size, total or 0xFFFF) + payload
