# SPDX-License-Identifier: GPL-2.0-or-later
"""Mode f in simulated time: only by proof, only where it is of use, and back to our own address whenever it is not."""

from dataclasses import replace

import pytest

from homeward.model.access import AccessMode, AgentPath, ClearPath, Link
from homeward.model.agent import AgentFlags
from homeward.model.effects import SendRegistration, SendSolicitation
from homeward.model.inputs import LinksObserved
from homeward.model.plan import Tunnelled, ViaAgent
from homeward.model.profile import ForeignAgentUse
from homeward.model.registration import RequestFlags
from homeward.model.status import ClientState, Trust
from homeward.wire import registration as codec
from homeward.wire.decoded import DecodedRequest
from tests.scenarios.office import (
    AGENT,
    HARDWARE,
    HOME_ADDRESS,
    OTHER_AGENT,
    OTHER_HARDWARE,
    SERVES,
    Agent,
    Office,
    office_profile,
)
from tests.scenarios.simulation import ETHERNET, without_tnc


def in_f(world: Office | None = None) -> Office:
    world = world or Office()
    world.plug("trust3")
    world.run(3)
    assert world.mode() is AccessMode.F
    return world


def last_request(world: Office) -> DecodedRequest:
    decoded = codec.decode(world.by_agent()[-1].octets)
    assert isinstance(decoded, DecodedRequest)
    return decoded


@pytest.mark.rows("R-14", "R-15", "R-17", "R-22", "R-25", "R-26")
def test_f_comes_after_a_proof_with_our_own_address_and_by_a_second_one() -> None:
    world = Office()
    world.plug("trust3")
    first = world.sent[0][1]
    assert isinstance(first.path, ClearPath)
    assert next(at for at, effect in world.effects if isinstance(effect, SendRegistration)) == world.now
    world.run(0.05)
    assert world.mode() is AccessMode.C
    world.run(2)
    status = world.status()
    assert (status.state, status.mode, status.trust) == (ClientState.TRUSTED_F, AccessMode.F, Trust.TRUSTED)
    assert status.foreign_agent == status.care_of_address == AGENT
    assert status.proof is not None
    assert "through foreign agent 10.1.3.1" in status.proof.text
    assert world.bound_to() == str(AGENT)
    first_by_agent = min(at for at, effect in world.sent if isinstance(effect.path, AgentPath))
    first_plan_in_c = min(at for at, plan in world.plans if isinstance(plan.traffic, Tunnelled))
    assert first_plan_in_c < first_by_agent


@pytest.mark.rows("R-132", "R-133", "R-134", "R-135", "R-138", "R-142", "R-213", "R-223", "R-279")
def test_what_a_request_by_an_agent_says() -> None:
    world = Office()
    world.agent_here.registration_lifetime = 300
    in_f(world)
    effect, request = world.by_agent()[0], last_request(world).message
    assert isinstance(effect.path, AgentPath)
    assert (effect.destination, effect.ttl) == (AGENT, 255)
    assert (effect.path.source, effect.path.hardware_address) == (HOME_ADDRESS, HARDWARE)
    assert request.flags == RequestFlags.REVERSE_TUNNEL
    assert (request.care_of_address, request.lifetime) == (AGENT, 300)
    assert request.udp_tunnel is None
    assert request.revocation_support is None
    assert world.status().lifetime == 300


@pytest.mark.rows("R-14")
@pytest.mark.parametrize("use", list(ForeignAgentUse))
def test_outside_no_agent_is_ever_asked(use: ForeignAgentUse) -> None:
    world = Office(office_profile(use))
    world.agents["ext3"][0].flags |= AgentFlags.REGISTRATION_REQUIRED
    world.plug("ext3")
    world.run_with_agents(120)
    assert world.mode() is AccessMode.MC
    assert world.by_agent() == []
    assert not any(
        isinstance(plan.traffic, ViaAgent) or plan.fence.foreign_agent
        for _, plan in world.plans
        if plan.fence
    )


@pytest.mark.rows("R-26")
def test_agents_are_asked_for_while_dhcp_is_at_work() -> None:
    """DHCP takes three seconds here; by then the agent is known, and f follows the proof at once."""
    world = Office()
    place = world.places["trust3"]
    world.place, world.carrier_changes = place, world.carrier_changes + 1
    world.feed(LinksObserved(without_lease(world)))
    world.run(3)
    asked = [effect for _, effect in world.effects if isinstance(effect, SendSolicitation)]
    assert asked
    assert {str(each.source) for each in asked} == {"0.0.0.0"}
    world.feed(LinksObserved(world._links()))
    world.run(0.2)
    assert world.mode() is AccessMode.F


def without_lease(world: Office) -> tuple[Link, ...]:
    here, world.place = world.place, None
    links = world._links()
    world.place = here
    return tuple(replace(link, carrier=True) if link.index == ETHERNET else link for link in links)


