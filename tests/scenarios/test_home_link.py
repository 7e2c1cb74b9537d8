# SPDX-License-Identifier: GPL-2.0-or-later
"""Coming home and leaving again, in simulated time (RFC 5944 sections 4.2.1 and 4.6)."""

from dataclasses import replace

import pytest

from homeward.model.access import AccessMode, ClearPath, HomePath
from homeward.model.agent import AgentFlags
from homeward.model.effects import AnnounceHomeAddress, ApplyPlan, SendRegistration, WithdrawHomeAddress
from homeward.model.plan import AtHome, Held
from homeward.model.registration import RequestFlags
from homeward.model.status import ClientState, Trust
from homeward.wire import registration as codec
from homeward.wire.decoded import DecodedRequest
from tests.scenarios.office import Agent, Office, office_profile
from tests.scenarios.simulation import HOME_ADDRESS, HOME_AGENT, without_tnc


def at_home(world: Office | None = None) -> Office:
    world = world or Office()
    world.plug("home")
    world.run(1)
    assert world.mode() is AccessMode.HOME
    return world


@pytest.mark.rows("R-53", "R-84", "R-126", "R-132", "R-133", "R-143", "R-180", "R-190")
def test_coming_home_is_proved_announced_and_then_deregistered() -> None:
    world = at_home()
    status = world.status()
    assert (status.state, status.trust, status.care_of_address) == (ClientState.HOME, Trust.TRUSTED, None)
    assert (status.lifetime, status.binding_expires) == (None, None)
    assert world.bound_to() is None
    effects = [effect for _, effect in world.effects]
    proof = next(
        at
        for at, e in enumerate(effects)
        if isinstance(e, SendRegistration) and isinstance(e.path, ClearPath)
    )
    allowed = next(
        at
        for at, e in enumerate(effects)
        if isinstance(e, ApplyPlan) and e.plan.fence and e.plan.fence.home_link
    )
    announced = next(at for at, e in enumerate(effects) if isinstance(e, AnnounceHomeAddress))
    asked = next(
        at for at, e in enumerate(effects) if isinstance(e, SendRegistration) and isinstance(e.path, HomePath)
    )
    assert proof < allowed < announced < asked
    request = effects[asked]
    assert isinstance(request, SendRegistration)
    decoded = codec.decode(request.octets)
    assert isinstance(decoded, DecodedRequest)
    assert (request.destination, decoded.message.flags) == (HOME_AGENT, RequestFlags(0))
    assert (decoded.message.lifetime, decoded.message.care_of_address) == (0, HOME_ADDRESS)


@pytest.mark.rows("R-127")
def test_a_virtual_home_network_has_no_link_to_come_home_to() -> None:
    world = Office(office_profile(home=False))
    world.plug("home")
    world.run(120)
    assert world.mode() is AccessMode.C
    assert world.from_home() == []
    assert world.arp == []


@pytest.mark.rows("R-56", "R-66", "R-67")
def test_at_home_the_question_is_repeated_and_trust_ends_without_an_answer() -> None:
    world = at_home()
    world.run(300)
    assert len(world.from_home()) >= 6
    assert world.mode() is AccessMode.HOME
    world.agent_up = False
    world.run(61)
    assert world.status().trust is not Trust.TRUSTED
    assert isinstance(world.plans[-1][1].traffic, Held)


@pytest.mark.rows("R-189")
def test_leaving_home_silences_arp_before_the_first_request() -> None:
    world = at_home()
    before = len(world.effects)
    world.plug("trust1")
    kinds = [type(effect) for _, effect in world.effects[before:]]
    assert kinds.index(WithdrawHomeAddress) < kinds.index(SendRegistration)
    world.run(2)
    assert (world.mode(), world.bound_to()) == (AccessMode.C, "10.1.1.10")
    assert world.plans[-1][1].fence is not None
    assert world.plans[-1][1].fence.home_link is None


@pytest.mark.rows("R-84", "R-126")
def test_a_network_outside_that_looks_like_home_is_none() -> None:
    world = Office()
    world.places["fake"] = replace(world.places["home"], name="fake", inside=False)
    world.agents["fake"] = [Agent(HOME_AGENT, care_of=(), flags=AgentFlags.HOME_AGENT)]
    world.plug("fake")
    world.run_with_agents(60)
    assert world.mode() is AccessMode.MC
    assert world.arp == []
    assert world.from_home() == []
    assert not any(isinstance(plan.traffic, AtHome) for _, plan in world.plans)


@pytest.mark.rows("R-126")
def test_the_home_agents_own_advertisement_shows_the_home_link() -> None:
    world = Office()
    world.places["annex"] = replace(world.places["trust1"], name="annex")
    world.agents["annex"] = [Agent(HOME_AGENT, care_of=(), flags=AgentFlags.HOME_AGENT)]
    world.plug("annex")
    world.run(0.05)
    assert world.mode() is AccessMode.C
    world.advertise()
    assert isinstance(world.arp[-1][1], AnnounceHomeAddress)


def test_a_home_link_whose_answer_has_no_tnc_is_left_with_arp_silent() -> None:
    world = Office()
    world.plug("home")
    world.run(0.02)
    deliver = world.deliver

    def relayed(request: SendRegistration, octets: bytes, place: object) -> None:
        octets = without_tnc(octets) if isinstance(request.path, HomePath) else octets
        deliver(request, octets, place)  # type: ignore[arg-type]

    world.deliver = relayed  # type: ignore[method-assign]
    world.run(2)
    assert world.mode() is AccessMode.C
    assert isinstance(world.arp[-1][1], WithdrawHomeAddress)
    assert world.bound_to() == "10.77.0.150"


@pytest.mark.rows("R-8", "R-53")
def test_the_walk_through_the_office() -> None:
    world = Office()
    for place, mode, bound in [
        ("trust1", AccessMode.C, "10.1.1.10"),
        ("trust3", AccessMode.F, "10.1.3.1"),
        ("home", AccessMode.HOME, None),
        ("trust2", AccessMode.C, "10.1.2.10"),
        ("ext1", AccessMode.MC, "10.9.0.5"),
        ("home", AccessMode.HOME, None),
        ("ext1", AccessMode.MC, "10.9.0.5"),
    ]:
        world.plug(place)
        world.run(4)
        assert (world.mode(), world.bound_to()) == (mode, bound), place
