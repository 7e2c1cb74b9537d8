# SPDX-License-Identifier: GPL-2.0-or-later
"""NAT traversal on the wire: the extensions 144 and 44, and the MIP Tunnel Data message (RFC 3519 3).

Reserved fields are sent as zero and ignored, but for the last one of the request: where that is not zero, the
extension counts as not understood, and since it is skippable, it is stepped over (RFC 3519 3.1.3; the same RFC has the
home agent answer 134 in 4.6.1, which we do not, X-7).

A tunnel in UDP carries a whole IPv4 packet, alone or behind a GRE header. Minimal encapsulation in UDP keeps half of
the inner header in the outer one, which a UDP socket does not show, so that it is neither asked for nor granted.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from homeward.model.errors import UnknownMessage
from homeward.model.nat_traversal import TunnelData, TunnelKind, UdpTunnelReply, UdpTunnelRequest
from homeward.wire import gre
from homeward.wire.cursor import Cursor
from homeward.wire.decoded import only
from homeward.wire.extensions import Extension, ExtensionType, encode, exact
from homeward.wire.ip_in_ip import check_ipv4, notice_congestion
from homeward.wire.unfinished_checksum import finished

TUNNEL_DATA_TYPE: Final = 4
OVERHEAD: Final = 32
"""Octets that IP-in-UDP adds: outer IPv4 header, UDP header and the message's own."""

_HEADER: Final = struct.Struct("!BBH")
_REQUEST: Final = struct.Struct("!xBBH")
_REPLY: Final = struct.Struct("!BHH")
_FORCE: Final = 0x80
_THROUGH_FOREIGN_AGENT: Final = 0x40
_FORCED: Final = 0x8000
_SUB_TYPE: Final = 0


def encode_request(request: UdpTunnelRequest | None) -> bytes:
    """Extension 144, or nothing."""
    if request is None:
        return b""
    flags = _FORCE * request.force | _THROUGH_FOREIGN_AGENT * request.through_foreign_agent
    body = _REQUEST.pack(flags, request.kind, 0)
    return encode(Extension(ExtensionType.UDP_TUNNEL_REQUEST, body, sub_type=_SUB_TYPE))


def encode_reply(reply: UdpTunnelReply | None) -> bytes:
    """Extension 44, or nothing."""
    if reply is None:
        return b""
    body = _REPLY.pack(reply.code, _FORCED * reply.forced, reply.keepalive)
    return encode(Extension(ExtensionType.UDP_TUNNEL_REPLY, body, sub_type=_SUB_TYPE))


def read_request(extensions: Sequence[Extension]) -> UdpTunnelRequest | None:
    """What these extensions ask for; WireError for one of another size, or for two."""
    extension = only(extensions, ExtensionType.UDP_TUNNEL_REQUEST, sub_type=_SUB_TYPE)
    if extension is None:
        return None
    flags, kind, reserved = exact(extension, _REQUEST, "UDP Tunnel Request")
    if reserved:
        return None
    return UdpTunnelRequest(
        force=bool(flags & _FORCE), through_foreign_agent=bool(flags & _THROUGH_FOREIGN_AGENT), kind=kind
    )


def read_reply(extensions: Sequence[Extension]) -> UdpTunnelReply | None:
    """What these extensions answer; WireError for one of another size, or for two."""
    extension = only(extensions, ExtensionType.UDP_TUNNEL_REPLY)
    if extension is None:
        return None
    code, flags, keepalive = exact(extension, _REPLY, "UDP Tunnel Reply")
    return UdpTunnelReply(code, forced=bool(flags & _FORCED), keepalive=keepalive)


def encode_tunnel_data(data: TunnelData) -> bytes:
    """The UDP payload of a MIP Tunnel Data message."""
    return _HEADER.pack(TUNNEL_DATA_TYPE, data.kind, 0) + data.payload


def decode_tunnel_data(octets: bytes) -> TunnelData:
    """Read a MIP Tunnel Data message; UnknownMessage for another type, Truncated. The payload is not looked into."""
    cursor = Cursor(octets)
    number = cursor.number(1, "message type")
    if number != TUNNEL_DATA_TYPE:
        raise UnknownMessage(f"message type {number} is not MIP Tunnel Data")
    kind = cursor.number(1, "next header")
    cursor.take(2, "reserved field of MIP Tunnel Data")
    return TunnelData(kind, cursor.rest())


def wrap(inner: bytes, kind: TunnelKind = TunnelKind.IP_IN_IP) -> bytes:
    """The UDP payload that carries this IPv4 packet; a WireError for anything else, or a kind that UDP cannot carry.

    The socket has to copy the type of service and Don't Fragment itself, and too big a packet is fragmented before it
    comes here (R-239).
    """
    if kind == TunnelKind.IP_IN_IP:
        check_ipv4(inner)
        return encode_tunnel_data(TunnelData(kind, inner))
    if kind == TunnelKind.GRE:
        return encode_tunnel_data(TunnelData(kind, gre.wrap(inner)))
    raise UnknownMessage(f"encapsulation {int(kind)} is not carried in UDP")


def unwrap(octets: bytes, kind: TunnelKind, *, outer_tos: int = 0) -> bytes:
    """The IPv4 packet that a MIP Tunnel Data message carries, where its kind is the one agreed on (R-231).

    ``outer_tos`` is the type of service that the datagram arrived with: its congestion mark is carried on
    (RFC 6040 4.2). Who sent the datagram is the caller's to check. Raises a WireError for everything else.
    """
    data = decode_tunnel_data(octets)
    if data.kind != kind:
        raise UnknownMessage(f"the tunnel carries {data.kind}, {int(kind)} was agreed on")
    if kind == TunnelKind.IP_IN_IP:
        check_ipv4(data.payload)
        return notice_congestion(finished(data.payload), outer_tos)
    if kind == TunnelKind.GRE:
        return notice_congestion(finished(gre.unwrap(data.payload)), outer_tos)
    raise UnknownMessage(f"encapsulation {int(kind)} is not carried in UDP")
