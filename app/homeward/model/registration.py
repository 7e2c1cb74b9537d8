# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration between mobile node and home agent: the values that requests and replies carry (RFC 5944 3)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import Enum, IntFlag
from functools import cached_property
from ipaddress import IPv4Address
from typing import Final, NewType

from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import LocalProtocolError, ProfileError
from homeward.model.fields import require_field
from homeward.model.nat_traversal import UdpTunnelReply, UdpTunnelRequest
from homeward.model.reply_codes import ReplyCode as ReplyCode
from homeward.model.reply_codes import is_from_foreign_agent, is_from_home_agent, sentence_for
from homeward.model.revocation import RevocationSupport
from homeward.model.secret import Secret
from homeward.model.shown_text import require_shown_text
from homeward.model.values import quick

Spi = NewType("Spi", int)
"""Security Parameter Index, 32 bits; 0 to 255 are reserved (RFC 5944 1.6)."""

Identification = NewType("Identification", int)
"""The 64 bits that match a reply to its request and guard against replay (RFC 5944 5.7)."""

LIFETIME_DEREGISTER: Final = 0
LIFETIME_INFINITE: Final = 0xFFFF
MINIMUM_KEY_OCTETS: Final = 16
NAI_MAXIMUM_OCTETS: Final = 255
_FIRST_FREE_SPI: Final = 256


class AuthenticationAlgorithm(Enum):
    """How the authenticator of a mobility security association is computed."""

    HMAC_MD5 = "hmac-md5"
    """The mandatory algorithm of RFC 5944 3.5.1, for other people's agents; 16 octets."""
    HMAC_SHA256 = "hmac-sha256"
    """Ours by private agreement of the SPI, preferred between our own two ends; 32 octets."""
    HMAC_SHA1 = "hmac-sha1"
    """For other people's agents that an SPI says it of; 20 octets."""
    KEYED_MD5 = "keyed-md5"
    """MD5 with the key before and behind, the SPI covered (RFC 3344 3.5.1): for old agents only (R-170)."""
    KEYED_MD5_RFC2002 = "keyed-md5-rfc2002"
    """The same as RFC 2002 3.5.1 had it, which does not cover the SPI: for still older agents."""


@quick
@dataclass(frozen=True, slots=True)
class MobilitySecurityAssociation:
    """What mobile node and home agent share: index, algorithm and key (RFC 5944 1.6).

    ProfileError for a reserved index or for a key under 16 octets (RFC 5944 5.1, RFC 5265 6.1).
    """

    spi: Spi
    algorithm: AuthenticationAlgorithm
    _: KW_ONLY
    key: Secret

    def __post_init__(self) -> None:
        if not _FIRST_FREE_SPI <= self.spi <= 0xFFFFFFFF:
            raise ProfileError(f"SPI {self.spi} cannot be used: it must be {_FIRST_FREE_SPI} to {0xFFFFFFFF}")
        if len(self.key) < MINIMUM_KEY_OCTETS:
            raise ProfileError(
                f"the key of SPI {self.spi} has {len(self.key)} octets, at least {MINIMUM_KEY_OCTETS} are needed"
            )


class RequestFlags(IntFlag):
    """The flag octet of a Registration Request (RFC 5944 3.3)."""

    SIMULTANEOUS = 0x80
    """S: keep earlier bindings."""
    BROADCAST = 0x40
    """B: forward broadcasts of the home network."""
    DECAPSULATE_SELF = 0x20
    """D: the mobile node decapsulates itself, at a co-located care-of address."""
    MINIMAL = 0x10
    """M: minimal encapsulation wanted."""
    GRE = 0x08
    """G: GRE encapsulation wanted."""
    RESERVED_R = 0x04
    """r: sent as zero; an agent answers 134 to it."""
    REVERSE_TUNNEL = 0x02
    """T: reverse tunnelling wanted (RFC 3024)."""
    RESERVED_X = 0x01
    """x: sent as zero; an agent answers 134 to it."""

    # Reckoned once for each of the 256 values: what IntFlag does in between costs as much as a whole extension.

    @cached_property
    def co_located(self) -> bool:
        """The D bit: the mobile node itself is to be the tunnel's other end."""
        return RequestFlags.DECAPSULATE_SELF in self

    @cached_property
    def reverse_tunnel(self) -> bool:
        """The T bit."""
        return RequestFlags.REVERSE_TUNNEL in self

    @cached_property
    def simultaneous(self) -> bool:
        """The S bit."""
        return RequestFlags.SIMULTANEOUS in self

    @cached_property
    def has_reserved(self) -> bool:
        """Whether a bit is set that a sender must leave at zero."""
        return bool(self & (RequestFlags.RESERVED_R | RequestFlags.RESERVED_X))

    @cached_property
    def encapsulations(self) -> tuple[Encapsulation, ...]:
        """What the M and G bits ask for. With both the choice is the agent's, and GRE can carry fragments."""
        asked = ((RequestFlags.GRE, Encapsulation.GRE), (RequestFlags.MINIMAL, Encapsulation.MINIMAL))
        return tuple(each for bit, each in asked if bit in self) or (Encapsulation.IP_IN_IP,)


