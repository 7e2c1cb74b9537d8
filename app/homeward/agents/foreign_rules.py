# SPDX-License-Identifier: GPL-2.0-or-later
"""What a foreign agent offers, and which requests it denies for what they ask (RFC 5944 3.7.2.1, RFC 3024 4.2.1).

Nothing here depends on what happened before. Who sent the request, and whether there is room, is judged elsewhere.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from homeward.agents.foreign_events import ForeignFinding, MobileNodeSpoke
from homeward.agents.offered_challenges import NodeKey
from homeward.model.agent import AgentFlags
from homeward.model.encapsulation import Encapsulation
from homeward.model.registration import (
    LIFETIME_DEREGISTER,
    MobilitySecurityAssociation,
    RegistrationRequest,
    ReplyCode,
    RequestFlags,
)
from homeward.model.relay import AaaAssociation, MobileToForeign

REVERSE_TUNNEL_TTL = 255
"""Of a request that asks for a reverse tunnel: it shows that no router stands between (RFC 3024 3.2)."""

_ANYWHERE = (IPv4Network("0.0.0.0/0"),)


class ReverseTunnelling(Enum):
    """Whether visitors' own packets go back through the home agent."""

    OFFERED = "offered"
    MANDATORY = "mandatory"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class AccessLink:
    """One link that mobile nodes visit, and the agent's address there."""

    interface: str
    address: IPv4Address
    network: IPv4Network


@dataclass(frozen=True, slots=True)
class ForeignPolicy:
    """What a foreign agent is configured to do. Lifetimes and `pending_time` in seconds.

    `nodes` are the MN-FA associations and `servers` the MN-AAA keys by home address or NAI; `home_agents` the FA-HA
    associations. Only requests for home agents in `home_agent_networks` are relayed. With `behind_nat` tunnels in UDP
    are asked for, and unless `nat_is_transparent` reverse tunnels are demanded (RFC 3519 4.5).
    """

    care_of_addresses: tuple[IPv4Address, ...]
    links: tuple[AccessLink, ...]
    _: KW_ONLY
    lifetime_max: int = 1800
    visitors_max: int = 1000
    pending_max: int = 32
    pending_time: float = 7.0
    encapsulations: frozenset[Encapsulation] = frozenset(Encapsulation)
    reverse_tunnelling: ReverseTunnelling = ReverseTunnelling.OFFERED
    encapsulating_delivery: bool = True
    registration_required: bool = False
    behind_nat: bool = False
    nat_is_transparent: bool = False
    challenge: bool = False
    revocation: bool = False
    home_agent_networks: tuple[IPv4Network, ...] = _ANYWHERE
    home_agents: Mapping[IPv4Address, MobilitySecurityAssociation] = field(default_factory=dict)
    nodes: Mapping[NodeKey, tuple[MobilitySecurityAssociation, ...]] = field(default_factory=dict)
    servers: Mapping[NodeKey, AaaAssociation] = field(default_factory=dict)

    def link(self, interface: str) -> AccessLink | None:
        """The access link of that name."""
        return next((link for link in self.links if link.interface == interface), None)

    @property
    def demands_reverse_tunnel(self) -> bool:
        """Whether a registration without one is denied with 75."""
        if self.reverse_tunnelling is ReverseTunnelling.MANDATORY:
            return True
        return self.behind_nat and not self.nat_is_transparent

    @property
    def flags(self) -> AgentFlags:
        """What advertisements say of all this."""
        flags = AgentFlags.FOREIGN_AGENT
        for wanted, flag in (
            (self.registration_required, AgentFlags.REGISTRATION_REQUIRED),
            (Encapsulation.MINIMAL in self.encapsulations and not self.behind_nat, AgentFlags.MINIMAL),
            (Encapsulation.GRE in self.encapsulations, AgentFlags.GRE),
            (self.reverse_tunnelling is not ReverseTunnelling.REFUSED, AgentFlags.REVERSE_TUNNEL),
            (self.behind_nat, AgentFlags.UDP_TUNNEL),
            (self.revocation, AgentFlags.REVOCATION),
        ):
            flags |= flag if wanted else AgentFlags(0)
        return flags


