# SPDX-License-Identifier: GPL-2.0-or-later
"""Home addresses for nodes that are known by an NAI (RFC 2794; RFC 5944 section 3.8.3.2)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agents.agent_events import Finding, SendReply
from homeward.agents.home_agent import HomeAgent, Node
from homeward.model.errors import ProfileError
from homeward.model.registration import MobilitySecurityAssociation, RegistrationReply, ReplyCode, Spi
from tests.unit.agents.scene import (
    FORGER,
    HOME,
    OTHER_HOME,
    POLICY,
    SA,
    T0,
    after,
    arrived,
    by_foreign_agent,
    forward_in,
    none,
    octets,
    refused_in,
    relayed,
    relayed_reply_in,
    reply_in,
    request,
)

NOWHERE = IPv4Address("0.0.0.0")
POOL = IPv4Network("10.77.0.64/29")  # six addresses


def roamer(number: int, pool: IPv4Network = POOL) -> Node:
    association = replace(SA, spi=Spi(0x300 + number))
    return Node(f"n{number}", None, association, nai=nai(number), home_addresses=pool)


def nai(number: int) -> str:
    return f"n{number}@example.test"


NODES = (*(roamer(number) for number in range(8)), Node("laptop", HOME, SA, nai="laptop@example.test"))


def agent(nodes: tuple[Node, ...] = NODES) -> HomeAgent:
    return HomeAgent(replace(POLICY, nodes=nodes), started=T0)


def ask(
    home_agent: HomeAgent,
    number: int,
    at: float,
    *,
    home: IPv4Address = NOWHERE,
    lifetime: int = 300,
    name: str | None = None,
    association: MobilitySecurityAssociation | None = None,
) -> RegistrationReply:
    key = association or replace(SA, spi=Spi(0x300 + number))
    asked = request(at, home_address=home, lifetime=lifetime, nai=name or nai(number))
    return reply_in(home_agent.handle(arrived(octets(asked, key)), after(at)), key)


@pytest.mark.rows("R-273", "R-274")
def test_an_address_for_an_nai() -> None:
    home_agent = agent()
    reply = ask(home_agent, 0, 1)
    assert reply.is_success
    assert reply.nai == nai(0)
    assert reply.home_address in POOL
    assert reply.home_agent == POLICY.address
    assert [each.home_address for each in home_agent.bindings()] == [reply.home_address]
    renewed = ask(home_agent, 0, 2, home=reply.home_address)
    assert (renewed.code, renewed.home_address) == (0, reply.home_address)
    asked_again = ask(home_agent, 0, 3)
    assert asked_again.home_address == reply.home_address
    assert home_agent.binding_count() == 1


@pytest.mark.rows("R-274")
def test_a_node_with_an_address_of_its_own_may_forget_it() -> None:
    reply = ask(agent(), 0, 1, name="laptop@example.test", association=SA)
    assert reply.home_address == HOME


@pytest.mark.rows("R-273")
def test_packets_follow_and_the_duplicate_gets_the_same_answer() -> None:
    home_agent = agent()
    key = replace(SA, spi=Spi(0x300))
    datagram = arrived(octets(request(1, home_address=NOWHERE, nai=nai(0)), key))
    effects = home_agent.handle(datagram, after(1))
    given = reply_in(effects, key).home_address
    assert forward_in(effects).home_address == given
    again = home_agent.handle(datagram, after(2))
    assert reply_in(again, key).home_address == given
    assert reply_in(again, key).lifetime == 299
    assert [type(each) for each in again] == [SendReply]


def test_each_has_an_address_to_itself_until_there_are_no_more() -> None:
    home_agent = agent()
    given = [ask(home_agent, number, 1 + number).home_address for number in range(6)]
    assert len(set(given)) == 6
    assert all(address in POOL for address in given)
    assert POOL.network_address not in given
    assert POOL.broadcast_address not in given
    reply = ask(home_agent, 6, 8)
    assert reply.code == ReplyCode.INSUFFICIENT_RESOURCES
    assert reply.nai == nai(6)
    # Who leaves makes room, and whoever had its address before gets another one only if it is gone.
    ask(home_agent, 2, 9, home=given[2], lifetime=0)
    assert ask(home_agent, 6, 10).home_address == given[2]
    assert ask(home_agent, 2, 11).code == ReplyCode.INSUFFICIENT_RESOURCES


@pytest.mark.rows("R-274")
def test_the_same_address_again_while_nobody_needs_it() -> None:
    home_agent = agent()
    first = ask(home_agent, 0, 1).home_address
    ask(home_agent, 0, 2, home=first, lifetime=0)
    ask(home_agent, 1, 3)
    assert ask(home_agent, 0, 4).home_address == first
    # In another life, too: where the search begins follows from the NAI.
    assert ask(agent(), 0, 1).home_address == first


def test_after_a_restart_a_node_keeps_the_address_it_names() -> None:
    home_agent = agent()
    for wish in list(POOL.hosts())[:2]:
        fresh = agent()
        assert ask(fresh, 3, 1, home=wish).home_address == wish
        assert ask(fresh, 3, 2).home_address == wish
    taken = ask(home_agent, 0, 1).home_address
    assert ask(home_agent, 1, 2, home=taken).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert [each.node for each in home_agent.bindings()] == ["n0"]


@pytest.mark.parametrize(
    "wish", [POOL.network_address, POOL.broadcast_address, IPv4Address("10.77.0.80"), OTHER_HOME]
)
def test_addresses_that_nobody_gets(wish: IPv4Address) -> None:
    reply = ask(agent(), 0, 1, home=wish)
    assert (reply.code, reply.home_address) == (ReplyCode.ADMINISTRATIVELY_PROHIBITED, wish)


def test_a_bound_node_does_not_get_a_second_address() -> None:
    home_agent = agent()
    first = ask(home_agent, 0, 1).home_address
    other = next(each for each in POOL.hosts() if each != first)
    assert ask(home_agent, 0, 2, home=other).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    ask(home_agent, 0, 3, home=first, lifetime=0)
    assert ask(home_agent, 0, 4, home=other).home_address == other


def test_fixed_addresses_in_the_pool_are_not_given_away() -> None:
    pool = IPv4Network("10.77.0.10/31")
    nodes = (Node("laptop", HOME, SA), roamer(0, pool), roamer(1, pool))
    home_agent = agent(nodes)
    assert ask(home_agent, 0, 1).home_address == OTHER_HOME
    assert ask(home_agent, 1, 2).code == ReplyCode.INSUFFICIENT_RESOURCES


def test_no_tunnel_leads_to_an_address_of_the_pool() -> None:
    home_agent = agent()
    inside = POOL[3]
    asked = octets(request(1, care_of_address=inside), SA)
    effects = home_agent.handle(arrived(asked, source=inside), after(1))
    assert reply_in(effects).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert refused_in(effects).finding is Finding.LOOPING_CARE_OF_ADDRESS


@pytest.mark.rows("R-193")
@pytest.mark.parametrize(
    ("name", "spi"), [("nobody@example.test", 0x300), (nai(0), 0x301), (nai(0), 0x999), (None, 0x300)]
)
def test_who_is_not_known_gets_silence(name: str | None, spi: int) -> None:
    payload = octets(request(1, home_address=NOWHERE, nai=name), replace(SA, spi=Spi(spi)))
    effects = agent().handle(arrived(payload), after(1))
    assert none(effects, SendReply)
    assert refused_in(effects).finding is Finding.UNKNOWN_ASSOCIATION


def test_a_forger_is_given_nothing() -> None:
    nodes = (roamer(0), roamer(1))
    home_agent = HomeAgent(replace(POLICY, nodes=nodes, answer_failed_authentication=True), started=T0)
    forged = octets(request(1, home_address=NOWHERE, nai=nai(0)), replace(FORGER, spi=Spi(0x300)))
    effects = home_agent.handle(arrived(forged), after(1))
    reply = reply_in(effects, replace(SA, spi=Spi(0x300)))
    assert reply.code == ReplyCode.MOBILE_NODE_FAILED_AUTHENTICATION
    assert reply.home_address == ask(home_agent, 0, 2).home_address


def test_an_address_of_its_own_comes_with_its_own_nai_only() -> None:
    asked = request(1, nai="somebody@example.test")
    effects = agent().handle(arrived(octets(asked, SA)), after(1))
    assert reply_in(effects).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert refused_in(effects).finding is Finding.WRONG_NAI
    elsewhere = octets(request(2, home_address=OTHER_HOME, nai="laptop@example.test"), SA)
    assert none(agent().handle(arrived(elsewhere), after(2)), SendReply)


@pytest.mark.rows("R-273")
def test_by_way_of_a_foreign_agent() -> None:
    key = replace(SA, spi=Spi(0x300))
    asked = by_foreign_agent(1, home_address=NOWHERE, nai=nai(0))
    effects = agent().handle(relayed(octets(asked, key), by=None), after(1))
    reply, _ = relayed_reply_in(effects, by=None, association=key)
    assert (reply.nai, reply.home_address in POOL) == (nai(0), True)
    # A denial has them as well, or the foreign agent would have to replace its code (RFC 2794 section 3).
    wrong = by_foreign_agent(2, home_address=NOWHERE, nai=nai(0), home_agent=HOME)
    effects = agent().handle(relayed(octets(wrong, key), by=None), after(2))
    denied, _ = relayed_reply_in(effects, by=None, association=key)
    assert (denied.code, denied.nai) == (136, nai(0))
    assert denied.home_address in POOL
    assert denied.home_agent == POLICY.address


def test_nodes_that_nobody_can_name() -> None:
    with pytest.raises(ProfileError, match="needs an NAI"):
        Node("a", None, SA, home_addresses=POOL)
    with pytest.raises(ProfileError, match="either a home address or a prefix"):
        Node("a", HOME, SA, home_addresses=POOL)
    with pytest.raises(ProfileError, match=r"NAI n0@example\.test and SPI 768"):
        agent((roamer(0), roamer(0)))
