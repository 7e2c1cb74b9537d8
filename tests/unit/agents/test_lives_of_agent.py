# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent wants remembered, how its next life goes on from that, and what changes while it lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import count

import pytest

from homeward.agents.agent_events import (
    AgentEffect,
    BindingChanged,
    Change,
    Drain,
    Finding,
    Forward,
    ProxyHomeAddress,
    Refused,
    ReleaseHomeAddress,
    Remember,
    RevocationEnded,
    RevokeBinding,
    RevokeNode,
    SendReply,
    SendRevocation,
    StopForwarding,
)
from homeward.agents.home_agent import AgentPolicy, HomeAgent, Node
from homeward.agents.replay import floor_at
from homeward.model.agent_memory import Memory
from homeward.model.errors import ProfileError
from homeward.model.inputs import DeadlinePassed
from homeward.model.instant import Instant
from homeward.model.nat_traversal import UdpTunnelRequest
from homeward.model.profile import ReplayStyle
from homeward.model.registration import LIFETIME_INFINITE, ReplyCode
from homeward.model.relay import ForeignToHome
from homeward.model.revocation import RevocationAcknowledgment, RevocationSupport
from homeward.model.secret import Secret
from homeward.wire import authenticator, revocation, udp_tunnel
from homeward.wire.decoded import DecodedRevocation
from homeward.wire.echo import Echo, encode_echo
from homeward.wire.extensions import ExtensionType
from tests.unit.agents.scene import (
    AGENT,
    CARE_OF,
    ELSEWHERE,
    FOREIGN_AGENT,
    FOREIGN_SA,
    HOME,
    NAT,
    OLD_SA,
    OTHER_HOME,
    OTHER_SA,
    POLICY,
    SA,
    T0,
    WITH_FOREIGN_AGENT,
    after,
    agent,
    arrived,
    by_foreign_agent,
    co_located,
    forward_in,
    none,
    octets,
    only,
    refused_in,
    relayed,
    reply_in,
    request,
    stamp,
)

ABLE = RevocationSupport(0x1000)
LATER = Instant(boot=17.0, wall=T0.wall + 100)  # another boot, whose clock began anew
ROAMER = "roamer@example.test"
ROAMER_SA = replace(SA, spi=SA.spi + 0x300)
POOL = IPv4Network("10.77.0.64/29")
WITH_ROAMER = replace(
    POLICY, nodes=(*POLICY.nodes, Node("roamer", None, ROAMER_SA, nai=ROAMER, home_addresses=POOL))
)


def memory_in(effects: Sequence[AgentEffect]) -> Memory:
    return only(effects, Remember).memory


def bound(policy: AgentPolicy = POLICY, **changes: object) -> tuple[HomeAgent, Memory]:
    home_agent = HomeAgent(policy, started=T0)
    effects = home_agent.handle(arrived(co_located(1, revocation_support=ABLE, **changes)), after(1))
    assert reply_in(effects).is_success
    return home_agent, memory_in(effects)


def next_life(memories: Sequence[Memory], at: Instant = LATER, policy: AgentPolicy = POLICY) -> HomeAgent:
    home_agent = HomeAgent(policy, started=at, floor=None)
    home_agent.restore(memories, at)
    return home_agent


def asked_at(at: Instant, **changes: object) -> bytes:
    return co_located(at.wall - T0.wall, **changes)


# --- what is to be remembered ---


def test_everything_that_follows_from_a_request_comes_behind_what_is_to_be_remembered() -> None:
    home_agent = agent()
    for number, changes in enumerate(({}, {"care_of_address": ELSEWHERE}, {"lifetime": 0}), 1):
        asked = request(number, **changes)
        effects = home_agent.handle(arrived(asked, source=asked.care_of_address), after(number))
        assert [type(each) for each in effects].index(Remember) == 0
        memory = memory_in(effects)
        assert (memory.identity, memory.stamp) == (str(HOME), asked.identification)


def test_a_binding_is_remembered_by_the_clock_that_every_boot_has() -> None:
    _, memory = bound()
    kept = memory.binding
    assert kept is not None
    assert (kept.home_address, kept.care_of_address, kept.endpoint) == (HOME, CARE_OF, CARE_OF)
    assert (kept.node, kept.spi, kept.lifetime, kept.since_wall) == ("laptop", SA.spi, 300, T0.wall + 1)
    assert kept.revocation is not None
    assert (kept.revocation.spi, kept.revocation.heard) == (SA.spi, ABLE.timestamp)