@dataclass(frozen=True, slots=True)
class ForeignDenial:
    """Why a request is denied; `lifetime` is given where the reply does not copy the request's (69).

    Without a code it is dropped in silence.
    """

    code: ReplyCode | None
    finding: ForeignFinding
    text: str
    _: KW_ONLY
    lifetime: int | None = None


def wanted_encapsulation(flags: RequestFlags) -> Encapsulation:
    """What the M and G flags ask for; with both, GRE."""
    if RequestFlags.GRE in flags:
        return Encapsulation.GRE
    return Encapsulation.MINIMAL if RequestFlags.MINIMAL in flags else Encapsulation.IP_IN_IP


def judge_form(arrived: MobileNodeSpoke, request: RegistrationRequest) -> ForeignDenial | None:
    """What no genuine mobile node on this link would send; most of it is dropped without a word."""
    co_located = RequestFlags.DECAPSULATE_SELF in request.flags
    expected = request.care_of_address if co_located else request.home_address
    if arrived.source not in (expected, request.home_address) and not arrived.source.is_unspecified:
        text = f"it came from {arrived.source}, not from {expected}"
        return ForeignDenial(None, ForeignFinding.WRONG_SOURCE, text)
    if request.revocation_support is not None and not co_located:
        text = "revocation is between agents where the care-of address is ours (RFC 3543 section 4.2.1)"
        return ForeignDenial(None, ForeignFinding.REVOCATION_BY_MOBILE_NODE, text)
    if request.flags.has_reserved:
        code = ReplyCode.FOREIGN_AGENT_POORLY_FORMED_REQUEST
        return ForeignDenial(code, ForeignFinding.POORLY_FORMED, "a reserved flag is set")
    return None


def judge_wishes(
    arrived: MobileNodeSpoke, request: RegistrationRequest, part: MobileToForeign, *, policy: ForeignPolicy
) -> ForeignDenial | None:
    """The first reason to deny what is asked for, None when it can be relayed."""
    reverse_tunnel = RequestFlags.REVERSE_TUNNEL in request.flags
    if reverse_tunnel and arrived.ttl != REVERSE_TUNNEL_TTL:
        text = f"it arrived with a TTL of {arrived.ttl}"
        return ForeignDenial(
            ReplyCode.FOREIGN_AGENT_MOBILE_NODE_TOO_DISTANT, ForeignFinding.TOO_DISTANT, text
        )
    co_located = RequestFlags.DECAPSULATE_SELF in request.flags
    offered = request.care_of_address in policy.care_of_addresses
    if request.lifetime != LIFETIME_DEREGISTER and offered == co_located:
        text = f"{request.care_of_address} is {'ours' if offered else 'none of ours'}"
        code = ReplyCode.FOREIGN_AGENT_INVALID_CARE_OF_ADDRESS
        return ForeignDenial(code, ForeignFinding.WRONG_CARE_OF_ADDRESS, text)
    if request.lifetime == LIFETIME_DEREGISTER:
        return None
    if request.lifetime > policy.lifetime_max:
        text = f"{request.lifetime} s is more than {policy.lifetime_max} s"
        code = ReplyCode.FOREIGN_AGENT_LIFETIME_TOO_LONG
        return ForeignDenial(code, ForeignFinding.LIFETIME, text, lifetime=policy.lifetime_max)
    return None if co_located else _judge_tunnel(request, part, policy)


