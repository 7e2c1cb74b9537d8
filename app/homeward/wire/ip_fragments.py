# SPDX-License-Identifier: GPL-2.0-or-later
"""Cutting an IPv4 packet into fragments before it goes into a tunnel (RFC 791 section 3.2; R-239)."""

from __future__ import annotations

from typing import Final

from homeward.model.errors import WireError
from homeward.wire.internet_checksum import put
from homeward.wire.ip_in_ip import check_ipv4

_DONT_FRAGMENT: Final = 0x4000
_MORE: Final = 0x2000
_OFFSET: Final = 0x1FFF
_CHECKSUM_AT: Final = 10
_COPIED: Final = 0x80
_END_OF_OPTIONS: Final = 0
_NO_OPERATION: Final = 1
_MINIMUM: Final = 20


def is_fragment(packet: bytes) -> bool:
    """Whether an IPv4 packet is a part of one that was cut."""
    return bool(int.from_bytes(packet[6:8], "big") & (_MORE | _OFFSET))


def may_be_cut(packet: bytes) -> bool:
    """Whether the sender of an IPv4 packet allows it to be cut."""
    return not packet[6] & 0x40


def fragment(packet: bytes, room: int) -> tuple[bytes, ...]:
    """The packet in parts of at most `room` octets each; the packet itself where it fits.

    A part of a packet that was cut before can be cut again. Raises a WireError for what is not an IPv4 packet, must not
    be cut, or has a header that leaves no room.
    """
    check_ipv4(packet)
    if len(packet) <= room:
        return (packet,)
    flags = int.from_bytes(packet[6:8], "big")
    if flags & _DONT_FRAGMENT:
        raise WireError("a packet that must not be fragmented is too long")
    size = (packet[0] & 0x0F) * 4
    first = packet[:size]
    later = _header_of_later(first)
    payload = packet[size:]
    parts: list[bytes] = []
    at = 0
    while at < len(payload):
        header = later if parts else first
        step = (room - len(header)) & ~7
        if step <= 0:
            raise WireError(f"{room} octets have no room for a fragment")
        last = len(payload) - at <= room - len(header)
        part = payload[at:] if last else payload[at : at + step]
        more = _MORE if not last else flags & _MORE
        parts.append(_part(header, part, more | (flags & _OFFSET) + at // 8))
        at += len(part)
    return tuple(parts)


def _part(header: bytes, payload: bytes, flags: int) -> bytes:
    total = len(header) + len(payload)
    changed = header[:2] + total.to_bytes(2, "big") + header[4:6] + flags.to_bytes(2, "big") + header[8:]
    return put(changed, _CHECKSUM_AT) + payload


def _header_of_later(header: bytes) -> bytes:
    """The header of all parts but the first: with those options only that are copied, padded to whole words."""
    kept, at = b"", _MINIMUM
    while at < len(header) and header[at] != _END_OF_OPTIONS:
        length = 1 if header[at] == _NO_OPERATION else max(header[at + 1 : at + 2] or b"\0")
        if length == 0 or at + length > len(header):
            break  # options that cannot be read are the first part's alone
        if header[at] & _COPIED:
            kept += header[at : at + length]
        at += length
    kept += bytes(-len(kept) % 4)
    words = (_MINIMUM + len(kept)) // 4
    return bytes([header[0] & 0xF0 | words]) + header[1:_MINIMUM] + kept
