# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of NetworkPlans, kept by the fake and by the real adapters in namespaces."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

import pytest

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.tunnel_device import TunnelDevice
from homeward.model.access import ClearPath
from homeward.model.errors import PlanError
from homeward.model.names import HOME_DEVICE
from homeward.model.plan import EMPTY_PLAN, Fence, Held, NetworkPlan, Traffic, Tunnelled
from homeward.ports.world import NetworkPlans
from tests.contract.worlds import worlds
from tests.world.fakes import FakeNetworkPlans
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, Stations, TunnelEnd


def plan(traffic: Traffic) -> NetworkPlan:
    fence = Fence(AGENT, (), ("eth0",), traffic, None)
    return NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), traffic, fence)


HELD = plan(Held())


class World(Protocol):
    """What the contract is tried in."""

    plans: NetworkPlans
    clear: NetworkPlan
    other: NetworkPlan

    async def flows(self) -> bool:
        """Whether a packet that an application sends now reaches the home agent soon."""

    def stands(self) -> bool:
        """Whether anything of a plan is in the kernel."""

    def break_next(self) -> NetworkPlan:
        """A plan that fails."""

    async def next_life(self) -> NetworkPlans:
        """What a new process has in its hands after this one was killed."""


class FakeWorld:
    def __init__(self) -> None:
        self.plans = FakeNetworkPlans()
        self.clear = plan(Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1480))
        self.other = plan(Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1400))

    async def flows(self) -> bool:
        if not self.plans.is_open:
            self.plans.waiting += 1
        return self.plans.is_open

    def stands(self) -> bool:
        return self.plans.standing != EMPTY_PLAN

    def break_next(self) -> NetworkPlan:
        self.plans.fails_next = PlanError("preparing the path", 19)
        return self.clear

    async def next_life(self) -> NetworkPlans:
        return self.plans


class RealWorld:
    def __init__(self, stations: Stations, state: Path) -> None:
        self.stations = stations
        self.end = TunnelEnd(stations)
        self.lives: list[NetlinkPlans] = []
        self._state = state
        self.plans = self._life()
        self.clear = plan(Tunnelled(ClearPath(stations.link, "eth0", CARE_OF), AGENT, 1480))
        self.other = plan(Tunnelled(ClearPath(stations.link, "eth0", CARE_OF), AGENT, 1400))
        self._number = 0

    def _life(self) -> NetlinkPlans:
        switches = KernelSwitches(self._state)
        made = NetlinkPlans(TunnelDevice(), NftFence(), switches=switches, tunnel_device=lambda inner: None)
        self.lives.append(made)
        return made

    async def flows(self) -> bool:
        self._number += 1
        mark = f"packet {self._number}".encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
            application.sendto(mark, (str(PEER), 9))
        for _ in range(40):
            await asyncio.sleep(0.005)
            came = self.end.came()
            if came is not None and came.endswith(mark):
                return True
        return False

    def stands(self) -> bool:
        run = self.stations.laptop.run
        device = any(name == HOME_DEVICE for _, name in socket.if_nameindex())
        return device or "homeward" in run("nft", "list", "tables") or "434" in run("ip", "rule")

    def break_next(self) -> NetworkPlan:
        return plan(Tunnelled(ClearPath(4711, "eth0", CARE_OF), AGENT, 1480))

    async def next_life(self) -> NetworkPlans:
        # Closed descriptors are all that the kernel sees of a killed process too (tests/component kills a real one).
        await self.plans.close()
        return self._life()

    async def close(self) -> None:
        for life in self.lives:
            await life.close()
        self.end.__exit__()


world = worlds(FakeWorld, RealWorld)


@pytest.mark.rows("R-64")
async def test_a_held_plan_lets_nothing_flow(world: World) -> None:
    await world.plans.apply(HELD)
    assert not await world.flows()
    assert world.stands()


@pytest.mark.rows("R-151")
async def test_a_tunnelled_plan_lets_packets_flow(world: World) -> None:
    await world.plans.apply(world.clear)
    assert await world.flows()


async def test_held_packets_are_counted(world: World) -> None:
    await world.plans.apply(HELD)
    before = world.plans.counters()[0]
    await world.flows()
    assert world.plans.counters()[0] > before


@pytest.mark.rows("R-64")
async def test_hold_works_at_once_and_the_same_plan_opens_again(world: World) -> None:
    await world.plans.apply(world.clear)
    assert await world.flows()
    world.plans.hold()
    assert not await world.flows()
    await world.plans.apply(world.clear)
    assert await world.flows()


async def test_hold_is_harmless_before_any_plan(world: World) -> None:
    world.plans.hold()
    assert not world.stands()


async def test_a_hold_that_comes_while_a_plan_is_applied_wins(world: World) -> None:
    await world.plans.apply(HELD)
    applying = asyncio.create_task(world.plans.apply(world.clear))
    await asyncio.sleep(0)
    world.plans.hold()
    await applying
    assert not await world.flows()


async def test_the_same_plan_twice_changes_nothing(world: World) -> None:
    await world.plans.apply(world.clear)
    await world.plans.apply(world.clear)
    assert await world.flows()


@pytest.mark.rows("R-151")
async def test_one_tunnel_follows_another(world: World) -> None:
    await world.plans.apply(world.clear)
    await world.plans.apply(world.other)
    assert await world.flows()


async def test_after_a_failure_packets_are_held_and_the_next_plan_works(world: World) -> None:
    await world.plans.apply(world.clear)
    with pytest.raises(PlanError):
        await world.plans.apply(world.break_next())
    assert not await world.flows()
    await world.plans.apply(world.clear)
    assert await world.flows()


async def test_the_empty_plan_leaves_nothing(world: World) -> None:
    for earlier in (HELD, world.clear):
        await world.plans.apply(earlier)
        await world.plans.apply(EMPTY_PLAN)
        assert not world.stands()


async def test_the_empty_plan_may_come_first(world: World) -> None:
    await world.plans.apply(EMPTY_PLAN)
    await world.plans.apply(EMPTY_PLAN)
    assert not world.stands()


async def test_a_later_life_undoes_what_an_earlier_one_did(world: World) -> None:
    await world.plans.apply(world.clear)
    later = await world.next_life()
    assert world.stands()
    await later.apply(EMPTY_PLAN)
    assert not world.stands()


async def test_a_later_life_takes_over_what_an_earlier_one_did(world: World) -> None:
    await world.plans.apply(world.clear)
    world.plans = await world.next_life()
    await world.plans.apply(world.other)
    assert await world.flows()
