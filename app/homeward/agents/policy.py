# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent is configured to do, and for whom."""

from dataclasses import KW_ONLY, dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from homeward.agents.ingress import TrustedNetworks
from homeward.agents.nodes import Node as Node
from homeward.agents.nodes import NodeTable
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import KEEPALIVE_DEFAULT
from homeward.model.registration import MobilitySecurityAssociation, Spi

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
    `nat_max_lifetime` is the most that a binding gets whose way leads through a NAT. Many `nodes` are best a NodeTable
    from the start.
    """

    address: IPv4Address
    networks: TrustedNetworks
    _: KW_ONLY
    nodes: tuple[Node, ...] | NodeTable
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
