# SPDX-License-Identifier: GPL-2.0-or-later
"""What a mobile node that is known, inside and fresh is granted and denied, rule by rule."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agents.agent_events import (
    BindingChanged,
    Change,
    Finding,
    Forward,
    Remember,
    SendReply,
    StopForwarding,
)
from homeward.agents.home_agent import HomeAgent, Node
from homeward.agents.policy import ReverseTunnels
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import ProfileError
from homeward.model.inputs import DeadlinePassed
from homeward.model.registration import (
    LIFETIME_INFINITE,
    Identification,
    RegistrationRequest,
    ReplyCode,
    RequestFlags,
)
from tests.unit.agents.scene import (
    AGENT,
    CARE_OF,
    D_T,
    ELSEWHERE,
    HOME,
    INSIDE,
    NAT,
    OTHER_HOME,
    OTHER_SA,
    POLICY,
    PORT,
    SA,
    T0,
    after,
    agent,
    arrived,
    forward_in,
    none,
    octets,
    only,
    refused_in,
    reply_in,
    request,
    stamp,
)

S = RequestFlags.SIMULTANEOUS


@pytest.mark.rows("R-197", "R-199")
def test_an_accepted_request() -> None:
    home_agent = agent()
    effects = home_agent.handle(arrived(request(1)), after(1))
    sent = only(effects, SendReply)
    assert (sent.destination, sent.port, sent.source) == (CARE_OF, PORT, AGENT)
    reply = reply_in(effects)
    assert reply.code == ReplyCode.ACCEPTED
    assert reply.lifetime == 300
    assert reply.home_address == HOME
    assert reply.home_agent == AGENT
    assert reply.identification == request(1).identification
    assert reply.trusted_networks_configured
    assert forward_in(effects) == Forward(HOME, CARE_OF, reverse_tunnel=True)
    assert [type(each) for each in effects] == [Remember, Forward, SendReply, BindingChanged]
    assert home_agent.next_deadline() == T0.boot + 301
    assert only(effects, Forward).expires == T0.boot + 301


@pytest.mark.rows("R-141", "R-196", "R-221")
@pytest.mark.parametrize(
    ("changes", "code", "finding"),
    [
        ({"home_agent": IPv4Address("10.0.0.3")}, 136, Finding.WRONG_HOME_AGENT),
        ({"home_agent": IPv4Address("10.0.0.255")}, 136, Finding.WRONG_HOME_AGENT),
        ({"home_agent": IPv4Address("0.0.0.0")}, 136, Finding.WRONG_HOME_AGENT),
        ({"home_agent": IPv4Address("255.255.255.255")}, 136, Finding.WRONG_HOME_AGENT),
        ({"flags": D_T | RequestFlags.RESERVED_R}, 134, Finding.RESERVED_BITS),
        ({"flags": D_T | RequestFlags.RESERVED_X}, 134, Finding.RESERVED_BITS),
        ({"flags": D_T | RequestFlags.RESERVED_X, "lifetime": 0}, 134, Finding.RESERVED_BITS),
        ({"flags": D_T | RequestFlags.MINIMAL}, 139, Finding.ENCAPSULATION),
        ({"flags": D_T | RequestFlags.GRE}, 139, Finding.ENCAPSULATION),
        ({"flags": D_T | RequestFlags.GRE | RequestFlags.MINIMAL}, 139, Finding.ENCAPSULATION),
        ({"care_of_address": ELSEWHERE}, 129, Finding.RELAYED),
        ({"care_of_address": ELSEWHERE, "lifetime": 0}, 129, Finding.RELAYED),
    ],
)
def test_denials(changes: dict[str, object], code: int, finding: Finding) -> None:
    home_agent = agent(encapsulations=frozenset({Encapsulation.IP_IN_IP}))
    home_agent.handle(arrived(request(1)), after(1))
    bindings = home_agent.bindings()
    effects = home_agent.handle(arrived(request(2, **changes)), after(2))
    reply = reply_in(effects)
    assert reply.code == code
    assert reply.lifetime == 0
    assert reply.home_agent == AGENT
    assert reply.identification == request(2).identification
    assert (refused_in(effects).finding, refused_in(effects).code) == (finding, code)
    assert none(effects, Forward, StopForwarding, BindingChanged)
    assert home_agent.bindings() == bindings
    # A denial uses nothing up: the corrected request with the very same time stamp is still good.
    assert reply_in(home_agent.handle(arrived(request(2)), after(2))).is_success


@pytest.mark.rows("R-221")
@pytest.mark.parametrize(
    ("stance", "flags", "code"),
    [
        (ReverseTunnels.OFFERED, D_T, 0),
        (ReverseTunnels.OFFERED, RequestFlags.DECAPSULATE_SELF, 0),
        (ReverseTunnels.MANDATORY, D_T, 0),
        (ReverseTunnels.MANDATORY, RequestFlags.DECAPSULATE_SELF, 138),
        (ReverseTunnels.REFUSED, D_T, 137),
        (ReverseTunnels.REFUSED, RequestFlags.DECAPSULATE_SELF, 0),
        # What cannot be carried at all is said first (RFC 3024 section 4.3.1).
        (ReverseTunnels.REFUSED, D_T | RequestFlags.GRE, 139),
    ],
)
def test_reverse_tunnels_are_offered_or_mandatory_or_refused(
    stance: ReverseTunnels, flags: RequestFlags, code: int
) -> None:
    home_agent = agent(reverse_tunnels=stance, encapsulations=frozenset({Encapsulation.IP_IN_IP}))
    effects = home_agent.handle(arrived(request(1, flags=flags)), after(1))
    assert reply_in(effects).code == code
    assert home_agent.binding_count() == (0 if code else 1)
    # To end a binding needs no tunnel.
    assert reply_in(home_agent.handle(arrived(request(2, flags=flags, lifetime=0)), after(2))).is_success


@pytest.mark.rows("R-221")
@pytest.mark.parametrize(
    ("flags", "offered", "carried"),
    [
        (D_T, set(), Encapsulation.IP_IN_IP),
        (D_T | RequestFlags.GRE, {Encapsulation.GRE}, Encapsulation.GRE),
        (D_T | RequestFlags.MINIMAL, {Encapsulation.MINIMAL}, Encapsulation.MINIMAL),
        (D_T | RequestFlags.MINIMAL, {Encapsulation.GRE}, None),
        (D_T | RequestFlags.GRE, {Encapsulation.MINIMAL}, None),
        (D_T | RequestFlags.GRE | RequestFlags.MINIMAL, set(Encapsulation), Encapsulation.GRE),
        (D_T | RequestFlags.GRE | RequestFlags.MINIMAL, {Encapsulation.MINIMAL}, Encapsulation.MINIMAL),
    ],
)
def test_encapsulations(
    flags: RequestFlags, offered: set[Encapsulation], carried: Encapsulation | None
) -> None:
    effects = agent(encapsulations=frozenset(offered)).handle(arrived(request(1, flags=flags)), after(1))
    if carried is None:
        assert reply_in(effects).code == ReplyCode.ENCAPSULATION_UNAVAILABLE
        assert none(effects, Forward)
    else:
        assert forward_in(effects).encapsulation is carried


@pytest.mark.parametrize(
    ("care_of", "code", "finding"),
    [
        (HOME, 134, Finding.BAD_CARE_OF_ADDRESS),
        (OTHER_HOME, 129, Finding.LOOPING_CARE_OF_ADDRESS),
        (AGENT, 129, Finding.LOOPING_CARE_OF_ADDRESS),
        (IPv4Address("0.0.0.0"), 134, Finding.BAD_CARE_OF_ADDRESS),
        (IPv4Address("224.0.0.5"), 134, Finding.BAD_CARE_OF_ADDRESS),
        (IPv4Address("255.255.255.255"), 134, Finding.BAD_CARE_OF_ADDRESS),
        (IPv4Address("127.0.0.1"), 134, Finding.BAD_CARE_OF_ADDRESS),
    ],
)
def test_nothing_is_tunnelled_where_a_tunnel_cannot_end(
    care_of: IPv4Address, code: int, finding: Finding
) -> None:
    # Even an administrator who trusts everything does not get a loop.
    networks = replace(POLICY.networks, prefixes=(IPv4Network("0.0.0.0/0"),))
    effects = agent(networks=networks).handle(
        arrived(request(1, care_of_address=care_of), source=care_of), after(1)
    )
    assert reply_in(effects).code == code
    assert refused_in(effects).finding is finding
    assert none(effects, Forward)


@pytest.mark.rows("R-196", "R-199")
def test_a_broadcast_request_learns_the_agents_address() -> None:
    broadcast = arrived(request(1), destination=IPv4Address("10.0.0.255"), unicast=False)
    effects = agent().handle(broadcast, after(1))
    reply = reply_in(effects)
    assert reply.code == ReplyCode.UNKNOWN_HOME_AGENT_ADDRESS
    assert reply.home_agent == AGENT
    assert only(effects, SendReply).source == AGENT
    assert none(effects, Forward)


@pytest.mark.rows("R-199")
def test_the_reply_comes_from_where_the_request_went() -> None:
    second = IPv4Address("10.0.0.4")
    effects = agent().handle(arrived(request(1), destination=second), after(1))
    assert only(effects, SendReply).source == second


@pytest.mark.rows("R-199")
def test_the_reply_goes_to_the_source_and_port_of_the_request() -> None:
    effects = agent().handle(arrived(request(1), source_port=1), after(1))
    assert only(effects, SendReply).port == 1


@pytest.mark.rows("R-197", "R-204")
@pytest.mark.parametrize(
    ("flags", "code"),
    [(D_T, 0), (D_T | S, 1), (RequestFlags(0), 0), (S, 1), (D_T | RequestFlags.BROADCAST, 0)],
)
def test_success_codes(flags: RequestFlags, code: int) -> None:
    assert reply_in(agent().handle(arrived(request(1, flags=flags)), after(1))).code == code


@pytest.mark.rows("R-137", "R-197")
def test_simultaneous_bindings_are_not_kept() -> None:
    home_agent = agent()
    home_agent.handle(arrived(request(1, flags=D_T | S)), after(1))
    second = request(2, flags=D_T | S, care_of_address=ELSEWHERE)
    home_agent.handle(arrived(second, source=ELSEWHERE), after(2))
    assert [each.care_of_address for each in home_agent.bindings()] == [ELSEWHERE]


@pytest.mark.rows("R-198")
@pytest.mark.parametrize(
    ("asked", "most", "granted"),
    [
        (300, 1800, 300),
        (1800, 1800, 1800),
        (1801, 1800, 1800),
        (65534, 1800, 1800),
        (LIFETIME_INFINITE, 1800, 1800),
        (LIFETIME_INFINITE, LIFETIME_INFINITE, LIFETIME_INFINITE),
        (65534, LIFETIME_INFINITE, 65534),
        (1, 1800, 1),
    ],
)
def test_lifetimes_are_cut_and_never_raised(asked: int, most: int, granted: int) -> None:
    home_agent = agent(lifetime_max=most)
    effects = home_agent.handle(arrived(request(1, lifetime=asked)), after(1))
    assert reply_in(effects).lifetime == granted
    assert home_agent.bindings()[0].lifetime == granted
    deadline = None if granted == LIFETIME_INFINITE else T0.boot + 1 + granted
    assert home_agent.next_deadline() == deadline


def _bound() -> HomeAgent:
    home_agent = agent()
    home_agent.handle(arrived(request(1)), after(1))
    assert len(home_agent.bindings()) == 1
    return home_agent


@pytest.mark.rows("R-143", "R-197")
@pytest.mark.parametrize(
    ("ending", "source", "ends"),
    [
        (request(2, lifetime=0), CARE_OF, True),
        (request(2, lifetime=0, care_of_address=HOME), HOME, True),
        (request(2, lifetime=0, care_of_address=HOME), CARE_OF, True),
        (request(2, lifetime=0, care_of_address=ELSEWHERE), ELSEWHERE, False),
        (request(2, lifetime=0, care_of_address=ELSEWHERE), NAT, False),
    ],
)
def test_deregistration(ending: RegistrationRequest, source: IPv4Address, ends: bool) -> None:
    home_agent = _bound()
    effects = home_agent.handle(arrived(ending, source=source), after(2))
    reply = reply_in(effects)
    assert reply.code == ReplyCode.ACCEPTED
    assert reply.lifetime == 0
    assert len(home_agent.bindings()) == (0 if ends else 1)
    if ends:
        assert only(effects, StopForwarding) == StopForwarding(HOME)
        assert only(effects, BindingChanged).change is Change.REMOVED
    else:
        assert none(effects, StopForwarding, BindingChanged)


def test_a_probe_for_an_absent_binding_proves_trust_and_moves_nothing() -> None:
    # another link of the node asks with lifetime 0 for its own address.
    home_agent = _bound()
    bindings = home_agent.bindings()
    probe = request(2, lifetime=0, care_of_address=ELSEWHERE)
    effects = home_agent.handle(arrived(probe, source=ELSEWHERE), after(2))
    assert reply_in(effects).trusted_networks_configured
    assert home_agent.bindings() == bindings


def test_ending_all_from_elsewhere_is_granted_without_a_word_about_trust() -> None:
    ending = request(2, lifetime=0, care_of_address=HOME)
    reply = reply_in(_bound().handle(arrived(ending), after(2)))
    assert reply.is_success
    assert not reply.trusted_networks_configured


@pytest.mark.rows("R-199")
@pytest.mark.parametrize("identification", [stamp(2), stamp(0.5)])
def test_the_reply_to_a_return_home_ignores_the_binding(identification: Identification) -> None:
    ending = request(2, lifetime=0, care_of_address=HOME, identification=identification)
    effects = _bound().handle(arrived(ending, source=HOME), after(2))
    assert only(effects, SendReply).destination == HOME
    assert only(effects, SendReply).interface == INSIDE


def test_other_replies_are_routed() -> None:
    assert only(agent().handle(arrived(request(1)), after(1)), SendReply).interface is None


def test_a_listed_nat_may_probe_and_not_bind() -> None:
    home_agent = agent()
    effects = home_agent.handle(arrived(request(1), source=NAT), after(1))
    assert reply_in(effects).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert refused_in(effects).finding is Finding.NAT_UNSUPPORTED
    probe = reply_in(home_agent.handle(arrived(request(2, lifetime=0), source=NAT), after(2)))
    assert probe.is_success
    assert probe.trusted_networks_configured


@pytest.mark.rows("R-137", "R-197")
def test_a_move_replaces_the_binding_and_the_forwarding() -> None:
    home_agent = _bound()
    moved = request(2, care_of_address=ELSEWHERE)
    effects = home_agent.handle(arrived(moved, source=ELSEWHERE), after(2))
    assert forward_in(effects).endpoint == ELSEWHERE
    assert only(effects, BindingChanged).change is Change.MOVED
    assert [each.care_of_address for each in home_agent.bindings()] == [ELSEWHERE]
    assert home_agent.next_deadline() == T0.boot + 302


def test_a_renewal_only_prolongs_the_forwarding() -> None:
    home_agent = _bound()
    effects = home_agent.handle(arrived(request(100)), after(100))
    assert only(effects, Forward) == Forward(HOME, CARE_OF, reverse_tunnel=True, expires=T0.boot + 400)
    assert none(effects, StopForwarding)
    assert only(effects, BindingChanged).change is Change.RENEWED
    assert home_agent.next_deadline() == T0.boot + 400


def test_giving_up_the_reverse_tunnel_is_passed_on() -> None:
    home_agent = _bound()
    effects = home_agent.handle(arrived(request(2, flags=RequestFlags.DECAPSULATE_SELF)), after(2))
    assert forward_in(effects).reverse_tunnel is False
    assert home_agent.bindings()[0].co_located


@pytest.mark.rows("R-198")
def test_a_duplicate_is_answered_and_gains_nothing() -> None:
    home_agent = agent()
    first = home_agent.handle(arrived(request(1)), after(1))
    again = home_agent.handle(arrived(request(1)), after(4))
    assert reply_in(first).lifetime == 300
    assert reply_in(again).code == ReplyCode.ACCEPTED
    assert reply_in(again).lifetime == 297
    assert reply_in(again).trusted_networks_configured
    assert [type(each) for each in again] == [SendReply]
    assert home_agent.next_deadline() == T0.boot + 301


def test_a_duplicated_deregistration_is_answered_alike() -> None:
    home_agent = _bound()
    ending = arrived(request(2, lifetime=0))
    home_agent.handle(ending, after(2))
    again = home_agent.handle(ending, after(2.1))
    assert reply_in(again).code == ReplyCode.ACCEPTED
    assert [type(each) for each in again] == [SendReply]


@pytest.mark.rows("R-198")
def test_a_duplicate_does_not_revive_an_expired_binding() -> None:
    home_agent = agent()
    short = arrived(request(1, lifetime=2))
    home_agent.handle(short, after(1))
    effects = home_agent.handle(short, after(4))
    assert reply_in(effects).code == ReplyCode.IDENTIFICATION_MISMATCH
    assert only(effects, StopForwarding) == StopForwarding(HOME)
    assert home_agent.bindings() == ()


@pytest.mark.rows("R-198")
def test_expiry_is_silent() -> None:
    home_agent = _bound()
    assert home_agent.handle(DeadlinePassed(), after(300.9)) == ()
    effects = home_agent.handle(DeadlinePassed(), after(301))
    assert none(effects, SendReply, Forward)
    assert only(effects, StopForwarding) == StopForwarding(HOME)
    assert only(effects, BindingChanged).change is Change.EXPIRED
    assert home_agent.bindings() == ()
    assert home_agent.next_deadline() is None


def test_a_jump_of_the_wall_clock_leaves_lifetimes_alone() -> None:
    home_agent = _bound()
    assert home_agent.handle(DeadlinePassed(), replace(after(10), wall=T0.wall + 1e6)) == ()
    assert len(home_agent.bindings()) == 1


@pytest.mark.rows("R-173")
def test_a_clock_that_is_off_is_told_the_time_once_and_comes_back() -> None:
    home_agent = agent()
    fast = request(3601)
    assert reply_in(home_agent.handle(arrived(fast), after(1))).code == ReplyCode.IDENTIFICATION_MISMATCH
    assert reply_in(home_agent.handle(arrived(request(1.2)), after(1.2))).is_success


@pytest.mark.rows("R-273")
def test_the_nai_comes_back_in_front_of_the_authenticator() -> None:
    reply = reply_in(agent().handle(arrived(request(1, nai="laptop@example.test")), after(1)))
    assert reply.nai == "laptop@example.test"


def test_each_association_signs_its_own_replies() -> None:
    payload = octets(request(1, home_address=OTHER_HOME), OTHER_SA)
    effects = agent().handle(arrived(payload), after(1))
    assert reply_in(effects, OTHER_SA).is_success


def test_nodes_are_independent() -> None:
    home_agent = _bound()
    second = octets(request(1, home_address=OTHER_HOME, care_of_address=ELSEWHERE), OTHER_SA)
    home_agent.handle(arrived(second, source=ELSEWHERE), after(1))
    assert [each.home_address for each in home_agent.bindings()] == [HOME, OTHER_HOME]
    home_agent.handle(arrived(request(3, lifetime=0)), after(3))
    assert [each.home_address for each in home_agent.bindings()] == [OTHER_HOME]


def test_two_nodes_with_one_association_are_a_mistake() -> None:
    with pytest.raises(ProfileError, match=r"10\.77\.0\.10 and SPI 256"):
        HomeAgent(replace(POLICY, nodes=(Node("a", HOME, SA), Node("b", HOME, SA))), started=T0)
