# SPDX-License-Identifier: GPL-2.0-or-later
"""The checksum of IPv4, ICMP, GRE and minimal encapsulation headers (RFC 1071)."""

from __future__ import annotations

import struct


def checksum(octets: bytes) -> int:
    """The checksum to be put where these octets have zeros; 0 over octets that hold their own right one."""
    padded = octets + b"\0" * (len(octets) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def put(octets: bytes, at: int) -> bytes:
    """The octets with their checksum in the two at ``at``, whatever stood there."""
    blank = octets[:at] + b"\0\0" + octets[at + 2 :]
    return octets[:at] + checksum(blank).to_bytes(2, "big") + octets[at + 2 :]