def test_an_end_is_remembered_with_the_stamp_that_stays() -> None:
    home_agent, memory = bound()
    for ended in (
        home_agent.handle(RevokeBinding(HOME), after(2)),
        bound()[0].handle(DeadlinePassed(), after(400)),
        bound()[0].handle(RevokeNode("laptop"), after(2)),
    ):
        assert memory_in(ended) == Memory(str(HOME), memory.stamp, None)
        kinds = [type(each) for each in ended]
        assert kinds.index(Remember) < kinds.index(StopForwarding)


@pytest.mark.parametrize(
    "refused",
    [
        arrived(request(-30)),
        arrived(octets(request(2), OTHER_SA)),
        arrived(request(2), interface="outside"),
        arrived(request(2, home_agent=ELSEWHERE)),
        arrived(co_located(1, revocation_support=ABLE)),
    ],
    ids=["stale", "forged", "outside", "denied", "the same again"],
)
def test_nothing_is_remembered_of_what_changed_nothing(refused: object) -> None:
    home_agent, _ = bound()
    assert none(home_agent.handle(refused, after(2)), Remember)  # type: ignore[arg-type]


def test_nonces_are_not_remembered_but_bindings_are() -> None:
    nodes = (Node("laptop", HOME, SA, replay=ReplayStyle.NONCES),)
    home_agent = HomeAgent(replace(POLICY, nodes=nodes), started=T0, entropy=count(7).__next__)
    told = reply_in(home_agent.handle(arrived(request(1)), after(1)))
    effects = home_agent.handle(arrived(request(identification=told.identification)), after(2))
    memory = memory_in(effects)
    assert memory.stamp is None
    assert memory.binding is not None


# --- another life ---


def test_what_was_accepted_is_used_up_in_the_next_life_too() -> None:
    _, memory = bound()
    again = next_life([memory], after(3))
    effects = again.handle(arrived(co_located(1, revocation_support=ABLE)), after(3))
    assert reply_in(effects).code == ReplyCode.IDENTIFICATION_MISMATCH
    assert again.binding(HOME) is not None


@pytest.mark.rows("R-173")
def test_stamps_between_the_last_one_and_the_start_are_fresh_where_memory_is_exact() -> None:
    _, memory = bound()
    for floor, code in ((None, 0), (floor_at(after(4)), 133), ("started", 133)):
        again = HomeAgent(POLICY, started=after(4), floor=floor)  # type: ignore[arg-type]
        again.restore([memory], after(4))
        assert reply_in(again.handle(arrived(request(2)), after(4))).code == code


def test_a_floor_ahead_of_the_clock_refuses_up_to_itself() -> None:
    again = HomeAgent(POLICY, started=after(0), floor=stamp(3))
    assert refused_in(again.handle(arrived(request(1)), after(1))).finding is Finding.STALE
    assert refused_in(again.handle(arrived(request(3)), after(3))).finding is Finding.STALE
    assert reply_in(again.handle(arrived(request(3.5)), after(3.5))).is_success


def test_a_binding_goes_on_with_what_is_left_of_it() -> None:
    before, memory = bound()
    again = HomeAgent(POLICY, started=LATER, floor=None)
    effects = again.restore([memory], LATER)
    assert [type(each) for each in effects] == [Forward]
    assert forward_in(effects) == Forward(HOME, CARE_OF, reverse_tunnel=True)
    left = 300 - (LATER.wall - (T0.wall + 1))
    assert only(effects, Forward).expires == again.next_deadline() == LATER.boot + left
    (old,), (new,) = before.bindings(), again.bindings()
    assert replace(new, since=old.since) == old


def test_the_home_link_is_answered_for_again() -> None:
    policy = replace(POLICY, home_link="home")
    _, memory = bound(policy)
    effects = HomeAgent(policy, started=LATER).restore([memory], LATER)
    assert effects[1] == ProxyHomeAddress(HOME)


def test_a_binding_without_end_has_none() -> None:
    policy = replace(POLICY, lifetime_max=LIFETIME_INFINITE)
    _, memory = bound(policy, lifetime=LIFETIME_INFINITE)
    again = next_life([memory], Instant(3.0, T0.wall + 1e9), policy)
    assert again.next_deadline() is None
    assert again.binding_count() == 1


