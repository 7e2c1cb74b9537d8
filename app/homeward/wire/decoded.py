# SPDX-License-Identifier: GPL-2.0-or-later
"""A registration message as it was read, with what is needed to judge how far to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from homeward.model.errors import BadExtension, WireError
from homeward.model.registration import RegistrationReply, RegistrationRequest, Spi
from homeward.model.revocation import RegistrationRevocation, RevocationAcknowledgment
from homeward.wire.cursor import Cursor
from homeward.wire.extensions import Extension, ExtensionType

_SPI_OCTETS: Final = 4


@dataclass(frozen=True, slots=True)
class Authentication:
    """An authentication extension (RFC 5944 3.5.2 to 3.5.4), not yet checked.

    ``covered`` is the number of octets, from the first one of the message, which the authenticator
    is computed over: all up to and including this extension's SPI.
    """

    spi: Spi
    authenticator: bytes
    covered: int


MobileHomeAuthentication = Authentication
"""An Authentication of type 32."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What all kinds of authenticated message have in common.

    ``authentications`` holds every MN-HA extension in order; none and several are for the receiver
    to refuse (RFC 5944 3.6.2.1). ``covered`` are the extensions before the single one, ``unauthenticated``
    those behind it; where there is not exactly one, all are unauthenticated.
    """

    octets: bytes = field(repr=False)
    authentications: tuple[MobileHomeAuthentication, ...]
    covered: tuple[Extension, ...]
    unauthenticated: tuple[Extension, ...]

    @property
    def authentication(self) -> MobileHomeAuthentication | None:
        """The MN-HA extension if there is exactly one, else None."""
        return self.authentications[0] if len(self.authentications) == 1 else None

    def authentication_by(self, number: ExtensionType) -> Authentication | None:
        """The authentication extension of that type if there is exactly one that can be read, else None."""
        if number == ExtensionType.MOBILE_HOME_AUTHENTICATION:
            return self.authentication
        found = [one for one in (*self.covered, *self.unauthenticated) if one.number == number]
        if len(found) != 1:
            return None
        try:
            return read_authentication(found[0])
        except WireError:
            return None


@dataclass(frozen=True, slots=True)
class DecodedRequest(Decoded):
    """A Registration Request; ``message`` holds nothing that the authenticator does not cover."""

    message: RegistrationRequest


@dataclass(frozen=True, slots=True)
class DecodedReply(Decoded):
    """A Registration Reply; ``message`` holds nothing that the authenticator does not cover."""

    message: RegistrationReply


@dataclass(frozen=True, slots=True)
class DecodedRevocation(Decoded):
    """A Registration Revocation (RFC 3543 3.3), which either kind of authentication may protect."""

    message: RegistrationRevocation


@dataclass(frozen=True, slots=True)
class DecodedAcknowledgment(Decoded):
    """A Revocation Acknowledgment (RFC 3543 3.4), which either kind of authentication may protect."""

    message: RevocationAcknowledgment


class Parts(NamedTuple):
    """A message's extensions, told apart by its single MN-HA extension."""

    authentications: tuple[Authentication, ...]
    covered: tuple[Extension, ...]
    unauthenticated: tuple[Extension, ...]


def split(extensions: Sequence[Extension]) -> Parts:
    """What stands before and behind the MN-HA extension; Truncated or BadExtension if that one cannot be read."""
    places = [
        at for at, one in enumerate(extensions) if one.number == ExtensionType.MOBILE_HOME_AUTHENTICATION
    ]
    authentications = tuple(read_authentication(extensions[at]) for at in places)
    if len(places) == 1:
        return Parts(authentications, tuple(extensions[: places[0]]), tuple(extensions[places[0] + 1 :]))
    others = tuple(one for one in extensions if one.number != ExtensionType.MOBILE_HOME_AUTHENTICATION)
    return Parts(authentications, (), others)


def read_authentication(extension: Extension) -> Authentication:
    """An extension of type 32, 33 or 34 taken apart; Truncated, or BadExtension for an empty authenticator."""
    body = Cursor(extension.body)
    spi = Spi(body.number(_SPI_OCTETS, "SPI"))
    authenticator = body.rest()
    if not authenticator:
        raise BadExtension(f"the authentication extension at octet {extension.offset} has no authenticator")
    header = 2 + _SPI_OCTETS
    return Authentication(spi, authenticator, covered=extension.offset + header)


def only(extensions: Sequence[Extension], number: ExtensionType) -> Extension | None:
    """The extension of that type, or None; BadExtension for several: which one counts is no matter of taste."""
    found = [one for one in extensions if one.number == number]
    if len(found) > 1:
        raise BadExtension(f"extension {int(number)} stands {len(found)} times in one part of the message")
    return found[0] if found else None