@quick
@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """The mobile node asks its home agent to bind its home address to a care-of address (RFC 5944 3.3).

    ``lifetime`` in seconds: 0 deregisters, 0xffff is for ever. ``udp_tunnel`` (RFC 3519 3.1) and
    ``revocation_support`` (RFC 3543 3.2) are the mobile node's own, never what a foreign agent added.
    LocalProtocolError for a value that does not fit its field.
    """

    lifetime: int
    home_address: IPv4Address
    _: KW_ONLY
    home_agent: IPv4Address
    care_of_address: IPv4Address
    identification: Identification
    flags: RequestFlags
    nai: str | None = None
    udp_tunnel: UdpTunnelRequest | None = None
    revocation_support: RevocationSupport | None = None

    def __post_init__(self) -> None:
        if self.lifetime >> 16 or self.identification >> 64 or self.flags >> 8:
            require_field("lifetime", self.lifetime, bits=16)
            require_field("identification", self.identification, bits=64)
            require_field("flags", self.flags, bits=8)
        if self.nai is not None:
            _require_nai(self.nai)


@quick
@dataclass(frozen=True, slots=True)
class RegistrationReply:
    """An agent's answer to a Registration Request (RFC 5944 3.4).

    ``code`` stays a plain number, since codes without a name are legal on the wire. ``lifetime`` in seconds
    means something only on success (and the foreign agent's limit with code 69).
    ``trusted_networks_configured`` is the extension of RFC 5265 3.4; in a decoded reply it is true only
    if it stood before the authenticator, and it is worth as much as that authenticator. The same holds
    for ``udp_tunnel`` (RFC 3519 3.2), ``revocation_support`` (RFC 3543 3.2) and ``message``, the home agent's words for
    people (RFC 4917): to be shown, never to be acted on.
    LocalProtocolError for a value that does not fit its field.
    """

    code: int
    lifetime: int
    _: KW_ONLY
    home_address: IPv4Address
    home_agent: IPv4Address
    identification: Identification
    nai: str | None = None
    trusted_networks_configured: bool = False
    udp_tunnel: UdpTunnelReply | None = None
    revocation_support: RevocationSupport | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        if self.lifetime >> 16 or self.identification >> 64 or self.code >> 8:
            require_field("code", self.code, bits=8)
            require_field("lifetime", self.lifetime, bits=16)
            require_field("identification", self.identification, bits=64)
        if self.nai is not None:
            _require_nai(self.nai)
        if self.message is not None:
            require_shown_text(self.message)

    @property
    def is_success(self) -> bool:
        """Whether a binding stands (or is gone, as asked): codes 0 and 1 only."""
        return self.code in (ReplyCode.ACCEPTED, ReplyCode.ACCEPTED_WITHOUT_SIMULTANEOUS_BINDINGS)

    @property
    def by_home_agent(self) -> bool:
        """Whether the home agent made it, so that exactly one valid MN-HA extension is due (RFC 5944 3.6.2.1)."""
        return is_from_home_agent(self.code)

    @property
    def by_foreign_agent(self) -> bool:
        """Whether a foreign agent made it: without an MN-FA association a hint, never a ground for trust."""
        return is_from_foreign_agent(self.code)

    @property
    def sentence(self) -> str:
        """The code for people, also where it has no name."""
        return sentence_for(self.code)


def nai_fault(nai: str) -> str | None:
    """Why this text is no network access identifier that we send or take, or None (RFC 2794 2).

    It ends up in logs and on screens, so that characters which do not print are refused at the door.
    """
    if not nai:
        return "it is empty"
    if not nai.isprintable():
        return "it has characters that do not print"
    if len(nai.encode("utf-8")) > NAI_MAXIMUM_OCTETS:
        return f"it is longer than {NAI_MAXIMUM_OCTETS} octets"
    return None


def _require_nai(nai: str) -> None:
    fault = nai_fault(nai)
    if fault is not None:
        raise LocalProtocolError(f"not a usable network access identifier: {fault}")
