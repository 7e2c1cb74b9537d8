# SPDX-License-Identifier: GPL-2.0-or-later
"""An hour on foot: the home agent knows where the laptop is, but for the moment of each move (RFC 5266 section 3.2)."""

import pytest

from tests.scenarios.simulation import World

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
