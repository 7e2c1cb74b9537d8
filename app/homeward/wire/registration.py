# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration Request and Reply: values to octets and back (RFC 5944 3.3, 3.4).

What the decoder does where the RFCs leave room:

* ``message`` is built from the fixed part and from what stands before the single MN-HA extension. Anything
  behind it was not written by the peer (or need not have been), is not even interpreted, and is only listed.
  Without exactly one MN-HA extension the message is the fixed part alone.
* Understood: MN-HA (32), NAI (131), Revocation Support (137); in a request UDP Tunnel Request (144), in a reply UDP
  Tunnel Reply (44), Trusted Networks Configured (149) and the home agent's Message String (145). What stands behind
  MN-HA is framed here and read by ``wire.relay``: MN-FA (33), FA-HA (34), Encapsulating Delivery Style (130),
  Challenge (132), in a request MN-AAA (36/1), in a reply FA Error (45). Every other type up to 127, and another
  sub-type of 36, 44 or 45, drops the message; every other type from 128 is stepped over.
* Two of a kind before the MN-HA extension are a BadExtension: which of them counts
  must not be a matter of the reader's taste. So are a NAI that is empty, not UTF-8 or not printable,
  and an MN-HA extension with an empty authenticator. Only Message Strings may be several: the first one is shown.
* Of an extension of fixed size, less is Truncated, more is TrailingOctets; reserved fields are ignored. Revocation
  Support may be longer than it is today (RFC 3543 3.2). Under a sub-type other than their own, 144 and 149 are some
  other extension, and skipped.
* Flags, codes and addresses are handed on as they are: judging them is the receiver's part.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import BadExtension, LocalProtocolError, Truncated, UnknownMessage
from homeward.model.registration import (
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    nai_fault,
)
from homeward.wire import message_string, revocation_support, udp_tunnel
from homeward.wire.authenticator import authenticate
from homeward.wire.cursor import Cursor
from homeward.wire.decoded import DecodedReply, DecodedRequest, Parts, only, split
from homeward.wire.extensions import Extension, ExtensionType, encode, require_known_sub_types, walk

REQUEST_TYPE: Final = 1
REPLY_TYPE: Final = 3

_REQUEST: Final = struct.Struct("!BBHIIIQ")
_FLAGS: Final = tuple(RequestFlags(octet) for octet in range(256))
_REPLY: Final = struct.Struct("!BBHIIQ")

_IN_EITHER: Final = frozenset(
    {
        ExtensionType.MOBILE_HOME_AUTHENTICATION,
        ExtensionType.MOBILE_FOREIGN_AUTHENTICATION,
        ExtensionType.FOREIGN_HOME_AUTHENTICATION,
        ExtensionType.MOBILE_NODE_NAI,
        ExtensionType.MOBILE_FOREIGN_CHALLENGE,
        ExtensionType.REVOCATION_SUPPORT,
    }
)
_IN_REQUEST: Final[frozenset[int]] = _IN_EITHER | {
    ExtensionType.GENERALIZED_AUTHENTICATION,
    ExtensionType.ENCAPSULATING_DELIVERY_STYLE,
    ExtensionType.UDP_TUNNEL_REQUEST,
}
_IN_REPLY: Final[frozenset[int]] = _IN_EITHER | {
    ExtensionType.UDP_TUNNEL_REPLY,
    ExtensionType.FOREIGN_AGENT_ERROR,
    ExtensionType.MESSAGE_STRING,
    ExtensionType.TRUSTED_NETWORKS_CONFIGURED,
}

_TNC_SUB_TYPE: Final = 0
_TNC_BODY: Final = b"\0"
TRUSTED: Final = encode(
    Extension(ExtensionType.TRUSTED_NETWORKS_CONFIGURED, _TNC_BODY, sub_type=_TNC_SUB_TYPE)
)


def encode_request(request: RegistrationRequest, association: MobilitySecurityAssociation) -> bytes:
    """The octets of a request, extensions in the order of RFC 5944 3.6.1.3, the MN-HA authentication last.

    What a foreign agent is told besides is appended by ``relay.tell_foreign_agent``. LocalProtocolError for reserved
    flags, which a sender leaves at zero, and for a UDP Tunnel Request or Revocation Support with a foreign agent's
    care-of address (RFC 3519 4.4, RFC 3543 3.2). A test that needs such a message builds it with
    ``authenticator.authenticate``.
    """
    if request.flags.has_reserved:
        raise LocalProtocolError(f"reserved flags are never sent: {int(request.flags):#04x}")
    co_located = RequestFlags.DECAPSULATE_SELF in request.flags
    if not co_located and (request.udp_tunnel is not None or request.revocation_support is not None):
        raise LocalProtocolError("UDP tunnels and revocation are for co-located care-of addresses only")
    fixed = _REQUEST.pack(
        REQUEST_TYPE,
        request.flags,
        request.lifetime,
        int(request.home_address),
        int(request.home_agent),
        int(request.care_of_address),
        request.identification,
    )
    extensions = (
        _encode_nai(request.nai)
        + udp_tunnel.encode_request(request.udp_tunnel)
        + revocation_support.encode_support(request.revocation_support)
    )
    return authenticate(fixed + extensions, association)


