# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that come by way of a foreign agent: for its own care-of address, or because its R bit demands it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agents.agent_events import Finding, Forward, SendReply
from homeward.agents.home_agent import HomeAgent
from homeward.agents.policy import ForeignAgentPeer
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import ProfileError
from homeward.model.nat_traversal import UdpTunnelRequest
from homeward.model.registration import MobilitySecurityAssociation, ReplyCode, RequestFlags, Spi
from homeward.model.relay import ForeignToHome
from homeward.wire.authenticator import authenticate
from homeward.wire.relay import FOREIGN_HOME
from tests.unit.agents.scene import (
    CARE_OF,
    ELSEWHERE,
    FOREIGN_AGENT,
    FOREIGN_SA,
    FORGER,
    HOME,
    NAT,
    OUTSIDE,
    SA,
    T0,
    WITH_FOREIGN_AGENT,
    T,
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
    relayed_reply_in,
    reply_in,
    request,
)


def knowing() -> HomeAgent:
    return HomeAgent(WITH_FOREIGN_AGENT, started=T0)


@pytest.mark.rows("R-171", "R-195", "R-200")
def test_a_foreign_agent_that_we_know_registers_a_visitor() -> None:
    effects = knowing().handle(relayed(by_foreign_agent(1)), after(1))
    reply, _ = relayed_reply_in(effects)
    assert reply.code == ReplyCode.ACCEPTED
    assert reply.trusted_networks_configured
    sent = only(effects, SendReply)
    assert (sent.destination, sent.port) == (FOREIGN_AGENT, 434)
    assert forward_in(effects) == Forward(HOME, FOREIGN_AGENT, reverse_tunnel=True)


def test_a_foreign_agent_that_shares_nothing_is_let_in_by_its_place_alone() -> None:
    effects = agent().handle(relayed(by_foreign_agent(1), by=None), after(1))
    reply, _ = relayed_reply_in(effects, by=None)
    assert reply.is_success
    assert reply.trusted_networks_configured


_UNREADABLE = b"\x22\x03\0\0\x01"


def _twice() -> bytes:
    return authenticate(relayed(by_foreign_agent(1)).octets, FOREIGN_SA, by=FOREIGN_HOME)


def _in_front() -> bytes:
    """The foreign agent's authenticator stands where only the mobile node can have put it."""
    plain = octets(by_foreign_agent(1))[:24]
    return authenticate(authenticate(plain, FOREIGN_SA, by=FOREIGN_HOME), SA)


@pytest.mark.rows("R-195")
@pytest.mark.parametrize(
    "payload",
    [
        relayed(by_foreign_agent(1), by=None).octets,
        relayed(by_foreign_agent(1), by=replace(FOREIGN_SA, key=FORGER.key)).octets,
        relayed(by_foreign_agent(1), by=replace(FOREIGN_SA, spi=Spi(0x999))).octets,
        octets(by_foreign_agent(1)) + _UNREADABLE,
        _twice(),
        _in_front(),
    ],
    ids=["missing", "forged", "another index", "unreadable", "twice", "misplaced"],
)
def test_code_132_unless_exactly_one_valid_proof_is_there(payload: bytes) -> None:
    home_agent = knowing()
    effects = home_agent.handle(arrived(payload, source=FOREIGN_AGENT), after(1))
    reply, _ = relayed_reply_in(effects)
    assert reply.code == ReplyCode.FOREIGN_AGENT_FAILED_AUTHENTICATION
    assert not reply.trusted_networks_configured
    assert refused_in(effects).finding is Finding.FOREIGN_AGENT_FAILED
    assert home_agent.bindings() == ()
    # The mobile node's request was not used up by what its foreign agent did wrong.
    reply, _ = relayed_reply_in(home_agent.handle(relayed(by_foreign_agent(1)), after(2)))
    assert reply.is_success


@pytest.mark.rows("R-195")
@pytest.mark.parametrize("source", [ELSEWHERE, CARE_OF, NAT])
def test_a_proof_without_an_association_is_dropped_in_silence(source: IPv4Address) -> None:
    asked = by_foreign_agent(1, care_of_address=ELSEWHERE)
    effects = knowing().handle(relayed(asked, source=source), after(1))
    assert none(effects, SendReply, Forward)
    assert refused_in(effects).finding is Finding.FOREIGN_AGENT_AUTHENTICATION


@pytest.mark.rows("R-171")
@pytest.mark.parametrize("by", [None, FOREIGN_SA])
def test_a_deregistration_needs_no_proof(by: object) -> None:
    home_agent = knowing()
    home_agent.handle(relayed(by_foreign_agent(1)), after(1))
    end = octets(by_foreign_agent(2, lifetime=0))
    if by is not None:
        end = authenticate(end, FOREIGN_SA, by=FOREIGN_HOME)
    reply, _ = relayed_reply_in(home_agent.handle(arrived(end, source=FOREIGN_AGENT), after(2)))
    assert reply.is_success
    assert home_agent.bindings() == ()


@pytest.mark.rows("R-171", "R-195")
def test_a_wrong_proof_spoils_a_deregistration_too() -> None:
    home_agent = knowing()
    home_agent.handle(relayed(by_foreign_agent(1)), after(1))
    end = octets(by_foreign_agent(2, lifetime=0))
    forged = authenticate(end, replace(FOREIGN_SA, key=FORGER.key), by=FOREIGN_HOME)
    reply, _ = relayed_reply_in(home_agent.handle(arrived(forged, source=FOREIGN_AGENT), after(2)))
    assert reply.code == ReplyCode.FOREIGN_AGENT_FAILED_AUTHENTICATION
    assert len(home_agent.bindings()) == 1


