# SPDX-License-Identifier: GPL-2.0-or-later
"""The stories of RFC 5266 section 3.4 and of scenarios.md, in simulated time."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.model.access import AccessMode, ClearPath, Link, VpnPath
from homeward.model.effects import ApplyPlan, CheckVpn, MoveVpn, SendRegistration, StartVpn, StopVpn
from homeward.model.inputs import LinksObserved, ReconnectRequested, Resumed, VpnReported
from homeward.model.plan import Held, Tunnelled
from homeward.model.profile import Timers
from homeward.model.status import ClientState, Trust
from homeward.model.vpn import VpnEstablished, VpnState
from tests.scenarios.simulation import GATEWAY, World, make_profile


def effects_since(world: World, at: float, kind: type) -> list[float]:
    return [when for when, effect in world.effects if isinstance(effect, kind) and when >= at]


def clear_requests(world: World, since: float = 0.0) -> list[float]:
    return [at for at, sent in world.sent if isinstance(sent.path, ClearPath) and at >= since]


def tunnel_requests(world: World, since: float = 0.0) -> list[float]:
    return [at for at, sent in world.sent if isinstance(sent.path, VpnPath) and at >= since]


@pytest.mark.rows("R-16", "R-29", "R-76")
def test_first_attachment_inside_is_proved_and_bound_in_one_round_trip() -> None:
    world = World()
    world.plug("trust1")
    world.run(0.03)
    status = world.status()
    assert (status.state, status.mode, status.trust) == (ClientState.TRUSTED_C, AccessMode.C, Trust.TRUSTED)
    assert status.proof is not None
    assert status.proof.text == (
        "Trusted: home agent 10.0.0.2 answered in 20 ms, signed with key 0x100 (HMAC-SHA-256),"
        " network listed as trusted"
    )
    assert world.bound_to() == "10.1.1.10"
    assert str(status.care_of_address) == "10.1.1.10"


@pytest.mark.rows("R-2", "R-28", "R-34")
def test_first_attachment_outside_ends_in_mc_with_the_inner_address_bound() -> None:
    world = World()
    world.plug("ext1")
    world.run(1.0)
    assert world.mode() is AccessMode.MC
    assert world.bound_to() == "10.9.0.5"
    assert world.status().trust is Trust.UNTRUSTED


@pytest.mark.rows("R-7", "R-24", "R-28")
def test_grand_tour() -> None:
    world = World()
    for place, mode in [
        ("trust1", AccessMode.C),
        ("trust2", AccessMode.C),
        ("ext1", AccessMode.MC),
        ("ext2", AccessMode.MC),
        ("trust1", AccessMode.C),
    ]:
        world.plug(place)
        world.run(4)
        assert world.mode() is mode, place


@pytest.mark.rows("R-33", "R-39")
def test_request_and_engine_are_told_in_the_same_step_r33() -> None:
    world = World()
    world.plug("ext1")
    world.run(2)
    at = world.now
    world.plug("ext2")
    assert clear_requests(world, at)[:1] == effects_since(world, at, MoveVpn)[:1] == [at]


@pytest.mark.rows("R-16", "R-64")
def test_traffic_is_held_before_anything_is_sent() -> None:
    world = World()
    world.plug("trust1")
    world.run(2)
    before = len(world.effects)
    world.unplug()
    assert isinstance(world.plans[-1][1].traffic, Held)
    world.plug("trust2")
    kinds = [type(effect) for _, effect in world.effects[before:]]
    assert kinds.index(ApplyPlan) < kinds.index(SendRegistration)


@pytest.mark.rows("R-11", "R-38")
def test_move_outside_needs_no_registration_r11() -> None:
    world = World()
    world.plug("ext1")
    world.run(2)
    at, reached = world.now, len(world.at_agent)
    world.plug("ext2")
    world.run(5)
    assert world.mode() is AccessMode.MC
    assert tunnel_requests(world, at) == []
    assert len(world.at_agent) == reached


@pytest.mark.rows("R-10")
def test_new_inner_address_is_registered_at_once_r10() -> None:
    world = World()
    world.plug("ext1")
    world.run(2)
    world.engine.pool = 6
    world.lose_vpn()
    world.run(4)
    assert world.mode() is AccessMode.MC
    assert world.bound_to() == "10.9.0.6"


@pytest.mark.rows("R-7", "R-40", "R-54")
def test_vpn_is_closed_inside_by_default() -> None:
    world = World()
    world.plug("ext1")
    world.run(2)
    world.plug("trust1")
    world.run(1)
    assert world.mode() is AccessMode.C
    assert world.status().vpn is VpnState.DOWN


@pytest.mark.rows("R-38", "R-40", "R-42")
def test_vpn_is_kept_inside_by_policy_and_moves_again_when_leaving() -> None:
    world = World(profile=make_profile(keep_vpn_inside=True))
    world.plug("ext1")
    world.run(2)
    world.plug("trust1")
    world.run(30)
    assert world.status().vpn is VpnState.UP
    at = world.now
    world.plug("ext2")
    world.run(1)
    assert effects_since(world, at, MoveVpn)
    assert effects_since(world, at, StartVpn) == []
    assert world.mode() is AccessMode.MC


def test_inside_without_reaching_the_gateway_is_no_alarm_s10() -> None:
    world = World()
    world.places["trust1"].gateway_reachable = False
    world.plug("trust1")
    world.run(20)
    assert world.mode() is AccessMode.C
    assert world.status().health == ()


@pytest.mark.rows("R-23", "R-35")
def test_near_gateway_does_not_flap_through_mc_x21() -> None:
    world = World()
    world.plug("trust1")
    world.run(2)
    world.unplug()
    world.places["trust1"].delay = 0.012  # the home agent is a little further than last time
    modes = []
    world.place = world.places["trust1"]
    world.carrier_changes += 1
    world.plug("trust1")
    for _ in range(100):
        world.run(0.005)
        modes.append(world.mode())
    assert AccessMode.MC not in modes
    assert modes[-1] is AccessMode.C


@pytest.mark.rows("R-35", "R-74", "R-81")
def test_late_proof_moves_back_to_clear_x27() -> None:
    """The gateway answers first and mc begins; then the home agent's answer to a retransmission proves the inside."""
    world = World()
    lost = []

    def drop(direction: str) -> bool:
        lost.append(direction)
        return len(lost) == 1

    world.drop = drop
    world.plug("trust1")
    world.run(0.5)
    assert world.mode() is AccessMode.MC
    world.run(2)
    assert world.mode() is AccessMode.C
    assert world.bound_to() == "10.1.1.10"