def encode_reply(reply: RegistrationReply, association: MobilitySecurityAssociation) -> bytes:
    """The octets of a reply, everything that it says before its MN-HA authentication."""
    extensions = (
        _encode_nai(reply.nai)
        + udp_tunnel.encode_reply(reply.udp_tunnel)
        + (TRUSTED if reply.trusted_networks_configured else b"")
        + revocation_support.encode_support(reply.revocation_support)
        + message_string.encode_text(reply.message, by=message_string.Author.HOME_AGENT)
    )
    return authenticate(encode_fixed_reply(reply) + extensions, association)


def encode_fixed_reply(reply: RegistrationReply) -> bytes:
    """The fixed part alone: what a foreign agent's own denial begins with."""
    return _REPLY.pack(
        REPLY_TYPE,
        reply.code,
        reply.lifetime,
        int(reply.home_address),
        int(reply.home_agent),
        reply.identification,
    )


def decode(octets: bytes | bytearray | memoryview) -> DecodedRequest | DecodedReply:
    """Read a UDP payload from or for port 434; nothing in it is verified yet.

    Raises only WireErrors: UnknownMessage for other message types, Truncated, TrailingOctets, BadExtension,
    UnknownCriticalExtension.
    """
    octets = bytes(octets)  # what is judged later must be what was read, also if a reused buffer came in
    kind = octets[0] if octets else Cursor(octets).number(1, "message type")
    if kind == REQUEST_TYPE:
        return _decode_request(octets)
    if kind == REPLY_TYPE:
        return _decode_reply(octets)
    raise UnknownMessage(f"message type {kind} is not a registration message")


def _decode_request(octets: bytes) -> DecodedRequest:
    _require(octets, _REQUEST.size, "registration request")
    _, flags, lifetime, home_address, home_agent, care_of_address, identification = _REQUEST.unpack_from(
        octets
    )
    authentications, covered, rest = _read_extensions(octets, _REQUEST.size, _IN_REQUEST)
    request = RegistrationRequest(
        lifetime,
        IPv4Address(home_address),
        home_agent=IPv4Address(home_agent),
        care_of_address=IPv4Address(care_of_address),
        identification=Identification(identification),
        flags=_FLAGS[flags],
        nai=_read_nai(covered),
        udp_tunnel=udp_tunnel.read_request(covered),
        revocation_support=revocation_support.read_support(covered),
    )
    return DecodedRequest(octets, authentications, covered, rest, request)


def _decode_reply(octets: bytes) -> DecodedReply:
    _require(octets, _REPLY.size, "registration reply")
    _, code, lifetime, home_address, home_agent, identification = _REPLY.unpack_from(octets)
    parts = _read_extensions(octets, _REPLY.size, _IN_REPLY)
    reply = RegistrationReply(
        code,
        lifetime,
        home_address=IPv4Address(home_address),
        home_agent=IPv4Address(home_agent),
        identification=Identification(identification),
        nai=_read_nai(parts.covered),
        trusted_networks_configured=_read_trusted_networks_configured(parts.covered),
        udp_tunnel=udp_tunnel.read_reply(parts.covered),
        revocation_support=revocation_support.read_support(parts.covered),
        message=message_string.read_text(parts.covered, by=message_string.Author.HOME_AGENT),
    )
    return DecodedReply(octets, *parts, reply)


def _read_extensions(octets: bytes, start: int, understood: frozenset[int]) -> Parts:
    extensions = tuple(walk(octets, start, understood=understood))
    require_known_sub_types(extensions)
    return split(extensions)


def _read_nai(covered: Sequence[Extension]) -> str | None:
    extension = only(covered, ExtensionType.MOBILE_NODE_NAI)
    if extension is None:
        return None
    try:
        nai = extension.body.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise BadExtension(f"the NAI at octet {extension.offset} is not UTF-8") from fault
    fault_found = nai_fault(nai)
    if fault_found is not None:
        raise BadExtension(f"the NAI at octet {extension.offset} cannot be used: {fault_found}")
    return nai


def _read_trusted_networks_configured(covered: Sequence[Extension]) -> bool:
    extension = only(covered, ExtensionType.TRUSTED_NETWORKS_CONFIGURED, sub_type=_TNC_SUB_TYPE)
    if extension is None:
        return False
    body = Cursor(extension.body)
    body.take(len(_TNC_BODY), "reserved octet of Trusted Networks Configured")
    body.finish("Trusted Networks Configured")
    return True


def _encode_nai(nai: str | None) -> bytes:
    if nai is None:
        return b""
    return encode(Extension(ExtensionType.MOBILE_NODE_NAI, nai.encode("utf-8")))


def _require(octets: bytes, size: int, what: str) -> None:
    if len(octets) < size:
        raise Truncated(f"a {what} has {size} octets or more, these are {len(octets)}")
