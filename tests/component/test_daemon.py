# SPDX-License-Identifier: GPL-2.0-or-later
"""homewardd as a whole over a real private bus, the world around it played: orders, deaths, failures, rude callers."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator

import pytest

from homeward.bus.errors import BadProfile, Failed, NoSuchProfile, SecretRefused
from homeward.model.access import AccessMode
from homeward.model.errors import HomewardError, PlanError
from homeward.model.health import Severity
from homeward.model.plan import EMPTY_PLAN, Held
from homeward.model.status import ClientState, StatusSnapshot, Trust
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from homeward.model.vpn import VpnState
from tests.component.whole_daemon import INSIDE, OUTSIDE, Enterprise, WholeDaemon
from tests.unit.daemon.laptop import until
from tests.world.buses import PrivateBus


@pytest.fixture
async def laptop() -> Enterprise:
    made = Enterprise()
    made.plug(OUTSIDE)
    return made


@pytest.fixture
async def daemon(bus: PrivateBus, laptop: Enterprise) -> AsyncIterator[WholeDaemon]:
    made = WholeDaemon(bus.address, laptop)
    await made.begin()
    async with made.bus:
        await made.bus.watch(made.told.append)
        yield made
    await made.end()


def through_the_vpn(now: StatusSnapshot) -> bool:
    return now.mode is AccessMode.MC


def is_disconnected(now: StatusSnapshot) -> bool:
    return now.state is ClientState.DISCONNECTED


def waits(now: StatusSnapshot) -> bool:
    return now.state is ClientState.WAITING_FOR_SECRET


def codes(now: StatusSnapshot) -> set[str]:
    return {item.code for item in now.health}


# --- orders ----------------------------------------------------------------------------------------------------------


async def test_inside_in_clear_outside_through_the_vpn_and_back(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    laptop.plug(INSIDE)
    await daemon.connect()
    inside = await daemon.until(lambda now: now.mode is AccessMode.C)
    assert (inside.trust, str(inside.care_of_address)) == (Trust.TRUSTED, "10.1.1.10")
    laptop.plug(OUTSIDE)
    outside = await daemon.until(through_the_vpn)
    assert (outside.trust, outside.care_of_address) == (Trust.UNTRUSTED, laptop.vpn_world.inner)
    laptop.plug(INSIDE)
    await daemon.until(lambda now: now.mode is AccessMode.C)
    assert laptop.plans.is_open


async def test_the_status_names_what_carries_packets_and_how_many_it_was(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    """How many is told to whoever asks; it is no reason to tell everybody each second."""
    laptop.plug(INSIDE)
    await daemon.connect()
    inside = await daemon.until(lambda now: now.engine is not None)
    assert inside.engine is TunnelEngine.TUN
    laptop.plans.carried = TrafficCounts(1, 20, 3, 4000)
    asked = await daemon.bus.status()
    assert (asked.traffic, asked.revision) == (TrafficCounts(1, 20, 3, 4000), inside.revision)
    laptop.plans.engine = lambda: TunnelEngine.BPF  # type: ignore[method-assign]
    assert daemon._client is not None
    daemon._client.redraw()
    await daemon.until(lambda now: now.engine is TunnelEngine.BPF)


async def test_disconnect_undoes_everything_and_forgets_the_secrets(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    await daemon.connect()
    await daemon.until(through_the_vpn)
    await daemon.bus.disconnect()
    assert laptop.plans.standing == EMPTY_PLAN
    assert laptop.vpn_world.sa is None
    assert await daemon.bus.status() == await daemon.until(is_disconnected)
    await daemon.bus.connect("office")
    assert len((await daemon.until(waits)).secrets_needed) == 2
    await daemon.bus.disconnect()
    await daemon.connect()
    await daemon.until(through_the_vpn)


@pytest.mark.parametrize("order", list(itertools.permutations(["mn-ha", "psk", "connect"])), ids=" ".join)
async def test_secrets_may_come_before_and_after_the_order(
    daemon: WholeDaemon, laptop: Enterprise, order: tuple[str, ...]
) -> None:
    for step in order:
        assert laptop.plans.standing == EMPTY_PLAN, "nothing is touched before everything is there"
        if step == "connect":
            await daemon.bus.connect("office")
        else:
            await daemon.offer(step)
    await daemon.until(through_the_vpn)


async def test_another_profile_of_the_same_keys_asks_for_none(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    daemon.add_profile("travel")
    await daemon.connect()
    await daemon.until(through_the_vpn)
    await daemon.bus.connect("travel")
    await daemon.until(lambda now: now.profile == "travel" and through_the_vpn(now))
    assert laptop.plans.is_open


# --- rude callers ----------------------------------------------------------------------------------------------------


async def test_connect_while_connecting_is_one_connection(daemon: WholeDaemon, laptop: Enterprise) -> None:
    await asyncio.gather(*(daemon.connect() for _ in range(4)))
    await daemon.until(through_the_vpn)
    await daemon.bus.connect("office")
    assert [order for order in laptop.engine.orders if order.startswith("connect")] == [
        "connect 198.51.100.10"
    ]


async def test_disconnect_while_waiting_for_a_secret(daemon: WholeDaemon, laptop: Enterprise) -> None:
    await daemon.bus.connect("office")
    await daemon.offer("mn-ha")
    await daemon.until(lambda now: [need.reference for need in now.secrets_needed] == ["psk"])
    await daemon.bus.disconnect()
    await daemon.until(is_disconnected)
    await daemon.bus.connect("office")
    assert len((await daemon.until(waits)).secrets_needed) == 2, "what was handed over before is forgotten"


async def test_a_secret_that_comes_after_disconnect_connects_nothing(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    await daemon.bus.connect("office")
    await daemon.bus.disconnect()
    await daemon.offer()
    assert (await daemon.bus.status()).state is ClientState.DISCONNECTED
    assert laptop.plans.standing == EMPTY_PLAN
    assert laptop.engine.orders.count("configure") == 0


async def test_reconnect_without_anything_to_reconnect(daemon: WholeDaemon) -> None:
    with pytest.raises(Failed, match="`homeward connect` connects a profile"):
        await daemon.bus.reconnect()
    await daemon.bus.connect("office")
    with pytest.raises(Failed, match="waits for its secret “mn-ha”, “psk”"):
        await daemon.bus.reconnect()


async def test_reconnect_builds_a_new_vpn(daemon: WholeDaemon, laptop: Enterprise) -> None:
    await daemon.connect()
    await daemon.until(through_the_vpn)
    await daemon.bus.reconnect()
    await until(lambda: laptop.engine.orders.count("connect 198.51.100.10") == 2)
    await daemon.until(through_the_vpn)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
async def test_any_mix_of_orders_at_once_ends_as_the_last_one_says(
    daemon: WholeDaemon, laptop: Enterprise, seed: int
) -> None:
    chance = random.Random(seed)
    daemon.add_profile("travel")
    orders = {
        "connect": daemon.connect,
        "travel": lambda: daemon.bus.connect("travel"),
        "disconnect": daemon.bus.disconnect,
        "reconnect": daemon.bus.reconnect,
        "offer": daemon.offer,
    }

    async def give(order: str) -> None:
        await asyncio.sleep(chance.random() / 20)
        try:
            await orders[order]()
        except Failed:
            assert order == "reconnect"
        except SecretRefused:  # eight offers of one user may wait to be checked
            assert order in ("connect", "offer")

    await asyncio.gather(*(give(chance.choice(list(orders))) for _ in range(25)))
    await daemon.bus.disconnect()
    assert laptop.plans.standing == EMPTY_PLAN
    assert laptop.vpn_world.sa is None
    await daemon.connect()
    await daemon.until(through_the_vpn)


# --- deaths ----------------------------------------------------------------------------------------------------------


async def test_the_next_life_waits_shut_and_goes_on_by_the_same_vpn(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    await daemon.connect()
    await daemon.until(through_the_vpn)
    standing = laptop.vpn_world.sa
    await daemon.be_killed()
    await daemon.begin()
    waiting = await daemon.until(waits)
    assert waiting.blocked is not None
    assert waiting.blocked.fence_holds
    plan = laptop.plans.standing
    assert isinstance(plan.traffic, Held)
    assert plan.fence is not None
    assert plan.fence.access_links == ("eth0",)
    assert not laptop.plans.is_open
    await daemon.offer("psk", "mn-ha")
    await daemon.until(through_the_vpn)
    assert laptop.vpn_world.sa == standing
    assert "check" in laptop.engine.orders
    assert "connect 198.51.100.10" not in laptop.engine.orders


@pytest.mark.parametrize(
    "fault", ["", "/p/office.toml: home_agent.adress: unknown key; did you mean “address”?"]
)
async def test_a_profile_that_is_gone_or_broken_keeps_the_block_until_disconnect(
    daemon: WholeDaemon, laptop: Enterprise, fault: str
) -> None:
    await daemon.connect()
    await daemon.until(through_the_vpn)
    await daemon.be_killed()
    with daemon.without_profile("office", fault):
        await daemon.begin()
        blocked = await daemon.until(lambda now: now.state is ClientState.BLOCKED)
        assert blocked.blocked is not None
        assert blocked.blocked.fence_holds
        (alarm,) = blocked.health
        assert (alarm.code, alarm.severity) == ("profile-lost", Severity.ALARM)
        assert (fault or "there is no profile “office”; usable are: none") in alarm.text
        assert "homeward disconnect" in alarm.advice
        with pytest.raises(BadProfile if fault else NoSuchProfile):
            await daemon.bus.connect("office")
        assert laptop.plans.standing != EMPTY_PLAN
        await daemon.bus.disconnect()
        await daemon.until(is_disconnected)
        assert laptop.plans.standing == EMPTY_PLAN
        assert laptop.vpn_world.sa is None
    await daemon.connect()
    await daemon.until(through_the_vpn)


async def test_disconnect_of_a_life_that_was_killed_ends_its_vpn(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    await daemon.connect()
    await daemon.until(through_the_vpn)
    await daemon.be_killed()
    await daemon.begin()
    await daemon.bus.disconnect()
    assert laptop.vpn_world.sa is None
    assert laptop.plans.standing == EMPTY_PLAN
    await daemon.be_killed()
    await daemon.begin()
    assert (await daemon.bus.status()).state is ClientState.DISCONNECTED


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_plan_that_fails_is_told_and_tried_again(daemon: WholeDaemon, laptop: Enterprise) -> None:
    await daemon.bus.connect("office")
    laptop.plans.refuses = PlanError("closing the fence", "no memory")
    await daemon.offer()
    told = await daemon.until(lambda now: "plan-failed" in codes(now))
    (item,) = [item for item in told.health if item.code == "plan-failed"]
    assert "closing the fence: no memory" in item.text
    assert told.mode is AccessMode.NONE
    laptop.plans.refuses = None
    laptop.clock.advance(1.0)
    mended = await daemon.until(through_the_vpn)
    assert "plan-failed" not in codes(mended)


async def test_an_engine_that_is_lost_blocks_until_it_is_found(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    await daemon.connect()
    await daemon.until(through_the_vpn)
    await laptop.vpn_world.engine_runs(False)
    blocked = await daemon.until(lambda now: now.state is ClientState.BLOCKED)
    assert blocked.vpn is VpnState.NO_ENGINE
    assert "engine-missing" in codes(blocked)
    assert blocked.blocked is not None
    assert blocked.blocked.fence_holds
    assert not laptop.plans.is_open
    await laptop.vpn_world.engine_runs(True)
    found = await daemon.until(through_the_vpn)
    assert "engine-missing" not in codes(found)


async def test_without_an_engine_the_inside_is_reached_all_the_same(
    daemon: WholeDaemon, laptop: Enterprise
) -> None:
    await laptop.vpn_world.engine_runs(False)
    laptop.plug(INSIDE)
    await daemon.connect()
    await daemon.until(lambda now: now.mode is AccessMode.C)
    await daemon.bus.disconnect()
    assert laptop.plans.standing == EMPTY_PLAN


async def test_who_meddles_is_told_of_in_every_state(daemon: WholeDaemon, laptop: Enterprise) -> None:
    await daemon.bus.connect("office")
    await daemon.until(waits)
    assert daemon._client is not None
    daemon._client.noticed("fence-restored", "another program changed the firewall; it was put back")
    await daemon.until(lambda now: "fence-restored" in codes(now))
    await daemon.offer()
    await daemon.until(through_the_vpn)
    daemon._client.noticed("device-restored", "another program deleted homeward0; it was made anew")
    await daemon.until(lambda now: "device-restored" in codes(now))
    with pytest.raises(HomewardError):
        await daemon.bus.connect("nowhere")
    assert daemon.now is not None
    assert through_the_vpn(daemon.now)
