# SPDX-License-Identifier: GPL-2.0-or-later
"""Bindings that end before their time: by the home agent's word, by a foreign agent's, and because the node left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agents.agent_events import (
    AgentEffect,
    BindingChanged,
    Change,
    Finding,
    Forward,
    RequestArrived,
    RevocationEnded,
    RevokeBinding,
    SendReply,
    SendRevocation,
    StopForwarding,
)
from homeward.agents.home_agent import HomeAgent
from homeward.model.inputs import DeadlinePassed
from homeward.model.nat_traversal import UdpTunnelRequest
from homeward.model.registration import MobilitySecurityAssociation
from homeward.model.relay import ForeignToHome
from homeward.model.revocation import (
    RegistrationRevocation,
    RevocationAcknowledgment,
    RevocationSupport,
)
from homeward.wire import authenticator, revocation
from homeward.wire.decoded import DecodedAcknowledgment, DecodedRevocation
from homeward.wire.extensions import ExtensionType
from tests.unit.agents.scene import (
    AGENT,
    CARE_OF,
    ELSEWHERE,
    FOREIGN_AGENT,
    FOREIGN_SA,
    FORGER,
    HOME,
    NAT,
    OUTSIDE,
    PORT,
    SA,
    T0,
    WITH_FOREIGN_AGENT,
    after,
    agent,
    arrived,
    by_foreign_agent,
    co_located,
    none,
    only,
    refused_in,
    relayed,
    relayed_reply_in,
    reply_in,
    request,
)

ABLE = RevocationSupport(0x1000)
MN_HA = ExtensionType.MOBILE_HOME_AUTHENTICATION
FA_HA = ExtensionType.FOREIGN_HOME_AUTHENTICATION


def bound(**changes: object) -> HomeAgent:
    home_agent = agent(**changes)
    reply = reply_in(home_agent.handle(arrived(co_located(1, revocation_support=ABLE)), after(1)))
    assert reply.is_success
    return home_agent


def revocation_in(
    effects: Sequence[AgentEffect], association: MobilitySecurityAssociation = SA, by: ExtensionType = MN_HA
) -> RegistrationRevocation:
    sent = only(effects, SendRevocation)
    decoded = revocation.decode(sent.octets)
    assert isinstance(decoded, DecodedRevocation)
    assert authenticator.verify(sent.octets, decoded, association, by=by)
    return decoded.message


def acknowledgment(
    identifier: int,
    *,
    home: IPv4Address = HOME,
    association: MobilitySecurityAssociation = SA,
    by: ExtensionType = MN_HA,
    source: IPv4Address = CARE_OF,
) -> RequestArrived:
    message = RevocationAcknowledgment(home, identifier=identifier)
    return arrived(revocation.encode(message, association, by=by), source=source, source_port=434)


def test_support_is_told_to_whoever_announced_it() -> None:
    home_agent = agent()
    plain = reply_in(home_agent.handle(arrived(request(1)), after(1)))
    assert plain.revocation_support is None
    able = reply_in(home_agent.handle(arrived(co_located(2, revocation_support=ABLE)), after(2)))
    assert able.revocation_support is not None
    refusing = agent(revocation=False).handle(arrived(co_located(1, revocation_support=ABLE)), after(1))
    assert reply_in(refusing).revocation_support is None


def test_a_duplicate_is_told_the_same_time() -> None:
    home_agent = agent()
    datagram = arrived(co_located(1, revocation_support=ABLE))
    first = reply_in(home_agent.handle(datagram, after(1)))
    assert reply_in(home_agent.handle(datagram, after(4))).revocation_support == first.revocation_support


def test_a_binding_is_revoked() -> None:
    home_agent = agent()
    told = reply_in(
        home_agent.handle(arrived(co_located(1, revocation_support=ABLE)), after(1))
    ).revocation_support
    assert told is not None
    effects = home_agent.handle(RevokeBinding(HOME), after(10))
    assert only(effects, StopForwarding) == StopForwarding(HOME)
    assert only(effects, BindingChanged).change is Change.REVOKED
    sent = only(effects, SendRevocation)
    assert (sent.destination, sent.port, sent.source) == (CARE_OF, 434, AGENT)
    message = revocation_in(effects)
    assert (message.home_address, message.home_domain, message.foreign_domain) == (HOME, AGENT, CARE_OF)
    assert message.by_home_agent
    assert message.inform
    assert message.identifier - told.timestamp == 9
    assert home_agent.bindings() == ()


def test_even_in_the_second_of_the_registration_it_is_newer() -> None:
    home_agent = agent()
    support = reply_in(
        home_agent.handle(arrived(co_located(1, revocation_support=ABLE)), after(1))
    ).revocation_support
    assert support is not None
    message = revocation_in(home_agent.handle(RevokeBinding(HOME), after(1.1)))
    assert message.identifier == support.timestamp + 1


def test_it_is_repeated_with_growing_patience_until_it_is_acknowledged() -> None:
    home_agent = bound()
    identifiers = [revocation_in(home_agent.handle(RevokeBinding(HOME), after(10))).identifier]
    sent_at = [10.0]
    for _ in range(3):
        deadline = home_agent.next_deadline()
        assert deadline is not None
        sent_at.append(deadline - T0.boot)
        assert home_agent.handle(DeadlinePassed(), after(sent_at[-1] - 0.01)) == ()
        identifiers.append(revocation_in(home_agent.handle(DeadlinePassed(), after(sent_at[-1]))).identifier)
    assert sent_at == [10, 11, 13, 17]
    assert identifiers == sorted(set(identifiers))
    effects = home_agent.handle(acknowledgment(identifiers[1]), after(18))
    assert only(effects, RevocationEnded) == RevocationEnded(HOME, CARE_OF, acknowledged=True)
    assert home_agent.next_deadline() is None
    again = home_agent.handle(acknowledgment(identifiers[1]), after(19))
    assert refused_in(again).finding is Finding.STRAY_ACKNOWLEDGMENT


def test_it_is_not_repeated_for_ever() -> None:
    home_agent = bound()
    home_agent.handle(RevokeBinding(HOME), after(10))
    sent = 1
    while (deadline := home_agent.next_deadline()) is not None:
        effects = home_agent.handle(DeadlinePassed(), after(deadline - T0.boot))
        sent += len([each for each in effects if isinstance(each, SendRevocation)])
    assert sent == 6
    assert only(effects, RevocationEnded).acknowledged is False


def test_it_is_not_repeated_beyond_the_life_of_the_binding() -> None:
    home_agent = bound()
    home_agent.handle(RevokeBinding(HOME), after(300))
    effects = home_agent.handle(DeadlinePassed(), after(301))
    assert none(effects, SendRevocation)
    assert only(effects, RevocationEnded).acknowledged is False


@pytest.mark.parametrize(
    "changes",
    [
        {"home": ELSEWHERE},
        {"association": replace(SA, key=FORGER.key)},
        {"association": FOREIGN_SA, "by": FA_HA},
        {"source": OUTSIDE},
    ],
)
@pytest.mark.parametrize("offset", [0])
def test_false_acknowledgments(changes: dict[str, object], offset: int) -> None:
    home_agent = bound()
    identifier = revocation_in(home_agent.handle(RevokeBinding(HOME), after(10))).identifier + offset
    effects = home_agent.handle(acknowledgment(identifier, **changes), after(10.5))  # type: ignore[arg-type]
    assert none(effects, RevocationEnded)
    assert refused_in(effects).code is None
    assert isinstance(only(home_agent.handle(DeadlinePassed(), after(11)), SendRevocation), SendRevocation)


@pytest.mark.parametrize("offset", [-1, 1])
def test_an_acknowledgment_of_something_else(offset: int) -> None:
    home_agent = bound()
    identifier = revocation_in(home_agent.handle(RevokeBinding(HOME), after(10))).identifier
    assert none(home_agent.handle(acknowledgment(identifier + offset), after(10.5)), RevocationEnded)


def test_a_new_registration_ends_the_repetition() -> None:
    home_agent = bound()
    home_agent.handle(RevokeBinding(HOME), after(10))
    home_agent.handle(arrived(co_located(11, revocation_support=ABLE)), after(10.5))
    assert none(home_agent.handle(DeadlinePassed(), after(12)), SendRevocation)
    assert home_agent.binding_count() == 1


def test_without_support_the_binding_just_ends() -> None:
    home_agent = agent()
    home_agent.handle(arrived(request(1)), after(1))
    effects = home_agent.handle(RevokeBinding(HOME), after(2))
    assert none(effects, SendRevocation)
    assert only(effects, BindingChanged).change is Change.REVOKED
    assert home_agent.handle(RevokeBinding(HOME), after(3)) == ()


def test_behind_a_nat_it_takes_the_way_of_the_request() -> None:
    home_agent = agent()
    asked = co_located(1, revocation_support=ABLE, udp_tunnel=UdpTunnelRequest())
    home_agent.handle(arrived(asked, source=NAT), after(1))
    sent = only(home_agent.handle(RevokeBinding(HOME), after(10)), SendRevocation)
    assert (sent.destination, sent.port) == (NAT, PORT)


def test_no_support_for_a_node_that_registers_through_a_foreign_agent() -> None:
    home_agent = HomeAgent(WITH_FOREIGN_AGENT, started=T0)
    effects = home_agent.handle(relayed(co_located(1, revocation_support=ABLE)), after(1))
    reply, told = relayed_reply_in(effects)
    assert reply.is_success
    assert (reply.revocation_support, told.revocation_support) == (None, None)


# --- with a foreign agent ---


def visiting(*, inform: bool = False) -> HomeAgent:
    home_agent = HomeAgent(WITH_FOREIGN_AGENT, started=T0)
    part = ForeignToHome(revocation_support=RevocationSupport(0x1000, inform=inform))
    reply, told = relayed_reply_in(home_agent.handle(relayed(by_foreign_agent(1), part), after(1)))
    assert reply.revocation_support is None
    assert told.revocation_support is not None
    assert told.revocation_support.inform is inform
    return home_agent


@pytest.mark.parametrize("inform", [False, True])
def test_the_foreign_agent_is_told(inform: bool) -> None:
    home_agent = visiting(inform=inform)
    effects = home_agent.handle(RevokeBinding(HOME), after(10))
    message = revocation_in(effects, FOREIGN_SA, FA_HA)
    assert message.foreign_domain == FOREIGN_AGENT
    assert message.inform is inform
    answer = acknowledgment(message.identifier, association=FOREIGN_SA, by=FA_HA, source=FOREIGN_AGENT)
    assert only(home_agent.handle(answer, after(10.2)), RevocationEnded).acknowledged


def test_without_proof_no_support() -> None:
    part = ForeignToHome(revocation_support=ABLE)
    effects = agent().handle(relayed(by_foreign_agent(1), part, by=None), after(1))
    _, told = relayed_reply_in(effects, by=None)
    assert told.revocation_support is None


def test_a_foreign_agent_that_was_left_is_told_and_need_not_tell_anybody() -> None:
    home_agent = visiting(inform=True)
    effects = home_agent.handle(arrived(request(2)), after(2))
    message = revocation_in(effects, FOREIGN_SA, FA_HA)
    assert (message.foreign_domain, message.inform) == (FOREIGN_AGENT, False)
    assert isinstance(effects[1], Forward)
    home_agent = visiting()
    gone_home = request(2, lifetime=0, care_of_address=HOME)
    effects = home_agent.handle(arrived(gone_home, source=HOME), after(2))
    assert revocation_in(effects, FOREIGN_SA, FA_HA).foreign_domain == FOREIGN_AGENT


def test_a_deregistration_through_it_tells_it_enough() -> None:
    effects = visiting().handle(relayed(by_foreign_agent(2, lifetime=0), by=None), after(2))
    assert none(effects, SendRevocation)


def released(
    identifier: int = 0x1001,
    *,
    association: MobilitySecurityAssociation = FOREIGN_SA,
    by: ExtensionType = FA_HA,
    source: IPv4Address = FOREIGN_AGENT,
    **changes: object,
) -> RequestArrived:
    message = RegistrationRevocation(
        HOME, home_domain=AGENT, foreign_domain=FOREIGN_AGENT, identifier=identifier, by_home_agent=False
    )
    message = replace(message, **changes)  # type: ignore[arg-type]
    return arrived(revocation.encode(message, association, by=by), source=source, source_port=434)


def acknowledged_in(effects: Sequence[AgentEffect]) -> RevocationAcknowledgment:
    sent = only(effects, SendReply)
    assert (sent.destination, sent.port, sent.source) == (FOREIGN_AGENT, 434, AGENT)
    decoded = revocation.decode(sent.octets)
    assert isinstance(decoded, DecodedAcknowledgment)
    assert authenticator.verify(sent.octets, decoded, FOREIGN_SA, by=FA_HA)
    return decoded.message


@pytest.mark.parametrize(("agreed", "asked"), [(True, True), (True, False), (False, True)])
def test_a_foreign_agent_ends_a_binding(agreed: bool, asked: bool) -> None:
    home_agent = visiting(inform=agreed)
    effects = home_agent.handle(released(inform=asked), after(5))
    assert only(effects, StopForwarding) == StopForwarding(HOME)
    assert only(effects, BindingChanged).change is Change.REVOKED
    answer = acknowledged_in(effects)
    assert (answer.home_address, answer.identifier) == (HOME, 0x1001)
    assert answer.inform is (agreed and asked)
    # Its answer was lost: the same again, with a new identifier.
    again = home_agent.handle(released(0x1002, inform=asked), after(6))
    assert acknowledged_in(again).identifier == 0x1002
    assert none(again, StopForwarding)


@pytest.mark.parametrize(
    "false",
    [
        released(0x1000),
        released(0x0FFF),
        released(by_home_agent=True),
        released(home_domain=ELSEWHERE),
        released(foreign_domain=ELSEWHERE),
        released(home_address=ELSEWHERE),
        released(association=replace(FOREIGN_SA, key=FORGER.key)),
        released(association=SA, by=MN_HA),
        released(source=ELSEWHERE),
        released(source=OUTSIDE),
    ],
)
def test_revocations_that_nobody_believes(false: RequestArrived) -> None:
    home_agent = visiting()
    effects = home_agent.handle(false, after(5))
    assert none(effects, SendReply, StopForwarding)
    assert refused_in(effects).code is None
    assert home_agent.binding_count() == 1


def test_a_recorded_revocation_does_not_end_a_newer_binding() -> None:
    home_agent = visiting()
    recorded = released()
    home_agent.handle(recorded, after(5))
    part = ForeignToHome(revocation_support=RevocationSupport(0x1005))
    home_agent.handle(relayed(by_foreign_agent(6), part), after(6))
    assert refused_in(home_agent.handle(recorded, after(7))).finding is Finding.REVOCATION
    assert home_agent.binding_count() == 1


def test_our_own_revocation_thrown_back_is_no_revocation() -> None:
    home_agent = visiting()
    sent = only(home_agent.handle(RevokeBinding(HOME), after(5)), SendRevocation)
    part = ForeignToHome(revocation_support=ABLE)
    home_agent.handle(relayed(by_foreign_agent(6), part), after(6))
    thrown = arrived(sent.octets, source=FOREIGN_AGENT)
    assert refused_in(home_agent.handle(thrown, after(7))).finding is Finding.REVOCATION
    assert home_agent.binding_count() == 1
