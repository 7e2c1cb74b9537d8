# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration Request and Reply: values to octets and back (RFC 5944 3.3, 3.4).

What the decoder does where the RFCs leave room:

* ``message`` is built from the fixed part and from what stands before the single MN-HA extension. Anything
  behind it was not written by the peer (or need not have been), is not even interpreted, and is only listed.
  Without exactly one MN-HA extension the message is the fixed part alone.
* Understood: MN-HA (32), NAI (131), in a reply Trusted Networks Configured (149). Read but ignored: MN-FA (33)
  and FA-HA (34), since this program shares no association with a foreign agent. Every other type
  up to 127 drops the message, so too 36, 38, 44 and 45 until they are implemented; every other
  type from 128 is stepped over, so too 144 and 145.
* Two NAIs, or two Trusted Networks Configured, before the MN-HA extension are a BadExtension: which of them counts
  must not be a matter of the reader's taste. So are a NAI that is empty, not UTF-8 or not printable,
  and an MN-HA extension with an empty authenticator.
* Trusted Networks Configured has just one reserved octet, whose value is ignored: less is Truncated, more is
  TrailingOctets. Under a sub-type other than 0 it is some other extension, and skipped.
* Flags, codes and addresses are handed on as they are: judging them is the receiver's part.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from homeward.model.errors import BadExtension, LocalProtocolError, Truncated, UnknownMessage
from homeward.model.registration import (
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
    nai_fault,
)
from homeward.wire.authenticator import authenticate
from homeward.wire.cursor import Cursor
from homeward.wire.decoded import DecodedReply, DecodedRequest, MobileHomeAuthentication
from homeward.wire.extensions import Extension, ExtensionType, encode, walk

REQUEST_TYPE: Final = 1
REPLY_TYPE: Final = 3

_REQUEST: Final = struct.Struct("!BBH4s4s4sQ")
_REPLY: Final = struct.Struct("!BBH4s4sQ")

_IN_EITHER: Final = frozenset(
    {
        ExtensionType.MOBILE_HOME_AUTHENTICATION,
        ExtensionType.MOBILE_FOREIGN_AUTHENTICATION,
        ExtensionType.FOREIGN_HOME_AUTHENTICATION,
        ExtensionType.MOBILE_NODE_NAI,
    }
)
_IN_REQUEST: Final[frozenset[int]] = _IN_EITHER
_IN_REPLY: Final[frozenset[int]] = _IN_EITHER | {ExtensionType.TRUSTED_NETWORKS_CONFIGURED}

_TNC_SUB_TYPE: Final = 0
_TNC_BODY: Final = b"\0"
_SPI_OCTETS: Final = 4


def encode_request(request: RegistrationRequest, association: MobilitySecurityAssociation) -> bytes:
    """The octets of a request, extensions in the order of RFC 5944 3.6.1.3, the MN-HA authentication last.

    LocalProtocolError for reserved flags, which a sender leaves at zero (a test that needs such a message
    builds it with ``authenticator.authenticate``).
    """
    if request.flags.has_reserved:
        raise LocalProtocolError(f"reserved flags are never sent: {int(request.flags):#04x}")
    fixed = _REQUEST.pack(
        REQUEST_TYPE,
        request.flags,
        request.lifetime,
        request.home_address.packed,
        request.home_agent.packed,
        request.care_of_address.packed,
        request.identification,
    )
    return authenticate(fixed + _encode_nai(request.nai), association)


def encode_reply(reply: RegistrationReply, association: MobilitySecurityAssociation) -> bytes:
    """The octets of a reply, everything that it says before its MN-HA authentication."""
    fixed = _REPLY.pack(
        REPLY_TYPE,
        reply.code,
        reply.lifetime,
        reply.home_address.packed,
        reply.home_agent.packed,
        reply.identification,
    )
    tnc = b""
    if reply.trusted_networks_configured:
        number = ExtensionType.TRUSTED_NETWORKS_CONFIGURED
        tnc = encode(Extension(number, _TNC_BODY, sub_type=_TNC_SUB_TYPE))
    return authenticate(fixed + _encode_nai(reply.nai) + tnc, association)


