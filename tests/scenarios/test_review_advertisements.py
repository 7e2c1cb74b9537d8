# SPDX-License-Identifier: GPL-2.0-or-later
"""What unsigned words of an access link may cost, and what signed ones end."""

import pytest

from homeward.model.access import AccessMode
from homeward.model.effects import SendSolicitation
from homeward.model.plan import Held, ViaAgent
from tests.scenarios.office import AGENT, HARDWARE, Agent, Office
from tests.scenarios.simulation import without_tnc
from tests.scenarios.test_foreign_agents import in_f


def rate(world: Office, since: float, seconds: float) -> int:
    """Requests that left within this time."""
    return sum(since <= at < since + seconds for at, _ in world.sent)


def held_since(world: Office, since: float) -> list[float]:
    return [at for at, plan in world.plans if at >= since and isinstance(plan.traffic, Held)]


@pytest.mark.rows("R-78")
def test_the_home_agents_signed_word_against_an_agent_ends_the_traffic_through_it() -> None:
    world = in_f()
    relayed = world.deliver_by_agent
    world.deliver_by_agent = lambda request, octets, place, agent: relayed(  # type: ignore[method-assign]
        request, without_tnc(octets), place, agent
    )
    asked = len(world.by_agent())
    while len(world.by_agent()) == asked:
        world.run(0.5)
    world.run(0.03)
    assert not isinstance(world.plans[-1][1].traffic, ViaAgent)


@pytest.mark.rows("R-120")
def test_an_agent_that_comes_and_goes_is_not_followed_more_than_once_a_second() -> None:
    world = in_f()
    since = world.now
    for turn in range(300):
        world.agent_here.lifetime = 0 if turn % 2 == 0 else 30
        world.advertise()
        world.run(0.05)
    assert rate(world, since, 15) <= 40
    assert held_since(world, since) == []


def test_agents_that_are_made_up_by_the_dozen_cost_no_packet_and_no_storm() -> None:
    world = Office()
    crowd = [
        Agent(AGENT + n, HARDWARE, care_of=(AGENT + n,), deny=dict.fromkeys(range(1, 99), 65))
        for n in range(40)
    ]
    world.agents["trust3"] = crowd
    world.plug("trust3")
    world.run(0.06)
    since = world.now
    world.run_with_agents(120)
    assert held_since(world, since) == []
    assert rate(world, since, 120) < 130
    assert world.mode() is AccessMode.C


@pytest.mark.rows("R-108", "R-109")
def test_a_search_that_finds_nobody_becomes_rare() -> None:
    world = Office()
    world.agent_here.up = False
    world.plug("trust3")
    world.run(600)
    asked = [at for at, e in world.effects if isinstance(e, SendSolicitation)]
    assert len(asked) < 20