@pytest.mark.rows("R-193")
def test_a_proved_foreign_agent_is_told_that_its_visitor_is_not() -> None:
    forged = octets(by_foreign_agent(1), replace(SA, key=FORGER.key))
    effects = knowing().handle(relayed(forged), after(1))
    reply, _ = relayed_reply_in(effects)
    assert reply.code == ReplyCode.MOBILE_NODE_FAILED_AUTHENTICATION
    assert not reply.trusted_networks_configured
    unproved = knowing().handle(relayed(forged, by=None), after(1))
    assert none(unproved, SendReply)


@pytest.mark.rows("R-171", "R-200")
@pytest.mark.parametrize("changes", [{"identification": 5}, {"home_agent": OUTSIDE}])
def test_denials_prove_themselves_to_the_foreign_agent_as_well(changes: dict[str, object]) -> None:
    reply, _ = relayed_reply_in(knowing().handle(relayed(by_foreign_agent(1, **changes)), after(1)))
    assert reply.code in (133, 136)


# --- the R bit: a co-located node that has to register through a foreign agent ---


@pytest.mark.rows("R-171", "R-195")
@pytest.mark.parametrize("by", [None, FOREIGN_SA], ids=["as RFC 5944 section 3.5.4 has it", "proved though"])
def test_a_co_located_node_behind_a_foreign_agent_that_we_know(
    by: MobilitySecurityAssociation | None,
) -> None:
    effects = knowing().handle(relayed(request(1), by=by), after(1))
    reply, _ = relayed_reply_in(effects)
    assert reply.is_success
    # the care-of address is not where the request came from, so nothing is said about where the node is.
    assert not reply.trusted_networks_configured
    assert forward_in(effects).endpoint == CARE_OF


def test_nobody_else_relays_for_a_co_located_node() -> None:
    for effects in (
        agent().handle(relayed(request(1), by=None), after(1)),
        knowing().handle(relayed(request(1), by=None, source=ELSEWHERE), after(1)),
    ):
        assert reply_in(effects).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
        assert refused_in(effects).finding is Finding.RELAYED


def test_no_packets_go_outside_because_a_foreign_agent_relayed() -> None:
    # The mobile node signed that address when it was outside; its packets would go there in clear.
    home_agent = knowing()
    effects = home_agent.handle(relayed(request(1, care_of_address=OUTSIDE)), after(1))
    reply, _ = relayed_reply_in(effects)
    assert reply.code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert not reply.trusted_networks_configured
    assert refused_in(effects).finding is Finding.UNTRUSTED_CARE_OF_ADDRESS
    assert home_agent.bindings() == ()


def test_a_co_located_node_may_end_its_binding_through_the_foreign_agent() -> None:
    home_agent = knowing()
    home_agent.handle(relayed(request(1)), after(1))
    effects = home_agent.handle(relayed(request(2, lifetime=0), by=None), after(2))
    assert relayed_reply_in(effects)[0].is_success
    assert home_agent.bindings() == ()


def test_a_relayed_wish_for_udp_without_a_nat_is_declined() -> None:
    asked = co_located(1, udp_tunnel=UdpTunnelRequest(through_foreign_agent=True))
    reply, _ = relayed_reply_in(knowing().handle(relayed(asked), after(1)))
    assert reply.udp_tunnel is not None
    assert not reply.udp_tunnel.will_tunnel


# --- a foreign agent behind a NAT ---


@pytest.mark.rows("R-48", "R-92", "R-241")
@pytest.mark.parametrize("by", [None, FOREIGN_SA])
def test_a_foreign_agent_behind_a_nat(by: object) -> None:
    home_agent = agent() if by is None else knowing()
    part = ForeignToHome(udp_tunnel=UdpTunnelRequest())
    effects = home_agent.handle(
        relayed(by_foreign_agent(1), part, by=by, source=NAT, source_port=5000),  # type: ignore[arg-type]
        after(1),
    )
    reply, told = relayed_reply_in(effects, by=by)  # type: ignore[arg-type]
    assert reply.is_success
    assert reply.lifetime == 60
    assert reply.udp_tunnel is None
    assert told.udp_tunnel is not None
    assert told.udp_tunnel.will_tunnel
    assert forward_in(effects) == Forward(HOME, NAT, reverse_tunnel=True, udp=True, port=5000)


@pytest.mark.rows("R-195")
def test_behind_a_nat_a_foreign_agent_that_we_know_has_to_prove_itself_as_well() -> None:
    effects = knowing().handle(relayed(by_foreign_agent(1), by=None, source=NAT), after(1))
    assert relayed_reply_in(effects)[0].code == ReplyCode.FOREIGN_AGENT_FAILED_AUTHENTICATION


def test_associations_of_a_foreign_agent_can_be_changed_one_after_the_other() -> None:
    second = replace(FOREIGN_SA, spi=Spi(0x201), key=FORGER.key)
    both = (ForeignAgentPeer(FOREIGN_AGENT, FOREIGN_SA), ForeignAgentPeer(FOREIGN_AGENT, second))
    for association in (FOREIGN_SA, second):
        effects = agent(foreign_agents=both).handle(relayed(by_foreign_agent(1), by=association), after(1))
        assert relayed_reply_in(effects, by=association)[0].is_success
    with pytest.raises(ProfileError, match=r"two foreign agents have address 10\.1\.3\.1 and SPI 512"):
        agent(foreign_agents=(both[0], both[0]))


@pytest.mark.rows("R-221")
def test_encapsulations_are_the_foreign_agents_to_carry_too() -> None:
    asked = by_foreign_agent(1, flags=T | RequestFlags.GRE)
    assert forward_in(knowing().handle(relayed(asked), after(1))).encapsulation is Encapsulation.GRE
