# SPDX-License-Identifier: GPL-2.0-or-later
"""A registration message as it was read, with what is needed to judge how far to believe it."""

from __future__ import annotations

from dataclasses import dataclass, field

from homeward.model.registration import RegistrationReply, RegistrationRequest, Spi
from homeward.wire.extensions import Extension


@dataclass(frozen=True, slots=True)
class MobileHomeAuthentication:
    """The mobile-home authentication extension (RFC 5944 3.5.2), not yet checked.

    ``covered`` is the number of octets, from the first one of the message, which the authenticator
    is computed over: all up to and including this extension's SPI.
    """

    spi: Spi
    authenticator: bytes
    covered: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """What both kinds of message have in common.

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


@dataclass(frozen=True, slots=True)
class DecodedRequest(Decoded):
    """A Registration Request; ``message`` holds nothing that the authenticator does not cover."""

    message: RegistrationRequest


@dataclass(frozen=True, slots=True)
class DecodedReply(Decoded):
    """A Registration Reply; ``message`` holds nothing that the authenticator does not cover."""

    message: RegistrationReply
