# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that somebody else made, changed, cut short, relayed or sent again."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agents.agent_events import Finding, Forward, SendReply, StopForwarding
from homeward.agents.home_agent import HomeAgent
from homeward.agents.ingress import TrustedNetworks
from homeward.model.registration import MobilitySecurityAssociation, ReplyCode, Spi
from homeward.wire.authenticator import authenticate
from homeward.wire.extensions import Extension
from homeward.wire.identification import high32, low32
from tests.unit.agents.scene import (
    CARE_OF,
    ELSEWHERE,
    FORGER,
    HOME,
    NAT,
    NETWORKS,
    OLD_SA,
    OTHER_HOME,
    OTHER_SA,
    OUTSIDE,
    SA,
    after,
    agent,
    arrived,
    none,
    octets,
    only,
    refused_in,
    reply_in,
    request,
    stamp,
)

NOTHING_DONE = (SendReply, Forward, StopForwarding)


def is_silent(home_agent: HomeAgent, payload: bytes, **changes: object) -> Finding:
    """Nothing leaves and nothing changes; returns what was noted."""
    before = home_agent.bindings()
    effects = home_agent.handle(arrived(payload, **changes), after(1))
    assert none(effects, *NOTHING_DONE), effects
    assert home_agent.bindings() == before
    refused = refused_in(effects)
    assert refused.code is None
    return refused.finding


def test_the_genuine_request_is_accepted() -> None:
    # Without this the silence below would prove nothing.
    assert reply_in(agent().handle(arrived(octets(request(1))), after(1))).code == ReplyCode.ACCEPTED


@pytest.mark.rows("R-94")
@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"source": OUTSIDE}, Finding.WRONG_SOURCE),
        ({"interface": "outside"}, Finding.WRONG_INTERFACE),
        ({"interface": "homeward-ha0"}, Finding.WRONG_INTERFACE),
        ({"interface": ""}, Finding.WRONG_INTERFACE),
        ({"interface": "outside", "source": OUTSIDE}, Finding.WRONG_INTERFACE),
    ],
)
@pytest.mark.parametrize("what", ["genuine", "forged", "malformed"])
def test_whoever_is_not_inside_gets_silence(changes: dict[str, object], finding: Finding, what: str) -> None:
    source = changes.get("source", CARE_OF)
    genuine = octets(request(1, care_of_address=source))
    payload = {"genuine": genuine, "forged": octets(request(1), FORGER), "malformed": b"\1\2"}[what]
    assert is_silent(agent(answer_failed_authentication=True), payload, **changes) is finding


@pytest.mark.rows("R-93")
def test_an_agent_without_trusted_networks_answers_nobody() -> None:
    assert is_silent(agent(networks=TrustedNetworks()), octets(request(1))) is Finding.WRONG_INTERFACE
    no_prefix = TrustedNetworks(NETWORKS.interfaces)
    assert is_silent(agent(networks=no_prefix), octets(request(1))) is Finding.WRONG_SOURCE


