# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent must still know after a crash: the highest time stamp accepted of each node, and its binding."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address

from homeward.model.encapsulation import Encapsulation
from homeward.model.lifetime import ends_at
from homeward.model.values import quick


@quick
@dataclass(frozen=True, slots=True)
class RevocationPeer:
    """Who announced that it understands revocation of a binding, and how to talk to it (RFC 3543 section 3.2).

    It is the foreign agent or the mobile node itself; the key is looked up by the SPI. `announced` is the time stamp
    that it was told, `heard` its own; `inform` says whether the I bit was agreed on.
    """

    address: IPv4Address
    port: int
    spi: int
    _: KW_ONLY
    is_foreign_agent: bool
    announced: int
    heard: int
    inform: bool


KeptRevocationPeer = RevocationPeer


@quick
@dataclass(frozen=True, slots=True)
class KeptBinding:
    """A binding as it is written down. `expires` is Unix time in seconds, None for ever; `since_wall` likewise.

    The clock that counts sleep begins anew with each boot, so only the wall clock can say after one what is left.
    """

    home_address: IPv4Address
    care_of_address: IPv4Address
    _: KW_ONLY
    node: str
    spi: int
    identification: int
    lifetime: int
    since_wall: float
    reverse_tunnel: bool
    co_located: bool
    endpoint: IPv4Address
    encapsulation: Encapsulation
    udp: bool = False
    port: int | None = None
    revocation: RevocationPeer | None = None

    @property
    def expires(self) -> float | None:
        """Unix time at which it ends by itself; None for ever."""
        return ends_at(self.since_wall, self.lifetime)


@quick
@dataclass(frozen=True, slots=True)
class Memory:
    """One node's memory, as of now: it replaces what was kept of `identity` before.

    `stamp` is the highest Identification accepted, in units of 2^-32 s since 1900 with its era (RFC 5944 section
    5.7.1), None for a node that uses nonces. `binding` is None when there is none.
    """

    identity: str
    stamp: int | None
    binding: KeptBinding | None
