# SPDX-License-Identifier: GPL-2.0-or-later
"""What mobility agents say of themselves on their link (RFC 5944 2.1), and what follows from hearing it again."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import IntFlag
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import LocalProtocolError
from homeward.model.fields import require_field, require_octets

ALSO_ROUTES: Final = 0
"""Code of an advertisement whose sender routes common traffic too."""
AGENT_ONLY: Final = 16
"""Code of one that does not (RFC 5944 2.1)."""
MOST_CARE_OF_ADDRESSES: Final = 62
NOT_A_DEFAULT_ROUTER: Final = -(1 << 31)
"""The preference of a router that is not to be used as default router (RFC 1256 3)."""

_LAST_SEQUENCE: Final = 0xFFFF
_AFTER_ROLLOVER: Final = 256


class AgentFlags(IntFlag):
    """The flags of the Mobility Agent Advertisement extension; reserved ones are neither kept nor sent."""

    REGISTRATION_REQUIRED = 0x8000
    """R: register through a foreign agent of this link, even with a co-located care-of address."""
    BUSY = 0x4000
    """B: no new registrations now."""
    HOME_AGENT = 0x2000
    FOREIGN_AGENT = 0x1000
    MINIMAL = 0x0800
    GRE = 0x0400
    REVERSE_TUNNEL = 0x0100
    UDP_TUNNEL = 0x0080
    """U: the foreign agent is behind a NAT and tunnels in UDP (RFC 3519 3.4)."""
    REVOCATION = 0x0040
    """X: revocation is supported (RFC 3543 3.1)."""
    REGIONAL = 0x0020
    """I: regional registration (RFC 4857), which we do not use."""


ALL_AGENT_FLAGS: Final = AgentFlags(0xFDE0)


@dataclass(frozen=True, slots=True)
class AdvertisedRouter:
    """A router of the link; the higher the preference (signed, 32 bits), the better (RFC 1256 3)."""

    address: IPv4Address
    preference: int = 0

    def __post_init__(self) -> None:
        require_field("preference", self.preference + (1 << 31), bits=32)


@dataclass(frozen=True, slots=True)
class AgentAdvertisement:
    """A mobility agent makes itself known (RFC 5944 2.1).

    ``lifetime`` is how long, in seconds, the advertisement itself holds; ``registration_lifetime`` the longest lifetime
    that is accepted in a request, 0xffff for any. ``prefix_lengths`` has one entry for each router, or None where the
    extension is missing; ``challenge`` is to be answered in the next request (RFC 4721 2).
    LocalProtocolError for what ``advertisement_fault`` refuses.
    """

    sequence: int
    lifetime: int
    _: KW_ONLY
    registration_lifetime: int
    flags: AgentFlags
    care_of_addresses: tuple[IPv4Address, ...] = ()
    routers: tuple[AdvertisedRouter, ...] = ()
    code: int = ALSO_ROUTES
    prefix_lengths: tuple[int, ...] | None = None
    challenge: bytes | None = None

    def __post_init__(self) -> None:
        require_field("sequence number", self.sequence, bits=16)
        require_field("advertisement lifetime", self.lifetime, bits=16)
        require_field("registration lifetime", self.registration_lifetime, bits=16)
        require_field("code", self.code, bits=8)
        require_field("number of routers", len(self.routers), bits=8)
        if len(self.care_of_addresses) > MOST_CARE_OF_ADDRESSES:
            raise LocalProtocolError(f"{len(self.care_of_addresses)} care-of addresses do not fit")
        if self.challenge is not None:
            require_octets("a challenge", self.challenge, most=255)
        fault = advertisement_fault(self.flags, self.care_of_addresses)
        if fault is None and self.prefix_lengths is not None:
            fault = prefix_fault(self.prefix_lengths, routers=len(self.routers))
        if fault is not None:
            raise LocalProtocolError(f"not an advertisement to be sent: {fault}")

    @property
    def is_busy(self) -> bool:
        """Whether no new registration is to be started with it (R-118)."""
        return AgentFlags.BUSY in self.flags


def advertisement_fault(flags: AgentFlags, care_of_addresses: tuple[IPv4Address, ...]) -> str | None:
    """Why these cannot stand together in an advertisement, or None (RFC 5944 2.1.1)."""
    if flags & ~ALL_AGENT_FLAGS:
        return "reserved flags are set"
    if not flags & (AgentFlags.HOME_AGENT | AgentFlags.FOREIGN_AGENT):
        return "it is neither a home agent nor a foreign agent"
    if AgentFlags.FOREIGN_AGENT in flags:
        return None if care_of_addresses else "a foreign agent without a care-of address"
    if flags & (AgentFlags.BUSY | AgentFlags.REGISTRATION_REQUIRED):
        return "busy, or registration required, without being a foreign agent"
    return None


def prefix_fault(prefix_lengths: tuple[int, ...], *, routers: int) -> str | None:
    """Why these are not the prefix lengths of that many routers, or None (RFC 5944 2.1.2)."""
    if len(prefix_lengths) != routers:
        return f"{len(prefix_lengths)} prefix lengths for {routers} routers"
    if any(not 0 <= one <= 32 for one in prefix_lengths):
        return "a prefix is longer than an address"
    return None


def next_sequence(sequence: int) -> int:
    """The number of the advertisement after this one: 0 to 255 come after a start only (RFC 5944 2.3.2)."""
    return _AFTER_ROLLOVER if sequence >= _LAST_SEQUENCE else sequence + 1


def has_restarted(previous: int, current: int) -> bool:
    """Whether the agent has lost its visitors since, so that they must register again (RFC 5944 2.4.4, R-119)."""
    return current < previous and current < _AFTER_ROLLOVER
