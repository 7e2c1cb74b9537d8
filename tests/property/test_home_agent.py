# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is sent to a home agent, in whatever order: its bindings, deltas and replies never contradict each other."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from homeward.agents.agent_events import (
    AgentEffect,
    Forward,
    RequestArrived,
    RevokeBinding,
    SendReply,
    StopForwarding,
)
from homeward.agents.home_agent import HomeAgent
from homeward.model.inputs import DeadlinePassed
from homeward.model.nat_traversal import UdpTunnelRequest
from homeward.model.registration import LIFETIME_INFINITE, ReplyCode, RequestFlags
from homeward.model.revocation import RevocationSupport
from homeward.wire import authenticator, registration, relay, udp_tunnel
from homeward.wire.decoded import DecodedReply
from homeward.wire.echo import Echo, encode_echo
from homeward.wire.extensions import Extension, walk
from homeward.wire.revocation_support import encode_support
from tests.unit.agents.scene import (
    AGENT,
    CARE_OF,
    ELSEWHERE,
    FOREIGN_AGENT,
    FOREIGN_SA,
    FORGER,
    HOME,
    INSIDE,
    NAT,
    OLD_SA,
    OTHER_HOME,
    OTHER_SA,
    OUTSIDE,
    POLICY,
    SA,
    T0,
    WITH_FOREIGN_AGENT,
    after,
    arrived,
    octets,
    request,
    stamp,
)

KEYS = {"sa": SA, "old": OLD_SA, "other": OTHER_SA, "forger": FORGER}
OWN_KEYS = {HOME: (SA, OLD_SA), OTHER_HOME: (OTHER_SA,)}
places = st.sampled_from([CARE_OF, ELSEWHERE, NAT, FOREIGN_AGENT, HOME, OTHER_HOME, OUTSIDE, AGENT])
udp_wishes = st.none() | st.builds(
    UdpTunnelRequest,
    force=st.booleans(),
    through_foreign_agent=st.booleans(),
    kind=st.sampled_from([0, 4, 47, 55, 99]),
)
supports = st.none() | st.builds(RevocationSupport, st.integers(0, 1 << 31))
lifetimes = st.sampled_from([0, 0, 1, 5, 300, 1800, 5000, LIFETIME_INFINITE])


def extensions_of(encoded: bytes) -> list[Extension]:
    return list(walk(encoded, 0, understood=frozenset({144})))


