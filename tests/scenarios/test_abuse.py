# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody who delays, floods, flaps or refuses could gain: nothing that lasts, and never trust."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agents.home_agent import HomeAgent
from homeward.core.pacing import TokenBucket
from homeward.model.access import AccessMode, ClearPath, VpnPath
from homeward.model.effects import SendRegistration, StartVpn
from homeward.model.inputs import DeadlinePassed, EffectFailed, GatewayResolved
from homeward.model.plan import Held, Tunnelled
from homeward.model.profile import Timers
from homeward.model.status import ClientState, Trust
from homeward.model.vpn import VpnState
from tests.scenarios.simulation import GATEWAY, Network, World, make_profile, signed_again


def clear_requests(world: World, since: float = 0.0) -> list[float]:
    return [at for at, sent in world.sent if isinstance(sent.path, ClearPath) and at >= since]


def tunnel_requests(world: World, since: float = 0.0) -> list[float]:
    return [at for at, sent in world.sent if isinstance(sent.path, VpnPath) and at >= since]


def rewrite_replies(world: World, change: Callable[[SendRegistration, bytes], bytes]) -> None:
    deliver = world.deliver

    def changed(request: SendRegistration, octets: bytes, place: Network | None) -> None:
        deliver(request, change(request, octets), place)

    world.deliver = changed  # type: ignore[method-assign]


# --- who delays ------------------------------------------------------------------------------------------------------


def test_replies_that_come_later_each_time_never_widen_a_relays_window_x27() -> None:
    """Each answer is only a little slower than the last one allowed: the limit must not follow."""
    world = World(profile=make_profile(gateway=None))
    world.plug("trust1")
    for one_way in (0.95, 2.0, 3.9, 5.0, 10.0, 20.0):
        world.places["trust1"].delay = one_way
        world.run(90)
        if world.status().trust is Trust.TRUSTED:
            proof = world.status().proof
            assert proof is not None
            assert proof.round_trip is not None
            assert proof.round_trip <= 4 * 2.0


def test_vpn_answers_held_back_outside_do_not_make_old_proofs_good_x27() -> None:
    world = World()
    world.places["ext1"].delay = 1.0
    world.plug("ext1")
    world.run(30)
    assert world.mode() is AccessMode.MC
    world.places["trust1"].delay = 1.5
    world.plug("trust1")
    world.run(3.1)
    assert world.status().trust is not Trust.TRUSTED


def test_slow_network_does_not_slow_down_the_next_ones_detection() -> None:
    world = World(profile=make_profile(gateway=None, timers=Timers(proof_max_age=20.0, probe_timeout=10.0)))
    world.places["trust1"].delay = 3.0
    world.plug("trust1")
    world.run(30)
    assert world.mode() is AccessMode.C
    world.core.profile = make_profile(gateway=None)
    world.core.registrar._timers = Timers()
    at = world.now
    world.plug("ext1")
    world.run(15.1)
    assert [when - at for when in clear_requests(world, at)] == [0.0, 1.0, 3.0, 7.0]
    assert world.status().state is ClientState.BLOCKED


# --- who flaps -------------------------------------------------------------------------------------------------------


def test_minute_of_flapping_is_forgiven_a_second_later_x22() -> None:
    """Requests that never left need no pause: the next one waits for one turn, not for all that were given up."""
    world = World()
    for _ in range(600):
        world.plug("ext1")
        world.run(0.1)
    world.plug("trust1")
    world.run(1.2)
    assert world.mode() is AccessMode.C


@pytest.mark.rows("R-120")
def test_flapping_never_gets_more_than_its_share_of_requests_x22() -> None:
    bucket = TokenBucket()
    starts = [bucket.take(at / 10) for at in range(600)]
    begun = {start for start, following in itertools.pairwise(starts) if following != start}
    assert len(begun) <= 3 + 60


@pytest.mark.rows("R-64")
def test_link_change_right_after_a_plan_failed_holds_at_once_r64() -> None:
    """The plan that failed was superseded; the newer one flows, and must be closed in the step of the link event."""
    world = World()
    world.plug("trust1")
    world.run(0.5)
    world.feed(EffectFailed("plan-failed", "preparing the path: ENODEV"))
    assert isinstance(world.plans[-1][1].traffic, Tunnelled)
    before = len(world.plans)
    world.unplug()
    assert [type(plan.traffic) for _, plan in world.plans[before:]] == [Held]


