# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent's decisions: requests in, replies and forwarding deltas out (RFC 5944 section 3.8, RFC 5265 4.3).

The order of the checks is part of the design. Where a request came from is asked first: outside, nobody learns that
there is an agent, and no digest is computed for them. Then who sent it; whoever has not proved that gets silence.
Then whether it is fresh, and whether its foreign agent is who it says. Only a request that passed all of that is told
what is wrong with its wishes.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import Literal, assert_never

from homeward.agents.agent_events import (
    AgentEffect,
    AgentInput,
    Change,
    Drain,
    Refused,
    RequestArrived,
    RevokeBinding,
    RevokeNode,
    SendReply,
)
from homeward.agents.allocation import HomeAddresses
from homeward.agents.answers import Answer, acceptance, denial, refusal
from homeward.agents.bindings import Binding
from homeward.agents.claims import Claim, ClaimReader, ForeignAgentProof
from homeward.agents.findings import Finding
from homeward.agents.grants import spelled_out
from homeward.agents.half_bound import complete
from homeward.agents.ingress import TrustedNetworks as TrustedNetworks
from homeward.agents.ledger import Ledger
from homeward.agents.memories import identity_of, revived
from homeward.agents.nodes import Node as Node
from homeward.agents.nonces import Entropy, NonceGuard
from homeward.agents.policy import AgentPolicy as AgentPolicy
from homeward.agents.releases import Releases
from homeward.agents.replay import Freshness, ReplayGuard, floor_at
from homeward.agents.revocations import Revocations
from homeward.agents.shortcut import Shortcut
from homeward.agents.support import agree, told_foreign_agent, told_mobile_node
from homeward.agents.verdicts import Denial, Grant
from homeward.agents.wishes import judge_wishes
from homeward.model.agent_memory import Memory
from homeward.model.errors import ProfileError, WireError
from homeward.model.inputs import DeadlinePassed
from homeward.model.instant import Instant
from homeward.model.profile import ReplayStyle
from homeward.model.registration import LIFETIME_DEREGISTER, Identification, ReplyCode
from homeward.wire import revocation
from homeward.wire.decoded import DecodedAcknowledgment, DecodedRevocation
from homeward.wire.udp_tunnel import TUNNEL_DATA_TYPE