@pytest.mark.rows("R-22", "R-25")
@pytest.mark.parametrize(
    ("use", "flags", "mode"),
    [
        (ForeignAgentUse.NEVER, SERVES | AgentFlags.REGISTRATION_REQUIRED, AccessMode.C),
        (ForeignAgentUse.WHEN_REQUIRED, SERVES, AccessMode.C),
        (ForeignAgentUse.PREFER, SERVES, AccessMode.F),
    ],
)
def test_the_profile_says_when_agents_are_used(
    use: ForeignAgentUse, flags: AgentFlags, mode: AccessMode
) -> None:
    world = Office(office_profile(use))
    world.agent_here.flags = flags
    world.plug("trust3")
    world.run_with_agents(40)
    assert world.mode() is mode
    assert bool(world.by_agent()) is (mode is AccessMode.F)


@pytest.mark.rows("R-22")
def test_without_an_advertisement_there_is_no_f() -> None:
    world = Office()
    world.agent_here.up = False
    world.plug("trust3")
    world.run(300)
    assert world.mode() is AccessMode.C
    assert world.by_agent() == []


@pytest.mark.rows("R-118")
def test_a_busy_agent_gets_no_new_registration_and_keeps_an_old_one() -> None:
    world = Office()
    world.agent_here.flags |= AgentFlags.BUSY
    world.plug("trust3")
    world.run_with_agents(20)
    assert world.mode() is AccessMode.C
    assert world.by_agent() == []
    world.agent_here.flags = SERVES
    world.advertise()
    world.run(1)
    assert world.mode() is AccessMode.F
    world.agent_here.flags |= AgentFlags.BUSY
    world.run_with_agents(200)
    assert world.mode() is AccessMode.F


@pytest.mark.rows("R-121")
def test_an_agent_that_falls_silent_is_left_when_its_lifetime_is_over() -> None:
    world = in_f()
    world.agent_here.up = False
    world.run(25)
    assert world.mode() is AccessMode.F
    world.run(5)
    assert world.mode() is AccessMode.C
    assert world.bound_to() == "10.1.3.77"
    world.agent_here.up = True
    world.advertise()
    world.run(1)
    assert world.mode() is AccessMode.F


@pytest.mark.rows("R-119", "R-131")
def test_an_agent_that_restarted_is_registered_with_anew() -> None:
    world = in_f()
    world.agent_here.sequence = 5000
    world.advertise()
    before = len(world.by_agent())
    world.agent_here.sequence = 2
    world.advertise()
    world.run(1)
    assert len(world.by_agent()) == before + 1
    world.agent_here.sequence = 0xFFFF
    world.advertise()
    world.agent_here.sequence = 0xFFFF
    world.advertise()
    world.run(1)
    assert len(world.by_agent()) == before + 1
    assert world.mode() is AccessMode.F


@pytest.mark.rows("R-123")
def test_a_second_agent_takes_nobody_away_from_a_living_one() -> None:
    world = in_f()
    world.agents["trust3"].append(Agent(OTHER_AGENT, OTHER_HARDWARE, care_of=(OTHER_AGENT,)))
    world.run_with_agents(300)
    assert {each.destination for each in world.by_agent()} == {AGENT}
    world.agent_here.up = False
    world.run_with_agents(40)
    assert world.status().foreign_agent == OTHER_AGENT


@pytest.mark.rows("R-116")
@pytest.mark.parametrize(("ttl", "hardware"), [(64, HARDWARE), (1, OTHER_HARDWARE)], ids=["ttl", "other-mac"])
def test_a_forged_advertisement_moves_nothing(ttl: int, hardware: bytes) -> None:
    world = in_f()
    forged = Agent(AGENT, care_of=(OTHER_AGENT,))
    before = len(world.by_agent())
    world.advertise(forged, ttl=ttl, hardware=hardware)
    world.run(5)
    assert len(world.by_agent()) == before
    assert world.status().care_of_address == AGENT


@pytest.mark.rows("R-17", "R-36")
def test_an_answer_by_the_agent_without_tnc_is_no_proof_and_ends_in_c() -> None:
    world = Office()
    world.plug("trust3")
    world.run(0.05)
    relayed = world.deliver_by_agent
    world.deliver_by_agent = lambda request, octets, place, agent: relayed(  # type: ignore[method-assign]
        request, without_tnc(octets), place, agent
    )
    world.run(3)
    assert world.mode() is AccessMode.C
    assert world.by_agent()
    assert not any(isinstance(plan.traffic, ViaAgent) for _, plan in world.plans)
    assert any(item.code == "agent-not-vouched-for" for item in world.status().health)
    assert world.bound_to() == "10.1.3.77"


@pytest.mark.rows("R-114")
def test_a_refused_care_of_address_is_followed_by_the_next_one() -> None:
    world = Office()
    other = AGENT + 5
    world.agent_here.care_of = (AGENT, other)
    world.agent_here.deny = {1: 77}
    world.plug("trust3")
    world.run(3)
    assert [each.path.care_of_address for each in world.by_agent()] == [AGENT, other]
    assert world.status().care_of_address == other


