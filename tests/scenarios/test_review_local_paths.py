# SPDX-License-Identifier: GPL-2.0-or-later
"""What unsigned words of an access link may cost: never a storm, never a timer that spins, never a held packet."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from homeward.model.access import AccessMode, AgentPath, ClearPath, HomePath, Link, VpnPath
from homeward.model.agent import AgentFlags
from homeward.model.effects import AnnounceHomeAddress, SendRegistration
from homeward.model.inputs import LinksObserved
from homeward.model.nat_traversal import UdpTunnelReply
from homeward.model.plan import Held
from homeward.model.profile import ASSIGNED, ForeignAgentUse, ReplayStyle
from homeward.model.status import Trust
from tests.scenarios.office import AGENT, HARDWARE, SERVES, Agent, Office, office_profile
from tests.scenarios.simulation import HOME_ADDRESS, World, make_profile, signed_again, without_tnc
from tests.scenarios.test_foreign_agents import in_f
from tests.scenarios.test_home_link import at_home
from tests.scenarios.test_nonces_and_assigned import NAI, AgreedWorld, profile_with
from tests.scenarios.test_terms import answering


def rate(world: Office, since: float, seconds: float) -> int:
    """Requests that left within this time."""
    return sum(since <= at < since + seconds for at, _ in world.sent)


def held_since(world: Office, since: float) -> list[float]:
    return [at for at, plan in world.plans if at >= since and isinstance(plan.traffic, Held)]


# --- leaving an agent at renewal --------------------------------------------------------------------------------


@pytest.mark.rows("R-150", "R-163")
@pytest.mark.parametrize("code", [65, 66, 77, 105])
def test_an_agent_that_refuses_a_renewal_causes_no_storm(code: int) -> None:
    world = in_f()
    agent = world.agent_here
    agent.deny = dict.fromkeys(range(len(agent.requests) + 1, 100_000), code)
    since = world.now
    world.run_with_agents(100)
    assert world.mode() is AccessMode.C
    assert world.bound_to() == "10.1.3.77"
    assert rate(world, since, 100) < 12
    assert held_since(world, since) == []


@pytest.mark.rows("R-163")
def test_an_agent_that_swallows_a_renewal_is_left_once() -> None:
    world = in_f()
    world.deliver_by_agent = lambda *_: None  # type: ignore[method-assign]
    since, before = world.now, len(world.by_agent())
    world.run_with_agents(55)
    assert world.mode() is AccessMode.C
    assert len(world.by_agent()) - before == 2
    assert held_since(world, since) == []


def test_no_request_goes_to_an_agent_that_the_fence_does_not_name() -> None:
    world = in_f()
    world.deliver_by_agent = lambda *_: None  # type: ignore[method-assign]
    world.run_with_agents(58)
    fence = None
    for _, effect in world.effects:
        plan = getattr(effect, "plan", None)
        if plan is not None:
            fence = plan.fence
        if isinstance(effect, SendRegistration) and isinstance(effect.path, AgentPath):
            assert fence is not None
            assert fence.foreign_agent == effect.path


def test_a_home_link_that_falls_silent_is_asked_no_more_after_arp_has_ended() -> None:
    world = at_home()
    deliver = world.deliver
    world.deliver = lambda request, octets, place: (  # type: ignore[method-assign]
        None if isinstance(request.path, HomePath) else deliver(request, octets, place)
    )
    world.run(58)
    fence = None
    for _, effect in world.effects:
        plan = getattr(effect, "plan", None)
        if plan is not None:
            fence = plan.fence
        if isinstance(effect, SendRegistration) and isinstance(effect.path, HomePath):
            assert fence is not None
            assert fence.home_link == effect.path
    assert world.bound_to() == "10.77.0.150"
    assert world.mode() is AccessMode.C


# --- timers -----------------------------------------------------------------------------------------------------


def test_an_agent_that_was_left_wakes_nobody_for_ever_where_the_home_agent_refuses() -> None:
    world = Office(office_profile(gateway=None))
    world.agent_here.deny = dict.fromkeys(range(1, 9), 65)
    world.plug("trust3")
    world.run(5)
    assert world.mode() is AccessMode.C
    deliver = world.deliver
    world.deliver = lambda request, octets, place: deliver(  # type: ignore[method-assign]
        request, without_tnc(octets), place
    )
    world.run(200)
    assert world.status().trust is Trust.UNTRUSTED


def test_an_agent_that_was_left_wakes_nobody_for_ever_where_nobody_is_asked() -> None:
    world = Office(office_profile(ask_not_on=(IPv4Network("198.51.100.0/24"),)))
    world.agent_here.deny = dict.fromkeys(range(1, 9), 65)
    world.plug("trust3")
    world.run(5)
    world.plug("ext1")
    world.run(200)
    assert world.mode() is AccessMode.MC


def test_an_agent_that_was_left_wakes_nobody_while_the_cable_is_out() -> None:
    world = Office()
    world.agent_here.deny = dict.fromkeys(range(1, 9), 65)
    world.plug("trust3")
    world.run(5)
    world.unplug()
    world.run(200)


@pytest.mark.parametrize("how", ["denied", "no-tnc"])
def test_a_keepalive_without_a_binding_does_not_spin(how: str) -> None:
    world = World(profile=replace(make_profile(gateway=None), nat_inside=True))
    answering(world, udp_tunnel=UdpTunnelReply(keepalive=55))
    world.plug("trust1")
    world.run(20)
    assert world.mode() is AccessMode.C
    deliver = world.deliver
    changes = {"code": 129, "lifetime": 0} if how == "denied" else {"trusted_networks_configured": False}
    world.deliver = lambda request, octets, place: deliver(  # type: ignore[method-assign]
        request, signed_again(octets, **changes), place
    )
    world.run(300)
    assert world.status().trust is Trust.UNTRUSTED


def test_a_keepalive_through_a_vpn_that_is_gone_is_not_sent() -> None:
    world = World()
    answering(world, udp_tunnel=UdpTunnelReply(keepalive=20))
    world.plug("ext1")
    world.run(5)
    assert world.mode() is AccessMode.MC
    world.engine.works = False
    world.lose_vpn()
    since = world.now
    world.run(120)
    assert [at for at, e in world.sent if at > since and isinstance(e.path, VpnPath)] == []


# --- unsigned advertisements ------------------------------------------------------------------------------------


@pytest.mark.rows("R-119", "R-120", "R-163")
def test_a_flood_of_restarts_is_no_flood_of_requests() -> None:
    world = in_f()
    since = world.now
    for turn in range(300):
        world.agent_here.sequence = 5000 if turn % 2 == 0 else 2
        world.advertise()
        world.run(0.05)
    assert rate(world, since, 15) <= 40
    assert held_since(world, since) == []


@pytest.mark.rows("R-120", "R-123")
def test_care_of_addresses_that_change_all_the_time_are_not_followed_all_the_time() -> None:
    world = in_f()
    since = world.now
    for turn in range(300):
        world.agent_here.care_of = (AGENT + turn % 2,)
        world.advertise()
        world.run(0.05)
    assert rate(world, since, 15) <= 40
    assert held_since(world, since) == []


@pytest.mark.rows("R-142")
@pytest.mark.parametrize("use", [ForeignAgentUse.PREFER, ForeignAgentUse.WHEN_REQUIRED])
@pytest.mark.parametrize("most", [0, 1])
def test_an_agent_that_offers_no_time_holds_no_packet(use: ForeignAgentUse, most: int) -> None:
    world = Office(office_profile(use))
    world.agent_here.registration_lifetime = most
    if use is ForeignAgentUse.WHEN_REQUIRED:
        world.agent_here.flags = SERVES | AgentFlags.REGISTRATION_REQUIRED
    world.plug("trust3")
    world.run(0.06)
    assert world.mode() is AccessMode.C
    since = world.now
    world.run_with_agents(30)
    assert held_since(world, since) == []
    assert rate(world, since, 30) <= 35


@pytest.mark.rows("R-142")
def test_a_serving_agent_that_offers_no_time_any_more_holds_no_packet() -> None:
    world = in_f()
    since = world.now
    world.agent_here.registration_lifetime = 0
    world.run_with_agents(60)
    assert held_since(world, since) == []


def test_agents_that_relay_and_swallow_by_the_dozen_do_not_keep_the_binding_away() -> None:
    world = Office()
    world.agents["trust3"] = [Agent(AGENT + n, HARDWARE, care_of=(AGENT + n,)) for n in range(30)]
    world.deliver_by_agent = lambda *_: None  # type: ignore[method-assign]
    world.plug("trust3")
    away = 0
    for turn in range(1200):
        if turn % 100 == 0:
            world.advertise()
        world.run(0.1)
        away += world.bound_to() != "10.1.3.77"
    assert away < 120


@pytest.mark.rows("R-126")
def test_a_home_agent_that_is_made_up_does_not_take_the_binding_away_for_long() -> None:
    world = Office()
    fake = Agent(IPv4Address("10.77.0.200"), HARDWARE, care_of=(), flags=AgentFlags.HOME_AGENT)
    world.plug("trust1")
    world.run(1)

    for _ in range(30):
        world.advertise(fake)
        world.run(10)
    announced = [at for at, e in world.arp if isinstance(e, AnnounceHomeAddress)]
    assert announced == []


def test_an_r_bit_is_tried_more_and_more_seldom_where_the_home_agent_does_not_vouch() -> None:
    world = Office(office_profile(ForeignAgentUse.WHEN_REQUIRED))
    world.agent_here.flags = SERVES | AgentFlags.REGISTRATION_REQUIRED
    world.plug("trust3")
    world.run_with_agents(300)
    assert world.mode() is AccessMode.C
    assert len(world.by_agent()) <= 3


def test_the_home_address_as_care_of_address_is_never_asked_for() -> None:
    world = Office()
    world.agent_here.care_of = (HOME_ADDRESS,)
    world.plug("trust3")
    world.run_with_agents(50)
    assert world.by_agent() == []


# --- other links ------------------------------------------------------------------------------------------------


def wireless(address: str, gateway: str) -> Link:
    return Link(
        4,
        "wlan0",
        access=True,
        why="Wi-Fi",
        carrier=True,
        addresses=(IPv4Interface(address),),
        gateway=IPv4Address(gateway),
        metric=600,
        carrier_changes=1,
    )


@pytest.mark.rows("R-51")
def test_another_link_is_not_asked_in_clear_where_the_profile_forbids_it() -> None:
    world = World(profile=replace(make_profile(), ask_not_on=(IPv4Network("198.51.100.0/24"),)))
    world.plug("trust1")
    world.run(1)
    world.feed(LinksObserved((*world._links(), wireless("198.51.100.10/24", "198.51.100.1"))))
    world.run(30)
    assert [e for _, e in world.sent if isinstance(e.path, ClearPath) and e.path.link_index == 4] == []


# --- nonces -----------------------------------------------------------------------------------------------------


@pytest.mark.rows("R-152")
def test_with_nonces_an_answer_that_was_held_back_proves_nothing_x27() -> None:
    """All transmissions of a series are one packet, so an answer may be as old as the first of them."""
    world = AgreedWorld(profile_with(gateway=None, replay=ReplayStyle.NONCES))
    world.plug("trust1")
    world.run(3)
    kept: list[tuple[SendRegistration, bytes]] = []
    deliver = world.deliver
    world.deliver = lambda request, octets, place: kept.append((request, octets))  # type: ignore[method-assign]
    world.plug("trust2")
    world.run(3.01)
    assert len(kept) >= 1
    deliver(*kept[0], world.place)
    assert world.status().trust is not Trust.TRUSTED


def test_with_an_assigned_home_address_no_other_link_is_asked_with_it_as_care_of_address_x26() -> None:
    """A side probe for the home address itself would be a deregistration of everything (R-143)."""
    world = AgreedWorld(profile_with(gateway=None, home_address=ASSIGNED, nai=NAI))
    world.plug("trust1")
    world.run(3)
    home_address = world.status().home_address
    assert home_address is not None
    twin = wireless(f"{home_address}/24", "10.77.0.1")
    world.feed(LinksObserved((*world._links(), twin)))
    world.run(30)
    assert [e for _, e in world.sent if isinstance(e.path, ClearPath) and e.path.link_index == 4] == []
    assert world.mode() is AccessMode.C
