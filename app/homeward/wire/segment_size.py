# SPDX-License-Identifier: GPL-2.0-or-later
"""The maximum segment size that the ends of a TCP connection tell each other, kept small enough for a tunnel (R-289).

It is said once, when the connection begins, and holds in every network that the mobile node goes on to. So it has to
fit the narrowest of them, and whoever is told by it does not depend on ICMP that somebody filters.
"""

from __future__ import annotations

from typing import Final

_TCP: Final = 6
_FLAGS_AT: Final = 13
_SYN: Final = 0x02
_CHECKSUM_AT: Final = 16
_MINIMUM: Final = 20
_END: Final = 0
_NO_OPERATION: Final = 1
_SEGMENT_SIZE: Final = 2
_SEGMENT_SIZE_OCTETS: Final = 4


def may_open(packet: bytes) -> bool:
    """Whether a packet of 20 octets or more could be what `clamp` changes; it is asked of each packet."""
    at = (packet[0] & 0x0F) * 4 + _FLAGS_AT
    return packet[9] == _TCP and len(packet) > at and packet[at] & _SYN != 0


def clamp(packet: bytes, most: int) -> bytes:
    """A checked IPv4 packet with a TCP maximum segment size of at most `most`; any other packet as it is."""
    if packet[9] != _TCP or packet[7] or packet[6] & 0x3F:
        return packet
    tcp = (packet[0] & 0x0F) * 4
    if len(packet) < tcp + _MINIMUM or not packet[tcp + _FLAGS_AT] & _SYN:
        return packet
    at = _find(packet, tcp + _MINIMUM, tcp + (packet[tcp + 12] >> 4) * 4)
    if at is None or int.from_bytes(packet[at + 2 : at + 4], "big") <= most:
        return packet
    changed = bytearray(packet)
    changed[at + 2 : at + 4] = most.to_bytes(2, "big")
    # Where the option stands at an odd place, its octets lie in two words of the sum: correct both.
    start = at + 2 - (at + 2 - tcp) % 2
    end = at + 4 + (at + 4 - tcp) % 2
    where = slice(tcp + _CHECKSUM_AT, tcp + _CHECKSUM_AT + 2)
    old, new = packet[start:end], bytes(changed[start:end])
    changed[where] = _corrected(packet[where], old, new)
    return bytes(changed)


def _find(packet: bytes, at: int, end: int) -> int | None:
    end = min(end, len(packet))
    while at < end and packet[at] != _END:
        if packet[at] == _NO_OPERATION:
            at += 1
            continue
        length = packet[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            return None
        if packet[at] == _SEGMENT_SIZE:
            return at if length == _SEGMENT_SIZE_OCTETS else None
        at += length
    return None


def _corrected(checksum: bytes, old: bytes, new: bytes) -> bytes:
    """RFC 1624, equation 3, for each word that changed."""
    total = ~int.from_bytes(checksum, "big") & 0xFFFF
    for at in range(0, len(old), 2):
        total += (~int.from_bytes(old[at : at + 2], "big") & 0xFFFF) + int.from_bytes(new[at : at + 2], "big")
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
