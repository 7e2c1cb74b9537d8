# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents that were heard early, or that come back while they are being left."""

from dataclasses import replace

import pytest

from homeward.core.challenges import ForeignKeys
from homeward.core.coordinator import Coordinator
from homeward.model.access import AccessMode, ClearPath
from homeward.model.effects import SendRegistration
from homeward.model.inputs import LinksObserved
from homeward.model.plan import Held
from homeward.wire import relay
from tests.scenarios.office import AGENT, Office
from tests.scenarios.simulation import association
from tests.scenarios.test_foreign_agents import in_f


@pytest.mark.rows("R-26", "R-275")
def test_a_challenge_that_was_heard_before_there_was_an_address_is_answered() -> None:
    world = Office()
    keys = ForeignKeys({AGENT: association(b"k" * 32)})
    world.core = Coordinator(
        world.profile, association(), entropy=lambda: world.random.getrandbits(32), foreign_keys=keys
    )
    world.agent_here.challenge = b"c" * 16
    world.place = world.places["trust3"]
    world.carrier_changes += 1
    ethernet, other = world._links()
    world.feed(LinksObserved((replace(ethernet, addresses=(), gateway=None), other)))
    world.run(2)
    world.feed(LinksObserved((ethernet, other)))
    world.run(0.1)
    assert relay.read_for_foreign_agent(world.agent_here.requests[0]).challenge == b"c" * 16


@pytest.mark.rows("R-66", "R-121")
def test_an_agent_that_comes_back_while_our_own_address_gets_no_answer_is_used_and_renewed() -> None:
    world = in_f()
    route = world._route

    def lose(effect: SendRegistration) -> None:
        if not isinstance(effect.path, ClearPath):
            route(effect)

    world._route = lose  # type: ignore[method-assign]
    since = world.now
    world.agent_here.lifetime = 0
    world.advertise()
    world.run(2)
    world.agent_here.lifetime = 30
    world.run_with_agents(80)
    assert [at for at, plan in world.plans if at > since and isinstance(plan.traffic, Held)] == []
    assert world.mode() is AccessMode.F
