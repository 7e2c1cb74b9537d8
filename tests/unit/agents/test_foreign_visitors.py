# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is a foreign agent's visitor, for how long, and what ends it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agents.foreign_agent import ForeignAgent
from homeward.agents.foreign_events import (
    Admit,
    Expel,
    ForeignFinding,
    SendToHomeAgent,
    SendToMobileNode,
    TellLostVisitor,
    VisitorChange,
    VisitorChanged,
)
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import UdpTunnelReply
from homeward.model.registration import (
    MobilitySecurityAssociation,
    RequestFlags,
)
from homeward.model.relay import HomeToForeign, MobileToForeign
from homeward.model.revocation import RegistrationRevocation, RevocationSupport
from homeward.wire import authenticator, registration, relay, revocation
from homeward.wire.decoded import DecodedAcknowledgment
from tests.unit.agents.foreign_scene import (
    CARE_OF,
    FOREIGN_HOME,
    FORGER,
    HOME,
    HOME_AGENT,
    MAC,
    OTHER_HOME,
    OTHER_HOME_AGENT,
    OTHER_MAC,
    SA,
    D,
    T,
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
)

CO_LOCATED = IPv4Address("10.1.3.50")


@pytest.mark.parametrize(
    ("granted", "own", "lifetime"), [(100, 1800, 100), (1800, 300, 300), (0xFFFF, 300, 300)]
)
def test_a_visitor_stays_as_long_as_was_granted_and_never_longer_than_we_allow(
    granted: int, own: int, lifetime: int
) -> None:
    one, message = agent(lifetime_max=own), request()
    visitor = only(exchange(one, message, reply_to(message, lifetime=granted)), Admit).visitor
    assert visitor.lifetime == lifetime
    end = 0.02 + lifetime
    assert deadline(one, end - 0.01) == ()
    effects = deadline(one, end)
    assert [type(each) for each in effects] == [Expel, VisitorChanged], "nothing is said of it on the wire"
    assert only(effects, VisitorChanged).change is VisitorChange.EXPIRED
    assert one.visitors() == ()


@pytest.mark.parametrize("care_of", [CARE_OF, HOME])
def test_who_deregisters_leaves(care_of: IPv4Address) -> None:
    one = agent()
    visitor = register(one)
    message = request(5, lifetime=0, care_of_address=care_of)
    one.handle(spoke(message), after(5))
    assert one.visitors() == (visitor,), "not before the home agent said so"
    effects = one.handle(home_spoke(reply_to(message)), after(5.1))
    assert only(effects, Expel).visitor == visitor
    assert only(effects, VisitorChanged).change is VisitorChange.LEFT
    assert code_in(effects) == 0


def test_who_deregisters_another_care_of_address_stays() -> None:
    one = agent()
    visitor = register(one)
    message = request(5, lifetime=0, care_of_address=IPv4Address("10.1.2.1"))
    assert code_in(exchange(one, message, reply_to(message), 5)) == 0
    assert one.visitors() == (visitor,)


def test_who_has_a_care_of_address_of_its_own_now_leaves() -> None:
    one = agent(registration_required=True)
    register(one)
    message = request(5, flags=T | D, care_of_address=CO_LOCATED)
    effects = exchange(one, message, reply_to(message), 5)
    assert only(effects, Expel)
    assert only(effects, SendToMobileNode).destination == CO_LOCATED


def test_a_care_of_address_of_its_own_makes_no_visitor() -> None:
    one, message = agent(registration_required=True), request(flags=T | D, care_of_address=CO_LOCATED)
    effects = exchange(one, message, reply_to(message))
    assert [type(each) for each in effects] == [SendToMobileNode]


def test_renewing_and_changing_the_station() -> None:
    one = agent()
    register(one)
    effects = exchange(one, request(5), reply_to(request(5)), 5)
    assert only(effects, VisitorChanged).change is VisitorChange.RENEWED
    message = request(9)
    one.handle(spoke(message, hardware_address=OTHER_MAC), after(9))
    assert one.visitors()[0].hardware_address == MAC, "a request moves nothing"
    effects = one.handle(home_spoke(reply_to(message)), after(9.1))
    assert only(effects, VisitorChanged).change is VisitorChange.CHANGED
    assert only(effects, Admit).visitor.hardware_address == OTHER_MAC