_TUNNEL_DATA = bytes([TUNNEL_DATA_TYPE])
_NO_REQUEST = (_TUNNEL_DATA, bytes([revocation.REVOCATION_TYPE]), bytes([revocation.ACKNOWLEDGMENT_TYPE]))


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
        self._entropy = entropy
        self._reader = self._reader_for(policy)
        self._time_stamps = ReplayGuard(
            policy.timestamp_tolerance, floor_at(started) if floor == "started" else floor
        )
        self._nonces = NonceGuard(entropy or (lambda: 0))
        self._addresses = HomeAddresses(self._reader.nodes, policy.address, self._is_bound)
        self._ledger = Ledger(
            self._addresses.holder, self._time_stamps.stamp, at_home=policy.home_link is not None
        )
        self._revocations = Revocations(policy.address)
        self._releases = Releases(policy.address)
        self._shortcut = self._shortcut_for(policy)
        self._draining = False

    def handle_all(self, batch: Iterable[RequestArrived], at: Instant) -> Iterator[AgentEffect]:
        """What follows from datagrams that arrived at one instant, each in its turn; of plain requests in one piece."""
        yield from self._overdue(at)
        for arrived in batch:
            yield from self._take(arrived, at)

    def handle(self, arrived: AgentInput, at: Instant) -> tuple[AgentEffect, ...]:
        """What follows from an input at this instant. Overdue bindings end first, so that none is ever renewed late."""
        overdue = self._overdue(at)
        match arrived:
            case RequestArrived():
                return overdue + spelled_out(self._take(arrived, at))
            case RevokeBinding(home_address):
                return overdue + self._revoke(home_address, at)
            case RevokeNode(name):
                return overdue + self._revoke_node(name, at)
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
            identity, kept = identity_of(memory), memory.binding
            if memory.stamp is not None:
                self._time_stamps.restore(identity, memory.stamp)
            if kept is None:
                continue
            binding = revived(kept, at) if self._reader.nodes.has(identity, kept.spi) else None
            if binding is None or not self._addresses.restore(identity, kept.spi, kept.home_address):
                effects.append(self._ledger.remember(identity, None, at))
            else:
                effects += self._ledger.restore(binding)
        return tuple(effects)

    def adopt(self, policy: AgentPolicy, at: Instant) -> tuple[AgentEffect, ...]:
        """Go by another policy from now on. What rests on an association that it does not have ends, and is revoked.

        What it allows no more otherwise stays until it ends or is renewed; what was revoked may register again where it
        has it. Raises ProfileError, and then nothing has changed: as the constructor does, and for another address or
        home link, which need another life.
        """
        if (policy.address, policy.home_link) != (self._policy.address, self._policy.home_link):
            raise ProfileError("another address or home link of the home agent needs a restart")
        reader = self._reader_for(policy)
        effects = list(self._ledger.expire(at))
        for binding in tuple(self._ledger):
            if not reader.keeps(binding, self._addresses.holder(binding.home_address), self._reader):
                effects += self._revoke(binding.home_address, at)
        self._policy, self._reader = policy, reader
        self._addresses.adopt(reader.nodes)
        self._time_stamps.tolerance = policy.timestamp_tolerance
        self._shortcut = self._shortcut_for(policy)
        return tuple(effects)

    def next_deadline(self) -> float | None:
        """Boot time at which DeadlinePassed is due, None when there is nothing to wait for."""
        ends = (self._ledger.next_expiry(), self._revocations.next_deadline())
        return min((end for end in ends if end is not None), default=None)

    def may_need_before(self, boot: float) -> bool:
        """Whether `next_deadline` could be before this; False is sure, and found out quickly."""
        return bool(self._revocations) or self._ledger.may_end_before(boot)

    def bindings(self) -> tuple[Binding, ...]:
        """All bindings, by home address."""
        return tuple(sorted(self._ledger, key=lambda binding: binding.home_address))

    def binding(self, home_address: IPv4Address) -> Binding | None:
        """The binding of a home address, if there is one."""
        return self._ledger.get(home_address)

    def home_addresses(self) -> list[int]:
        """The home addresses that have a binding, as numbers, in order: to go through many of them in parts."""
        return self._ledger.home_addresses()

    def binding_count(self) -> int:
        """How many bindings there are."""
        return len(self._ledger)

    def _reader_for(self, policy: AgentPolicy) -> ClaimReader:
        reader = ClaimReader(policy)
        if self._entropy is None and reader.nodes.need_entropy:
            raise ProfileError("nonces need a source of chance")
        return reader

    def _shortcut_for(self, policy: AgentPolicy) -> Shortcut:
        return Shortcut(
            policy, self._reader, self._time_stamps, self._ledger, is_home=self._addresses.covers_number
        )

    def _is_bound(self, home_address: IPv4Address) -> bool:
        return home_address in self._ledger

    def _overdue(self, at: Instant) -> tuple[AgentEffect, ...]:
        return self._ledger.expire(at) + self._revocations.repeat(at)

    def _take(self, arrived: RequestArrived, at: Instant) -> tuple[AgentEffect, ...]:
        kind = arrived.octets[:1]
        if kind not in _NO_REQUEST:
            granted = None if self._draining else self._shortcut.grant(arrived, at)
            if granted is None:
                return self._answer(arrived, at)
            if self._revocations or self._releases:
                self._forget_ends(IPv4Address(granted.home_address), arrived.source)
            return (granted,)
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
        if not claim.is_proved():
            return self._refuse_forgery(claim)
        node, request, by = claim.node, claim.request, claim.authentication
        who, guard, stamp = node.identity, self._guard(node), request.identification
        given = self._addresses.give(node, request.home_address)
        named = given or request.home_address
        freshness = guard.judge(who, stamp, by=by, at=at)
        if freshness is Freshness.DUPLICATE and not self._still_stands(claim, named):
            freshness = Freshness.USED
        if freshness is not Freshness.FRESH and freshness is not Freshness.DUPLICATE:
            stale = Denial(ReplyCode.IDENTIFICATION_MISMATCH, Finding.STALE, freshness.value)
            return denial(self._policy, claim, stale, Answer(named, guard.resynchronise(who, stamp, at)))
        proof = claim.foreign_agent_proof()
        verdict = self._judge(claim, given, proof)
        if isinstance(verdict, Denial):
            may_vouch = verdict.code != ReplyCode.FOREIGN_AGENT_FAILED_AUTHENTICATION
            spent = guard.deny if freshness is Freshness.FRESH else guard.repeat
            answer = Answer(named, spent(who, stamp), may_vouch=may_vouch)
            return denial(self._policy, claim, verdict, answer)
        if freshness is Freshness.DUPLICATE:
            return self._repeat(claim, verdict, Answer(named, guard.repeat(who, stamp)), at)
        identification = guard.accept(who, stamp, by=by, at=at)
        if verdict is None:
            ended = self._deregister(claim, named, at)
            return (*ended, acceptance(self._policy, claim, Answer(named, identification)))
        binding = self._binding(claim, verdict, named, proof, at)
        said = _granted(binding, verdict, identification, binding.lifetime)
        return self._bind(binding, acceptance(self._policy, claim, said), at)

    def _judge(
        self, claim: Claim, given: IPv4Address | None, proof: ForeignAgentProof
    ) -> Grant | Denial | None:
        if proof is ForeignAgentProof.MISSING or proof is ForeignAgentProof.WRONG:
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

    def _guard(self, node: Node) -> ReplayGuard | NonceGuard:
        return self._nonces if node.replay is ReplayStyle.NONCES else self._time_stamps

    def _still_stands(self, claim: Claim, home_address: IPv4Address) -> bool:
        """Whether what this accepted request asked for is still so; a deregistration always is."""
        if claim.request.lifetime == LIFETIME_DEREGISTER:
            return True
        binding = self._ledger.get(home_address)
        return binding is not None and binding.identification == claim.request.identification

    def _repeat(
        self, claim: Claim, grant: Grant | None, answer: Answer, at: Instant
    ) -> tuple[AgentEffect, ...]:
        """The same answer once more, with the lifetime that is left: it never gains any (R-198)."""
        binding = self._ledger.get(answer.home_address)
        if grant is None or binding is None:
            return (acceptance(self._policy, claim, answer),)
        said = _granted(binding, grant, answer.identification, binding.remaining(at.boot))
        return (acceptance(self._policy, claim, said),)

    def _binding(
        self, claim: Claim, grant: Grant, home_address: IPv4Address, proof: ForeignAgentProof, at: Instant
    ) -> Binding:
        request, node, policy = claim.request, claim.node, self._policy
        lifetime = min(request.lifetime, policy.lifetime_max)
        return Binding(
            home_address,
            request.care_of_address,
            node=node.name,
            spi=node.association.spi,
            identification=request.identification,
            lifetime=min(lifetime, policy.nat_max_lifetime) if grant.nat else lifetime,
            since=at.boot,
            reverse_tunnel=request.flags.reverse_tunnel,
            co_located=request.flags.co_located,
            way=grant.way,
            revocation=agree(claim, grant, policy, proof, at),
        )

    def _bind(self, binding: Binding, reply: SendReply, at: Instant) -> tuple[AgentEffect, ...]:
        """Add a binding by the rules of RFC 5944 section 3.8.2.2, one care-of address for each home address."""
        self._forget_ends(binding.home_address, binding.care_of_address)
        effects, left = self._ledger.enter(binding, reply, at)
        return effects if left is None else effects + self._tell_left_foreign_agent(left, at)

    def _forget_ends(self, home_address: IPv4Address, care_of_address: IPv4Address) -> None:
        self._revocations.drop(home_address, care_of_address)
        self._releases.forget(home_address)

    def _deregister(self, claim: Claim, home_address: IPv4Address, at: Instant) -> tuple[AgentEffect, ...]:
        """All bindings when the care-of address is the home address, else the one that is named, if it is there."""
        binding, care_of = self._ledger.get(home_address), claim.request.care_of_address
        if binding is None or care_of not in (home_address, binding.care_of_address):
            return (self._ledger.remember(claim.node.identity, binding, at),)
        arrived = claim.arrived
        at_home = arrived.source == home_address and arrived.interface == self._policy.home_link
        effects = self._ledger.strike(binding, Change.REMOVED, at, asked=arrived.octets if at_home else None)
        if claim.relay is None or arrived.source != binding.way.endpoint:
            effects += self._tell_left_foreign_agent(binding, at)
        return effects

    def _tell_left_foreign_agent(self, binding: Binding, at: Instant) -> tuple[AgentEffect, ...]:
        """It need not keep what its visitor left behind; the visitor knows already (RFC 3543 section 4.2.2.1)."""
        if binding.revocation is None or not binding.revocation.is_foreign_agent:
            return ()
        return self._send_revocation(binding, at, inform=False)

    def _send_revocation(self, binding: Binding, at: Instant, *, inform: bool) -> tuple[AgentEffect, ...]:
        association = self._reader.revoker(binding, self._addresses.holder(binding.home_address))
        return self._revocations.start(binding, at, association=association, inform=inform)

    def _revoke(self, home_address: IPv4Address, at: Instant) -> tuple[AgentEffect, ...]:
        binding = self._ledger.get(home_address)
        if binding is None:
            return ()
        ended = self._ledger.strike(binding, Change.REVOKED, at)
        return ended + self._send_revocation(binding, at, inform=True)

    def _revoke_node(self, name: str, at: Instant) -> tuple[AgentEffect, ...]:
        held = (self._addresses.held(node) for node in self._reader.revoke(name))
        effects = [self._revoke(home_address, at) for home_address in held if home_address is not None]
        return tuple(effect for each in effects for effect in each)

    def _release(
        self, arrived: RequestArrived, decoded: DecodedRevocation, at: Instant
    ) -> tuple[AgentEffect, ...]:
        """A foreign agent ends a binding (RFC 3543 section 4.2.3.2)."""
        home_address = decoded.message.home_address
        peers = self._reader.foreign_agents_at(arrived.source, decoded.message.foreign_domain)
        by = self._releases.prover(decoded, peers)
        binding = self._ledger.get(home_address)
        fault = "no foreign agent that we know made it" if by is None else None
        fault = fault or self._releases.fault(decoded, binding)
        if by is None or fault is not None:
            return (
                Refused(Finding.REVOCATION, fault or "", source=arrived.source, home_address=home_address),
            )
        if self._releases.is_repeated(decoded) or binding is None or binding.revocation is None:
            return (self._releases.answer(arrived, decoded, by, inform=True),)
        self._releases.note(decoded)
        reply = self._releases.answer(arrived, decoded, by, inform=binding.revocation.inform)
        return (*self._ledger.strike(binding, Change.REVOKED, at), reply)

    def _complete(self, arrived: RequestArrived, at: Instant) -> tuple[AgentEffect, ...]:
        """The first keepalive of a half-bound tunnel, or something that only looks like it (R-243)."""
        binding = complete(arrived, self._ledger.get, self._policy.address)
        if isinstance(binding, Refused):
            return (binding,)
        return self._ledger.complete(binding, at)


def _granted(binding: Binding, grant: Grant, identification: Identification, lifetime: int) -> Answer:
    """What is said of a binding to whoever asked for it."""
    return Answer(
        binding.home_address,
        identification,
        lifetime=lifetime,
        udp_tunnel=grant.to_mobile_node,
        revocation_support=told_mobile_node(binding),
        to_foreign_agent=told_foreign_agent(binding, grant),
    )
