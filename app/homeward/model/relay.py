# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said behind the mobile-home authenticator: each part is the matter of one foreign agent and its neighbour.

Nothing here counts for what mobile node and home agent agree on (R-292). A part is worth as much as the MN-FA or
FA-HA authenticator behind it; where no such association exists, it is a hint, good for trying something else
and never for trusting something more.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Final

from homeward.model.errors import ProfileError
from homeward.model.fields import require_field, require_octets
from homeward.model.nat_traversal import UdpTunnelReply, UdpTunnelRequest
from homeward.model.registration import MINIMUM_KEY_OCTETS, Spi
from homeward.model.revocation import RevocationSupport
from homeward.model.secret import Secret
from homeward.model.shown_text import require_shown_text

CHALLENGE_MOST: Final = 255
"""Octets of the longest challenge (RFC 4721 4)."""
CHAP_SPI: Final = Spi(2)
"""The reserved index of RFC 4721 8: a digest that RADIUS servers know how to check."""

_FIRST_FREE_SPI: Final = 256


@dataclass(frozen=True, slots=True)
class AaaAssociation:
    """What the mobile node shares with the server that a foreign agent asks about it (RFC 4721 6, 8).

    HMAC-MD5 for a free index, the digest of RFC 4721 8 for CHAP_SPI. ProfileError for any other index, and for a key
    under 16 octets.
    """

    spi: Spi
    _: KW_ONLY
    key: Secret

    def __post_init__(self) -> None:
        if self.spi != CHAP_SPI and not _FIRST_FREE_SPI <= self.spi <= 0xFFFFFFFF:
            raise ProfileError(f"SPI {self.spi} cannot be used with a server of the foreign network")
        if len(self.key) < MINIMUM_KEY_OCTETS:
            raise ProfileError(
                f"the key of SPI {self.spi} has {len(self.key)} octets, at least {MINIMUM_KEY_OCTETS} are needed"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileToForeign:
    """In a request, for the foreign agent alone.

    ``encapsulating_delivery`` asks for the delivery style of RFC 3024 5.2; ``challenge`` is the answer to an
    advertised one, the same octets (RFC 4721 4).
    """

    encapsulating_delivery: bool = False
    challenge: bytes | None = None

    def __post_init__(self) -> None:
        if self.challenge is not None:
            require_octets("a challenge", self.challenge, most=CHALLENGE_MOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignToHome:
    """In a relayed request, from the foreign agent to the home agent: its own wishes (RFC 3519 4.5, RFC 3543 3.2)."""

    udp_tunnel: UdpTunnelRequest | None = None
    revocation_support: RevocationSupport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeToForeign:
    """In a reply, from the home agent to the foreign agent that relayed the request."""

    udp_tunnel: UdpTunnelReply | None = None
    revocation_support: RevocationSupport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignToMobile:
    """In a reply, from the foreign agent to the mobile node.

    ``error`` is a code of the foreign agent's range beside a reply that the home agent wrote: the care-of address
    is not to be used (RFC 4636). ``challenge`` is the next one to answer (RFC 4721 3.3). ``message`` is for people.
    """

    error: int | None = None
    challenge: bytes | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        if self.error is not None:
            require_field("foreign agent error", self.error, bits=8)
        if self.challenge is not None:
            require_octets("a challenge", self.challenge, most=CHALLENGE_MOST)
        if self.message is not None:
            require_shown_text(self.message)
