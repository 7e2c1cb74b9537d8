# SPDX-License-Identifier: GPL-2.0-or-later
"""A registration message as it was read, with what is needed to judge how far to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from homeward.model.errors import BadExtension, WireError
from homeward.model.registration import RegistrationReply, RegistrationRequest, Spi
from homeward.model.revocation import RegistrationRevocation, RevocationAcknowledgment
from homeward.model.values import quick
from homeward.wire.cursor import Cursor
from homeward.wire.extensions import Extension, ExtensionType

_HEADER_OCTETS: Final = 2
_SPI_OCTETS: Final = 4
_MOBILE_HOME: Final = int(ExtensionType.MOBILE_HOME_AUTHENTICATION)


@quick
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


@quick
@dataclass(frozen=True, slots=True)
class DecodedRequest(Decoded):
    """A Registration Request; ``message`` holds nothing that the authenticator does not cover."""

    message: RegistrationRequest


@quick
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


def split(extensions: tuple[Extension, ...]) -> Parts:
    """What stands before and behind the MN-HA extension; Truncated or BadExtension if that one cannot be read."""
    numbers = [one.number for one in extensions]
    if numbers.count(_MOBILE_HOME) == 1:
        at = numbers.index(_MOBILE_HOME)
        return Parts((read_authentication(extensions[at]),), extensions[:at], extensions[at + 1 :])
    found = tuple(read_authentication(one) for one in extensions if one.number == _MOBILE_HOME)
    return Parts(found, (), tuple(one for one in extensions if one.number != _MOBILE_HOME))


def read_authentication(extension: Extension) -> Authentication:
    """An extension of type 32, 33 or 34 taken apart; Truncated, or BadExtension for an empty authenticator."""
    body = extension.body
    if len(body) > _SPI_OCTETS:
        spi = Spi(int.from_bytes(body[:_SPI_OCTETS], "big"))
        return Authentication(spi, body[_SPI_OCTETS:], extension.offset + _HEADER_OCTETS + _SPI_OCTETS)
    Cursor(body).take(_SPI_OCTETS, "SPI")
    raise BadExtension(f"the authentication extension at octet {extension.offset} has no authenticator")


def only(
    extensions: Sequence[Extension], number: ExtensionType, *, sub_type: int | None = None
) -> Extension | None:
    """The extension of that type, or None; BadExtension for several: which one counts is no matter of taste.

    With `sub_type` those of other sub-types are something else.
    """
    found, times = None, 0
    for one in extensions:
        if one.number == number and (sub_type is None or one.sub_type == sub_type):
            found, times = one, times + 1
    if times > 1:
        raise BadExtension(f"extension {int(number)} stands {times} times in one part of the message")
    return found