def test_a_clock_that_was_put_back_gives_nobody_more_time() -> None:
    _, memory = bound()
    again = next_life([memory], Instant(50.0, T0.wall - 86400))
    assert again.next_deadline() == 350.0


@pytest.mark.parametrize("seconds", [301.0, 5000.0])
def test_what_ended_meanwhile_stays_ended_and_its_stamp_used(seconds: float) -> None:
    _, memory = bound()
    at = Instant(20.0, T0.wall + seconds)
    again = HomeAgent(POLICY, started=at, floor=None)
    assert again.restore([memory], at) == (Remember(replace(memory, binding=None)),)
    assert again.next_deadline() is None
    assert again._time_stamps.stamp(int(HOME)) == memory.stamp


def test_of_a_node_that_is_served_no_more_the_stamp_alone_stays() -> None:
    _, memory = bound()
    without = replace(POLICY, nodes=POLICY.nodes[2:])
    again = HomeAgent(without, started=after(2), floor=None)
    assert again.restore([memory], after(2)) == (Remember(replace(memory, binding=None)),)
    again.adopt(POLICY, after(3))
    effects = again.handle(arrived(co_located(1, revocation_support=ABLE)), after(3))
    assert refused_in(effects).finding is Finding.STALE


def test_a_node_keeps_the_address_that_it_was_given() -> None:
    home_agent = HomeAgent(WITH_ROAMER, started=T0)
    asked = request(1, home_address=IPv4Address(0), nai=ROAMER)
    effects = home_agent.handle(arrived(octets(asked, ROAMER_SA)), after(1))
    given = reply_in(effects, ROAMER_SA).home_address
    memory = memory_in(effects)
    assert (memory.identity, given in POOL) == (ROAMER, True)
    again = next_life([memory], LATER, WITH_ROAMER)
    assert again.binding(given) is not None
    later = request(LATER.wall - T0.wall, home_address=IPv4Address(0), nai=ROAMER)
    renewed = again.handle(arrived(octets(later, ROAMER_SA)), LATER)
    assert reply_in(renewed, ROAMER_SA).home_address == given
    assert only(renewed, BindingChanged).change is Change.RENEWED
    elsewhere = replace(
        WITH_ROAMER, nodes=(replace(WITH_ROAMER.nodes[-1], home_addresses=IPv4Network("10.78.0.0/29")),)
    )
    assert next_life([memory], LATER, elsewhere).binding_count() == 0


def test_a_half_bound_tunnel_can_still_be_completed() -> None:
    home_agent = HomeAgent(POLICY, started=T0)
    wish = UdpTunnelRequest(through_foreign_agent=True)
    memory = memory_in(home_agent.handle(arrived(co_located(1, udp_tunnel=wish), source=NAT), after(1)))
    again = next_life([memory], after(10))
    keepalive = udp_tunnel.wrap(encode_echo(Echo(HOME, AGENT, 1, 1)))
    effects = again.handle(arrived(keepalive, source=NAT, source_port=777), after(10))
    assert forward_in(effects).port == 777
    kept = memory_in(effects).binding
    assert kept is not None
    assert (kept.udp, kept.port) == (True, 777)
    (completed,) = next_life([memory_in(effects)], after(11)).bindings()
    assert completed.way.port == 777


def test_a_binding_of_the_life_before_can_be_revoked_under_its_key() -> None:
    _, memory = bound()
    again = next_life([memory])
    sent = only(again.handle(RevokeBinding(HOME), LATER), SendRevocation)
    assert (sent.destination, sent.port) == (CARE_OF, 434)
    decoded = revocation.decode(sent.octets)
    assert isinstance(decoded, DecodedRevocation)
    assert authenticator.verify(sent.octets, decoded, SA)


def test_a_foreign_agent_of_the_life_before_is_told_of_an_end() -> None:
    home_agent = HomeAgent(WITH_FOREIGN_AGENT, started=T0)
    part = ForeignToHome(revocation_support=RevocationSupport(7, inform=True))
    memory = memory_in(home_agent.handle(relayed(by_foreign_agent(1), part), after(1)))
    again = next_life([memory], LATER, WITH_FOREIGN_AGENT)
    moved = again.handle(arrived(asked_at(LATER)), LATER)
    sent = only(moved, SendRevocation)
    decoded = revocation.decode(sent.octets)
    by = ExtensionType.FOREIGN_HOME_AUTHENTICATION
    assert sent.destination == FOREIGN_AGENT
    assert authenticator.verify(sent.octets, decoded, FOREIGN_SA, by=by)
    # Where its key is gone, nobody can tell it anything.
    assert none(next_life([memory]).handle(RevokeBinding(HOME), LATER), SendRevocation)