@pytest.mark.rows("R-168", "R-193")
def test_every_single_bit_of_a_request_counts() -> None:
    genuine = octets(request(1, nai="laptop@example.test"))
    for at in range(len(genuine) * 8):
        forged = bytearray(genuine)
        forged[at // 8] ^= 0x80 >> at % 8
        is_silent(agent(), bytes(forged))


@pytest.mark.rows("R-103")
def test_every_truncation() -> None:
    genuine = octets(request(1))
    for size in range(len(genuine)):
        is_silent(agent(), genuine[:size])


def _two_authentications() -> bytes:
    return authenticate(octets(request(1)), SA)


def _none() -> bytes:
    return octets(request(1))[:24]


@pytest.mark.rows("R-193", "R-195")
@pytest.mark.parametrize(
    ("payload", "finding"),
    [
        (b"", Finding.MALFORMED),
        (b"\x03", Finding.MALFORMED),
        (b"\x04\x04\x00\x00" + bytes(40), Finding.STRAY_KEEPALIVE),
        (b"\x07" + bytes(60), Finding.REVOCATION),
        (b"\x07" + bytes(10), Finding.MALFORMED),
        (octets(request(1), behind=[Extension(99, b"")]), Finding.MALFORMED),
        (octets(request(1)) + b"\x91\xff", Finding.MALFORMED),
        (
            authenticate(struct.pack("!BBH4s4sQ", 3, 0, 300, HOME.packed, CARE_OF.packed, stamp(1)), SA),
            Finding.NOT_A_REQUEST,
        ),
        (_none(), Finding.NO_AUTHENTICATION),
        (_two_authentications(), Finding.NO_AUTHENTICATION),
        (octets(request(1), behind=[Extension(34, bytes(20))]), Finding.FOREIGN_AGENT_AUTHENTICATION),
        (octets(request(1), covered=[Extension(34, bytes(20))]), Finding.FOREIGN_AGENT_AUTHENTICATION),
        (octets(request(1, home_address=IPv4Address("10.77.0.99"))), Finding.UNKNOWN_ASSOCIATION),
        (octets(request(1, home_address=IPv4Address("0.0.0.0"))), Finding.UNKNOWN_ASSOCIATION),
        (octets(request(1), replace(SA, spi=Spi(0x102))), Finding.UNKNOWN_ASSOCIATION),
        (octets(request(1, home_address=OTHER_HOME), OLD_SA), Finding.UNKNOWN_ASSOCIATION),
        (octets(request(1), FORGER), Finding.WRONG_AUTHENTICATOR),
        (octets(request(1), replace(OLD_SA, spi=SA.spi)), Finding.WRONG_AUTHENTICATOR),
        (octets(request(1), replace(SA, spi=OLD_SA.spi)), Finding.WRONG_AUTHENTICATOR),
        (octets(request(1, home_address=OTHER_HOME), SA), Finding.WRONG_AUTHENTICATOR),
        (octets(request(1), OTHER_SA), Finding.WRONG_AUTHENTICATOR),
    ],
)
def test_silence(payload: bytes, finding: Finding) -> None:
    assert is_silent(agent(), payload) is finding


@pytest.mark.rows("R-193")
def test_a_failed_authenticator_can_be_answered_and_the_answer_vouches_for_nothing() -> None:
    home_agent = agent(answer_failed_authentication=True)
    effects = home_agent.handle(arrived(octets(request(1), FORGER)), after(1))
    reply = reply_in(effects)
    assert reply.code == ReplyCode.MOBILE_NODE_FAILED_AUTHENTICATION
    assert not reply.trusted_networks_configured
    assert refused_in(effects).code == ReplyCode.MOBILE_NODE_FAILED_AUTHENTICATION
    assert home_agent.bindings() == ()


@pytest.mark.parametrize("lifetime", [300, 0])
def test_a_request_relayed_from_outside_is_no_proof(lifetime: int) -> None:
    # A foothold inside sends on what a mobile node sent outside: authentic, fresh, and from a trusted source.
    sent_outside = request(1, care_of_address=OUTSIDE, lifetime=lifetime)
    home_agent = agent()
    effects = home_agent.handle(arrived(sent_outside, source=ELSEWHERE), after(1))
    reply = reply_in(effects)
    assert reply.code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert not reply.trusted_networks_configured
    assert refused_in(effects).finding is Finding.RELAYED
    assert none(effects, Forward, StopForwarding)
    # It did not use the request up: had the node been inside after all, its own copy would still count.
    assert home_agent.bindings() == ()


@pytest.mark.rows("R-95")
@pytest.mark.parametrize("interface", ["inside", "outside"])
@pytest.mark.parametrize("source", [CARE_OF, ELSEWHERE, OUTSIDE, NAT])
@pytest.mark.parametrize("care_of", [CARE_OF, ELSEWHERE, OUTSIDE, NAT, HOME])
@pytest.mark.parametrize("lifetime", [300, 0])
@pytest.mark.parametrize("nats", [frozenset(), frozenset({NAT})])
def test_tnc_for_each_combination(
    interface: str, source: IPv4Address, care_of: IPv4Address, lifetime: int, nats: frozenset[IPv4Address]
) -> None:
    networks = replace(NETWORKS, nats=nats)
    asked = request(1, care_of_address=care_of, lifetime=lifetime)
    effects = agent(networks=networks).handle(arrived(asked, source=source, interface=interface), after(1))
    if interface == "outside" or source == OUTSIDE:
        assert none(effects, SendReply)
        return
    reply = reply_in(effects)
    assert reply.trusted_networks_configured is (source == care_of or source in nats)
    success = source == care_of or (lifetime == 0 and (care_of == HOME or source in nats))
    assert reply.is_success is success


@pytest.mark.rows("R-200")
def test_tnc_stands_before_the_authenticator() -> None:
    effects = agent().handle(arrived(request(1)), after(1))
    assert only(effects, SendReply).octets[20:24] == bytes.fromhex("95020000")


@pytest.mark.rows("R-173", "R-194")
def test_a_replay_gets_code_133_and_changes_nothing() -> None:
    home_agent = agent()
    home_agent.handle(arrived(request(1)), after(1))
    moved = request(2, care_of_address=ELSEWHERE)
    home_agent.handle(arrived(moved, source=ELSEWHERE), after(2))
    bindings = home_agent.bindings()
    effects = home_agent.handle(arrived(request(1)), after(3))
    reply = reply_in(effects)
    assert reply.code == ReplyCode.IDENTIFICATION_MISMATCH
    assert reply.lifetime == 0
    assert low32(reply.identification) == low32(stamp(1))
    assert high32(reply.identification) == high32(stamp(3))
    assert none(effects, Forward, StopForwarding)
    assert refused_in(effects).finding is Finding.STALE
    assert home_agent.bindings() == bindings


def test_an_old_recording_is_no_use_after_a_restart() -> None:
    recorded = arrived(request(-2))
    assert reply_in(agent().handle(recorded, after(1))).code == ReplyCode.IDENTIFICATION_MISMATCH


def test_a_deregistration_cannot_be_played_again() -> None:
    home_agent = agent()
    end = request(1, lifetime=0)
    home_agent.handle(arrived(end), after(1))
    home_agent.handle(arrived(request(2)), after(2))
    effects = home_agent.handle(arrived(end), after(3))
    assert reply_in(effects).code == ReplyCode.IDENTIFICATION_MISMATCH
    assert len(home_agent.bindings()) == 1


@pytest.mark.parametrize("association", [SA, OLD_SA])
def test_one_key_cannot_undo_what_the_other_did_later(association: MobilitySecurityAssociation) -> None:
    other = OLD_SA if association is SA else SA
    home_agent = agent()
    home_agent.handle(arrived(octets(request(2), association)), after(2))
    delayed = octets(request(1, care_of_address=ELSEWHERE), other)
    effects = home_agent.handle(arrived(delayed, source=ELSEWHERE), after(3))
    assert reply_in(effects, other).code == ReplyCode.IDENTIFICATION_MISMATCH
    assert home_agent.bindings()[0].care_of_address == CARE_OF


@pytest.mark.rows("R-193")
def test_another_node_cannot_bind_or_end_this_nodes_address() -> None:
    home_agent = agent()
    home_agent.handle(arrived(request(1)), after(1))
    for lifetime in (0, 300):
        stolen = octets(request(2, lifetime=lifetime), OTHER_SA)
        assert is_silent(home_agent, stolen) is Finding.WRONG_AUTHENTICATOR


def test_no_effect_shows_a_key() -> None:
    shown = repr(
        agent(answer_failed_authentication=True).handle(arrived(octets(request(1), FORGER)), after(1))
    )
    assert SA.key.reveal().hex() not in shown
    assert repr(SA.key.reveal()) not in shown


def test_trusting_a_prefix_does_not_trust_its_neighbour() -> None:
    networks = TrustedNetworks(NETWORKS.interfaces, (IPv4Network("10.1.1.0/24"),))
    home_agent = agent(networks=networks)
    assert is_silent(home_agent, octets(request(1)), source=ELSEWHERE) is Finding.WRONG_SOURCE