def decode(octets: bytes | bytearray | memoryview) -> DecodedRequest | DecodedReply:
    """Read a UDP payload from or for port 434; nothing in it is verified yet.

    Raises only WireErrors: UnknownMessage for other message types, Truncated, TrailingOctets, BadExtension,
    UnknownCriticalExtension.
    """
    octets = bytes(octets)  # what is judged later must be what was read, also if a reused buffer came in
    kind = Cursor(octets).number(1, "message type")
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
    parts = _split(tuple(walk(octets, _REQUEST.size, understood=_IN_REQUEST)))
    request = RegistrationRequest(
        lifetime,
        IPv4Address(home_address),
        home_agent=IPv4Address(home_agent),
        care_of_address=IPv4Address(care_of_address),
        identification=Identification(identification),
        flags=RequestFlags(flags),
        nai=_read_nai(parts.covered),
    )
    return DecodedRequest(octets, *parts, request)


def _decode_reply(octets: bytes) -> DecodedReply:
    _require(octets, _REPLY.size, "registration reply")
    _, code, lifetime, home_address, home_agent, identification = _REPLY.unpack_from(octets)
    parts = _split(tuple(walk(octets, _REPLY.size, understood=_IN_REPLY)))
    reply = RegistrationReply(
        code,
        lifetime,
        home_address=IPv4Address(home_address),
        home_agent=IPv4Address(home_agent),
        identification=Identification(identification),
        nai=_read_nai(parts.covered),
        trusted_networks_configured=_read_trusted_networks_configured(parts.covered),
    )
    return DecodedReply(octets, *parts, reply)


class _Parts(NamedTuple):
    authentications: tuple[MobileHomeAuthentication, ...]
    covered: tuple[Extension, ...]
    unauthenticated: tuple[Extension, ...]


def _split(extensions: Sequence[Extension]) -> _Parts:
    places = [
        at for at, one in enumerate(extensions) if one.number == ExtensionType.MOBILE_HOME_AUTHENTICATION
    ]
    authentications = tuple(_read_authentication(extensions[at]) for at in places)
    if len(places) == 1:
        return _Parts(authentications, tuple(extensions[: places[0]]), tuple(extensions[places[0] + 1 :]))
    others = tuple(one for one in extensions if one.number != ExtensionType.MOBILE_HOME_AUTHENTICATION)
    return _Parts(authentications, (), others)


def _read_authentication(extension: Extension) -> MobileHomeAuthentication:
    body = Cursor(extension.body)
    spi = Spi(body.number(_SPI_OCTETS, "SPI"))
    authenticator = body.rest()
    if not authenticator:
        raise BadExtension(f"the authentication extension at octet {extension.offset} has no authenticator")
    header = 2 + _SPI_OCTETS
    return MobileHomeAuthentication(spi, authenticator, covered=extension.offset + header)


def _read_nai(covered: Sequence[Extension]) -> str | None:
    extension = _only(covered, ExtensionType.MOBILE_NODE_NAI)
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
    ours = [one for one in covered if one.sub_type == _TNC_SUB_TYPE]
    extension = _only(ours, ExtensionType.TRUSTED_NETWORKS_CONFIGURED)
    if extension is None:
        return False
    body = Cursor(extension.body)
    body.take(len(_TNC_BODY), "reserved octet of Trusted Networks Configured")
    body.finish("Trusted Networks Configured")
    return True


def _only(extensions: Sequence[Extension], number: ExtensionType) -> Extension | None:
    found = [one for one in extensions if one.number == number]
    if len(found) > 1:
        raise BadExtension(f"extension {int(number)} stands {len(found)} times before the authentication")
    return found[0] if found else None


def _encode_nai(nai: str | None) -> bytes:
    if nai is None:
        return b""
    return encode(Extension(ExtensionType.MOBILE_NODE_NAI, nai.encode("utf-8")))


def _require(octets: bytes, size: int, what: str) -> None:
    if len(octets) < size:
        raise Truncated(f"a {what} has {size} octets or more, these are {len(octets)}")
