# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent knows where the laptop is, but for the moment of each move, or of its own restart (RFC 5266 3.2)."""

import pytest

from homeward.model.access import AccessMode
from homeward.model.status import ClientState
from tests.scenarios.simulation import World, make_profile

DETECTION = 0.25
"""Seconds. A fresh VPN and a registration through it take eight of its one-way delays of 10 ms, MOBIKE 120 ms."""
STEP = 0.02


def reached_at(world: World) -> str | None:
    """The care-of address at which packets of the home address reach the laptop now."""
    assert world.place is not None
    return str(world.place.address().ip) if world.place.inside else str(world.engine.inner)


@pytest.mark.rows("R-9")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_hour_of_roaming_leaves_no_gap_longer_than_detection_takes(seed: int) -> None:
    world = World(seed=seed)
    gaps = []
    while world.now < 4600:
        world.plug(world.random.choice(sorted(world.places)))
        moved = world.now
        while world.bound_to() != reached_at(world):
            world.run(STEP)
            assert world.now - moved <= DETECTION
        gaps.append(world.now - moved)
        for _ in range(world.random.randrange(5, 120)):
            world.run(1)
            assert world.bound_to() == reached_at(world)
    assert len(gaps) > 40
    assert max(gaps) > 0


@pytest.mark.rows("R-156", "R-163")
@pytest.mark.parametrize("refuses_for", [6.0, 14.0, 22.0])
@pytest.mark.parametrize("place", ["trust1", "ext1"])
def test_home_agent_that_accepts_nothing_at_first_is_asked_until_it_does(
    place: str, refuses_for: float
) -> None:
    """As after a loss of power: it answers, signed, that no time stamp is good yet."""
    world = World()
    world.agent = world.new_agent(refuses_for=refuses_for)
    at = world.now
    world.plug(place)
    world.run(refuses_for)
    assert world.mode() is AccessMode.NONE
    world.run(9.0)
    assert world.mode() is (AccessMode.C if place == "trust1" else AccessMode.MC)
    asked = [when - at for when, _ in world.sent]
    assert len(asked) < 24, asked


def test_home_agent_that_never_accepts_the_time_stamp_blocks_and_is_asked_rarely() -> None:
    world = World(profile=make_profile(gateway=None))
    world.agent = world.new_agent(refuses_for=3600.0)
    at = world.now
    world.plug("trust1")
    world.run(600.0)
    status = world.status()
    assert status.state is ClientState.BLOCKED
    assert status.proof is not None
    assert "time stamp" in status.proof.text
    assert len([when for when, _ in world.sent if when > at + 60]) < 120
