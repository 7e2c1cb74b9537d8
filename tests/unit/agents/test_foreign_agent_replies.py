# SPDX-License-Identifier: GPL-2.0-or-later
"""What home agents' replies make of a foreign agent's visitor list, and what the mobile node is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agents.foreign_events import (
    Admit,
    ForeignFinding,
    RelayFailed,
    SendToHomeAgent,
    SendToMobileNode,
    VisitorChanged,
)
from homeward.agents.visitors import Visitor
from homeward.model.registration import (
    MobilitySecurityAssociation,
)
from homeward.model.relay import HomeToForeign, MobileToForeign
from homeward.model.revocation import RevocationSupport
from homeward.wire import authenticator, relay
from homeward.wire.extensions import Extension, ExtensionType, encode
from tests.unit.agents.foreign_scene import (
    ADDRESS,
    CARE_OF,
    FOREIGN_HOME,
    FORGER,
    HOME,
    HOME_AGENT,
    LINK,
    MAC,
    MOBILE_FOREIGN,
    NOWHERE,
    OTHER_HOME,
    OTHER_HOME_AGENT,
    OTHER_MAC,
    PORT,
    SERVER,
    after,
    agent,
    code_in,
    deadline,
    exchange,
    home_spoke,
    octets,
    only,
    register,
    rejected_in,
    relayed_in,
    reply_to,
    request,
    spoke,
    told_in,
)

CO_LOCATED = IPv4Address("10.1.3.50")


@pytest.mark.rows("R-209", "R-210")
def test_an_accepted_registration() -> None:
    one, message = agent(), request()
    answer = reply_to(message)
    effects = exchange(one, message, answer)
    assert [type(each) for each in effects] == [Admit, SendToMobileNode, VisitorChanged]
    sent = only(effects, SendToMobileNode)
    assert sent.octets == answer
    assert (sent.destination, sent.port, sent.source) == (HOME, PORT, ADDRESS)
    assert (sent.hardware_address, sent.interface) == (MAC, LINK)
    visitor = only(effects, Admit).visitor
    assert one.visitors() == (visitor,)
    assert visitor == Visitor(
        HOME,
        HOME_AGENT,
        care_of_address=CARE_OF,
        interface=LINK,
        hardware_address=MAC,
        agent_address=ADDRESS,
        identification=message.identification,
        lifetime=300,
        since=after(0.02).boot,
        reverse_tunnel=True,
    )
    assert one.pending_count() == 0
    assert one.next_deadline() == after(300.02).boot


@pytest.mark.rows("R-210")
@pytest.mark.parametrize("code", [128, 129, 131, 133, 136, 144])
def test_a_home_agents_denial_is_passed_on_as_it_is_and_changes_no_visitor(code: int) -> None:
    one = agent()
    before = register(one)
    message = request(5)
    answer = reply_to(message, code)
    effects = exchange(one, message, answer, 5)
    assert only(effects, SendToMobileNode).octets == answer
    assert len(effects) == 1
    assert one.visitors() == (before,)


@pytest.mark.rows("R-210")
def test_what_stands_behind_the_mobile_home_authenticator_is_ours_to_take_off() -> None:
    one = agent(home_agents={HOME_AGENT: FOREIGN_HOME}, nodes={HOME: (MOBILE_FOREIGN,)}, revocation=True)
    message = request()
    one.handle(spoke(octets(message, mobile_foreign=MOBILE_FOREIGN)), after(0))
    bare = reply_to(message)
    part = HomeToForeign(revocation_support=RevocationSupport(5))
    effects = one.handle(home_spoke(reply_to(message, 0, part, foreign_home=FOREIGN_HOME)), after(0.1))
    told = told_in(effects)
    assert told.octets.startswith(bare)
    assert [each.number for each in told.unauthenticated] == [33], "MN-FA, and it is the last"
    assert authenticator.verify(told.octets, told, MOBILE_FOREIGN, by=relay.MOBILE_FOREIGN)


@pytest.mark.rows("R-209")
@pytest.mark.parametrize(
    ("payload", "arrived"),
    [
        ({"home_address": OTHER_HOME}, {}),
        ({"identification": request(1).identification + 1}, {}),
        ({}, {"source": OTHER_HOME_AGENT}),
        ({}, {"source_port": 40000}),
        ({}, {"destination": IPv4Address("10.1.4.1")}),
    ],
)
def test_a_reply_that_answers_no_waiting_request_is_dropped(
    payload: dict[str, object], arrived: dict[str, object]
) -> None:
    one, message = agent(), request()
    one.handle(spoke(message), after(0))
    effects = one.handle(home_spoke(reply_to(message, **payload), **arrived), after(0.1))  # type: ignore[arg-type]
    assert rejected_in(effects).finding is ForeignFinding.UNMATCHED_REPLY
    assert len(effects) == 1
    assert one.visitors() == ()
    assert only(one.handle(home_spoke(reply_to(message)), after(0.2)), Admit), "the genuine one still counts"


@pytest.mark.rows("R-209")
def test_the_low_half_of_the_identification_matches_alone() -> None:
    one, message = agent(), request()
    other_time = reply_to(message, 133, identification=message.identification ^ (7 << 32))
    assert code_in(exchange(one, message, other_time)) == 133


@pytest.mark.rows("R-209")
def test_a_reply_is_taken_once() -> None:
    one, message = agent(), request()
    exchange(one, message, reply_to(message))
    effects = one.handle(home_spoke(reply_to(message)), after(1))
    assert rejected_in(effects).finding is ForeignFinding.UNMATCHED_REPLY


@pytest.mark.rows("R-209")
def test_a_request_that_waits_too_long_is_denied_with_78() -> None:
    one = agent()
    one.handle(spoke(request()), after(0))
    assert one.next_deadline() == after(7).boot
    assert deadline(one, 6.9) == ()
    assert code_in(deadline(one, 7.0)) == 78
    assert one.pending_count() == 0


@pytest.mark.rows("R-209")
@pytest.mark.parametrize(("icmp", "code"), [(0, 80), (1, 81), (3, 82), (13, 88), (2, 88)])
def test_icmp_errors_about_a_relayed_request_become_denials(icmp: int, code: int) -> None:
    one = agent()
    sent = only(one.handle(spoke(request()), after(0)), SendToHomeAgent)
    effects = one.handle(RelayFailed(HOME_AGENT, icmp, sent.octets), after(0.1))
    assert code_in(effects) == code
    assert one.pending_count() == 0


def test_icmp_errors_that_quote_nothing_or_something_else_are_no_reason() -> None:
    one = agent()
    sent = only(one.handle(spoke(request()), after(0)), SendToHomeAgent)
    for failed in (
        RelayFailed(HOME_AGENT, 3, b""),
        RelayFailed(HOME_AGENT, 3, sent.octets[:8]),
        RelayFailed(HOME_AGENT, 3, bytes(46)),
        RelayFailed(HOME_AGENT, 4, sent.octets),
        RelayFailed(OTHER_HOME_AGENT, 3, sent.octets),
    ):
        assert one.handle(failed, after(0.1)) == ()
    assert one.pending_count() == 1


# --- proofs between agents --------------------------------------------------------------------------------------------


@pytest.mark.rows("R-171")
@pytest.mark.parametrize("forged", [None, FORGER, replace(FORGER, spi=FOREIGN_HOME.spi)])
def test_without_the_home_agents_proof_an_acceptance_is_dropped_and_68_is_said_when_no_better_comes(
    forged: MobilitySecurityAssociation | None,
) -> None:
    one, message = agent(home_agents={HOME_AGENT: FOREIGN_HOME}), request()
    effects = exchange(one, message, reply_to(message, foreign_home=forged))
    assert rejected_in(effects).finding is ForeignFinding.FORGED_REPLY
    assert len(effects) == 1
    assert code_in(deadline(one, 7)) == 68


@pytest.mark.rows("R-171")
def test_a_forged_reply_does_not_keep_the_genuine_one_out() -> None:
    one, message = agent(home_agents={HOME_AGENT: FOREIGN_HOME}), request()
    exchange(one, message, reply_to(message, foreign_home=FORGER))
    effects = one.handle(home_spoke(reply_to(message, foreign_home=FOREIGN_HOME)), after(0.2))
    assert code_in(effects) == 0
    assert only(effects, Admit)


def test_an_acceptance_without_proof_for_the_mobile_node_cannot_be_passed_on() -> None:
    one, message = agent(), request()
    effects = exchange(one, message, reply_to(message)[:20])
    assert rejected_in(effects).finding is ForeignFinding.POOR_REPLY
    assert one.visitors() == ()
    assert code_in(deadline(one, 7)) == 71


@pytest.mark.rows("R-210")
def test_a_part_for_us_that_cannot_be_read_is_told_beside_the_untouched_reply() -> None:
    one, message = agent(), request()
    answer = reply_to(message)
    odd = encode(Extension(ExtensionType.UDP_TUNNEL_REPLY, b"??", sub_type=0))
    effects = exchange(one, message, answer + odd)
    told = told_in(effects)
    assert told.octets.startswith(answer)
    assert told.message.code == 0
    assert relay.read_from_foreign_agent(told).error == 71
    assert one.visitors() == ()


@pytest.mark.rows("R-210")
def test_a_wrong_challenge_from_the_home_agent_is_told_in_the_error_extension() -> None:
    one = agent(challenge=True, servers={HOME: SERVER})
    challenge = one._requests._challenges.advertise()  # type: ignore[union-attr]
    message = request()
    one.handle(spoke(octets(message, MobileToForeign(challenge=challenge), aaa=SERVER)), after(0))
    echoed = encode(Extension(ExtensionType.MOBILE_FOREIGN_CHALLENGE, bytes(16)))
    told = told_in(one.handle(home_spoke(reply_to(message) + echoed), after(0.1)))
    assert relay.read_from_foreign_agent(told).error == 109
    assert told.message.code == 0


@pytest.mark.rows("R-276")
def test_a_reply_brings_the_next_challenge_instead_of_the_home_agents_echo() -> None:
    one = agent(challenge=True, servers={HOME: SERVER})
    challenge = one._requests._challenges.advertise()  # type: ignore[union-attr]
    message = request()
    one.handle(spoke(octets(message, MobileToForeign(challenge=challenge), aaa=SERVER)), after(0))
    echoed = encode(Extension(ExtensionType.MOBILE_FOREIGN_CHALLENGE, challenge))
    effects = one.handle(home_spoke(reply_to(message) + echoed), after(0.1))
    fresh = relay.read_from_foreign_agent(told_in(effects)).challenge
    assert fresh not in (None, challenge)
    assert only(effects, Admit)
    again = octets(request(9), MobileToForeign(challenge=fresh), aaa=SERVER)
    relayed_in(one.handle(spoke(again), after(9)))


# --- network access identifiers ---------------------------------------------------------------------------------------

NAI = "laptop@example.test"


@pytest.mark.rows("R-209", "R-273")
def test_without_a_home_address_a_mobile_node_is_known_by_its_nai() -> None:
    one = agent()
    first = request(home_address=NOWHERE, nai=NAI)
    second = replace(first, nai="other@example.test")
    one.handle(spoke(first), after(0))
    one.handle(spoke(second, hardware_address=OTHER_MAC), after(0))
    effects = one.handle(home_spoke(reply_to(second, home_address=OTHER_HOME)), after(0.1))
    assert only(effects, SendToMobileNode).hardware_address == OTHER_MAC
    assert only(effects, SendToMobileNode).destination == OTHER_HOME
    assert only(effects, Admit).visitor.home_address == OTHER_HOME
    assert only(effects, Admit).visitor.nai == second.nai
    effects = one.handle(home_spoke(reply_to(first, home_address=HOME)), after(0.2))
    assert only(effects, Admit).visitor.hardware_address == MAC


@pytest.mark.rows("R-273")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"nai": None, "home_address": HOME}, 97),
        ({"home_agent": NOWHERE, "home_address": HOME}, 98),
        ({"home_address": NOWHERE}, 99),
    ],
)
def test_what_a_reply_to_a_nai_must_have(changes: dict[str, object], code: int) -> None:
    one, message = agent(), request(home_address=NOWHERE, nai=NAI)
    assert code_in(exchange(one, message, reply_to(message, **changes))) == code  # type: ignore[arg-type]
    assert one.visitors() == ()


def test_a_home_agent_cannot_give_away_an_address_of_this_link() -> None:
    one, message = agent(), request(home_address=NOWHERE, nai=NAI)
    answer = reply_to(message, home_address=IPv4Address("10.1.3.77"))
    told = told_in(exchange(one, message, answer))
    assert relay.read_from_foreign_agent(told).error == 65
    assert one.visitors() == ()
