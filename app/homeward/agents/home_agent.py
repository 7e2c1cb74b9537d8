# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent's decisions: requests in, replies and forwarding deltas out (RFC 5944 3.8, RFC 5265 4.3).

The order of the checks is part of the design. Where a request came from is asked first: outside, nobody learns that
there is an agent, and no digest is computed for them. Then who sent it; whoever has not proved that gets silence.
Then whether it is fresh. Only a request that passed all three is told what is wrong with its wishes.
"""

from dataclasses import KW_ONLY, dataclass, replace
from ipaddress import IPv4Address
from typing import assert_never

from homeward.agents.agent_events import (
    AgentEffect,
    AgentInput,
    BindingChanged,
    Change,
    Finding,
    Forward,
    Refused,
    RequestArrived,
    SendReply,
    StopForwarding,
)
from homeward.agents.bindings import Binding, BindingTable
from homeward.agents.ingress import Origin, TrustedNetworks
from homeward.agents.replay import Freshness, ReplayGuard
from homeward.agents.wishes import Denial, judge_wishes
from homeward.model.errors import ProfileError, WireError
from homeward.model.inputs import DeadlinePassed
from homeward.model.instant import Instant
from homeward.model.registration import (
    LIFETIME_DEREGISTER,
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    ReplyCode,
    RequestFlags,
    Spi,
)
from homeward.wire import authenticator
from homeward.wire import registration as codec
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.extensions import ExtensionType


@dataclass(frozen=True, slots=True)
class Node:
    """A mobile node that this agent serves, by one security association; `name` is for people."""

    name: str
    home_address: IPv4Address
    association: MobilitySecurityAssociation


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """What a home agent is configured to do. `lifetime_max` and `timestamp_tolerance` in seconds."""

    address: IPv4Address
    networks: TrustedNetworks
    _: KW_ONLY
    nodes: tuple[Node, ...]
    lifetime_max: int = 1800
    timestamp_tolerance: float = 7.0
    answer_failed_authentication: bool = False


@dataclass(frozen=True, slots=True)
class _Claim:
    """A request whose sender names an association of ours, and has not yet proved to hold its key."""

    arrived: RequestArrived
    decoded: DecodedRequest
    node: Node

    @property
    def request(self) -> RegistrationRequest:
        return self.decoded.message


class HomeAgent:
    """One home agent's bindings and replay memory. Pure: the same inputs at the same instants give the same effects.

    Raises ProfileError for two nodes with the same home address and SPI.
    """

    def __init__(self, policy: AgentPolicy, *, started: Instant) -> None:
        self._policy = policy
        self._nodes: dict[tuple[IPv4Address, Spi], Node] = {}
        for node in policy.nodes:
            key = (node.home_address, node.association.spi)
            if key in self._nodes:
                raise ProfileError(f"two nodes have home address {key[0]} and SPI {key[1]}")
            self._nodes[key] = node
        self._home_addresses = frozenset(node.home_address for node in policy.nodes)
        self._guard = ReplayGuard(policy.timestamp_tolerance, started)
        self._bindings = BindingTable()

    def handle(self, arrived: AgentInput, at: Instant) -> tuple[AgentEffect, ...]:
        """What follows from an input at this instant. Overdue bindings end first, so that none is ever renewed late."""
        expired = self._expire(at)
        match arrived:
            case RequestArrived():
                return (*expired, *self._answer(arrived, at))
            case DeadlinePassed():
                return expired
            case _:
                assert_never(arrived)

    def next_deadline(self) -> float | None:
        """Boot time at which DeadlinePassed is due, None when there is nothing to wait for."""
        return self._bindings.next_expiry()

    def bindings(self) -> tuple[Binding, ...]:
        """All bindings, by home address."""
        return tuple(sorted(self._bindings, key=lambda binding: binding.home_address))

    def binding_count(self) -> int:
        """How many bindings there are."""
        return len(self._bindings)

    def _expire(self, at: Instant) -> tuple[AgentEffect, ...]:
        # Silently towards the mobile node: a reply answers a request and nothing else (RFC 5944 section 3.8).
        effects: list[AgentEffect] = []
        for binding in self._bindings.expire(at.boot):
            effects += [StopForwarding(binding.home_address), BindingChanged(Change.EXPIRED, binding)]
        return tuple(effects)

    def _answer(self, arrived: RequestArrived, at: Instant) -> tuple[AgentEffect, ...]:
        claim = self._claim(arrived)
        if isinstance(claim, Refused):
            return (claim,)
        if not authenticator.verify(arrived.octets, claim.decoded, claim.node.association):
            return self._refuse_forgery(claim)
        spi = claim.node.association.spi
        freshness = self._guard.judge(claim.request, spi, at=at)
        if freshness is Freshness.DUPLICATE and not self._still_stands(claim.request):
            freshness = Freshness.USED
        if freshness not in (Freshness.FRESH, Freshness.DUPLICATE):
            denial = Denial(ReplyCode.IDENTIFICATION_MISMATCH, Finding.STALE, freshness.value)
            return self._deny(claim, denial, identification=self._guard.resynchronisation(claim.request, at))
        wish_denial = judge_wishes(
            arrived,
            claim.request,
            agent=self._policy.address,
            nats=self._policy.networks.nats,
            home_addresses=self._home_addresses,
        )
        if wish_denial is not None:
            return self._deny(claim, wish_denial)
        if freshness is Freshness.DUPLICATE:
            return (self._acceptance(claim, self._remaining(claim.request, at)),)
        self._guard.accept(claim.request, spi, at=at)
        return self._accept(claim, at)

    def _claim(self, arrived: RequestArrived) -> _Claim | Refused:
        """Everything that is answered by silence before any digest is computed (R-94, R-193, R-195)."""

        def silence(finding: Finding, text: str) -> Refused:
            return Refused(finding, text, source=arrived.source)

        match self._policy.networks.origin(arrived.source, arrived.interface):
            case Origin.WRONG_INTERFACE as origin:
                return silence(Finding.WRONG_INTERFACE, f"{origin.value} ({arrived.interface})")
            case Origin.WRONG_SOURCE as origin:
                return silence(Finding.WRONG_SOURCE, origin.value)
            case Origin.INSIDE:
                pass
        try:
            decoded = codec.decode(arrived.octets)
        except WireError as error:
            return silence(Finding.MALFORMED, str(error))
        if isinstance(decoded, DecodedReply):
            return silence(Finding.NOT_A_REQUEST, "a reply was sent to the home agent")
        extensions = (*decoded.covered, *decoded.unauthenticated)
        if any(each.number == ExtensionType.FOREIGN_HOME_AUTHENTICATION for each in extensions):
            return silence(
                Finding.FOREIGN_AGENT_AUTHENTICATION, "no association is shared with any foreign agent"
            )
        if decoded.authentication is None:
            count = len(decoded.authentications)
            return silence(
                Finding.NO_AUTHENTICATION, f"{count} MN-HA authentication extensions instead of one"
            )
        home_address, spi = decoded.message.home_address, decoded.authentication.spi
        node = self._nodes.get((home_address, spi))
        if node is None:
            return silence(
                Finding.UNKNOWN_ASSOCIATION, f"no association for home address {home_address}, SPI {spi}"
            )
        return _Claim(arrived, decoded, node)

    def _refuse_forgery(self, claim: _Claim) -> tuple[AgentEffect, ...]:
        """Silence, or code 131 where that is configured; never a word about trust (RFC 5944 section 3.8.2.1)."""
        code = ReplyCode.MOBILE_NODE_FAILED_AUTHENTICATION
        denial = Denial(code, Finding.WRONG_AUTHENTICATOR, "the authenticator does not fit the key")
        if self._policy.answer_failed_authentication:
            return self._deny(claim, denial, may_vouch=False)
        return (_refused(claim, denial, told=False),)

    def _still_stands(self, request: RegistrationRequest) -> bool:
        """Whether what this accepted request asked for is still so; a deregistration always is."""
        if request.lifetime == LIFETIME_DEREGISTER:
            return True
        binding = self._bindings.get(request.home_address)
        return binding is not None and binding.identification == request.identification

    def _remaining(self, request: RegistrationRequest, at: Instant) -> int:
        """The lifetime to answer a duplicate with: it never gains any (R-198)."""
        binding = self._bindings.get(request.home_address)
        if request.lifetime == LIFETIME_DEREGISTER or binding is None:
            return LIFETIME_DEREGISTER
        return binding.remaining(at.boot)

    def _accept(self, claim: _Claim, at: Instant) -> tuple[AgentEffect, ...]:
        """Carry the request out by the rules of RFC 5944 section 3.8.2.2, one care-of address for each home address."""
        request = claim.request
        if request.lifetime == LIFETIME_DEREGISTER:
            return (*self._deregister(request), self._acceptance(claim, LIFETIME_DEREGISTER))
        binding = Binding(
            request.home_address,
            request.care_of_address,
            node=claim.node.name,
            identification=request.identification,
            lifetime=min(request.lifetime, self._policy.lifetime_max),
            since=at.boot,
            reverse_tunnel=RequestFlags.REVERSE_TUNNEL in request.flags,
            co_located=RequestFlags.DECAPSULATE_SELF in request.flags,
        )
        before = self._bindings.get(request.home_address)
        self._bindings.put(binding)
        reply = self._acceptance(claim, binding.lifetime)
        changed = BindingChanged(_change(before, binding), binding)
        forward = _forward(binding)
        if before is not None and _forward(before) == forward:
            return (reply, changed)
        # Forwarding first: when the mobile node reads the reply, its packets already have a way.
        return (forward, reply, changed)

    def _deregister(self, request: RegistrationRequest) -> tuple[AgentEffect, ...]:
        """All bindings when the care-of address is the home address, else the one that is named, if it is there."""
        binding = self._bindings.get(request.home_address)
        if binding is None or request.care_of_address not in (request.home_address, binding.care_of_address):
            return ()
        self._bindings.remove(request.home_address)
        return (StopForwarding(request.home_address), BindingChanged(Change.REMOVED, binding))

    def _acceptance(self, claim: _Claim, lifetime: int) -> SendReply:
        # One binding for each node: who asked for more is told so, and 1 is as much a success as 0.
        simultaneous = RequestFlags.SIMULTANEOUS in claim.request.flags
        code = ReplyCode.ACCEPTED_WITHOUT_SIMULTANEOUS_BINDINGS if simultaneous else ReplyCode.ACCEPTED
        return self._reply(claim, self._answer_with(claim, code, lifetime=lifetime))

    def _deny(
        self,
        claim: _Claim,
        denial: Denial,
        *,
        identification: Identification | None = None,
        may_vouch: bool = True,
    ) -> tuple[AgentEffect, ...]:
        reply = self._answer_with(claim, denial.code, lifetime=0)
        if identification is not None:
            reply = replace(reply, identification=identification)
        if not may_vouch:
            reply = replace(reply, trusted_networks_configured=False)
        return (self._reply(claim, reply), _refused(claim, denial, told=True))

    def _answer_with(self, claim: _Claim, code: ReplyCode, *, lifetime: int) -> RegistrationReply:
        arrived, request = claim.arrived, claim.request
        return RegistrationReply(
            code,
            lifetime,
            home_address=request.home_address,
            home_agent=self._policy.address,
            identification=request.identification,
            nai=request.nai,
            trusted_networks_configured=self._policy.networks.vouches(
                arrived.source, arrived.interface, care_of_address=request.care_of_address
            ),
        )

    def _reply(self, claim: _Claim, reply: RegistrationReply) -> SendReply:
        arrived = claim.arrived
        return SendReply(
            codec.encode_reply(reply, claim.node.association),
            arrived.source,
            port=arrived.source_port,
            source=arrived.destination if arrived.unicast else self._policy.address,
            interface=arrived.interface if arrived.source == claim.request.home_address else None,
        )


def _change(before: Binding | None, after: Binding) -> Change:
    if before is None:
        return Change.MADE
    return Change.RENEWED if before.care_of_address == after.care_of_address else Change.MOVED


def _forward(binding: Binding) -> Forward:
    return Forward(binding.home_address, binding.care_of_address, reverse_tunnel=binding.reverse_tunnel)


def _refused(claim: _Claim, denial: Denial, *, told: bool) -> Refused:
    return Refused(
        denial.finding,
        denial.text,
        source=claim.arrived.source,
        code=denial.code if told else None,
        home_address=claim.request.home_address,
    )