class HomeAgentMachine(RuleBasedStateMachine):
    """Two nodes, their requests and everybody else's, and time that passes."""

    @initialize(most=st.sampled_from([60, 1800, LIFETIME_INFINITE]))
    def start(self, most: int) -> None:
        self.policy = replace(WITH_FOREIGN_AGENT, lifetime_max=most)
        self.agent = HomeAgent(self.policy, started=T0)
        self.now = 1.0
        self.forwards: dict[IPv4Address, Forward] = {}
        self.sent: list[RequestArrived] = []
        self.granted: dict[tuple[IPv4Address, int], float] = {}
        """When what was granted for a request ends, at first grant."""

    @rule(
        home=st.sampled_from([HOME, OTHER_HOME, IPv4Address("10.77.0.99")]),
        care_of=places,
        source=st.none() | places,
        lifetime=lifetimes,
        key=st.sampled_from(sorted(KEYS)),
        skew=st.sampled_from([0.0, 0.0, 0.0, -3.0, 3.0, -30.0, 30.0]),
        flags=st.integers(0, 255).map(RequestFlags) | st.just(RequestFlags.DECAPSULATE_SELF),
        interface=st.sampled_from([INSIDE, INSIDE, INSIDE, "outside"]),
        udp=udp_wishes,
        support=supports,
        tail=st.sampled_from([b"", b"", b"", b"foreign", b"proof", b"forged"]),
    )
    def ask(  # type: ignore[no-untyped-def]
        self, home, care_of, source, lifetime, key, skew, flags, interface, udp, support, tail
    ) -> None:
        asked = request(
            home_address=home,
            care_of_address=care_of,
            lifetime=lifetime,
            identification=stamp(self.now + skew),
            flags=flags,
        )
        wishes = [*extensions_of(udp_tunnel.encode_request(udp)), *extensions_of(encode_support(support))]
        payload = octets(asked, KEYS[key], covered=() if tail else wishes, behind=wishes if tail else ())
        if tail in (b"proof", b"forged"):
            by = FOREIGN_SA if tail == b"proof" else replace(FOREIGN_SA, key=FORGER.key)
            payload = authenticator.authenticate(payload, by, by=relay.FOREIGN_HOME)
        self.arrive(arrived(payload, source=source or care_of, interface=interface))

    @rule(home=st.sampled_from([HOME, OTHER_HOME]), source=places, port=st.integers(1, 3))
    def keep_alive(self, home: IPv4Address, source: IPv4Address, port: int) -> None:
        echo = encode_echo(Echo(home, AGENT, 1, 1))
        before = {each.home_address: each for each in self.agent.bindings()}
        effects = self.agent.handle(
            arrived(udp_tunnel.wrap(echo), source=source, source_port=port), after(self.now)
        )
        self.take(effects)
        for effect in effects:
            if isinstance(effect, Forward):
                # Only what was half bound is completed, and only to where its registration came from.
                way = before[effect.home_address].way
                assert (way.udp, way.port, way.endpoint) == (True, None, source)

    @rule(home=st.sampled_from([HOME, OTHER_HOME]))
    def revoke(self, home: IPv4Address) -> None:
        self.take(self.agent.handle(RevokeBinding(home), after(self.now)))
        assert home not in {each.home_address for each in self.agent.bindings()}

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), source=st.none() | places)
    def replay(self, data: st.DataObject, source: IPv4Address | None) -> None:
        again = data.draw(st.sampled_from(self.sent))
        self.arrive(replace(again, source=source or again.source))

    @rule(seconds=st.sampled_from([0.25, 1.0, 10.0, 61.0, 1801.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        deadline = self.agent.next_deadline()
        if deadline is not None and deadline <= T0.boot + self.now:
            self.take(self.agent.handle(DeadlinePassed(), after(self.now)))

    def arrive(self, datagram: RequestArrived) -> None:
        self.sent.append(datagram)
        effects = self.agent.handle(datagram, after(self.now))
        self.take(effects)
        replies = [each for each in effects if isinstance(each, SendReply)]
        assert len(replies) <= 1
        inside = self.policy.networks.origin(datagram.source, datagram.interface)
        if inside.value != "inside":
            assert not replies
        for sent in replies:
            self.check_reply(datagram, sent)

    def check_reply(self, datagram: RequestArrived, sent: SendReply) -> None:
        assert (sent.destination, sent.port) == (datagram.source, datagram.source_port)
        reply = registration.decode(sent.octets)
        asked = registration.decode(datagram.octets)
        assert isinstance(reply, DecodedReply)
        home = asked.message.home_address
        key = next(each for each in OWN_KEYS[home] if authenticator.verify(datagram.octets, asked, each))
        assert authenticator.verify(sent.octets, reply, key)
        assert reply.message.lifetime <= asked.message.lifetime
        if reply.message.trusted_networks_configured:
            assert datagram.interface == INSIDE
            assert reply.message.code != ReplyCode.FOREIGN_AGENT_FAILED_AUTHENTICATION
            assert datagram.source in (asked.message.care_of_address, NAT)  # type: ignore[union-attr]
        if reply.message.is_success:
            self.check_grant(home, asked.message.identification, reply.message.lifetime)

    def check_grant(self, home: IPv4Address, identification: int, lifetime: int) -> None:
        ends = float("inf") if lifetime == LIFETIME_INFINITE else self.now + lifetime
        first = self.granted.setdefault((home, identification), ends)
        assert ends <= first

    def take(self, effects: tuple[AgentEffect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, Forward):
                self.forwards[effect.home_address] = effect
            elif isinstance(effect, StopForwarding):
                del self.forwards[effect.home_address]

    @invariant()
    def the_deltas_add_up_to_the_bindings(self) -> None:
        if not hasattr(self, "agent"):
            return
        bound = {
            each.home_address: (each.reverse_tunnel, each.way.endpoint, each.way.udp, each.way.port)
            for each in self.agent.bindings()
        }
        assert bound == {
            home: (each.reverse_tunnel, each.endpoint, each.udp, each.port)
            for home, each in self.forwards.items()
        }

    @invariant()
    def no_binding_is_overdue_or_too_long(self) -> None:
        if not hasattr(self, "agent"):
            return
        ends = []
        for binding in self.agent.bindings():
            assert 0 < binding.lifetime <= self.policy.lifetime_max
            assert binding.care_of_address not in (HOME, OTHER_HOME, AGENT)
            # Whatever care-of address a node behind a NAT may have: packets go to where it is, and that is inside.
            assert binding.way.endpoint not in (HOME, OTHER_HOME, AGENT, OUTSIDE)
            if binding.way.endpoint == NAT != binding.care_of_address:
                assert binding.way.udp
                assert binding.lifetime <= self.policy.nat_max_lifetime
            if binding.expires is not None:
                assert binding.expires > T0.boot + self.now
                ends.append(binding.expires)
        deadline = self.agent.next_deadline()
        assert deadline is not None or not ends
        if ends and deadline is not None:
            assert deadline <= min(ends)


TestHomeAgent = HomeAgentMachine.TestCase
TestHomeAgent.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.binary(max_size=120))
def test_no_octets_upset_the_agent_or_make_it_speak(payload: bytes) -> None:
    effects = HomeAgent(POLICY, started=T0).handle(arrived(payload), after(1))
    assert not any(isinstance(each, SendReply | Forward | StopForwarding) for each in effects)


@given(st.binary(max_size=120))
def test_no_extensions_behind_the_authenticator_change_the_verdict(tail: bytes) -> None:
    agent = HomeAgent(POLICY, started=T0)
    plain = HomeAgent(POLICY, started=T0).handle(arrived(request(1)), after(1))
    tailed = agent.handle(arrived(octets(request(1)) + tail), after(1))
    if any(isinstance(each, SendReply) for each in tailed):
        assert tailed == plain
    else:
        assert agent.bindings() == ()