# --- another policy ---


def test_a_reload_loses_nothing() -> None:
    home_agent, _ = bound()
    before = home_agent.bindings()
    assert home_agent.adopt(replace(POLICY, lifetime_max=60, nodes=POLICY.nodes[:1]), after(2)) == ()
    assert home_agent.bindings() == before
    again = home_agent.handle(arrived(co_located(1, revocation_support=ABLE)), after(2))
    assert reply_in(again).is_success  # the answer that got lost, once more
    assert reply_in(home_agent.handle(arrived(request(3)), after(3))).lifetime == 60
    other = request(3, home_address=OTHER_HOME)
    effects = home_agent.handle(arrived(octets(other, OTHER_SA)), after(3))
    assert refused_in(effects).finding is Finding.UNKNOWN_ASSOCIATION


@pytest.mark.parametrize(
    "nodes",
    [
        (Node("laptop", HOME, OLD_SA),),
        (Node("laptop", HOME, replace(SA, key=Secret(bytes(range(7, 39))))), Node("laptop", HOME, OLD_SA)),
        (Node("laptop", OTHER_HOME, SA),),
        (),
    ],
    ids=["key gone", "another key", "another address", "node gone"],
)
def test_what_rests_on_a_key_that_is_gone_ends_and_is_revoked_under_it(nodes: tuple[Node, ...]) -> None:
    home_agent, memory = bound()
    effects = home_agent.adopt(replace(POLICY, nodes=nodes), after(2))
    assert [type(each) for each in effects] == [Remember, StopForwarding, BindingChanged, SendRevocation]
    assert memory_in(effects) == replace(memory, binding=None)
    sent = only(effects, SendRevocation)
    assert authenticator.verify(sent.octets, revocation.decode(sent.octets), SA)
    assert home_agent.bindings() == ()


def test_a_policy_that_cannot_be_used_changes_nothing() -> None:
    home_agent, _ = bound()
    before = home_agent.bindings()
    for unusable in (
        replace(POLICY, nodes=(Node("a", HOME, SA), Node("b", HOME, SA))),
        replace(POLICY, nodes=(Node("a", HOME, SA, replay=ReplayStyle.NONCES),)),
        replace(POLICY, address=ELSEWHERE),
        replace(POLICY, home_link="home"),
    ):
        with pytest.raises(ProfileError):
            home_agent.adopt(unusable, after(2))
    assert home_agent.bindings() == before
    assert reply_in(home_agent.handle(arrived(request(3)), after(3))).is_success


def test_a_new_tolerance_and_new_foreign_agents_count_at_once() -> None:
    home_agent, _ = bound()
    home_agent.adopt(replace(WITH_FOREIGN_AGENT, timestamp_tolerance=100.0), after(2))
    assert reply_in(home_agent.handle(arrived(request(50)), after(3))).is_success
    effects = home_agent.handle(relayed(by_foreign_agent(51)), after(4))
    assert only(effects, SendReply).destination == FOREIGN_AGENT
    assert reply_in_relayed(effects)


def reply_in_relayed(effects: Sequence[AgentEffect]) -> bool:
    return only(effects, SendReply).octets[1] == ReplyCode.ACCEPTED


# --- a node that is trusted no more ---


def test_a_lost_laptop() -> None:
    policy = replace(POLICY, home_link="home")
    home_agent, _ = bound(policy)
    effects = home_agent.handle(RevokeNode("laptop"), after(2))
    kinds = [type(each) for each in effects]
    assert kinds == [Remember, StopForwarding, ReleaseHomeAddress, BindingChanged, SendRevocation]
    assert only(effects, BindingChanged).change is Change.REVOKED
    for key in (SA, OLD_SA):
        silence = home_agent.handle(arrived(octets(request(3), key)), after(3))
        assert none(silence, SendReply)
        assert only(silence, Refused).finding is Finding.UNKNOWN_ASSOCIATION
    assert home_agent.handle(RevokeNode("laptop"), after(3)) == ()
    other = request(3, home_address=OTHER_HOME)
    assert reply_in(home_agent.handle(arrived(octets(other, OTHER_SA)), after(3)), OTHER_SA).is_success