def test_failed_plan_is_tried_again_once_a_second_and_no_more() -> None:
    world = World()
    world.plug("trust1")
    world.run(0.5)
    tries = len(world.plans)
    for _ in range(20):
        world.feed(EffectFailed("plan-failed", "no such device"))
        world.run(0.1)
    assert len(world.plans) - tries in (1, 2, 3)


# --- who refuses -----------------------------------------------------------------------------------------------------


def test_refusal_inside_ends_the_watch_on_that_trust() -> None:
    """Once the agent refuses, the network is outside; T_MONITOR of the trust before must not interrupt the VPN."""
    world = World()
    world.plug("trust1")
    world.run(5)
    rewrite_replies(
        world,
        lambda request, octets: (
            signed_again(octets, code=128, lifetime=0) if isinstance(request.path, ClearPath) else octets
        ),
    )
    world.run(50)
    assert world.mode() is AccessMode.MC
    before = len(world.plans)
    world.run(300)
    assert all(not isinstance(plan.traffic, Held) for _, plan in world.plans[before:])


@pytest.mark.rows("R-163")
def test_lifetime_of_nothing_through_the_vpn_starts_no_storm_r163() -> None:
    world = World()
    rewrite_replies(
        world,
        lambda request, octets: (
            signed_again(octets, lifetime=0) if isinstance(request.path, VpnPath) else octets
        ),
    )
    world.plug("ext1")
    world.run(60)
    assert len(tunnel_requests(world)) <= 4


@pytest.mark.rows("R-77")
def test_reply_without_tnc_ends_probing_on_this_attachment_r77() -> None:
    """Even when it answers the last of the first four requests, and a later series was planned already."""
    world = World(profile=make_profile(gateway=None))
    world.vouches = False
    world.places["trust1"].delay = 4.5
    world.plug("trust1")
    world.run(17)
    asked = len(clear_requests(world))
    world.run(600)
    assert len(clear_requests(world)) == asked


def test_probing_goes_on_when_the_vpn_is_lost_for_good() -> None:
    """The office's gate let the VPN through first and the home agent later: no new attachment says so."""
    world = World()
    world.plug("ext1")
    world.run(60)
    assert world.mode() is AccessMode.MC
    place = world.places["ext1"]
    place.subnet, place.inside, place.gateway_reachable = "198.51.100.0/24", True, False
    world.agent = replace_agent(world, "198.51.100.0/24")
    world.lose_vpn()
    world.run(300)
    assert world.mode() is AccessMode.C


def replace_agent(world: World, prefix: str) -> HomeAgent:
    world.agent_prefixes = (*world.agent_prefixes, prefix)
    return world.new_agent()


# --- who says nothing ------------------------------------------------------------------------------------------------


def test_engine_that_never_reports_back_is_asked_again() -> None:
    world = World()
    world._start_vpn = lambda gateway, source: None  # type: ignore[method-assign]
    world.plug("ext1")
    world.run(600)
    starts = [at for at, effect in world.effects if isinstance(effect, StartVpn)]
    assert len(starts) > 2
    assert world.status().vpn_cause


def test_late_answer_about_a_name_does_not_end_a_vpn_that_stands() -> None:
    world = World(profile=make_profile(gateway="gw.example.test"))
    world.plug("ext1")
    world.run(2)
    assert world.mode() is AccessMode.MC
    world.feed(GatewayResolved("gw.example.test", (), "198.51.100.1: no answer"))
    world.feed(GatewayResolved("gw.example.test", (IPv4Address("203.0.113.66"),)))
    assert world.status().vpn is VpnState.UP
    assert world.mode() is AccessMode.MC
    assert world.core.secure_path is not None
    assert world.core.secure_path.gateway == GATEWAY


def test_request_that_could_not_be_sent_is_no_news_once_one_was_answered() -> None:
    world = World()
    world.plug("trust1")
    world.feed(EffectFailed("registration-not-sent", "ENETUNREACH"))
    world.run(1)
    assert world.mode() is AccessMode.C
    assert [item.code for item in world.status().health] == []


def test_renamed_link_is_another_attachment() -> None:
    """Fence and sockets name the link: under a new name the old proof would lead into a closed door for ever."""
    world = World()
    world.plug("trust1")
    world.run(1)
    links = tuple(replace(link, name="lan0") if link.name == "eth0" else link for link in world._links())
    assert world.core.attachments.observe(links)


def test_deadline_that_comes_early_changes_nothing() -> None:
    world = World()
    world.plug("ext1")
    world.run(2)
    before = len(world.effects)
    world.feed(DeadlinePassed())
    assert len(world.effects) == before