def test_proof_that_is_too_old_only_asks_again_x27() -> None:
    world = World(profile=make_profile(gateway=None, timers=Timers(proof_max_age=0.5, probe_timeout=10.0)))
    world.places["trust1"].delay = 0.4
    world.plug("trust1")
    world.run(0.85)
    assert world.mode() is AccessMode.NONE
    assert len(clear_requests(world)) == 2


def test_silence_everywhere_is_blocked_with_a_reason_and_tries_go_on_s7() -> None:
    world = World()
    world.places["ext1"].gateway_reachable = False
    world.plug("ext1")
    world.run(16)
    status = world.status()
    assert status.state is ClientState.BLOCKED
    assert status.blocked is not None
    assert status.blocked.fence_holds
    assert "did not answer" in status.blocked.cause
    world.places["ext1"].gateway_reachable = True
    world.run(60)
    assert world.mode() is AccessMode.MC


@pytest.mark.rows("R-31", "R-163", "R-164")
def test_probe_follows_the_schedule_of_section_k() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("ext1")
    world.run(14.9)
    start = clear_requests(world)[0]
    assert [round(at - start, 3) for at in clear_requests(world)] == [0.0, 1.0, 3.0, 7.0]
    assert world.status().trust is Trust.UNKNOWN
    world.run(0.2)
    assert world.status().trust is Trust.UNTRUSTED


@pytest.mark.rows("R-29", "R-77", "R-78", "R-85", "R-86")
def test_reply_without_tnc_keeps_the_vpn_and_raises_an_alarm_r78() -> None:
    """The firewall is open and the agent lists nobody's ingress: it answers, but does not vouch."""
    world = World()
    world.places["ext1"].home_agent_reachable = True
    world.vouches = False
    world.agent_prefixes = ("198.51.100.0/24", "10.9.0.0/24")
    world.agent = world.new_agent()
    world.plug("ext1")
    world.run(3)
    status = world.status()
    assert status.mode is AccessMode.MC
    assert world.bound_to() == "10.9.0.5"
    assert any(item.code == "no-trusted-networks" for item in status.health)
    assert len(clear_requests(world)) == 1


@pytest.mark.rows("R-156", "R-174")
def test_clock_an_hour_off_is_resynchronised_in_one_extra_exchange_r174() -> None:
    for ahead in (3600.0, -3600.0):
        world = World(profile=make_profile(gateway=None), agent_clock_ahead=ahead)
        world.plug("trust1")
        world.run(0.1)
        assert world.mode() is AccessMode.C
        assert len(clear_requests(world)) == 2


