# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration revocation: an agent ends a binding before its time (RFC 3543)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address

from homeward.model.fields import require_field
from homeward.model.values import quick


@quick
@dataclass(frozen=True, slots=True)
class RevocationSupport:
    """The sender understands revocation (RFC 3543 3.2).

    ``timestamp`` is 32 bits of the clock by which its revocations are told from old ones; ``inform`` is the I bit,
    which only agents among themselves have a use for.
    """

    timestamp: int
    _: KW_ONLY
    inform: bool = False

    def __post_init__(self) -> None:
        require_field("timestamp", self.timestamp, bits=32)


@dataclass(frozen=True, slots=True)
class RegistrationRevocation:
    """A binding is ended by the agent that sends this (RFC 3543 3.3).

    ``home_domain`` is the home agent's address, ``foreign_domain`` the foreign agent's or the co-located care-of
    address. ``by_home_agent`` is the A bit: it tells a revocation from its own reflection. ``identifier`` is the time
    stamp that guards against replay.
    """

    home_address: IPv4Address
    _: KW_ONLY
    home_domain: IPv4Address
    foreign_domain: IPv4Address
    identifier: int
    by_home_agent: bool
    inform: bool = False

    def __post_init__(self) -> None:
        require_field("revocation identifier", self.identifier, bits=32)


@dataclass(frozen=True, slots=True)
class RevocationAcknowledgment:
    """The binding is gone on the other side too (RFC 3543 3.4)."""

    home_address: IPv4Address
    _: KW_ONLY
    identifier: int
    inform: bool = False

    def __post_init__(self) -> None:
        require_field("revocation identifier", self.identifier, bits=32)

    def answers(self, revocation: RegistrationRevocation) -> bool:
        """Whether it belongs to that revocation; whether it is genuine is the authenticator's to say."""
        return (self.home_address, self.identifier) == (revocation.home_address, revocation.identifier)
