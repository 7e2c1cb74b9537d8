# SPDX-License-Identifier: GPL-2.0-or-later
"""The shortcut for plain requests changes nothing: an agent with it and one without do the same, whatever comes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from homeward.agents.agent_events import (
    AgentInput,
    Drain,
    RequestArrived,
    RevokeBinding,
    RevokeNode,
)
from homeward.agents.home_agent import HomeAgent, Node
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.policy import AgentPolicy, ReverseTunnels
from homeward.agents.shortcut import Shortcut
from homeward.model.inputs import DeadlinePassed
from homeward.model.profile import ReplayStyle
from homeward.model.registration import (
    LIFETIME_INFINITE,
    AuthenticationAlgorithm,
    RegistrationReply,
    RequestFlags,
    Spi,
)
from homeward.model.revocation import RevocationSupport
from homeward.wire import authenticator, plain_registration, registration, relay
from homeward.wire.decoded import Authentication, DecodedRequest
from homeward.wire.extensions import Extension
from homeward.wire.revocation_support import encode_support
from tests.unit.agents.scene import (
    AGENT,
    CARE_OF,
    D_T,
    ELSEWHERE,
    FOREIGN_AGENT,
    FOREIGN_SA,
    FORGER,
    HOME,
    INSIDE,
    NAT,
    OTHER_HOME,
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

POOL = IPv4Network("10.77.0.64/29")
HOMES = (HOME, OTHER_HOME, IPv4Address("10.77.0.12"), IPv4Address("10.77.0.13"), IPv4Address("0.0.0.0"))
KEYS = {
    algorithm: replace(SA, spi=Spi(0x400 + number), algorithm=algorithm)
    for number, algorithm in enumerate(AuthenticationAlgorithm)
}
NODES = (
    *(Node("laptop", HOME, key) for key in KEYS.values()),
    *(Node("old", OTHER_HOME, key, retired=True) for key in list(KEYS.values())[:2]),
    *(Node("other", OTHER_HOME, key, nai="other@example.test") for key in list(KEYS.values())[2:]),
    *(Node("nonces", HOMES[2], key, replay=ReplayStyle.NONCES) for key in KEYS.values()),
    *(Node("roamer", None, key, nai="roamer@example.test", home_addresses=POOL) for key in KEYS.values()),
)
NETWORKS = TrustedNetworks(
    frozenset({INSIDE}), (IPv4Network("10.1.0.0/16"), IPv4Network("10.77.0.0/24")), frozenset({NAT})
)
policies = st.builds(
    lambda base, tunnels, revocation, most, home_link: replace(
        base,
        networks=NETWORKS,
        nodes=NODES,
        reverse_tunnels=tunnels,
        revocation=revocation,
        lifetime_max=most,
        home_link=home_link,
    ),
    st.sampled_from([POLICY, WITH_FOREIGN_AGENT]),
    st.sampled_from([ReverseTunnels.OFFERED, *ReverseTunnels]),
    st.booleans(),
    st.sampled_from([60, 1800, LIFETIME_INFINITE]),
    st.sampled_from([None, None, "home"]),
)
places = st.sampled_from([CARE_OF, CARE_OF, CARE_OF, ELSEWHERE, NAT, FOREIGN_AGENT, HOME, POOL[1], OUTSIDE])
mostly_plain = st.sampled_from([D_T, D_T, D_T, RequestFlags.DECAPSULATE_SELF]) | st.integers(0, 255).map(
    RequestFlags
)
supports = st.none() | st.builds(RevocationSupport, st.integers(0, (1 << 32) - 1), inform=st.booleans())


class Without(Shortcut):
    """Grants nothing."""

    def grant(self, arrived: object, at: object) -> None:
        """Leave it to the agent."""


class Twins:
    """Two agents to which the same happens."""

    def __init__(self, policy: AgentPolicy) -> None:
        self.with_it, self.without = (
            HomeAgent(policy, started=T0, entropy=count(1000).__next__) for _ in range(2)
        )
        shortcut = self.without._shortcut
        self.without._shortcut = Without(
            policy, shortcut._reader, shortcut._stamps, is_home=shortcut._is_home
        )

    def handle(self, arrived: AgentInput, seconds: float) -> None:
        done = self.with_it.handle(arrived, after(seconds))
        assert done == self.without.handle(arrived, after(seconds))


class TwinsMachine(RuleBasedStateMachine):
    """Requests that are plain, or nearly so, in every order."""

    @initialize(policy=policies)
    def start(self, policy: AgentPolicy) -> None:
        self.twins = Twins(policy)
        self.now = 1.0
        self.sent: list[RequestArrived] = []

    @rule(
        home=st.sampled_from([HOME, HOME, *HOMES]),
        care_of=places,
        source=st.none() | st.none() | places,
        lifetime=st.sampled_from([0, 1, 300, 1800, LIFETIME_INFINITE]),
        algorithm=st.sampled_from(AuthenticationAlgorithm),
        forged=st.sampled_from([False, False, False, True]),
        skew=st.sampled_from([0.0, 0.0, 0.0, -3.0, 3.0, -30.0]),
        flags=mostly_plain,
        nai=st.none() | st.none() | st.sampled_from(["other@example.test", "roamer@example.test"]),
        agent=st.sampled_from([AGENT, AGENT, AGENT, ELSEWHERE]),
        support=supports,
        odd=st.sampled_from(["", "", "", "", "broadcast", "outside", "relayed", "padded", "twice"]),
    )
    def ask(  # type: ignore[no-untyped-def]
        self, home, care_of, source, lifetime, algorithm, forged, skew, flags, nai, agent, support, odd
    ) -> None:
        key = replace(KEYS[algorithm], key=FORGER.key) if forged else KEYS[algorithm]
        asked = request(
            home_address=home,
            home_agent=agent,
            care_of_address=care_of,
            lifetime=lifetime,
            identification=stamp(self.now + skew),
            flags=flags,
            nai=nai,
        )
        said = encode_support(support)
        wishes = [Extension(said[0], said[2:])] if said else []
        payload = octets(asked, key, covered=wishes * 2 if odd == "twice" else wishes)
        if odd == "relayed":
            payload = authenticator.authenticate(payload, FOREIGN_SA, by=relay.FOREIGN_HOME)
        self.arrive(
            arrived(
                payload + b"\0" * (odd == "padded"),
                source=source or care_of,
                interface="outside" if odd == "outside" else INSIDE,
                unicast=odd != "broadcast",
            )
        )

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def replay_or_damage(self, data: st.DataObject) -> None:
        again = data.draw(st.sampled_from(self.sent))
        damaged = bytearray(again.octets)
        if data.draw(st.booleans()):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
        self.arrive(replace(again, octets=bytes(damaged)))

    @rule(
        order=st.sampled_from(
            [RevokeBinding(HOME), RevokeNode("other"), Drain(True), Drain(False), DeadlinePassed()]
        )
    )
    def order(self, order: AgentInput) -> None:
        self.twins.handle(order, self.now)

    @rule(seconds=st.sampled_from([0.25, 1.0, 10.0, 301.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def arrive(self, datagram: RequestArrived) -> None:
        self.sent.append(datagram)
        self.twins.handle(datagram, self.now)

    @invariant()
    def they_hold_the_same(self) -> None:
        if hasattr(self, "twins"):
            assert self.twins.with_it.bindings() == self.twins.without.bindings()
            assert self.twins.with_it.next_deadline() == self.twins.without.next_deadline()


TestShortcut = TwinsMachine.TestCase
TestShortcut.settings = settings(max_examples=80, stateful_step_count=40)


@given(
    st.builds(
        lambda lifetime, flags, care_of, seconds: request(
            seconds, lifetime=lifetime, flags=RequestFlags(flags), care_of_address=care_of
        ),
        st.integers(0, 0xFFFF),
        st.integers(0, 255),
        st.ip_addresses(v=4),
        st.floats(0, 1e6),
    ),
    supports,
    st.sampled_from(AuthenticationAlgorithm),
    st.binary(max_size=8),
)
def test_what_is_read_is_what_the_codec_reads(asked, support, algorithm, tail) -> None:  # type: ignore[no-untyped-def]
    said = encode_support(support)
    wishes = [Extension(said[0], said[2:])] if said else []
    payload = octets(asked, KEYS[algorithm], covered=wishes) + tail
    plain = plain_registration.read(payload)
    assert (plain is None) == bool(tail)
    if plain is not None:
        decoded = registration.decode(payload)
        assert isinstance(decoded, DecodedRequest)
        assert decoded.authentications == (Authentication(plain.spi, plain.authenticator, plain.covered),)
        assert decoded.unauthenticated == ()
        heard = plain.revocable
        message = decoded.message
        assert (None if message.revocation_support is None else message.revocation_support.timestamp) == heard
        assert replace(message, revocation_support=None) == request(
            lifetime=plain.lifetime,
            flags=RequestFlags(plain.flags),
            home_address=IPv4Address(plain.home_address),
            home_agent=IPv4Address(plain.home_agent),
            care_of_address=IPv4Address(plain.care_of_address),
            identification=plain.identification,
        )


@given(st.binary(max_size=90) | st.binary(max_size=80).map(lambda rest: b"\1\x22" + rest))
def test_octets_that_are_read_can_be_decoded(payload: bytes) -> None:
    if plain_registration.read(payload) is not None:
        assert isinstance(registration.decode(payload), DecodedRequest)


@given(
    st.integers(0, 0xFFFF),
    st.none() | st.integers(0, (1 << 32) - 1),
    st.sampled_from(AuthenticationAlgorithm),
)
def test_what_is_written_is_what_the_codec_writes(
    lifetime: int, revocable: int | None, algorithm: AuthenticationAlgorithm
) -> None:
    asked = plain_registration.read(octets(request(1), KEYS[algorithm]))
    assert asked is not None
    reply = RegistrationReply(
        0,
        lifetime,
        home_address=HOME,
        home_agent=AGENT,
        identification=stamp(1),
        trusted_networks_configured=True,
        revocation_support=None if revocable is None else RevocationSupport(revocable),
    )
    key = KEYS[algorithm].key.reveal()
    written = plain_registration.accept(asked, key, algorithm, lifetime=lifetime, revocable=revocable)
    assert written == registration.encode_reply(reply, KEYS[algorithm])


def test_a_plain_request_takes_it() -> None:
    shortcut = Twins(replace(POLICY, nodes=NODES)).with_it._shortcut
    moments = count(1.0)
    for key in KEYS.values():
        for support in (None, RevocationSupport(5)):
            now = next(moments)
            payload = registration.encode_request(request(now, revocation_support=support), key)
            assert shortcut.grant(arrived(payload), after(now)) is not None