def test_an_old_request_sent_again_from_another_station_gets_nothing() -> None:
    one = agent()
    visitor = register(one)
    effects = one.handle(spoke(request(), hardware_address=OTHER_MAC), after(3))
    assert rejected_in(effects).finding is ForeignFinding.COPIED
    assert one.visitors() == (visitor,)


def test_nobody_takes_a_visitors_home_address_with_a_home_agent_of_his_own() -> None:
    one = agent()
    register(one)
    evil = request(5, home_agent=OTHER_HOME_AGENT)
    assert code_in(one.handle(spoke(evil, hardware_address=OTHER_MAC), after(5))) == 65


def test_nobodys_home_address_is_a_home_agent_in_use() -> None:
    one = agent()
    register(one)
    evil = request(5, home_address=HOME_AGENT, home_agent=OTHER_HOME_AGENT)
    assert code_in(one.handle(spoke(evil, hardware_address=OTHER_MAC), after(5))) == 65
    naming = request(7, home_address=OTHER_HOME, home_agent=IPv4Address("10.0.0.4"))
    relayed_in(one.handle(spoke(naming, hardware_address=OTHER_MAC), after(7)))
    named = request(8, home_address=IPv4Address("10.0.0.4"))
    relayed_in(one.handle(spoke(named, hardware_address=bytes.fromhex("020000000099")), after(8)))


def test_a_full_house_still_renews() -> None:
    one = agent(visitors_max=1)
    register(one)
    assert one.is_busy
    newcomer = request(5, home_address=OTHER_HOME)
    assert code_in(one.handle(spoke(newcomer, hardware_address=OTHER_MAC), after(5))) == 66
    assert code_in(exchange(one, request(6), reply_to(request(6)), 6)) == 0


@pytest.mark.rows("R-218")
@pytest.mark.parametrize("encapsulating", [False, True])
def test_the_delivery_style_that_was_asked_for_is_kept(encapsulating: bool) -> None:
    one, message = agent(), request(flags=T | RequestFlags.GRE)
    part = MobileToForeign(encapsulating_delivery=encapsulating)
    one.handle(spoke(octets(message, part)), after(0))
    visitor = only(one.handle(home_spoke(reply_to(message)), after(0.1)), Admit).visitor
    assert visitor.encapsulating is encapsulating
    assert visitor.encapsulation is Encapsulation.GRE


@pytest.mark.rows("R-242")
@pytest.mark.parametrize(
    ("behind_nat", "answer", "udp"),
    [
        (True, UdpTunnelReply(keepalive=30), True),
        (True, UdpTunnelReply(64), False),
        (True, None, False),
        (False, UdpTunnelReply(keepalive=30), False),
    ],
)
def test_a_udp_tunnel_is_one_that_we_asked_for_and_were_granted(
    behind_nat: bool, answer: UdpTunnelReply | None, udp: bool
) -> None:
    one, message = agent(behind_nat=behind_nat), request()
    effects = exchange(one, message, reply_to(message, 0, HomeToForeign(udp_tunnel=answer)))
    visitor = only(effects, Admit).visitor
    assert (visitor.udp, visitor.keepalive) == (udp, 30 if udp else 0)


# --- revocation -------------------------------------------------------------------------------------------------------


def revocable() -> ForeignAgent:
    one, message = agent(home_agents={HOME_AGENT: FOREIGN_HOME}, revocation=True), request()
    decoded = relayed_in(one.handle(spoke(message), after(0)))
    assert relay.read_for_home_agent(decoded).revocation_support is not None
    part = HomeToForeign(revocation_support=RevocationSupport(1000))
    one.handle(home_spoke(reply_to(message, 0, part, foreign_home=FOREIGN_HOME)), after(0.1))
    assert one.visitors()[0].revocable_since == 1000
    return one


REVOCATION = RegistrationRevocation(
    HOME, home_domain=HOME_AGENT, foreign_domain=CARE_OF, identifier=1005, by_home_agent=True
)