@pytest.mark.rows("R-56", "R-66")
def test_renewal_every_monitor_minus_grace_r66() -> None:
    world = World()
    world.plug("trust1")
    world.run(400)
    gaps = [round(b - a) for a, b in zip(clear_requests(world), clear_requests(world)[1:], strict=False)]
    assert set(gaps) == {50}


@pytest.mark.rows("R-67", "R-79", "R-86")
def test_home_agent_dies_inside_closes_at_t_monitor_r67() -> None:
    world = World()
    world.plug("trust1")
    world.run(1)
    world.agent_up = False
    world.run(58)
    assert world.mode() is AccessMode.C
    world.run(1.1)
    assert world.mode() is AccessMode.NONE
    assert isinstance(world.plans[-1][1].traffic, Held)


@pytest.mark.rows("R-165")
def test_three_lost_renewals_do_not_close_r165() -> None:
    world = World()
    world.plug("trust1")
    world.run(45)
    count = [0]

    def drop(direction: str) -> bool:
        count[0] += direction == "request"
        return direction == "request" and count[0] <= 3

    world.drop = drop
    for _ in range(100):
        world.run(1)
        assert world.mode() is AccessMode.C


@pytest.mark.rows("R-73", "R-80")
def test_outside_renews_by_the_lifetime_through_the_vpn_only_r73_r80() -> None:
    world = World()
    world.plug("ext1")
    world.run(20)
    at = world.now
    world.run(3600)
    assert clear_requests(world, at) == []
    assert 3 <= len(tunnel_requests(world, at)) <= 5
    assert world.mode() is AccessMode.MC


@pytest.mark.rows("R-47")
def test_home_agent_silent_through_the_vpn_is_blocked_and_recovers_s11() -> None:
    world = World()
    world.agent_up = False
    world.plug("ext1")
    world.run(20)
    status = world.status()
    assert status.state is ClientState.BLOCKED
    assert [item.code for item in status.health] == ["home-agent-silent"]
    world.agent_up = True
    world.run(60)
    assert world.mode() is AccessMode.MC
    assert world.status().health == ()


@pytest.mark.rows("R-20", "R-58")
def test_vpn_lost_outside_holds_and_rebuilds() -> None:
    world = World()
    world.plug("ext1")
    world.run(2)
    world.lose_vpn()
    assert isinstance(world.plans[-1][1].traffic, Held)
    world.run(5)
    assert world.mode() is AccessMode.MC


def test_sleep_voids_the_proof_and_checks_the_vpn_s1_s2() -> None:
    for place in ("trust1", "ext1"):
        world = World()
        world.plug(place)
        world.run(20)
        at = world.now
        world.feed(Resumed())
        assert isinstance(world.plans[-1][1].traffic, Held)
        assert clear_requests(world, at) == [at]
        if place == "ext1":
            assert effects_since(world, at, CheckVpn) == [at]
        world.run(1)
        assert world.mode() is (AccessMode.C if place == "trust1" else AccessMode.MC)


def test_sleep_with_a_gateway_that_forgot_us_starts_afresh_s2() -> None:
    world = World()
    world.plug("ext1")
    world.run(20)
    world.engine.works = False
    world.feed(Resumed())
    world.run(5)
    world.engine.works = True
    world.engine.local = None
    world.run(20)
    assert world.mode() is AccessMode.MC


def test_reconnect_builds_a_new_vpn() -> None:
    world = World()
    world.plug("ext1")
    world.run(20)
    at = world.now
    world.feed(ReconnectRequested())
    assert effects_since(world, at, StopVpn) == effects_since(world, at, StartVpn) == [at]
    world.run(1)
    assert world.mode() is AccessMode.MC


@pytest.mark.rows("R-120")
def test_flapping_link_is_paced_x22() -> None:
    world = World()
    for _ in range(50):
        world.plug("trust1")
        world.run(0.1)
    assert len(clear_requests(world)) <= 3 + 5 + 1
    world.run(60)
    assert world.mode() is AccessMode.C


def test_foreign_links_never_start_a_roam_s5() -> None:
    world = World()
    world.plug("trust1")
    world.run(1)
    roams, sent = len(world.status().roams), len(world.sent)
    links = world._links()
    for index in range(100):
        extra = replace(links[1], index=20 + index, name=f"veth{index}")
        world.feed(LinksObserved((*links, extra)))
        world.feed(LinksObserved(links))
    world.run(1)
    assert (len(world.status().roams), len(world.sent)) == (roams, sent)
    assert world.mode() is AccessMode.C


