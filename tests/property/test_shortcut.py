# SPDX-License-Identifier: GPL-2.0-or-later
"""The shortcut for plain requests changes nothing: an agent with it and one without do the same, whatever comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import count, product

import pytest
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
from homeward.agents.grants import spelled_out
from homeward.agents.home_agent import HomeAgent, Node
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.policy import AgentPolicy, ReverseTunnels
from homeward.agents.shortcut import Shortcut
from homeward.model.inputs import DeadlinePassed
from homeward.model.nat_traversal import UdpTunnelCode, UdpTunnelReply, UdpTunnelRequest
from homeward.model.profile import ReplayStyle
from homeward.model.registration import (
    LIFETIME_INFINITE,
    AuthenticationAlgorithm,
    RegistrationReply,
    RequestFlags,
    Spi,
)
from homeward.model.revocation import RevocationSupport
from homeward.wire import authenticator, plain_registration, registration, relay, udp_tunnel
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
tunnels = st.none() | st.builds(
    UdpTunnelRequest,
    force=st.sampled_from([False, False, False, True]),
    through_foreign_agent=st.booleans(),
    kind=st.sampled_from([0, 0, 4, 47, 55, 99]),
)
supports = st.none() | st.builds(RevocationSupport, st.integers(0, (1 << 32) - 1), inform=st.booleans())


ODDITIES: dict[str, dict[str, object]] = {
    "at another home address": {"home_address": OTHER_HOME},
    "of a node with nonces": {"home_address": HOMES[2]},
    "of nobody": {"home_address": HOMES[3]},
    "of whoever has the name": {"home_address": HOMES[4], "nai": "roamer@example.test"},
    "with a name": {"nai": "other@example.test"},
    "for another agent": {"home_agent": ELSEWHERE},
    "an end": {"lifetime": 0},
    "short": {"lifetime": 1},
    "for ever": {"lifetime": LIFETIME_INFINITE},
    "early": {"skew": 3.0},
    "late": {"skew": -3.0},
    "much too late": {"skew": -30.0},
    "without a reverse tunnel": {"flags": RequestFlags.DECAPSULATE_SELF},
    "of a foreign agent's guest": {"flags": RequestFlags.REVERSE_TUNNEL},
    "with GRE": {"flags": D_T | RequestFlags.GRE},
    "with minimal encapsulation": {"flags": D_T | RequestFlags.MINIMAL},
    "beside others": {"flags": D_T | RequestFlags.SIMULTANEOUS},
    "with broadcasts": {"flags": D_T | RequestFlags.BROADCAST},
    "with a reserved flag": {"flags": D_T | RequestFlags.RESERVED_X},
    "through a NAT": {"source": NAT},
    "from the NAT": {"care_of_address": NAT, "source": NAT},
    "relayed": {"source": FOREIGN_AGENT},
    "from the foreign agent": {"care_of_address": FOREIGN_AGENT, "source": FOREIGN_AGENT},
    "from elsewhere": {"source": ELSEWHERE},
    "from home": {"care_of_address": HOME, "source": HOME},
    "from another's home": {"care_of_address": OTHER_HOME, "source": OTHER_HOME},
    "from a pool": {"care_of_address": POOL[1], "source": POOL[1]},
    "from ourselves": {"care_of_address": AGENT, "source": AGENT},
    "from nowhere": {"care_of_address": HOMES[4], "source": HOMES[4]},
    "from this host": {"care_of_address": IPv4Address("127.0.0.1"), "source": IPv4Address("127.0.0.1")},
    "from many": {"care_of_address": IPv4Address("224.0.0.9"), "source": IPv4Address("224.0.0.9")},
    "from outside": {"care_of_address": OUTSIDE, "source": OUTSIDE},
    "by another interface": {"interface": "outside"},
    "by the home link": {"interface": "home"},
    "broadcast": {"unicast": False},
    "forged": {"key": FORGER.key},
    "under another index": {"spi": Spi(0x999)},
    "relayed with proof": {"tail": b"proof"},
    "padded": {"tail": b"\0"},
    "with more behind": {"tail": bytes.fromhex("920101")},
    "said twice": {"times": 2},
    "with a tunnel forced": {"tunnel": UdpTunnelRequest(force=True)},
    "with a tunnel of GRE": {"tunnel": UdpTunnelRequest(kind=47)},
    "with a tunnel past the foreign agent": {"tunnel": UdpTunnelRequest(through_foreign_agent=True)},
    "with a tunnel, and damaged there": {"tunnel": UdpTunnelRequest(), "reserved": 1},
    "with a tunnel through a NAT": {"tunnel": UdpTunnelRequest(), "source": NAT},
    "with a tunnel to a foreign agent": {"tunnel": UdpTunnelRequest(), "flags": RequestFlags(0)},
}
OF_DATAGRAM = ("source", "interface", "unicast")


def extensions_of(
    tunnel: UdpTunnelRequest | None, support: RevocationSupport | None, reserved: int = 0
) -> list[Extension]:
    """What a mobile node says of tunnels in UDP and of revocation, in its order."""
    wish, said = udp_tunnel.encode_request(tunnel), encode_support(support)
    asked = [Extension(wish[0], wish[3:-1] + bytes([reserved]), sub_type=0)] if wish else []
    return asked + ([Extension(said[0], said[2:])] if said else [])


def datagram(
    now: float,
    algorithm: AuthenticationAlgorithm = AuthenticationAlgorithm.HMAC_SHA256,
    support: RevocationSupport | None = None,
    tunnel: UdpTunnelRequest | None = None,
    care_of: IPv4Address = CARE_OF,
    oddities: Iterable[str] = (),
) -> RequestArrived:
    """A plain request, but for what is odd about it."""
    odd = {name: value for each in oddities for name, value in ODDITIES[each].items()}
    association = KEYS[algorithm]
    association = replace(
        association, key=odd.pop("key", association.key), spi=odd.pop("spi", association.spi)
    )
    tail, times, skew = odd.pop("tail", b""), odd.pop("times", 1), odd.pop("skew", 0.0)
    odd_tunnel, reserved = odd.pop("tunnel", tunnel), odd.pop("reserved", 0)
    around = {"source": care_of} | {name: odd.pop(name) for name in OF_DATAGRAM if name in odd}
    asked = request(**{"identification": stamp(now + skew), "care_of_address": care_of, **odd})
    wishes = extensions_of(odd_tunnel, support, reserved) * times
    payload = octets(asked, association, covered=wishes)
    if tail == b"proof":
        payload = authenticator.authenticate(payload, FOREIGN_SA, by=relay.FOREIGN_HOME)
    else:
        payload += tail
    return arrived(payload, **around)


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
            policy, shortcut._reader, shortcut._stamps, shortcut._ledger, is_home=shortcut._is_home
        )

    def handle(self, arrived: AgentInput, seconds: float) -> None:
        at = after(seconds)
        done = self.with_it.handle(arrived, at)
        assert done == self.without.handle(arrived, at)


class TwinsMachine(RuleBasedStateMachine):
    """Requests that are plain, or nearly so, in every order."""

    @initialize(policy=policies)
    def start(self, policy: AgentPolicy) -> None:
        self.twins = Twins(policy)
        self.now = 1.0
        self.sent: list[RequestArrived] = []

    @rule(
        algorithm=st.sampled_from(AuthenticationAlgorithm),
        support=supports,
        tunnel=tunnels,
        care_of=st.sampled_from([CARE_OF, ELSEWHERE]),
        oddities=st.sets(st.sampled_from(sorted(ODDITIES)), max_size=2),
    )
    def ask(
        self,
        algorithm: AuthenticationAlgorithm,
        support: RevocationSupport | None,
        tunnel: UdpTunnelRequest | None,
        care_of: IPv4Address,
        oddities: set[str],
    ) -> None:
        self.arrive(datagram(self.now, algorithm, support, tunnel, care_of, oddities))

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


@pytest.mark.parametrize("odd", sorted(ODDITIES))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"networks": replace(NETWORKS, prefixes=(IPv4Network("0.0.0.0/0"),))},
        {"foreign_agents": WITH_FOREIGN_AGENT.foreign_agents},
        {"revocation": False},
        {"lifetime_max": 60},
        {"home_link": "home"},
        *({"reverse_tunnels": each} for each in ReverseTunnels),
    ],
    ids=lambda changes: next(iter(changes), "plain"),
)
def test_each_oddity_alone(odd: str, changes: dict[str, object]) -> None:
    policy = replace(POLICY, **{"networks": NETWORKS, "nodes": NODES, **changes})  # type: ignore[arg-type]
    for tunnel, support in ((None, None), (UdpTunnelRequest(), RevocationSupport(0x1000))):
        twins = Twins(policy)
        for now, oddities in ((1.0, [odd]), (20.0, []), (30.0, [odd]), (30.0, [odd]), (40.0, [])):
            twins.handle(datagram(now, support=support, tunnel=tunnel, oddities=oddities), now)
            assert twins.with_it.bindings() == twins.without.bindings()
        twins.handle(Drain(True), 50.0)
        twins.handle(datagram(51.0, oddities=[odd]), 51.0)


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
    tunnels,
    supports,
    st.sampled_from(AuthenticationAlgorithm),
    st.binary(max_size=8),
)
def test_what_is_read_is_what_the_codec_reads(asked, tunnel, support, algorithm, tail) -> None:  # type: ignore[no-untyped-def]
    payload = octets(asked, KEYS[algorithm], covered=extensions_of(tunnel, support)) + tail
    plain = plain_registration.read(payload)
    assert (plain is None) == (bool(tail) or (tunnel is not None and tunnel.force))
    if plain is not None:
        decoded = registration.decode(payload)
        assert isinstance(decoded, DecodedRequest)
        assert decoded.authentications == (Authentication(plain.spi, plain.authenticator, plain.covered),)
        assert decoded.unauthenticated == ()
        heard = plain.revocable
        message = decoded.message
        assert (None if message.revocation_support is None else message.revocation_support.timestamp) == heard
        assert plain.udp_tunnel == (message.udp_tunnel is not None)
        assert replace(message, revocation_support=None, udp_tunnel=None) == request(
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
    st.none() | st.just(UdpTunnelRequest()),
    st.sampled_from(AuthenticationAlgorithm),
)
def test_what_is_written_is_what_the_codec_writes(
    lifetime: int,
    revocable: int | None,
    tunnel: UdpTunnelRequest | None,
    algorithm: AuthenticationAlgorithm,
) -> None:
    payload = octets(request(1), KEYS[algorithm], covered=extensions_of(tunnel, None))
    asked = plain_registration.read(payload)
    assert asked is not None
    reply = RegistrationReply(
        0,
        lifetime,
        home_address=HOME,
        home_agent=AGENT,
        identification=stamp(1),
        trusted_networks_configured=True,
        udp_tunnel=None if tunnel is None else UdpTunnelReply(UdpTunnelCode.DECLINED),
        revocation_support=None if revocable is None else RevocationSupport(revocable),
    )
    key = KEYS[algorithm].key.reveal()
    written = plain_registration.accept(asked, key, algorithm, lifetime=lifetime, revocable=revocable)
    assert written == registration.encode_reply(reply, KEYS[algorithm])


@pytest.mark.parametrize("home_link", [None, "home"])
def test_a_batch_is_decided_as_one_request_after_the_other(home_link: str | None) -> None:
    policy = replace(POLICY, networks=NETWORKS, nodes=NODES, home_link=home_link)
    one, other = (HomeAgent(policy, started=T0, entropy=count(1000).__next__) for _ in range(2))
    for now in (1.0, 2.0, 400.0):
        batch = [datagram(now), datagram(now, oddities=["forged"]), datagram(now + 0.1, care_of=ELSEWHERE)]
        batch += [datagram(now + 0.2, oddities=[odd]) for odd in ("an end", "for another agent", "short")]
        batch += [datagram(now + 0.3), batch[0]]
        at = after(now + 0.5)
        told = [each for effect in one.handle_all(batch, at) for each in spelled_out((effect,))]
        assert told == [each for arrived in batch for each in other.handle(arrived, at)]
        assert one.bindings() == other.bindings()


def test_a_plain_request_takes_it() -> None:
    shortcut = Twins(replace(POLICY, nodes=NODES)).with_it._shortcut
    moments = count(1.0)
    for key in KEYS.values():
        for tunnel, support in product((None, UdpTunnelRequest()), (None, RevocationSupport(5))):
            now = next(moments)
            asked = request(now, udp_tunnel=tunnel, revocation_support=support)
            payload = registration.encode_request(asked, key)
            assert shortcut.grant(arrived(payload), after(now)) is not None
