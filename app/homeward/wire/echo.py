# SPDX-License-Identifier: GPL-2.0-or-later
"""ICMP echo in a whole IPv4 packet: the keepalive inside a UDP tunnel (RFC 3519 4.9; RFC 792)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import BadChecksum, UnknownMessage
from homeward.model.fields import require_field
from homeward.wire.cursor import Cursor
from homeward.wire.internet_checksum import checksum, put
from homeward.wire.ip_in_ip import open_outer

_ICMP: Final = 1
_REPLY: Final = 0
_REQUEST: Final = 8
_TTL: Final = 64
_HEADER: Final = struct.Struct("!BBHHHBBH4s4s")
_ECHO: Final = struct.Struct("!BBHHH")
_HEADER_CHECKSUM_AT: Final = 10
_ECHO_CHECKSUM_AT: Final = 2


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request, or its reply, which carries the same identifier, sequence number and data back."""

    source: IPv4Address
    destination: IPv4Address
    identifier: int
    sequence: int
    is_reply: bool = False
    data: bytes = b""

    def __post_init__(self) -> None:
        require_field("echo identifier", self.identifier, bits=16)
        require_field("echo sequence number", self.sequence, bits=16)

    def answer(self) -> Echo:
        """What its destination sends back."""
        return Echo(self.destination, self.source, self.identifier, self.sequence, True, self.data)

    def answers(self, request: Echo) -> bool:
        """Whether this is the reply to that request."""
        return not request.is_reply and self == request.answer()


def encode_echo(echo: Echo, *, packet_identification: int = 0) -> bytes:
    """The IPv4 packet."""
    kind = _REPLY if echo.is_reply else _REQUEST
    icmp = put(_ECHO.pack(kind, 0, 0, echo.identifier, echo.sequence) + echo.data, _ECHO_CHECKSUM_AT)
    header = _HEADER.pack(
        0x45,
        0,
        _HEADER.size + len(icmp),
        packet_identification,
        0,
        _TTL,
        _ICMP,
        0,
        echo.source.packed,
        echo.destination.packed,
    )
    return put(header, _HEADER_CHECKSUM_AT) + icmp


def decode_echo(packet: bytes) -> Echo:
    """Read an echo message from an IPv4 packet; UnknownMessage for any other packet, BadChecksum, Truncated."""
    cursor = Cursor(open_outer(packet, _ICMP))
    kind = cursor.number(1, "ICMP type")
    code = cursor.number(1, "ICMP code")
    if kind not in (_REPLY, _REQUEST) or code:
        raise UnknownMessage(f"ICMP type {kind}, code {code} is no echo")
    cursor.take(2, "ICMP checksum")
    identifier = cursor.number(2, "echo identifier")
    sequence = cursor.number(2, "echo sequence number")
    if checksum(open_outer(packet, _ICMP)):
        raise BadChecksum("the checksum of an echo is wrong")
    source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    return Echo(source, destination, identifier, sequence, kind == _REPLY, cursor.rest())
