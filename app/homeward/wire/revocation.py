# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration Revocation (7) and its Acknowledgment (15): values to octets and back (RFC 3543 3.3, 3.4).

MN-HA (32) protects them between home agent and co-located mobile node, FA-HA (34) between agents: the receiver knows
which association it is, and asks ``authenticator.verify`` with that type. Reserved fields are ignored, other
extensions are framed as in registration messages and say nothing here.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import LocalProtocolError, Truncated, UnknownMessage
from homeward.model.registration import MobilitySecurityAssociation
from homeward.model.revocation import RegistrationRevocation, RevocationAcknowledgment
from homeward.wire.authenticator import authenticate
from homeward.wire.cursor import Cursor
from homeward.wire.decoded import DecodedAcknowledgment, DecodedRevocation, split
from homeward.wire.extensions import ExtensionType, walk

REVOCATION_TYPE: Final = 7
ACKNOWLEDGMENT_TYPE: Final = 15

_REVOCATION: Final = struct.Struct("!BxH4s4s4sI")
_ACKNOWLEDGMENT: Final = struct.Struct("!BxH4sI")
_BY_HOME_AGENT: Final = 0x8000
_INFORM_IN_REVOCATION: Final = 0x4000
_INFORM_IN_ACKNOWLEDGMENT: Final = 0x8000
_PROTECTED_BY: Final[frozenset[int]] = frozenset(
    {ExtensionType.MOBILE_HOME_AUTHENTICATION, ExtensionType.FOREIGN_HOME_AUTHENTICATION}
)


def encode(
    message: RegistrationRevocation | RevocationAcknowledgment,
    association: MobilitySecurityAssociation,
    *,
    by: ExtensionType = ExtensionType.MOBILE_HOME_AUTHENTICATION,
) -> bytes:
    """The octets of either message, protected by MN-HA or FA-HA; LocalProtocolError for any other type."""
    if by not in _PROTECTED_BY:
        raise LocalProtocolError(f"extension {int(by)} does not protect a revocation")
    if isinstance(message, RegistrationRevocation):
        flags = _BY_HOME_AGENT * message.by_home_agent | _INFORM_IN_REVOCATION * message.inform
        octets = _REVOCATION.pack(
            REVOCATION_TYPE,
            flags,
            message.home_address.packed,
            message.home_domain.packed,
            message.foreign_domain.packed,
            message.identifier,
        )
    else:
        flags = _INFORM_IN_ACKNOWLEDGMENT * message.inform
        octets = _ACKNOWLEDGMENT.pack(
            ACKNOWLEDGMENT_TYPE, flags, message.home_address.packed, message.identifier
        )
    return authenticate(octets, association, by=by)


def decode(octets: bytes | bytearray | memoryview) -> DecodedRevocation | DecodedAcknowledgment:
    """Read a UDP payload from or for port 434; nothing in it is verified yet.

    Raises only WireErrors: UnknownMessage for other message types, Truncated, BadExtension, UnknownCriticalExtension.
    """
    octets = bytes(octets)
    kind = Cursor(octets).number(1, "message type")
    if kind == REVOCATION_TYPE:
        return _decode_revocation(octets)
    if kind == ACKNOWLEDGMENT_TYPE:
        return _decode_acknowledgment(octets)
    raise UnknownMessage(f"message type {kind} is not about revocation")


def _decode_revocation(octets: bytes) -> DecodedRevocation:
    if len(octets) < _REVOCATION.size:
        raise Truncated(f"a revocation has {_REVOCATION.size} octets or more, these are {len(octets)}")
    _, flags, home_address, home_domain, foreign_domain, identifier = _REVOCATION.unpack_from(octets)
    parts = split(tuple(walk(octets, _REVOCATION.size, understood=_PROTECTED_BY)))
    message = RegistrationRevocation(
        IPv4Address(home_address),
        home_domain=IPv4Address(home_domain),
        foreign_domain=IPv4Address(foreign_domain),
        identifier=identifier,
        by_home_agent=bool(flags & _BY_HOME_AGENT),
        inform=bool(flags & _INFORM_IN_REVOCATION),
    )
    return DecodedRevocation(octets, *parts, message)


def _decode_acknowledgment(octets: bytes) -> DecodedAcknowledgment:
    if len(octets) < _ACKNOWLEDGMENT.size:
        raise Truncated(
            f"an acknowledgment has {_ACKNOWLEDGMENT.size} octets or more, these are {len(octets)}"
        )
    _, flags, home_address, identifier = _ACKNOWLEDGMENT.unpack_from(octets)
    parts = split(tuple(walk(octets, _ACKNOWLEDGMENT.size, understood=_PROTECTED_BY)))
    message = RevocationAcknowledgment(
        IPv4Address(home_address), identifier=identifier, inform=bool(flags & _INFORM_IN_ACKNOWLEDGMENT)
    )
    return DecodedAcknowledgment(octets, *parts, message)
