# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves that follow each other closely: each one asks at once, until a link flaps faster than X-22 lets it."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address

import pytest

from homeward.model.access import ClearPath
from homeward.model.status import Trust
from tests.scenarios.office import Agent, Office
from tests.scenarios.simulation import World, make_profile

QUICKLY = 0.5
REFUSED = 65


def move(world: World, place: str, stay: float = QUICKLY) -> tuple[float | None, bool]:
    """Move and stay for a while: how long after the move the home agent was asked in clear, and if it ended trusted."""
    at = world.now
    world.plug(place)
    world.run(stay)
    asked = (when - at for when, sent in world.sent if when >= at and isinstance(sent.path, ClearPath))
    return next(asked, None), world.status().trust is Trust.TRUSTED


@pytest.mark.parametrize("agent_clock_ahead", [0.0, 100.0])
def test_two_moves_within_half_a_second_are_both_asked_about_at_once_x22(agent_clock_ahead: float) -> None:
    """Also where the first network's answer was code 133, and the gateway made the registration be repeated."""
    world = World(agent_clock_ahead=agent_clock_ahead)
    assert move(world, "trust1", stay=QUICKLY / 2) == (0.0, True)
    assert move(world, "trust2", stay=QUICKLY / 2) == (0.0, True)
    assert move(world, "ext1") == (0.0, False)
    assert move(world, "trust2") == (0.0, True)


def test_what_agents_of_one_network_refuse_does_not_delay_the_question_on_the_next_x22() -> None:
    """Unsigned words make us go back to a care-of address of our own, which is paced; a move is none of theirs."""
    world = Office()
    world.agents["trust3"] = [
        Agent(address, bytes([2, 0, 0, 0, 3, last]), (address,), deny=dict.fromkeys(range(1, 99), REFUSED))
        for last in range(1, 7)
        if (address := IPv4Address(f"10.1.3.{last}"))
    ]
    assert move(world, "trust3", stay=1.6) == (0.0, True)
    for place in ("trust1", "trust3", "trust2"):
        assert move(world, place) == (0.0, True)


@pytest.mark.rows("R-163")
def test_a_link_that_goes_on_flapping_is_asked_about_once_a_second_x22() -> None:
    """Three at once and one a second after that, so that every second of these moves is passed over."""
    world = World(profile=make_profile(gateway=None))
    world.run(10)
    places = ["trust1", "trust2"] * 10
    asked = [move(world, place)[0] for place in places]
    assert asked[:5] == [0.0] * 5
    begun = [at for at, sent in world.sent if isinstance(sent.path, ClearPath)]
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(begun[4:]))
    assert move(world, "trust1", stay=2.0)[1], "as soon as it stays somewhere, its turn comes within a second"