def _judge_tunnel(
    request: RegistrationRequest, part: MobileToForeign, policy: ForeignPolicy
) -> ForeignDenial | None:
    """The tunnel that we would be an end of, and the way to us (RFC 3024 section 4.2.1)."""
    encapsulation = wanted_encapsulation(request.flags)
    impossible = policy.behind_nat and encapsulation is Encapsulation.MINIMAL
    if encapsulation not in policy.encapsulations or impossible:
        code = ReplyCode.FOREIGN_AGENT_ENCAPSULATION_UNAVAILABLE
        return ForeignDenial(code, ForeignFinding.ENCAPSULATION, f"{encapsulation.value} is not offered")
    reverse_tunnel = RequestFlags.REVERSE_TUNNEL in request.flags
    if part.encapsulating_delivery and not reverse_tunnel:
        code = ReplyCode.FOREIGN_AGENT_POORLY_FORMED_REQUEST
        text = "a delivery style without a reverse tunnel (RFC 3024 section 3.3)"
        return ForeignDenial(code, ForeignFinding.POORLY_FORMED, text)
    if part.encapsulating_delivery and not policy.encapsulating_delivery:
        code = ReplyCode.FOREIGN_AGENT_DELIVERY_STYLE_NOT_SUPPORTED
        return ForeignDenial(code, ForeignFinding.DELIVERY_STYLE, "only direct delivery is offered")
    if reverse_tunnel and policy.reverse_tunnelling is ReverseTunnelling.REFUSED:
        code = ReplyCode.FOREIGN_AGENT_REVERSE_TUNNEL_UNAVAILABLE
        return ForeignDenial(code, ForeignFinding.REVERSE_TUNNEL, "reverse tunnels are not offered")
    if not reverse_tunnel and policy.demands_reverse_tunnel:
        code = ReplyCode.FOREIGN_AGENT_REVERSE_TUNNEL_MANDATORY
        return ForeignDenial(code, ForeignFinding.REVERSE_TUNNEL, "a reverse tunnel is demanded")
    return None


def judge_addresses(
    request: RegistrationRequest,
    *,
    policy: ForeignPolicy,
    own_addresses: frozenset[IPv4Address],
    home_agents: frozenset[IPv4Address],
) -> ForeignDenial | None:
    """Whether home agent and home address can be what they claim; `home_agents` are those in use here.

    The home address will be taken for the visitor's own in frames and tunnels. So it may be nobody's whom our
    other users, or we ourselves, reach by it.
    """
    return _judge_home_agent(request.home_agent, policy, own_addresses) or _judge_home_address(
        request, policy, own_addresses | home_agents
    )


def _judge_home_agent(
    home_agent: IPv4Address, policy: ForeignPolicy, own_addresses: frozenset[IPv4Address]
) -> ForeignDenial | None:
    finding = ForeignFinding.WRONG_HOME_AGENT
    if home_agent in own_addresses:
        text = f"{home_agent} is our own, and nobody's home agent"
        return ForeignDenial(ReplyCode.INVALID_HOME_AGENT_ADDRESS, finding, text)
    if home_agent.is_unspecified or home_agent == IPv4Address("255.255.255.255"):
        code = ReplyCode.FOREIGN_AGENT_NON_ZERO_HOME_AGENT_REQUIRED
        return ForeignDenial(code, finding, "home agents are not assigned")
    if _is_unusable(home_agent):
        code = ReplyCode.FOREIGN_AGENT_POORLY_FORMED_REQUEST
        return ForeignDenial(code, finding, f"{home_agent} is no host's address")
    on_link = any(home_agent in link.network for link in policy.links)
    if on_link or not any(home_agent in network for network in policy.home_agent_networks):
        code = ReplyCode.FOREIGN_AGENT_ADMINISTRATIVELY_PROHIBITED
        return ForeignDenial(code, finding, f"nothing is relayed to {home_agent}")
    return None


def _judge_home_address(
    request: RegistrationRequest, policy: ForeignPolicy, taken: frozenset[IPv4Address]
) -> ForeignDenial | None:
    home_address, finding = request.home_address, ForeignFinding.WRONG_HOME_ADDRESS
    if home_address.is_unspecified:
        if request.nai is not None:
            return None
        code = ReplyCode.FOREIGN_AGENT_NON_ZERO_HOME_ADDRESS_REQUIRED
        return ForeignDenial(code, finding, "neither a home address nor a NAI")
    if _is_unusable(home_address):
        code = ReplyCode.FOREIGN_AGENT_POORLY_FORMED_REQUEST
        return ForeignDenial(code, finding, f"{home_address} is no host's address")
    if is_taken(home_address, policy, taken):
        code = ReplyCode.FOREIGN_AGENT_ADMINISTRATIVELY_PROHIBITED
        return ForeignDenial(code, finding, f"{home_address} belongs to somebody here")
    return None


def is_taken(home_address: IPv4Address, policy: ForeignPolicy, taken: frozenset[IPv4Address]) -> bool:
    """Whether a home address is one of a neighbour, of a home agent in use, or our own."""
    return home_address in taken or any(home_address in link.network for link in policy.links)


def _is_unusable(address: IPv4Address) -> bool:
    return address.is_multicast or address.is_loopback or address.is_reserved or address.is_unspecified
