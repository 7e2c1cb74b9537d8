# SPDX-License-Identifier: GPL-2.0-or-later
"""Which requests a foreign agent relays, how it changes them, and which it denies with which code."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agents.foreign_events import ForeignFinding, SendToHomeAgent, SendToMobileNode
from homeward.agents.foreign_rules import ReverseTunnelling
from homeward.model.agent import AgentFlags
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import TunnelKind, UdpTunnelRequest
from homeward.model.registration import RegistrationRequest, RequestFlags
from homeward.model.relay import MobileToForeign
from homeward.model.revocation import RevocationSupport
from homeward.wire import authenticator, registration, relay
from homeward.wire.extensions import Extension, ExtensionType, encode
from tests.unit.agents.foreign_scene import (
    ADDRESS,
    CARE_OF,
    FOREIGN_HOME,
    HOME,
    HOME_AGENT,
    LINK,
    MAC,
    MOBILE_FOREIGN,
    NOWHERE,
    OTHER_HOME,
    OTHER_MAC,
    POLICY,
    PORT,
    SA,
    SERVER,
    D,
    T,
    after,
    agent,
    code_in,
    octets,
    only,
    rejected_in,
    relayed_in,
    request,
    spoke,
    told_in,
)

M, G, S = RequestFlags.MINIMAL, RequestFlags.GRE, RequestFlags.SIMULTANEOUS
CO_LOCATED = IPv4Address("10.1.3.50")
ENCAPSULATING = MobileToForeign(encapsulating_delivery=True)


@pytest.mark.rows("R-208")
def test_a_request_goes_on_unchanged_through_the_mobile_home_authenticator() -> None:
    sent = registration.encode_request(request(), SA)
    behind = encode(Extension(ExtensionType.ENCAPSULATING_DELIVERY_STYLE, b"")) + encode(
        Extension(200, b"xyz")
    )
    effects = agent().handle(spoke(sent + behind), after(0))
    relayed = only(effects, SendToHomeAgent)
    assert relayed.octets == sent
    assert (relayed.source, relayed.destination, relayed.port) == (CARE_OF, HOME_AGENT, 434)
    assert len(effects) == 1


@pytest.mark.rows("R-208", "R-171")
def test_an_association_with_the_home_agent_proves_who_relayed() -> None:
    one = agent(home_agents={HOME_AGENT: FOREIGN_HOME})
    decoded = relayed_in(one.handle(spoke(request()), after(0)))
    assert authenticator.verify(decoded.octets, decoded, FOREIGN_HOME, by=relay.FOREIGN_HOME)
    assert relay.through_mobile_home(decoded) == registration.encode_request(request(), SA)


@pytest.mark.rows("R-171")
@pytest.mark.parametrize(
    "changes",
    [
        {"lifetime": 0},
        {"lifetime": 0, "care_of_address": HOME},
        {"flags": T | D, "care_of_address": CO_LOCATED},
    ],
    ids=["deregistration", "of all", "care-of address of its own"],
)
def test_nothing_of_ours_is_added_to_a_deregistration_or_for_an_address_that_is_not_ours(
    changes: dict[str, object],
) -> None:
    one = agent(home_agents={HOME_AGENT: FOREIGN_HOME}, registration_required=True)
    message = request(**changes)
    source = CO_LOCATED if D in message.flags else HOME
    effects = one.handle(spoke(message, source=source), after(0))
    assert only(effects, SendToHomeAgent).octets == registration.encode_request(message, SA)


@pytest.mark.rows("R-207", "R-221", "R-141")
@pytest.mark.parametrize(
    ("changes", "part", "policy", "code"),
    [
        ({"flags": T | RequestFlags.RESERVED_X}, None, {}, 70),
        ({"flags": T | RequestFlags.RESERVED_R, "lifetime": 0}, None, {}, 70),
        ({"care_of_address": IPv4Address("10.1.2.1")}, None, {}, 77),
        ({"care_of_address": CARE_OF, "flags": T | D}, None, {}, 77),
        ({"flags": T | G}, None, {"encapsulations": frozenset({Encapsulation.IP_IN_IP})}, 72),
        ({"flags": T | M}, None, {"encapsulations": frozenset({Encapsulation.IP_IN_IP})}, 72),
        ({"flags": T | M}, None, {"behind_nat": True}, 72),
        ({}, ENCAPSULATING, {"encapsulating_delivery": False}, 79),
        ({}, None, {"reverse_tunnelling": ReverseTunnelling.REFUSED}, 74),
        ({"flags": RequestFlags(0)}, None, {"reverse_tunnelling": ReverseTunnelling.MANDATORY}, 75),
        ({"lifetime": 1801}, None, {}, 69),
        ({"lifetime": 0xFFFF}, None, {}, 69),
        ({"home_agent": ADDRESS}, None, {}, 194),
        ({"home_agent": IPv4Address("10.0.0.13")}, None, {"own": ["10.0.0.13"]}, 194),
        ({"home_agent": NOWHERE}, None, {}, 90),
        ({"home_agent": IPv4Address("255.255.255.255")}, None, {}, 90),
        ({"home_agent": IPv4Address("224.0.0.11")}, None, {}, 70),
        ({"home_agent": IPv4Address("127.0.0.1")}, None, {}, 70),
        ({"home_agent": IPv4Address("10.1.3.77")}, None, {}, 65),
        ({}, None, {"home_agent_networks": (IPv4Network("10.2.0.0/16"),)}, 65),
        ({"home_address": NOWHERE}, None, {}, 96),
        ({"home_address": IPv4Address("10.1.3.77")}, None, {}, 65),
        ({"home_address": IPv4Address("10.0.0.13")}, None, {"own": ["10.0.0.13"]}, 65),
        ({"home_address": IPv4Address("10.0.0.9")}, None, {"home_agents": {IPv4Address("10.0.0.9"): SA}}, 65),
        ({"home_address": IPv4Address("239.1.1.1")}, None, {}, 70),
    ],
)
def test_what_is_denied_and_how(
    changes: dict[str, object], part: MobileToForeign | None, policy: dict[str, object], code: int
) -> None:
    message = replace(request(), **changes)  # type: ignore[arg-type]
    payload = signed(message) if part is None else octets(message, part)
    effects = agent(**policy).handle(spoke(payload, source=message.home_address), after(0))  # type: ignore[arg-type]
    told = told_in(effects)
    assert told.message.code == code
    assert rejected_in(effects).code == code
    assert told.message.home_address == message.home_address
    assert told.message.home_agent == message.home_agent
    assert told.message.identification == message.identification
    assert told.message.lifetime == (1800 if code == 69 else message.lifetime)
    assert told.authentications == ()
    assert not [each for each in effects if isinstance(each, SendToHomeAgent)]


def signed(message: RegistrationRequest) -> bytes:
    """Reserved flags and all."""
    plain = registration.encode_request(replace(message, flags=RequestFlags(0)), SA)
    return authenticator.authenticate(plain[:1] + bytes([message.flags]) + plain[2:24], SA)


@pytest.mark.rows("R-207", "R-221")
def test_a_reverse_tunnel_is_for_neighbours_only_and_that_is_said_once_a_second() -> None:
    one = agent()
    effects = one.handle(spoke(request(0), ttl=254), after(0))
    assert code_in(effects) == 76
    for n in range(1, 4):
        effects = one.handle(spoke(request(n / 10), ttl=64), after(n / 10))
        assert rejected_in(effects).finding is ForeignFinding.TOO_DISTANT
        assert rejected_in(effects).code is None
        assert len(effects) == 1, "told more than once within a second"
    assert code_in(one.handle(spoke(request(1.1), ttl=64), after(1.1))) == 76
    without = request(3, flags=RequestFlags(0))
    assert one.handle(spoke(without, ttl=64), after(3)) != ()
    assert one.pending_count() == 1, "without T any TTL will do"


@pytest.mark.rows("R-207")
def test_a_denial_goes_back_to_where_the_request_came_from_and_to_its_station() -> None:
    sent = only(agent().handle(spoke(request(lifetime=9999)), after(0)), SendToMobileNode)
    assert (sent.destination, sent.port, sent.source) == (HOME, PORT, ADDRESS)
    assert (sent.hardware_address, sent.interface) == (MAC, LINK)
    to_all = spoke(request(lifetime=9999), destination=IPv4Address("224.0.0.11"))
    assert only(agent().handle(to_all, after(0)), SendToMobileNode).source == ADDRESS
    unaddressed = spoke(request(lifetime=9999), source=NOWHERE)
    assert only(agent().handle(unaddressed, after(0)), SendToMobileNode).destination == HOME
    nameless = spoke(request(lifetime=9999, home_address=NOWHERE, nai="a@example.test"))
    sent = only(agent().handle(nameless, after(0)), SendToMobileNode)
    assert (sent.destination, sent.hardware_address) == (IPv4Address("255.255.255.255"), MAC)


def test_what_passes_by_is_no_business_of_ours() -> None:
    one = agent()
    assert one.handle(spoke(request(), destination=HOME_AGENT), after(0)) == ()
    assert one.handle(spoke(request(), interface="elsewhere"), after(0)) == ()


@pytest.mark.parametrize(
    ("arrived", "finding"),
    [
        (spoke(octets(request())[:30]), ForeignFinding.MALFORMED),
        (spoke(octets(request()) + encode(Extension(99, b"?"))), ForeignFinding.MALFORMED),
        (spoke(bytes([3]) + bytes(19)), ForeignFinding.NOT_A_REQUEST),
        (spoke(bytes([7]) + bytes(19)), ForeignFinding.MALFORMED),
        (spoke(request(), source=OTHER_HOME), ForeignFinding.WRONG_SOURCE),
        (spoke(request(), hardware_address=bytes(6)), ForeignFinding.WRONG_SOURCE),
        (spoke(request(), hardware_address=b"\xff" * 6), ForeignFinding.WRONG_SOURCE),
    ],
)
def test_what_no_mobile_node_sends_is_dropped_without_a_word(
    arrived: object, finding: ForeignFinding
) -> None:
    effects = agent().handle(arrived, after(0))  # type: ignore[arg-type]
    assert [rejected_in(effects)] == list(effects)
    assert rejected_in(effects).finding is finding


def test_without_exactly_one_proof_for_the_home_agent_nothing_is_relayed() -> None:
    twice = authenticator.authenticate(octets(request()), SA)
    bare = octets(request())[:24]
    for payload in (twice, bare):
        assert code_in(agent().handle(spoke(payload), after(0))) == 70


@pytest.mark.rows("R-279")
def test_revocation_support_of_a_mobile_node_that_has_no_address_of_its_own_is_dropped() -> None:
    support = encode(Extension(ExtensionType.REVOCATION_SUPPORT, bytes(6)))
    payload = authenticator.authenticate(octets(request())[:24] + support, SA)
    effects = agent().handle(spoke(payload), after(0))
    assert rejected_in(effects).finding is ForeignFinding.REVOCATION_BY_MOBILE_NODE
    assert len(effects) == 1


# --- behind a NAT -----------------------------------------------------------------------------------------------------


@pytest.mark.rows("R-242")
def test_behind_a_nat_it_asks_for_a_udp_tunnel_behind_the_mobile_nodes_part_and_before_its_own_proof() -> (
    None
):
    one = agent(behind_nat=True, home_agents={HOME_AGENT: FOREIGN_HOME})
    effects = one.handle(spoke(request()), after(0))
    decoded = relayed_in(effects)
    assert only(effects, SendToHomeAgent).source == CARE_OF, "or no NAT would be seen"
    assert decoded.message.udp_tunnel is None
    assert relay.read_for_home_agent(decoded).udp_tunnel == UdpTunnelRequest()
    assert [each.number for each in decoded.unauthenticated] == [144, 34]
    assert authenticator.verify(decoded.octets, decoded, FOREIGN_HOME, by=relay.FOREIGN_HOME)
    gre = relayed_in(agent(behind_nat=True).handle(spoke(request(flags=T | G)), after(0)))
    assert relay.read_for_home_agent(gre).udp_tunnel == UdpTunnelRequest(kind=TunnelKind.GRE)


@pytest.mark.rows("R-242")
def test_never_for_a_care_of_address_that_is_not_ours() -> None:
    one = agent(behind_nat=True, registration_required=True)
    message = request(flags=T | D, care_of_address=CO_LOCATED)
    effects = one.handle(spoke(message, source=CO_LOCATED), after(0))
    assert relayed_in(effects).unauthenticated == ()


@pytest.mark.rows("R-242", "R-221")
def test_behind_a_nat_a_reverse_tunnel_is_demanded_unless_the_nat_is_known_to_be_transparent() -> None:
    message = request(flags=RequestFlags(0))
    assert code_in(agent(behind_nat=True).handle(spoke(message), after(0))) == 75
    transparent = agent(behind_nat=True, nat_is_transparent=True)
    assert relayed_in(transparent.handle(spoke(message), after(0))).message.flags == RequestFlags(0)


@pytest.mark.rows("R-245")
@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, "FOREIGN_AGENT MINIMAL GRE REVERSE_TUNNEL"),
        ({"behind_nat": True}, "FOREIGN_AGENT GRE REVERSE_TUNNEL UDP_TUNNEL"),
        ({"registration_required": True}, "FOREIGN_AGENT MINIMAL GRE REVERSE_TUNNEL REGISTRATION_REQUIRED"),
        ({"revocation": True}, "FOREIGN_AGENT MINIMAL GRE REVERSE_TUNNEL REVOCATION"),
        ({"reverse_tunnelling": ReverseTunnelling.REFUSED}, "FOREIGN_AGENT MINIMAL GRE"),
        ({"encapsulations": frozenset({Encapsulation.IP_IN_IP})}, "FOREIGN_AGENT REVERSE_TUNNEL"),
    ],
)
def test_what_is_offered_is_what_is_advertised(changes: dict[str, object], flags: str) -> None:
    expected = AgentFlags(0)
    for name in flags.split():
        expected |= AgentFlags[name]
    assert replace(POLICY, **changes).flags == expected  # type: ignore[arg-type]


# --- proofs of the mobile node ----------------------------------------------------------------------------------------


@pytest.mark.rows("R-207")
@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"mobile_foreign": MOBILE_FOREIGN}, None),
        ({}, 67),
        ({"mobile_foreign": replace(SA, spi=MOBILE_FOREIGN.spi)}, 67),
    ],
)
def test_who_shares_a_key_with_us_must_use_it(keys: dict[str, object], code: int | None) -> None:
    one = agent(nodes={HOME: (MOBILE_FOREIGN,)})
    effects = one.handle(spoke(octets(request(), **keys)), after(0))  # type: ignore[arg-type]
    if code is None:
        assert relayed_in(effects).unauthenticated == (), "what was for us alone goes no further"
    else:
        told = told_in(effects)
        assert told.message.code == code
        assert authenticator.verify(told.octets, told, MOBILE_FOREIGN, by=relay.MOBILE_FOREIGN)


def challenged(**more: object) -> tuple[object, bytes]:
    one = agent(challenge=True, servers={HOME: SERVER}, **more)
    intake = one._requests._challenges
    assert intake is not None
    return one, intake.advertise()


@pytest.mark.rows("R-276")
def test_a_challenge_is_answered_under_a_key_that_is_known_here() -> None:
    one, challenge = challenged()
    payload = octets(request(), MobileToForeign(challenge=challenge), aaa=SERVER)
    decoded = relayed_in(one.handle(spoke(payload), after(0)))  # type: ignore[attr-defined]
    assert [each.number for each in decoded.unauthenticated] == [132, 36], "RFC 4721 section 3.2"
    assert decoded.octets == payload


@pytest.mark.rows("R-276")
def test_missing_unknown_and_stale_challenges_and_each_denial_brings_the_next_one() -> None:
    one, challenge = challenged()
    effects = one.handle(spoke(request(0)), after(0))  # type: ignore[attr-defined]
    assert code_in(effects) == 105
    assert relay.read_from_foreign_agent(told_in(effects)).challenge == challenge
    unknown = octets(request(2), MobileToForeign(challenge=bytes(16)), aaa=SERVER)
    effects = one.handle(spoke(unknown), after(2))  # type: ignore[attr-defined]
    assert code_in(effects) == 104
    assert relay.read_from_foreign_agent(told_in(effects)).challenge == challenge
    good = octets(request(4), MobileToForeign(challenge=challenge), aaa=SERVER)
    relayed_in(one.handle(spoke(good), after(4)))  # type: ignore[attr-defined]
    one.handle(spoke(good), after(14))  # type: ignore[attr-defined]
    again = octets(request(16), MobileToForeign(challenge=challenge), aaa=SERVER)
    effects = one.handle(spoke(again), after(16))  # type: ignore[attr-defined]
    assert code_in(effects) == 106
    fresh = relay.read_from_foreign_agent(told_in(effects)).challenge
    assert fresh not in (None, challenge)
    better = octets(request(18), MobileToForeign(challenge=fresh), aaa=SERVER)
    relayed_in(one.handle(spoke(better), after(18)))  # type: ignore[attr-defined]


def test_a_retransmission_may_answer_the_same_challenge_while_the_first_one_waits() -> None:
    one, challenge = challenged()
    for at in (0.0, 1.0):
        payload = octets(request(at), MobileToForeign(challenge=challenge), aaa=SERVER)
        relayed_in(one.handle(spoke(payload), after(at)))  # type: ignore[attr-defined]


def test_wrong_or_unknown_keys_for_a_server_are_refused() -> None:
    wrong = replace(SERVER, key=MOBILE_FOREIGN.key)
    one, challenge = challenged()
    payload = octets(request(), MobileToForeign(challenge=challenge), aaa=wrong)
    assert code_in(one.handle(spoke(payload), after(0))) == 108  # type: ignore[attr-defined]
    stranger = octets(request(2, home_address=OTHER_HOME), MobileToForeign(challenge=challenge), aaa=SERVER)
    effects = one.handle(spoke(stranger, source=OTHER_HOME), after(2))  # type: ignore[attr-defined]
    assert code_in(effects) == 108


def test_a_challenge_without_proof_is_dropped() -> None:
    one, challenge = challenged()
    bare = octets(request()) + encode(Extension(ExtensionType.MOBILE_FOREIGN_CHALLENGE, challenge))
    effects = one.handle(spoke(bare), after(0))  # type: ignore[attr-defined]
    assert rejected_in(effects).finding is ForeignFinding.CHALLENGE_UNPROVED
    assert len(effects) == 1


def test_a_mobile_node_cannot_speak_to_the_home_agent_in_our_name() -> None:
    """What it put before MN-AAA would be signed by us as our own wish."""
    one, challenge = challenged(home_agents={HOME_AGENT: FOREIGN_HOME})
    wish = encode(Extension(ExtensionType.UDP_TUNNEL_REQUEST, bytes([0, 0x80, 0, 0, 0]), sub_type=0))
    answered = encode(Extension(ExtensionType.MOBILE_FOREIGN_CHALLENGE, challenge))
    payload = relay.authenticate_to_server(octets(request()) + wish + answered, SERVER, challenge=challenge)
    decoded = relayed_in(one.handle(spoke(payload), after(0)))  # type: ignore[attr-defined]
    assert [each.number for each in decoded.unauthenticated] == [34]


# --- room, floods and copies ------------------------------------------------------------------------------------------


def stations(count: int) -> list[tuple[IPv4Address, bytes]]:
    return [(HOME + n, (0x020000001000 + n).to_bytes(6, "big")) for n in range(count)]


@pytest.mark.rows("R-207")
def test_a_full_waiting_room_is_busy_and_denies_newcomers() -> None:
    one = agent(pending_max=5)
    for n, (home, station) in enumerate(stations(6)):
        message = request(n / 10, home_address=home)
        assert one.is_busy == (n == 5)
        effects = one.handle(spoke(message, hardware_address=station), after(n / 10))
        if n < 5:
            relayed_in(effects)
    assert code_in(effects) == 66
    assert rejected_in(effects).finding is ForeignFinding.NO_ROOM


def test_one_station_displaces_its_own_requests_only() -> None:
    one = agent(pending_max=5)
    relayed_in(one.handle(spoke(request(0), hardware_address=OTHER_MAC), after(0)))
    for n in range(1, 30):
        message = request(n / 2, home_address=OTHER_HOME)
        one.handle(spoke(message), after(n / 2 if n < 12 else 6))
    assert one.pending_count() <= 4
    assert not one.is_busy
    assert any(each.hardware_address == OTHER_MAC for each in one._pending)


def test_a_flood_from_one_station_is_cut_off_before_anything_is_computed() -> None:
    one = agent()
    relayed = 0
    for n in range(500):
        effects = one.handle(spoke(request(n / 1000)), after(n / 1000))
        relayed += any(isinstance(each, SendToHomeAgent) for each in effects)
    assert relayed <= 11
    assert rejected_in(effects).finding is ForeignFinding.TOO_OFTEN
    fine = request(0.6, home_address=OTHER_HOME)
    relayed_in(one.handle(spoke(fine, hardware_address=OTHER_MAC), after(0.6)))


def test_a_copied_request_from_another_station_is_dropped() -> None:
    one = agent()
    message = request()
    relayed_in(one.handle(spoke(message), after(0)))
    effects = one.handle(spoke(message, hardware_address=OTHER_MAC), after(0.1))
    assert rejected_in(effects).finding is ForeignFinding.COPIED
    assert len(effects) == 1
    relayed_in(one.handle(spoke(message), after(1)))


@pytest.mark.rows("R-279")
def test_a_care_of_address_of_its_own_is_relayed_with_what_it_says_itself() -> None:
    message = request(
        flags=T | D,
        care_of_address=CO_LOCATED,
        udp_tunnel=UdpTunnelRequest(through_foreign_agent=True),
        revocation_support=RevocationSupport(7),
    )
    effects = agent(registration_required=True).handle(spoke(message, source=CO_LOCATED), after(0))
    assert relayed_in(effects).message == message
    assert only(effects, SendToHomeAgent).source == CARE_OF