def revoke(
    message: RegistrationRevocation = REVOCATION, key: MobilitySecurityAssociation = FOREIGN_HOME
) -> bytes:
    return revocation.encode(message, key, by=relay.FOREIGN_HOME)


def test_a_revocation_ends_the_visitor_tells_it_and_is_acknowledged() -> None:
    one = revocable()
    effects = one.handle(home_spoke(revoke(), source_port=5434), after(5))
    assert [type(each) for each in effects] == [Expel, SendToHomeAgent, TellLostVisitor, VisitorChanged]
    assert one.visitors() == ()
    sent = only(effects, SendToHomeAgent)
    assert (sent.destination, sent.port, sent.source) == (HOME_AGENT, 5434, CARE_OF)
    decoded = revocation.decode(sent.octets)
    assert isinstance(decoded, DecodedAcknowledgment)
    assert decoded.message.answers(REVOCATION)
    assert decoded.message.inform
    assert authenticator.verify(sent.octets, decoded, FOREIGN_HOME, by=relay.FOREIGN_HOME)


def test_a_lost_acknowledgment_is_sent_again_to_a_newer_revocation_only() -> None:
    one = revocable()
    one.handle(home_spoke(revoke()), after(5))
    assert rejected_in(one.handle(home_spoke(revoke()), after(6))).finding is ForeignFinding.BAD_REVOCATION
    effects = one.handle(home_spoke(revoke(replace(REVOCATION, identifier=1006))), after(7))
    assert [type(each) for each in effects] == [SendToHomeAgent]


@pytest.mark.parametrize(
    "payload",
    [
        revoke(key=FORGER),
        revoke(replace(REVOCATION, by_home_agent=False)),
        revoke(replace(REVOCATION, identifier=1000)),
        revoke(replace(REVOCATION, identifier=900)),
        revoke(replace(REVOCATION, foreign_domain=IPv4Address("10.1.4.1"))),
        revoke(replace(REVOCATION, home_address=OTHER_HOME)),
        revoke(replace(REVOCATION, home_domain=OTHER_HOME_AGENT)),
        revocation.encode(REVOCATION, SA),
    ],
    ids=[
        "forged",
        "reflected",
        "not-later",
        "older",
        "other-agent",
        "nobody",
        "other-home-agent",
        "by-mn-ha",
    ],
)
def test_a_revocation_that_is_not_in_order_changes_nothing(payload: bytes) -> None:
    one = revocable()
    effects = one.handle(home_spoke(payload), after(5))
    assert rejected_in(effects).finding is ForeignFinding.BAD_REVOCATION
    assert len(effects) == 1
    assert len(one.visitors()) == 1


def test_without_an_agreement_nothing_can_be_revoked() -> None:
    one, message = agent(home_agents={HOME_AGENT: FOREIGN_HOME}), request()
    exchange(one, message, reply_to(message, foreign_home=FOREIGN_HOME))
    effects = one.handle(home_spoke(revoke()), after(5))
    assert rejected_in(effects).finding is ForeignFinding.BAD_REVOCATION


def test_what_is_no_reply_is_dropped() -> None:
    one = agent()
    for payload in (b"", b"\x63", registration.encode_request(request(), SA), bytes([4, 4, 0, 0])):
        assert len(one.handle(home_spoke(payload), after(0))) == 1


def test_a_crowd_of_made_up_stations_keeps_no_visitor_from_renewing() -> None:
    one = agent()
    register(one)
    for n in range(300):
        message = request(5 + n / 1000, home_address=OTHER_HOME)
        station = (0x020000100000 + n).to_bytes(6, "big")
        effects = one.handle(spoke(message, hardware_address=station), after(5 + n / 1000))
    assert rejected_in(effects).finding is ForeignFinding.TOO_OFTEN
    assert code_in(exchange(one, request(5.5), reply_to(request(5.5)), 5.5)) == 0
    stranger = one.handle(
        spoke(request(5.6, home_address=OTHER_HOME), hardware_address=OTHER_MAC), after(5.6)
    )
    assert code_in(stranger) == 66, "who is no visitor has to wait"
