# SPDX-License-Identifier: GPL-2.0-or-later
"""Replay protection by nonces, as an option of a node (RFC 5944 section 5.7.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from homeward.agents.agent_events import Forward, StopForwarding
from homeward.agents.home_agent import HomeAgent, Node
from homeward.model.errors import ProfileError
from homeward.model.profile import ReplayStyle
from homeward.model.registration import Identification, ReplyCode
from homeward.wire.identification import high32, join, low32
from tests.unit.agents.scene import (
    CARE_OF,
    ELSEWHERE,
    HOME,
    OTHER_HOME,
    OTHER_SA,
    POLICY,
    SA,
    T0,
    after,
    arrived,
    none,
    octets,
    reply_in,
    request,
)

NODES = (
    Node("laptop", HOME, SA, replay=ReplayStyle.NONCES),
    Node("other", OTHER_HOME, OTHER_SA),
)


def drawn(*numbers: int) -> Iterator[int]:
    yield from numbers
    yield from count(1000)


def home_agent(*numbers: int) -> HomeAgent:
    return HomeAgent(replace(POLICY, nodes=NODES), started=T0, entropy=drawn(*numbers).__next__)


def number(nonce: int, low: int) -> Identification:
    return join(nonce, low)


@pytest.mark.rows("R-176")
def test_each_reply_brings_the_number_for_the_next_request() -> None:
    agent = home_agent(7, 8, 9)
    first = reply_in(agent.handle(arrived(request(identification=number(1, 50))), after(1)))
    assert first.code == ReplyCode.IDENTIFICATION_MISMATCH
    assert first.identification == number(7, 50)
    second = reply_in(agent.handle(arrived(request(identification=number(7, 51))), after(2)))
    assert second.is_success
    assert second.identification == number(8, 51)
    third = reply_in(agent.handle(arrived(request(identification=number(8, 52))), after(3)))
    assert third.is_success
    assert third.identification == number(9, 52)


@pytest.mark.rows("R-176")
def test_a_recording_is_told_what_is_due_and_cannot_use_it_up() -> None:
    agent = home_agent(7, 8)
    agent.handle(arrived(request(identification=number(1, 50))), after(1))
    recorded = arrived(request(identification=number(7, 51)))
    agent.handle(recorded, after(2))
    moved = request(identification=number(8, 52), care_of_address=ELSEWHERE)
    agent.handle(arrived(moved, source=ELSEWHERE), after(3))
    for at in range(4, 20):
        effects = agent.handle(recorded, after(at))
        assert reply_in(effects).code == ReplyCode.IDENTIFICATION_MISMATCH
        assert high32(reply_in(effects).identification) == 1000
        assert none(effects, Forward, StopForwarding)
    mine = request(identification=number(1000, 53))
    assert reply_in(agent.handle(arrived(mine), after(20))).is_success


@pytest.mark.rows("R-176")
def test_a_lost_reply_is_given_again() -> None:
    agent = home_agent(7, 8)
    agent.handle(arrived(request(identification=number(1, 50))), after(1))
    asked = arrived(request(identification=number(7, 51)))
    first = reply_in(agent.handle(asked, after(2)))
    again = reply_in(agent.handle(asked, after(3)))
    assert again.identification == first.identification
    assert again.lifetime == first.lifetime - 1


def test_a_recording_from_elsewhere_does_not_use_the_number_up_either() -> None:
    agent = home_agent(7, 8)
    agent.handle(arrived(request(identification=number(1, 50))), after(1))
    asked = request(identification=number(7, 51))
    agent.handle(arrived(asked), after(2))
    denied = reply_in(agent.handle(arrived(asked, source=ELSEWHERE), after(3)))
    assert denied.code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert reply_in(agent.handle(arrived(request(identification=number(8, 52))), after(4))).is_success


@pytest.mark.rows("R-176")
def test_a_denied_request_has_used_its_number_up() -> None:
    agent = home_agent(7, 8)
    agent.handle(arrived(request(identification=number(1, 50))), after(1))
    wrong = request(identification=number(7, 51), home_agent=CARE_OF)
    denied = reply_in(agent.handle(arrived(wrong), after(2)))
    assert denied.code == ReplyCode.UNKNOWN_HOME_AGENT_ADDRESS
    assert denied.identification == number(8, 51)
    assert reply_in(agent.handle(arrived(request(identification=number(7, 52))), after(3))).code == 133
    assert reply_in(agent.handle(arrived(request(identification=number(8, 53))), after(4))).is_success


@pytest.mark.rows("R-176")
def test_numbers_differ_from_the_one_before() -> None:
    agent = home_agent(7, 7, 0, 7)
    agent.handle(arrived(request(identification=number(1, 50))), after(1))
    reply = reply_in(agent.handle(arrived(request(identification=number(7, 51))), after(2)))
    assert high32(reply.identification) != 7
    assert low32(reply.identification) == 51


def test_clocks_do_not_matter_and_other_nodes_keep_theirs() -> None:
    agent = home_agent(7)
    agent.handle(arrived(request(identification=number(1, 50))), after(1))
    assert reply_in(agent.handle(arrived(request(identification=number(7, 51))), after(1e6))).is_success
    other = octets(request(1e6, home_address=OTHER_HOME), OTHER_SA)
    assert reply_in(agent.handle(arrived(other), after(1e6)), OTHER_SA).is_success


def test_a_new_life_knows_no_number() -> None:
    recorded = arrived(request(identification=number(7, 51)))
    agent = home_agent(9)
    assert reply_in(agent.handle(recorded, after(1))).identification == number(9, 51)


def test_nonces_need_chance() -> None:
    with pytest.raises(ProfileError, match="source of chance"):
        HomeAgent(replace(POLICY, nodes=NODES), started=T0)
