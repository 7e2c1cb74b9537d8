# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent is configured to do, and for whom."""

from dataclasses import KW_ONLY, dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import Final, TypeAlias

from homeward.agents.ingress import TrustedNetworks
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import ProfileError
from homeward.model.nat_traversal import KEEPALIVE_DEFAULT
from homeward.model.profile import ReplayStyle
from homeward.model.registration import MobilitySecurityAssociation, Spi

Identity: TypeAlias = IPv4Address | str
"""What a node is known by, whatever association and address it uses: an address of its own, or its NAI."""

NAT_LIFETIME: Final = 60
"""Seconds that RFC 3519 section 5.2 suggests as the most for a binding behind a NAT."""


class ReverseTunnels(Enum):
    """What the home agent thinks of reverse tunnels (RFC 3024 section 4.3)."""

    OFFERED = "offered"
    MANDATORY = "mandatory"
    """A request without one is denied with code 138."""
    REFUSED = "refused"
    """A request for one is denied with code 137."""


@dataclass(frozen=True, slots=True)
class Node:
    """A mobile node that this agent serves, by one security association; `name` is for people.

    It has a home address of its own, or gets one out of `home_addresses`; then `nai` says who it is (RFC 2794).
    A node with both an address and an NAI may ask for its address by the NAI. ProfileError for a node with neither.
    With `retired` the association makes and renews no binding any more, but what rests on it stays until it ends.
    """

    name: str
    home_address: IPv4Address | None
    association: MobilitySecurityAssociation
    _: KW_ONLY
    nai: str | None = None
    home_addresses: IPv4Network | None = None
    replay: ReplayStyle = ReplayStyle.TIMESTAMPS
    retired: bool = False

    def __post_init__(self) -> None:
        if (self.home_address is None) == (self.home_addresses is None):
            raise ProfileError(f"node {self.name!r} needs either a home address or a prefix to get one from")
        if self.home_address is None and self.nai is None:
            raise ProfileError(f"node {self.name!r} has no home address of its own, so it needs an NAI")

    @property
    def identity(self) -> Identity:
        """What it is remembered by."""
        return self.home_address if self.home_address is not None else self.nai or self.name


@dataclass(frozen=True, slots=True)
class ForeignAgentPeer:
    """A foreign agent with which this home agent shares a security association (RFC 5944 section 1.1)."""

    address: IPv4Address
    association: MobilitySecurityAssociation

    @property
    def spi(self) -> Spi:
        """The association's index, which the foreign agent names in its messages."""
        return self.association.spi


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """What a home agent is configured to do. Lifetimes, `timestamp_tolerance` and `nat_keepalive` in seconds.

    `home_link` is the network interface where the home addresses live, None for a home network without a link.
    `nat_max_lifetime` is the most that a binding gets whose way leads through a NAT.
    """

    address: IPv4Address
    networks: TrustedNetworks
    _: KW_ONLY
    nodes: tuple[Node, ...]
    foreign_agents: tuple[ForeignAgentPeer, ...] = ()
    lifetime_max: int = 1800
    timestamp_tolerance: float = 7.0
    answer_failed_authentication: bool = False
    encapsulations: frozenset[Encapsulation] = frozenset(Encapsulation)
    reverse_tunnels: ReverseTunnels = ReverseTunnels.OFFERED
    nat_max_lifetime: int = NAT_LIFETIME
    nat_keepalive: int = KEEPALIVE_DEFAULT
    allow_forced_udp: bool = True
    revocation: bool = True
    home_link: str | None = None
