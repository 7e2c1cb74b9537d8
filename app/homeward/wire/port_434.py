# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that may arrive on UDP port 434, told apart by its first octet (RFC 5944 3, RFC 3519 3.3, RFC 3543 3)."""

from __future__ import annotations

from typing import TypeAlias

from homeward.model.errors import UnknownMessage
from homeward.model.nat_traversal import TunnelData
from homeward.wire import registration, revocation, udp_tunnel
from homeward.wire.cursor import Cursor
from homeward.wire.decoded import DecodedAcknowledgment, DecodedReply, DecodedRequest, DecodedRevocation

Message: TypeAlias = DecodedRequest | DecodedReply | DecodedRevocation | DecodedAcknowledgment | TunnelData


def decode(octets: bytes | bytearray | memoryview) -> Message:
    """Read a UDP payload; nothing in it is verified yet. Raises only WireErrors, UnknownMessage for other types."""
    octets = bytes(octets)
    kind = Cursor(octets).number(1, "message type")
    match kind:
        case registration.REQUEST_TYPE | registration.REPLY_TYPE:
            return registration.decode(octets)
        case revocation.REVOCATION_TYPE | revocation.ACKNOWLEDGMENT_TYPE:
            return revocation.decode(octets)
        case udp_tunnel.TUNNEL_DATA_TYPE:
            return udp_tunnel.decode_tunnel_data(octets)
        case _:
            raise UnknownMessage(f"message type {kind} is not used by Mobile IPv4 as we speak it")