def test_its_revocation_is_repeated_and_acknowledged_under_the_key_that_is_gone() -> None:
    home_agent, _ = bound()
    home_agent.handle(RevokeNode("laptop"), after(2))
    sent = only(home_agent.handle(DeadlinePassed(), after(3.1)), SendRevocation)
    decoded = revocation.decode(sent.octets)
    assert isinstance(decoded, DecodedRevocation)
    answer = RevocationAcknowledgment(HOME, identifier=decoded.message.identifier)
    effects = home_agent.handle(arrived(revocation.encode(answer, SA)), after(3.2))
    assert only(effects, RevocationEnded).acknowledged


def test_a_key_that_comes_back_replays_nothing() -> None:
    home_agent, _ = bound()
    stolen = arrived(co_located(1, revocation_support=ABLE))
    home_agent.handle(RevokeNode("laptop"), after(2))
    home_agent.adopt(POLICY, after(3))
    assert refused_in(home_agent.handle(stolen, after(3))).finding is Finding.STALE
    assert reply_in(home_agent.handle(arrived(request(4)), after(4))).is_success


def test_a_roamer_can_be_lost_too() -> None:
    home_agent = HomeAgent(WITH_ROAMER, started=T0)
    asked = octets(request(1, home_address=IPv4Address(0), nai=ROAMER), ROAMER_SA)
    home_agent.handle(arrived(asked), after(1))
    effects = home_agent.handle(RevokeNode("roamer"), after(2))
    assert memory_in(effects).identity == ROAMER
    assert only(effects, StopForwarding).home_address in POOL


def test_nobody_of_that_name() -> None:
    home_agent, _ = bound()
    assert home_agent.handle(RevokeNode("lapto"), after(2)) == ()
    assert home_agent.binding_count() == 1


# --- drain, and keys that are retired ---


@pytest.mark.rows("R-221")
def test_a_drained_agent_makes_no_new_bindings_and_keeps_the_old_ones() -> None:
    home_agent, _ = bound()
    assert home_agent.handle(Drain(True), after(2)) == ()
    other = arrived(octets(request(3, home_address=OTHER_HOME), OTHER_SA))
    effects = home_agent.handle(other, after(3))
    assert reply_in(effects, OTHER_SA).code == ReplyCode.INSUFFICIENT_RESOURCES
    assert refused_in(effects).finding is Finding.DRAINING
    assert none(effects, Forward, Remember)
    moved = request(4, care_of_address=ELSEWHERE)
    assert reply_in(home_agent.handle(arrived(moved, source=ELSEWHERE), after(4))).is_success
    assert reply_in(home_agent.handle(arrived(request(5, lifetime=0)), after(5))).is_success
    assert (
        reply_in(home_agent.handle(arrived(request(6)), after(6))).code == 130 or home_agent.binding_count()
    )
    home_agent.handle(Drain(False), after(7))
    assert reply_in(home_agent.handle(replace(other), after(7)), OTHER_SA).is_success


def test_a_forger_learns_nothing_of_a_drain() -> None:
    home_agent = agent()
    home_agent.handle(Drain(True), after(1))
    forged = octets(request(2), replace(SA, key=Secret(bytes(32))))
    assert none(home_agent.handle(arrived(forged), after(2)), SendReply)


@pytest.mark.rows("R-221")
def test_nothing_new_rests_on_a_retired_key() -> None:
    home_agent, _ = bound()
    nodes = (replace(POLICY.nodes[0], retired=True), *POLICY.nodes[1:])
    assert home_agent.adopt(replace(POLICY, nodes=nodes), after(2)) == ()
    effects = home_agent.handle(arrived(request(3)), after(3))
    assert reply_in(effects).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert refused_in(effects).finding is Finding.RETIRED_ASSOCIATION
    assert home_agent.binding_count() == 1
    renewed = home_agent.handle(arrived(octets(request(4), OLD_SA)), after(4))
    assert reply_in(renewed, OLD_SA).is_success
    ended = home_agent.handle(arrived(request(5, lifetime=0)), after(5))
    assert reply_in(ended).is_success
    assert home_agent.binding_count() == 0
