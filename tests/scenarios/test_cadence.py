# SPDX-License-Identifier: GPL-2.0-or-later
"""When requests leave, what they have in common, and what answers do to the next one (RFC 5265 3.2.4, RFC 5944 3.6)."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import get_args

import pytest

from homeward.model.access import AccessMode, ClearPath, Path, VpnPath
from homeward.model.effects import MoveVpn, SendRegistration, StartVpn
from homeward.model.health import Severity
from homeward.model.inputs import Input
from homeward.model.plan import Held, Tunnelled
from homeward.model.profile import Timers
from homeward.model.registration import LIFETIME_INFINITE, RegistrationRequest, RequestFlags
from homeward.model.reply_codes import sentence_for
from homeward.model.status import ClientState, Trust
from homeward.model.vpn import VpnEstablished
from homeward.wire import registration as codec
from homeward.wire.identification import from_time, join, low32
from tests.scenarios.simulation import GATEWAY, Network, World, make_profile, signed_again


def sent(world: World, kind: type[Path], since: float = 0.0) -> list[tuple[float, SendRegistration]]:
    return [(at, each) for at, each in world.sent if isinstance(each.path, kind) and at >= since]


def times(world: World, kind: type[Path], since: float = 0.0) -> list[float]:
    return [at for at, _ in sent(world, kind, since)]


def request(effect: SendRegistration) -> RegistrationRequest:
    message = codec.decode(effect.octets).message
    assert isinstance(message, RegistrationRequest)
    return message


def rewrite_replies(world: World, change: Callable[[SendRegistration, bytes], bytes]) -> None:
    deliver = world.deliver

    def changed(asked: SendRegistration, octets: bytes, place: Network | None) -> None:
        deliver(asked, change(asked, octets), place)

    world.deliver = changed  # type: ignore[method-assign]


# --- the question in clear -------------------------------------------------------------------------------------------


@pytest.mark.rows("R-31", "R-163", "R-164")
@pytest.mark.parametrize(
    ("timeout", "transmissions", "expected"),
    [(1.0, 4, [0, 1, 3, 7]), (1.5, 3, [0, 1.5, 4.5]), (4.0, 2, [0, 4]), (1.0, 1, [0])],
)
def test_how_often_and_how_fast_is_the_profiles_choice(
    timeout: float, transmissions: int, expected: list[float]
) -> None:
    timers = Timers(probe_timeout=timeout, probe_transmissions=transmissions)
    world = World(profile=make_profile(gateway=None, timers=timers))
    world.plug("ext1")
    end = timeout * (2**transmissions - 1)
    world.run(end - 0.01)
    assert world.status().trust is Trust.UNKNOWN
    start = times(world, ClearPath)[0]
    assert [at - start for at in times(world, ClearPath)] == pytest.approx(expected)
    world.run(0.02)
    assert world.status().state is ClientState.BLOCKED


@pytest.mark.rows("R-162")
def test_every_request_has_an_identification_of_its_own_and_says_the_rest_again() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("ext1")
    world.run(14)
    requests = [request(each) for _, each in sent(world, ClearPath)]
    identifications = [each.identification for each in requests]
    assert identifications == sorted(set(identifications))
    assert (
        len({replace(each, identification=identifications[0], revocation_support=None) for each in requests})
        == 1
    )
    assert len(requests) == 4


@pytest.mark.rows("R-164")
def test_the_first_pause_grows_with_the_known_round_trip() -> None:
    world = World(profile=make_profile(gateway=None))
    world.places["trust1"].delay = 0.75
    world.plug("trust1")
    world.run(5)
    assert world.mode() is AccessMode.C
    world.agent_up = False
    at = world.now
    world.plug("trust1")
    world.run(14)
    gaps = [b - a for a, b in itertools.pairwise(times(world, ClearPath, at))]
    assert gaps == pytest.approx([3.1, 6.2])


@pytest.mark.rows("R-34", "R-74")
def test_the_question_goes_on_to_its_end_after_the_gateway_has_answered() -> None:
    world = World()
    at = world.now
    world.plug("ext1")
    world.run(0.5)
    assert world.mode() is AccessMode.MC
    world.run(20)
    assert [when - at for when in times(world, ClearPath)] == pytest.approx([0, 1, 3, 7])


@pytest.mark.rows("R-35", "R-74", "R-81")
@pytest.mark.parametrize("silent", [2.0, 5.0])
def test_a_home_agent_that_answers_seconds_after_the_gateway_still_decides(silent: float) -> None:
    world = World()
    world.places["trust1"].home_agent_reachable = False
    world.plug("trust1")
    world.run(silent)
    assert world.mode() is AccessMode.MC
    world.places["trust1"].home_agent_reachable = True
    world.run(6)
    assert world.mode() is AccessMode.C
    assert world.bound_to() == "10.1.1.10"


# --- leaving and arriving --------------------------------------------------------------------------------------------


def effects_at(world: World, at: float, kind: type) -> list[object]:
    return [effect for when, effect in world.effects if when == at and isinstance(effect, kind)]


@pytest.mark.rows("R-16", "R-44", "R-45")
def test_without_a_vpn_one_begins_in_the_step_that_asks_the_home_agent() -> None:
    world = World()
    world.plug("trust1")
    world.run(2)
    at = world.now
    world.plug("ext1")
    assert len(effects_at(world, at, StartVpn)) == 1
    assert times(world, ClearPath, at) == [at]


@pytest.mark.rows("R-33", "R-38", "R-39")
@pytest.mark.parametrize("gateway_reachable", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_from_outside_to_inside_raises_no_alarm_though_the_gateway_may_be_out_of_reach(
    gateway_reachable: bool, keep: bool
) -> None:
    world = World(profile=make_profile(keep_vpn_inside=keep))
    world.plug("ext1")
    world.run(2)
    world.places["trust1"].gateway_reachable = gateway_reachable
    at = world.now
    world.plug("trust1")
    assert len(effects_at(world, at, MoveVpn)) == 1
    assert times(world, ClearPath, at) == [at]
    for _ in range(30):
        world.run(1)
        assert world.mode() is AccessMode.C
        assert world.status().health == ()


@pytest.mark.rows("R-47")
def test_through_the_vpn_packets_wait_for_the_home_agents_word() -> None:
    world = World()
    world.places["ext1"].delay = 0.2
    world.plug("ext1")
    while not times(world, VpnPath):
        world.run(0.01)
    asked = times(world, VpnPath)[0]
    world.run(0.55)
    assert world.bound_to() == "10.9.0.5"
    assert all(isinstance(plan.traffic, Held) for _, plan in world.plans)
    world.run(0.2)
    opened = next(at for at, plan in world.plans if isinstance(plan.traffic, Tunnelled))
    assert opened - asked == pytest.approx(0.6)
    assert world.mode() is AccessMode.MC


@pytest.mark.rows("R-10")
def test_a_new_inner_address_is_asked_for_in_the_step_that_told_it() -> None:
    world = World()
    world.plug("ext1")
    world.run(2)
    world.engine.pool = 6
    world.lose_vpn()
    at = world.now
    while world.engine.inner is None:
        world.run(0.001)
    assert times(world, VpnPath, at) == [pytest.approx(world.now)]


@pytest.mark.rows("R-4", "R-247")
def test_a_gateway_without_mobike_is_told_and_told_no_more_once_it_has_it() -> None:
    world = World()
    world.plug("ext1")
    world.run(2)
    established = VpnEstablished(
        IPv4Address("198.51.100.10"), GATEWAY, IPv4Address("10.9.0.5"), mobike=False, behind_nat=False
    )
    world._report(established)
    (item,) = world.status().health
    assert item.code == "mobike-missing"
    assert "MOBIKE" in item.text
    assert world.mode() is AccessMode.MC
    world._report(replace(established, mobike=True))
    assert world.status().health == ()


# --- inside ----------------------------------------------------------------------------------------------------------


@pytest.mark.rows("R-69")
def test_how_long_trust_lasts_unless_the_profile_says_otherwise() -> None:
    assert Timers().monitor == 60


@pytest.mark.rows("R-56", "R-66", "R-69")
def test_trust_is_proved_anew_as_often_as_the_profile_says_however_long_the_lifetime() -> None:
    world = World(profile=make_profile(timers=Timers(monitor=30, monitor_grace=5)))
    world.plug("trust1")
    world.run(199)
    gaps = [b - a for a, b in itertools.pairwise(times(world, ClearPath))]
    assert gaps == pytest.approx([25] * 7)
    assert request(world.sent[0][1]).lifetime == 1800


@pytest.mark.rows("R-70")
def test_no_fact_tells_the_core_of_packets_so_none_can_stand_in_for_a_registration() -> None:
    """What decides when to ask again sees links, answers, the engine, orders and time."""
    assert {kind.__name__ for kind in get_args(Input)} == {
        "AgentAdvertised",  # a hint, unsigned
        "DatagramReceived",  # on the registration port alone
        "DeadlinePassed",
        "EffectFailed",
        "GatewayResolved",
        "LinksObserved",
        "PlanApplied",
        "ReconnectRequested",
        "Resumed",
        "VpnReported",
    }


@pytest.mark.rows("R-67", "R-68", "R-79")
def test_after_t_monitor_packets_wait_until_a_question_asked_since_is_answered() -> None:
    world = World()
    world.plug("trust1")
    world.run(1)
    world.agent_up = False
    world.run(59.1)
    assert isinstance(world.plans[-1][1].traffic, Held)
    assert times(world, ClearPath, world.now - 0.2), "detection begins anew at once"
    world.run(300)
    assert isinstance(world.plans[-1][1].traffic, Held)
    world.agent_up = True
    world.run(120)
    assert isinstance(world.plans[-1][1].traffic, Tunnelled)


@pytest.mark.rows("R-80")
@pytest.mark.parametrize("keep", [True, False])
def test_inside_nothing_is_asked_through_the_vpn(keep: bool) -> None:
    world = World(profile=make_profile(keep_vpn_inside=keep))
    world.plug("ext1")
    world.run(2)
    at = world.now
    world.plug("trust1")
    world.run(4000)
    assert times(world, VpnPath, at) == []
    assert world.bound_to() == "10.1.1.10"


# --- lifetimes -------------------------------------------------------------------------------------------------------


@pytest.mark.rows("R-152", "R-165")
def test_a_shorter_grant_is_renewed_in_time_counted_from_the_request() -> None:
    world = World()
    world.places["ext1"].delay = 0.25
    rewrite_replies(
        world,
        lambda asked, octets: (
            signed_again(octets, lifetime=120) if isinstance(asked.path, VpnPath) else octets
        ),
    )
    world.plug("ext1")
    world.run(600)
    asked = times(world, VpnPath)
    binding = world.core.registrar.binding
    assert binding is not None
    assert (binding.lifetime, binding.since) == (120, asked[-1])
    assert all(0 < b - a < 118 for a, b in itertools.pairwise(asked))


@pytest.mark.rows("R-166")
def test_a_lifetime_without_end_is_not_renewed_but_inside_trust_is() -> None:
    world = World(profile=make_profile(timers=Timers(lifetime=LIFETIME_INFINITE)))
    world.agent = world.new_agent()
    rewrite_replies(world, lambda asked, octets: signed_again(octets, lifetime=request(asked).lifetime))
    world.plug("ext1")
    world.run(100_000)
    assert len(times(world, VpnPath)) == 1
    assert world.mode() is AccessMode.MC
    at = world.now
    world.plug("trust1")
    world.run(199)
    assert len(times(world, ClearPath, at)) == 4
    assert world.mode() is AccessMode.C


# --- denials and clocks ----------------------------------------------------------------------------------------------


@pytest.mark.rows("R-12", "R-57", "R-215")
@pytest.mark.parametrize("code", [129, 134, 137, 139])
def test_denied_outside_no_wish_is_given_up(code: int) -> None:
    world = World()
    rewrite_replies(world, lambda asked, octets: signed_again(octets, code=code, lifetime=0))
    world.plug("ext1")
    world.run(300)
    asked = [request(each) for _, each in sent(world, VpnPath)]
    assert len(asked) > 3
    assert all(RequestFlags.REVERSE_TUNNEL in each.flags for each in asked)
    assert world.mode() is AccessMode.NONE


@pytest.mark.rows("R-154")
@pytest.mark.parametrize("code", [129, 130, 139, 222])
def test_a_denial_is_told_by_its_sentence_and_number(code: int) -> None:
    world = World(profile=make_profile(gateway=None))
    rewrite_replies(world, lambda asked, octets: signed_again(octets, code=code, lifetime=0))
    world.plug("trust1")
    world.run(1)
    (item,) = [each for each in world.status().health if each.code == "home-agent-refused"]
    assert sentence_for(code) in item.text
    assert f"(code {code})" in item.text


@pytest.mark.rows("R-158")
def test_a_key_that_the_agent_does_not_know_is_an_alarm_and_no_loop() -> None:
    world = World(profile=make_profile(gateway=None), key=b"w" * 32)
    world.agent._policy = replace(world.agent._policy, answer_failed_authentication=True)
    world.plug("trust1")
    world.run(15.1)
    assert len(world.at_agent) == 4
    (item,) = [each for each in world.status().health if each.code == "reply-rejected"]
    assert item.severity is Severity.ALARM
    world.run(900)
    assert len(world.at_agent) < 4 * 10


@pytest.mark.rows("R-174", "R-175")
def test_a_clock_is_learnt_from_signed_answers_only() -> None:
    world = World(profile=make_profile(gateway=None))
    world.plug("ext1")
    asked = world.sent[-1][1]
    identification = request(asked).identification
    ahead = join(from_time(world.wall() + 3600, 0) >> 32, low32(identification))
    fixed = bytes([3, 133, 0, 0]) + asked.octets[4:12] + ahead.to_bytes(8, "big")
    for octets in (fixed, fixed + asked.octets[24:], fixed + bytes([32, 36, 0, 0, 1, 0]) + bytes(32)):
        world.deliver(asked, octets, world.place)
    assert world.core.registrar.source.offset == 0
    world.run(1.1)
    later = request(world.sent[-1][1]).identification
    assert abs((later >> 32) - (from_time(world.wall(), 0) >> 32)) <= 1
