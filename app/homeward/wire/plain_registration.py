# SPDX-License-Identifier: GPL-2.0-or-later
"""The registration that nearly all are, past the framework of extensions: a request is read, its acceptance written.

A plain request has its fixed part, perhaps Revocation Support, and MN-HA at its very end. What is read and written here
is what ``registration`` would have read and written, which a property test says; whatever else arrives is left to it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from homeward.model.registration import (
    Identification,
    MobilitySecurityAssociation,
    RequestFlags,
)
from homeward.model.values import quick
from homeward.wire.authenticator import authenticate
from homeward.wire.decoded import Authentication
from homeward.wire.extensions import ExtensionType
from homeward.wire.registration import ALL_FLAGS, REPLY, REPLY_TYPE, REQUEST_TYPE, TRUSTED

_LEAST: Final = 24 + 6 + 1
_SUPPORT: Final = int(ExtensionType.REVOCATION_SUPPORT)
_SUPPORT_OCTETS: Final = 6
_MOBILE_HOME: Final = int(ExtensionType.MOBILE_HOME_AUTHENTICATION)
_PLAIN: Final = struct.Struct("!BBHIIIQBBI")
_REVOCABLE: Final = struct.Struct("!BBHIIIQBBxxIBBI")
_SAYS_REVOCABLE: Final = struct.Struct("!BBHI")


@quick
@dataclass(frozen=True, slots=True)
class PlainRequest:
    """What it says, its addresses as numbers. `revocable` is the time stamp of its Revocation Support, if any."""

    flags: RequestFlags
    lifetime: int
    home_address: int
    home_agent: int
    care_of_address: int
    identification: Identification
    revocable: int | None
    authentication: Authentication


def read(octets: bytes) -> PlainRequest | None:
    """The request, not yet verified; None where it is anything but plain, or ends too early."""
    if len(octets) < _LEAST or octets[0] != REQUEST_TYPE:
        return None
    revocable = None
    if octets[24] == _MOBILE_HOME:
        at = _PLAIN.size
        _, flags, lifetime, home, agent, care_of, identification, _, size, spi = _PLAIN.unpack_from(octets)
    elif octets[24] == _SUPPORT and octets[25] == _SUPPORT_OCTETS and len(octets) > _REVOCABLE.size:
        at = _REVOCABLE.size
        fixed = _REVOCABLE.unpack_from(octets)
        _, flags, lifetime, home, agent, care_of, identification, _, _, revocable, kind, size, spi = fixed
        if kind != _MOBILE_HOME:
            return None
    else:
        return None
    if at - 4 + size != len(octets) or size <= 4:
        return None
    authentication = Authentication(spi, octets[at:], at)
    return PlainRequest(
        ALL_FLAGS[flags], lifetime, home, agent, care_of, identification, revocable, authentication
    )


def write_acceptance(
    asked: PlainRequest,
    lifetime: int,
    association: MobilitySecurityAssociation,
    *,
    revocable: int | None,
) -> bytes:
    """Code 0 with a word about trust, and with our time stamp `revocable` where revocation is agreed on."""
    octets = REPLY.pack(REPLY_TYPE, 0, lifetime, asked.home_address, asked.home_agent, asked.identification)
    octets += TRUSTED
    if revocable is not None:
        octets += _SAYS_REVOCABLE.pack(_SUPPORT, _SUPPORT_OCTETS, 0, revocable)
    return authenticate(octets, association)
