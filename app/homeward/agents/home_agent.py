# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent's decisions: requests in, replies and forwarding deltas out (RFC 5944 3.8, RFC 5265 4.3).

The order of the checks is part of the design. Where a request came from is asked first: outside, nobody learns that
there is an agent, and no digest is computed for them. Then who sent it; whoever has not proved that gets silence.
Then whether it is fresh, and whether its foreign agent is who it says. Only a request that passed all of that is told
what is wrong with its wishes.
"""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Literal, assert_never

from homeward.agents.agent_events import (
    AgentEffect,
    AgentInput,
    BindingChanged,
    Change,
    Drain,
    Forward,
    ProxyHomeAddress,
    Refused,
    ReleaseHomeAddress,
    Remember,
    RequestArrived,
    RevokeBinding,
    RevokeNode,
    StopForwarding,
)
from homeward.agents.allocation import HomeAddresses
from homeward.agents.answers import Answer, acceptance, denial, refusal
from homeward.agents.bindings import Binding, BindingTable
from homeward.agents.claims import Claim, ClaimReader, ForeignAgentProof
from homeward.agents.findings import Finding
from homeward.agents.half_bound import complete
from homeward.agents.ingress import TrustedNetworks as TrustedNetworks
from homeward.agents.memories import identity_of, remembered, revived
from homeward.agents.nonces import Entropy, NonceGuard
from homeward.agents.policy import AgentPolicy as AgentPolicy
from homeward.agents.policy import Identity
from homeward.agents.policy import Node as Node
from homeward.agents.releases import Releases
from homeward.agents.replay import Freshness, ReplayGuard, floor_at
from homeward.agents.revocations import Revocations
from homeward.agents.support import agree, told_foreign_agent, told_mobile_node
from homeward.agents.verdicts import Denial, Grant
from homeward.agents.wishes import judge_wishes
from homeward.model.agent_memory import Memory
from homeward.model.errors import ProfileError, WireError
from homeward.model.inputs import DeadlinePassed
from homeward.model.instant import Instant
from homeward.model.profile import ReplayStyle
from homeward.model.registration import LIFETIME_DEREGISTER, ReplyCode, RequestFlags
from homeward.wire import revocation
from homeward.wire.authenticator import is_same
from homeward.wire.decoded import DecodedAcknowledgment, DecodedRevocation
from homeward.wire.udp_tunnel import TUNNEL_DATA_TYPE

_TUNNEL_DATA = bytes([TUNNEL_DATA_TYPE])
_ABOUT_REVOCATION = (bytes([revocation.REVOCATION_TYPE]), bytes([revocation.ACKNOWLEDGMENT_TYPE]))


class HomeAgent:
    """One home agent's bindings and replay memory. Pure: the same inputs at the same instants give the same effects.

    `entropy` is for nodes that use nonces. `floor` is the time stamp up to which none is accepted, in units of
    2^-32 s since 1900: None where all that was ever accepted is restored, "started" where nothing is known of it.
    Raises ProfileError where nodes or foreign agents cannot be told apart, and for nonces without entropy.
    """

    def __init__(
        self,
        policy: AgentPolicy,
        *,
        started: Instant,
        entropy: Entropy | None = None,
        floor: int | Literal["started"] | None = "started",
    ) -> None:
        self._policy = policy
        self._reader = ClaimReader(policy)
        self._bindings = BindingTable()
        self._addresses = HomeAddresses(policy, self._is_bound)
        lowest = floor_at(started) if floor == "started" else floor
        self._time_stamps = ReplayGuard(policy.timestamp_tolerance, lowest)
        self._entropy = entropy
        self._require_entropy(policy)
        self._nonces = NonceGuard(entropy or (lambda: 0))
        self._revocations = Revocations(policy.address)
        self._releases = Releases(policy.address)
        self._draining = False

    def handle(self, arrived: AgentInput, at: Instant) -> tuple[AgentEffect, ...]:
        """What follows from an input at this instant. Overdue bindings end first, so that none is ever renewed late."""
        overdue = (*self._expire(at), *self._revocations.repeat(at))
        match arrived:
            case RequestArrived():
                return (*overdue, *self._take(arrived, at))
            case RevokeBinding(home_address):
                return (*overdue, *self._revoke(home_address, at))
            case RevokeNode(name):
                return (*overdue, *self._revoke_node(name, at))
            case Drain(on):
                self._draining = on
                return overdue
            case DeadlinePassed():
                return overdue
            case _:
                assert_never(arrived)

    def restore(self, memories: Iterable[Memory], at: Instant) -> tuple[AgentEffect, ...]:
        """Go on from what was written down, before anything is handled; of what has ended meanwhile stamps alone stay.

        What is no more as it was written down is to be remembered anew.
        """
        effects: list[AgentEffect] = []
        for memory in memories:
            identity = identity_of(memory)
            if memory.stamp is not None:
                self._time_stamps.restore(identity, memory.stamp)
            if memory.binding is None:
                continue
            node = self._reader.node(identity, memory.binding.spi)
            binding = None
            if node is not None:
                self._addresses.restore(node, memory.binding.home_address)
                revoker = self._reader.revoker(memory.binding, node)
                binding = revived(memory.binding, at, revoked_by=revoker)
            if binding is None or self._addresses.holder(binding.home_address) != identity:
                effects.append(self._remember(identity, None, at))
            else:
                self._bindings.put(binding)
                effects += self._start(binding)
        return tuple(effects)

    def adopt(self, policy: AgentPolicy, at: Instant) -> tuple[AgentEffect, ...]:
        """Go by another policy from now on. What rests on an association that it does not have ends, and is revoked.

        What it allows no more otherwise stays until it ends or is renewed. Raises ProfileError, and then nothing has
        changed: as the constructor does, and for another address or home link, which need another life.
        """
        reader = ClaimReader(policy)
        self._require_entropy(policy)
        if (policy.address, policy.home_link) != (self._policy.address, self._policy.home_link):
            raise ProfileError("another address or home link of the home agent needs a restart")
        effects = [*self._expire(at)]
        for binding in tuple(self._bindings):
            identity = self._addresses.holder(binding.home_address)
            rests_on, offered = self._reader.node(identity, binding.spi), reader.node(identity, binding.spi)
            if rests_on is None or offered is None or not _is_kept(binding, rests_on, offered):
                effects += self._revoke(binding.home_address, at)
        addresses = HomeAddresses(policy, self._is_bound)
        addresses.inherit(self._addresses, policy.nodes)
        self._policy, self._reader, self._addresses = policy, reader, addresses
        self._time_stamps.tolerance = policy.timestamp_tolerance
        return tuple(effects)

    def next_deadline(self) -> float | None:
        """Boot time at which DeadlinePassed is due, None when there is nothing to wait for."""
        ends = (self._bindings.next_expiry(), self._revocations.next_deadline())
        return min((end for end in ends if end is not None), default=None)

    def bindings(self) -> tuple[Binding, ...]:
        """All bindings, by home address."""
        return tuple(sorted(self._bindings, key=lambda binding: binding.home_address))

    def binding_count(self) -> int:
        """How many bindings there are."""
        return len(self._bindings)

    def _require_entropy(self, policy: AgentPolicy) -> None:
        if self._entropy is None and any(node.replay is ReplayStyle.NONCES for node in policy.nodes):
            raise ProfileError("nonces need a source of chance")

    def _is_bound(self, home_address: IPv4Address) -> bool:
        return self._bindings.get(home_address) is not None

    def _remember(self, identity: Identity, binding: Binding | None, at: Instant) -> Remember:
        return Remember(remembered(identity, self._time_stamps.stamp(identity), binding, at))

    def _expire(self, at: Instant) -> tuple[AgentEffect, ...]:
        # Silently towards the mobile node: a reply answers a request and nothing else (RFC 5944 section 3.8).
        effects: list[AgentEffect] = []
        for binding in self._bindings.expire(at.boot):
            effects += self._stop(binding, Change.EXPIRED, at)
        return tuple(effects)

    def _take(self, arrived: RequestArrived, at: Instant) -> tuple[AgentEffect, ...]:
        kind = arrived.octets[:1]
        if kind != _TUNNEL_DATA and kind not in _ABOUT_REVOCATION:
            return self._answer(arrived, at)
        outsider = self._reader.refuse_outsider(arrived)
        if outsider is not None:
            return (outsider,)
        if kind == _TUNNEL_DATA:
            return self._complete(arrived, at)
        try:
            decoded = revocation.decode(arrived.octets)
        except WireError as error:
            return (Refused(Finding.MALFORMED, str(error), source=arrived.source),)
        if isinstance(decoded, DecodedAcknowledgment):
            stray = Refused(
                Finding.STRAY_ACKNOWLEDGMENT, "it answers nothing that was sent", source=arrived.source
            )
            effects = self._revocations.acknowledge(decoded)
            return (stray,) if effects is None else effects
        return self._release(arrived, decoded, at)

    def _answer(self, arrived: RequestArrived, at: Instant) -> tuple[AgentEffect, ...]:
        claim = self._reader.read(arrived)
        if isinstance(claim, Refused):
            return (claim,)
        request, node, guard = claim.request, claim.node, self._guard(claim)
        if not claim.is_proved():
            return self._refuse_forgery(claim)
        given = self._addresses.give(node, request.home_address)
        named = given or request.home_address
        spi = node.association.spi
        freshness = guard.judge(node.identity, request, spi=spi, at=at)
        if freshness is Freshness.DUPLICATE and not self._still_stands(claim, named):
            freshness = Freshness.USED
        if freshness not in (Freshness.FRESH, Freshness.DUPLICATE):
            stale = Denial(ReplyCode.IDENTIFICATION_MISMATCH, Finding.STALE, freshness.value)
            answer = Answer(named, guard.resynchronise(node.identity, request, at))
            return denial(self._policy, claim, stale, answer)
        proof = claim.foreign_agent_proof()
        verdict = self._judge(claim, given, proof)
        if isinstance(verdict, Denial):
            may_vouch = verdict.code != ReplyCode.FOREIGN_AGENT_FAILED_AUTHENTICATION
            spent = guard.deny if freshness is Freshness.FRESH else guard.repeat
            answer = Answer(named, spent(node.identity, request), may_vouch=may_vouch)
            return denial(self._policy, claim, verdict, answer)
        if freshness is Freshness.DUPLICATE:
            return self._repeat(claim, verdict, Answer(named, guard.repeat(node.identity, request)), at)
        answer = Answer(named, guard.accept(node.identity, request, spi=spi, at=at))
        if verdict is None:
            return (*self._deregister(claim, named, at), acceptance(self._policy, claim, answer))
        return self._bind(claim, verdict, answer, proof, at)

    def _judge(
        self, claim: Claim, given: IPv4Address | None, proof: ForeignAgentProof
    ) -> Grant | Denial | None:
        if proof in (ForeignAgentProof.MISSING, ForeignAgentProof.WRONG):
            code = ReplyCode.FOREIGN_AGENT_FAILED_AUTHENTICATION
            return Denial(code, Finding.FOREIGN_AGENT_FAILED, proof.value)
        if given is None and claim.request.home_address.is_unspecified:
            text = "all home addresses that this node may get are in use"
            return Denial(ReplyCode.INSUFFICIENT_RESOURCES, Finding.NO_HOME_ADDRESS_LEFT, text)
        if given is None:
            text = f"home address {claim.request.home_address} is not this node's"
            return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.WRONG_HOME_ADDRESS, text)
        verdict = judge_wishes(claim, self._policy, home_address=given, is_home=self._addresses.covers)
        if self._draining and isinstance(verdict, Grant) and not self._is_bound(given):
            text = "no new bindings are made, since the agent is being drained"
            return Denial(ReplyCode.INSUFFICIENT_RESOURCES, Finding.DRAINING, text)
        return verdict

    def _refuse_forgery(self, claim: Claim) -> tuple[AgentEffect, ...]:
        """Silence, or code 131 where that is configured; never a word about trust (RFC 5944 section 3.8.2.1).

        A foreign agent that proved itself must be told, so that it need not wait for an answer (R-193).
        """
        code = ReplyCode.MOBILE_NODE_FAILED_AUTHENTICATION
        denied = Denial(code, Finding.WRONG_AUTHENTICATOR, "the authenticator does not fit the key")
        if (
            self._policy.answer_failed_authentication
            or claim.foreign_agent_proof() is ForeignAgentProof.VALID
        ):
            named = self._addresses.expected(claim.node, claim.request.home_address)
            return denial(
                self._policy, claim, denied, Answer(named, claim.request.identification, may_vouch=False)
            )
        return (refusal(claim, denied, told=False),)

    def _guard(self, claim: Claim) -> ReplayGuard | NonceGuard:
        return self._nonces if claim.node.replay is ReplayStyle.NONCES else self._time_stamps

    def _still_stands(self, claim: Claim, home_address: IPv4Address) -> bool:
        """Whether what this accepted request asked for is still so; a deregistration always is."""
        if claim.request.lifetime == LIFETIME_DEREGISTER:
            return True
        binding = self._bindings.get(home_address)
        return binding is not None and binding.identification == claim.request.identification

    def _repeat(
        self, claim: Claim, grant: Grant | None, answer: Answer, at: Instant
    ) -> tuple[AgentEffect, ...]:
        """The same answer once more, with the lifetime that is left: it never gains any (R-198)."""
        binding = self._bindings.get(answer.home_address)
        if grant is None or binding is None:
            return (acceptance(self._policy, claim, answer),)
        return (self._acceptance(claim, grant, answer, binding, lifetime=binding.remaining(at.boot)),)

    def _bind(
        self, claim: Claim, grant: Grant, answer: Answer, proof: ForeignAgentProof, at: Instant
    ) -> tuple[AgentEffect, ...]:
        """Add a binding by the rules of RFC 5944 section 3.8.2.2, one care-of address for each home address."""
        request, home_address = claim.request, answer.home_address
        binding = Binding(
            home_address,
            request.care_of_address,
            node=claim.node.name,
            spi=claim.node.association.spi,
            identification=request.identification,
            lifetime=self._lifetime(request.lifetime, grant),
            since=at.boot,
            reverse_tunnel=RequestFlags.REVERSE_TUNNEL in request.flags,
            co_located=claim.co_located,
            way=grant.way,
            revocation=agree(claim, grant, self._policy, proof, at),
        )
        before = self._bindings.get(home_address)
        self._bindings.put(binding)
        self._revocations.drop(home_address, binding.care_of_address)
        self._releases.forget(home_address)
        reply = self._acceptance(claim, grant, answer, binding, lifetime=binding.lifetime)
        effects: list[AgentEffect] = [self._remember(claim.node.identity, binding, at)]
        # Forwarding first: when the mobile node reads the reply, its packets already have a way.
        if before is None or _forward(before) != _forward(binding):
            effects.append(_forward(binding))
        if before is None and self._policy.home_link is not None:
            effects.append(ProxyHomeAddress(home_address))
        effects += [reply, BindingChanged(_change(before, binding), binding)]
        if before is not None and before.care_of_address != binding.care_of_address:
            effects += self._tell_left_foreign_agent(before, at)
        return tuple(effects)

    def _lifetime(self, asked: int, grant: Grant) -> int:
        most = self._policy.lifetime_max
        return min(asked, most, self._policy.nat_max_lifetime) if grant.nat else min(asked, most)

    def _acceptance(
        self, claim: Claim, grant: Grant, answer: Answer, binding: Binding, *, lifetime: int
    ) -> AgentEffect:
        said = replace(
            answer,
            lifetime=lifetime,
            udp_tunnel=grant.to_mobile_node,
            revocation_support=told_mobile_node(binding),
            to_foreign_agent=told_foreign_agent(binding, grant),
        )
        return acceptance(self._policy, claim, said)

    def _deregister(self, claim: Claim, home_address: IPv4Address, at: Instant) -> tuple[AgentEffect, ...]:
        """All bindings when the care-of address is the home address, else the one that is named, if it is there."""
        binding, care_of = self._bindings.get(home_address), claim.request.care_of_address
        if binding is None or care_of not in (home_address, binding.care_of_address):
            return (self._remember(claim.node.identity, binding, at),)
        self._bindings.remove(home_address)
        arrived = claim.arrived
        at_home = arrived.source == home_address and arrived.interface == self._policy.home_link
        effects = self._stop(binding, Change.REMOVED, at, asked=arrived.octets if at_home else None)
        if claim.relay is None or arrived.source != binding.way.endpoint:
            effects += self._tell_left_foreign_agent(binding, at)
        return effects

    def _tell_left_foreign_agent(self, binding: Binding, at: Instant) -> tuple[AgentEffect, ...]:
        """It need not keep what its visitor left behind; the visitor knows already (RFC 3543 section 4.2.2.1)."""
        if binding.revocation is None or not binding.revocation.is_foreign_agent:
            return ()
        return self._revocations.start(binding, at, inform=False)

    def _revoke(self, home_address: IPv4Address, at: Instant) -> tuple[AgentEffect, ...]:
        binding = self._bindings.remove(home_address)
        if binding is None:
            return ()
        return (*self._stop(binding, Change.REVOKED, at), *self._revocations.start(binding, at, inform=True))

    def _revoke_node(self, name: str, at: Instant) -> tuple[AgentEffect, ...]:
        effects: list[AgentEffect] = []
        for node in self._reader.forget(name):
            home_address = self._addresses.held(node)
            if home_address is not None:
                effects += self._revoke(home_address, at)
        return tuple(effects)

    def _release(
        self, arrived: RequestArrived, decoded: DecodedRevocation, at: Instant
    ) -> tuple[AgentEffect, ...]:
        """A foreign agent ends a binding (RFC 3543 section 4.2.3.2)."""
        home_address = decoded.message.home_address
        peers = self._reader.foreign_agents_at(arrived.source, decoded.message.foreign_domain)
        by = self._releases.prover(decoded, peers)
        binding = self._bindings.get(home_address)
        fault = "no foreign agent that we know made it" if by is None else None
        fault = fault or self._releases.fault(decoded, binding)
        if by is None or fault is not None:
            return (
                Refused(Finding.REVOCATION, fault or "", source=arrived.source, home_address=home_address),
            )
        if self._releases.is_repeated(decoded) or binding is None or binding.revocation is None:
            return (self._releases.answer(arrived, decoded, by, inform=True),)
        self._bindings.remove(home_address)
        self._releases.note(decoded)
        reply = self._releases.answer(arrived, decoded, by, inform=binding.revocation.inform)
        return (*self._stop(binding, Change.REVOKED, at), reply)

    def _complete(self, arrived: RequestArrived, at: Instant) -> tuple[AgentEffect, ...]:
        """The first keepalive of a half-bound tunnel, or something that only looks like it (R-243)."""
        binding = complete(arrived, self._bindings.get, self._policy.address)
        if isinstance(binding, Refused):
            return (binding,)
        self._bindings.put(binding)
        identity = self._addresses.holder(binding.home_address)
        remember = self._remember(identity, binding, at)
        return (remember, _forward(binding), BindingChanged(Change.COMPLETED, binding))

    def _start(self, binding: Binding) -> tuple[AgentEffect, ...]:
        if self._policy.home_link is None:
            return (_forward(binding),)
        return (_forward(binding), ProxyHomeAddress(binding.home_address))

    def _stop(
        self, binding: Binding, change: Change, at: Instant, *, asked: bytes | None = None
    ) -> tuple[AgentEffect, ...]:
        """What follows when a binding is no more; nobody shall find it again after a crash."""
        home_address = binding.home_address
        remember = self._remember(self._addresses.holder(home_address), None, at)
        stopped, changed = StopForwarding(home_address), BindingChanged(change, binding)
        if self._policy.home_link is None:
            return (remember, stopped, changed)
        return (remember, stopped, ReleaseHomeAddress(home_address, asked), changed)


def _is_kept(binding: Binding, before: Node, after: Node) -> bool:
    """Whether another policy has what a binding rests on: the association, and the right to the home address."""
    pool = after.home_addresses
    may_have = pool is None or binding.home_address in pool
    return may_have and is_same(before.association, after.association)


def _change(before: Binding | None, after: Binding) -> Change:
    if before is None:
        return Change.MADE
    same = (before.care_of_address, before.way) == (after.care_of_address, after.way)
    return Change.RENEWED if same else Change.MOVED


def _forward(binding: Binding) -> Forward:
    way = binding.way
    return Forward(
        binding.home_address,
        way.endpoint,
        encapsulation=way.encapsulation,
        reverse_tunnel=binding.reverse_tunnel,
        udp=way.udp,
        port=way.port,
        expires=binding.expires,
    )