@pytest.mark.rows("R-155")
def test_a_lifetime_that_is_too_long_is_asked_for_shorter() -> None:
    world = Office()
    world.agent_here.deny = {1: 69}
    world.agent_here.deny_lifetime = 60
    in_f(world)
    assert [each.message.lifetime for each in world.agent_here.requests] == [1800, 60]


@pytest.mark.parametrize(
    "code", [64, 65, 66, 67, 68, 70, 71, 73, 74, 75, 76, 78, 80, 81, 82, 88, 104, 105, 106, 194]
)
@pytest.mark.rows("R-150", "R-214")
def test_whatever_the_agent_denies_we_go_on_with_our_own_address(code: int) -> None:
    world = Office()
    world.agent_here.deny = dict.fromkeys(range(1, 9), code)
    world.plug("trust3")
    world.run_with_agents(50)
    assert world.mode() is AccessMode.C
    assert 1 <= len(world.by_agent()) <= 3
    assert world.status().trust is Trust.TRUSTED
    assert any(item.code == "foreign-agent-refused" for item in world.status().health)
    world.agent_here.deny = {}
    world.run_with_agents(40)
    assert world.mode() is AccessMode.F


@pytest.mark.rows("R-160")
def test_the_agents_error_beside_the_home_agents_yes_means_no() -> None:
    world = Office()
    world.agent_here.error = 78
    world.plug("trust3")
    world.run(5)
    assert world.mode() is AccessMode.C
    assert not any(isinstance(plan.traffic, ViaAgent) for _, plan in world.plans)
    assert world.bound_to() == "10.1.3.77"


def test_an_agent_that_swallows_requests_costs_no_packet_of_ours() -> None:
    world = Office()
    world.agent_here.deny = {}
    world.plug("trust3")
    world.run(0.05)
    world.deliver_by_agent = lambda *_: None  # type: ignore[method-assign]
    world.run(20)
    assert world.mode() is AccessMode.C
    assert world.bound_to() == "10.1.3.77"
    assert len(world.by_agent()) == 2


@pytest.mark.rows("R-56", "R-66", "R-67")
def test_in_f_trust_is_proved_again_and_again_and_ends_without_proof() -> None:
    world = in_f()
    world.run_with_agents(200)
    assert world.mode() is AccessMode.F
    assert len(world.by_agent()) >= 4
    world.agent_up = False
    world.run_with_agents(61)
    assert world.status().trust is not Trust.TRUSTED


@pytest.mark.rows("R-117", "R-138", "R-235")
@pytest.mark.parametrize("udp", [False, True], ids=["no-udp", "udp"])
def test_an_agent_that_demands_registration_relays_for_our_own_address(udp: bool) -> None:
    world = Office(office_profile(ForeignAgentUse.WHEN_REQUIRED))
    flags = SERVES | AgentFlags.REGISTRATION_REQUIRED
    world.agent_here.flags = flags | AgentFlags.UDP_TUNNEL if udp else flags
    world.plug("trust3")
    world.run(3)
    request = last_request(world).message
    assert RequestFlags.DECAPSULATE_SELF in request.flags
    assert str(request.care_of_address) == "10.1.3.77"
    assert (request.udp_tunnel is not None) is udp
    if udp:
        assert request.udp_tunnel is not None
        assert request.udp_tunnel.through_foreign_agent


@pytest.mark.rows("R-108")
def test_where_an_agent_is_heard_nobody_solicits_on_and_on() -> None:
    world = in_f()
    world.run_with_agents(300)
    asked = [at for at, effect in world.effects if isinstance(effect, SendSolicitation)]
    assert 1 <= len(asked) <= 3


@pytest.mark.rows("R-14", "R-64")
def test_leaving_for_the_outside_ends_f_in_the_same_step() -> None:
    world = in_f()
    world.plug("ext1")
    _, plan = world.plans[-1]
    assert not isinstance(plan.traffic, ViaAgent)
    assert plan.fence is not None
    assert plan.fence.foreign_agent is None
    world.run(2)
    assert world.mode() is AccessMode.MC


def test_moving_between_agents_network_and_others_keeps_the_binding_right() -> None:
    world = in_f()
    for place, mode, bound in [
        ("trust1", AccessMode.C, "10.1.1.10"),
        ("trust3", AccessMode.F, "10.1.3.1"),
        ("ext1", AccessMode.MC, "10.9.0.5"),
        ("trust3", AccessMode.F, "10.1.3.1"),
    ]:
        world.plug(place)
        world.run(4)
        assert (world.mode(), world.bound_to()) == (mode, bound)


def test_the_home_address_is_never_the_care_of_address() -> None:
    world = Office(replace(office_profile(), use_foreign_agents=ForeignAgentUse.PREFER))
    world.agent_here.care_of = (HOME_ADDRESS,)
    world.plug("trust3")
    world.run(5)
    assert world.mode() is AccessMode.C