def test_gateway_name_is_resolved_first() -> None:
    world = World(profile=make_profile(gateway="gw.example.test"))
    world.plug("ext1")
    world.run(1)
    assert world.mode() is AccessMode.MC


def test_vpn_that_outlived_a_killed_daemon_is_let_through_and_used_s14() -> None:
    """The next life finds the VPN before it has looked the gateway's name up, and asks for a sign of life."""
    world = World(profile=make_profile(gateway="gw.example.test"))
    address = world.places["ext1"].address().ip
    inner = IPv4Address("10.9.0.5")
    world.engine.inner, world.engine.local = inner, address
    world.feed(VpnReported(VpnEstablished(address, GATEWAY, inner, mobike=True, behind_nat=False)))
    world.plug("ext1")
    _, plan = world.plans[-1]
    assert plan.fence is not None
    assert plan.fence.gateways == (GATEWAY,)
    assert effects_since(world, 0, CheckVpn) == [world.now]
    world.run(1)
    assert world.mode() is AccessMode.MC
    assert not effects_since(world, 0, StartVpn)


def test_a_network_that_lends_no_address_is_told_until_it_does() -> None:
    world = World()
    assert world.status().health == ()
    waiting = Link(2, "eth0", access=True, why="Ethernet", carrier=True, carrier_changes=1)
    world.feed(LinksObserved((waiting,)))
    status = world.status()
    assert status.state is ClientState.NO_NETWORK
    (item,) = status.health
    assert "eth0" in item.text
    assert "DHCP" in item.advice
    world.plug("trust1")
    assert world.status().health == ()
    world.run(1)
    world.feed(LinksObserved((waiting,)))
    assert [item.code for item in world.status().health] == ["no-address"]
    world.unplug()
    world.feed(LinksObserved((replace(waiting, carrier=False),)))
    assert world.status().health == ()


@pytest.mark.rows("R-55")
def test_every_roam_tells_its_steps_in_order() -> None:
    world = World()
    world.plug("trust1")
    world.run(2)
    world.plug("ext1")
    world.run(2)
    inside, outside = world.status().roams[-2:]
    assert [phase.name for phase in inside.phases] == ["link", "probe", "verdict", "registered", "open"]
    assert [phase.name for phase in outside.phases] == [
        "link",
        "link",
        "probe",
        "gateway",
        "verdict",
        "registered",
        "open",
    ]
    assert inside.finished
    assert outside.finished


def test_a_roam_that_goes_on_elsewhere_takes_the_steps_of_each_network() -> None:
    """One interruption for the user; but how long the second network took is told by its own steps."""
    world = World(profile=make_profile(gateway=None))
    world.plug("ext1")
    world.run(20)
    assert world.status().state is ClientState.BLOCKED
    at = world.now
    world.plug("trust1")
    world.run(1)
    (roam,) = world.status().roams
    assert roam.finished
    assert [phase.name for phase in roam.phases if phase.at < at] == ["link", "probe", "verdict"]
    later = [phase.name for phase in roam.phases if phase.at >= at]
    assert later == ["link", "link", "probe", "verdict", "registered", "open"], "unplugged, and plugged again"


def test_a_roam_that_takes_for_ever_still_tells_when_it_began() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("ext1")
    began = world.status().roams[-1].phases[0]
    for _ in range(30):
        world.plug("ext1")
        world.run(2)
    phases = world.status().roams[-1].phases
    assert phases[0] == began
    assert len(phases) == 16
    assert [phase.at for phase in phases] == sorted(phase.at for phase in phases)


@pytest.mark.rows("R-24", "R-46")
def test_hard_move_inside_costs_one_round_trip_and_the_plan() -> None:
    world = World()
    world.plug("trust1")
    world.run(2)
    at = world.now
    world.plug("trust2")
    world.run(2)
    opened = next(when for when, plan in world.plans if when >= at and isinstance(plan.traffic, Tunnelled))
    assert opened - at == pytest.approx(0.02)


@pytest.mark.rows("R-58", "R-60")
def test_hours_of_roaming_leave_the_invariant_standing() -> None:
    world = World()
    names = list(world.places)
    for _ in range(500):
        world.plug(world.random.choice(names))
        world.run(world.random.uniform(0.0, 30.0))
    world.run(30)
    assert world.mode() is not AccessMode.NONE
