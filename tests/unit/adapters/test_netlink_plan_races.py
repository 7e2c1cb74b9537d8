# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes between the steps of a network plan: newer orders, and other programs."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.adapters.netlink_plan import Flowing, NetlinkPlans
from homeward.model.access import AgentPath, ClearPath, HomePath
from homeward.model.errors import PlanError
from homeward.model.plan import AtHome, Fence, Held, NetworkPlan, Traffic, Tunnelled, ViaAgent
from homeward.model.traffic_counts import TrafficCounts

AGENT, HOME, CARE_OF = IPv4Address("10.0.0.2"), IPv4Address("10.77.0.10"), IPv4Address("10.1.1.10")


def plan(traffic: Traffic) -> NetworkPlan:
    return NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), traffic, Fence(AGENT, (), (), Held(), None))


HELD = plan(Held())
OPEN = plan(Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1480))
NARROW = plan(Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1400))


class Device:
    """The home device, as far as it matters whether it is open."""

    route_program = -1
    engine = None

    def __init__(self) -> None:
        self.on_lost: Callable[[], None] = lambda: None
        self.is_open = False

    def attach(self, home_address: IPv4Address) -> None:
        pass

    def detach(self) -> None:
        pass

    def clear_away(self) -> None:
        pass

    def refuse_shortcut(self, why: str) -> None:
        pass

    def traffic(self) -> TrafficCounts:
        return TrafficCounts()

    def hold(self) -> None:
        self.is_open = False

    def prepare(self, traffic: Flowing, device: int) -> None:
        pass

    def open(self, *, linger: bool) -> None:
        self.is_open = True

    def counters(self) -> tuple[int, int]:
        return 0, 0


class Wall:
    def __init__(self) -> None:
        self.stands: list[tuple[Fence, IPv4Address | None]] = []

    def put_up(
        self,
        fence: Fence,
        home_address: IPv4Address | None,
        *,
        vpn_device: str | None = None,
        lingering: Traffic | None = None,
    ) -> None:
        self.stands.append((fence, home_address))

    def take_down(self) -> None:
        pass

    def close(self) -> None:
        pass


class Switches:
    def set_for(self, access_links: frozenset[str], tunnels: frozenset[str]) -> None:
        pass

    def restore(self) -> None:
        pass


class Plans(NetlinkPlans):
    """Its netlink requests take until `kernel` is set; `carried_out` counts them."""

    def __init__(self) -> None:
        self.device = Device()
        self.wall = Wall()
        super().__init__(self.device, self.wall, switches=Switches(), tunnel_device=lambda inner: None)
        self.kernel = asyncio.Event()
        self.kernel.set()
        self.carried_out = 0

    async def _put_addresses(
        self, home_address: IPv4Address, destinations: tuple[IPv4Network, ...], mss: int
    ) -> None:
        self.carried_out += 1
        await self.kernel.wait()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_hold_that_comes_while_a_plan_waits_for_another_wins() -> None:
    plans = Plans()
    plans.kernel.clear()
    first = asyncio.create_task(plans.apply(NARROW))
    await turns()
    second = asyncio.create_task(plans.apply(OPEN))
    await turns()
    plans.hold()
    plans.kernel.set()
    await asyncio.gather(first, second)
    assert not plans.device.is_open


async def test_what_is_deleted_while_a_plan_is_carried_out_makes_it_fail() -> None:
    """It may have been deleted after its step: the plan does not stand, and who wished it must know."""
    plans = Plans()
    await plans.apply(HELD)
    plans.kernel.clear()
    applying = asyncio.create_task(plans.apply(OPEN))
    await turns()
    plans.device.on_lost()
    plans.kernel.set()
    with pytest.raises(PlanError, match="homeward0"):
        await applying
    assert not plans.device.is_open
    await plans.apply(OPEN)
    assert plans.device.is_open
    await plans.close()


async def test_what_is_deleted_in_between_is_made_anew_and_opened_again() -> None:
    plans = Plans()
    told: list[str] = []
    plans.on_mended = told.append
    await plans.apply(OPEN)
    before = plans.carried_out
    plans.device.on_lost()
    plans.device.on_lost()
    assert not plans.device.is_open
    await turns()
    assert plans.device.is_open
    assert plans.carried_out > before
    assert told == ["another program deleted homeward0; it was made anew"]


async def test_mending_that_fails_is_told_as_a_plan_that_failed() -> None:
    """Packets are held then, and only a new plan opens: somebody has to wish it."""
    plans = Plans()
    failed: list[str] = []
    plans.on_failed = failed.append
    await plans.apply(OPEN)

    async def refuse(*_: object) -> None:
        raise PlanError("setting the home address", 12)

    plans._put_addresses = refuse  # type: ignore[assignment, method-assign]
    plans.device.on_lost()
    await turns()
    assert not plans.device.is_open
    assert "could not be made anew" in failed[0]


async def test_mending_never_opens_what_a_newer_order_holds() -> None:
    plans = Plans()
    await plans.apply(OPEN)
    plans.device.on_lost()
    plans.hold()
    await turns()
    assert not plans.device.is_open


AGENT_PATH = AgentPath(2, "eth0", HOME, CARE_OF, b"\2\0\0\0\0\1", CARE_OF)
NOT_YET = NetworkPlan(None, (), Held(), Fence(AGENT, (), ("eth0",), Held(), None))


async def test_while_no_home_address_is_known_the_fence_stands_and_nothing_else_is_made() -> None:
    plans = Plans()
    await plans.apply(NOT_YET)
    assert plans.wall.stands == [(NOT_YET.fence, None)]
    assert plans.carried_out == 0
    assert not plans.device.is_open
    nowhere = replace(NOT_YET, home_address=IPv4Address("0.0.0.0"))
    await plans.apply(nowhere)
    assert plans.wall.stands[-1] == (NOT_YET.fence, None)
    await plans.apply(OPEN)
    assert plans.device.is_open
    await plans.apply(NOT_YET)
    assert not plans.device.is_open


async def test_nothing_can_flow_without_a_home_address() -> None:
    plans = Plans()
    traffic = Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1480)
    with pytest.raises(PlanError, match="no home address"):
        await plans.apply(replace(NOT_YET, traffic=traffic))


@pytest.mark.parametrize(
    "fence",
    [
        Fence(AGENT, (), (), ViaAgent(AGENT_PATH, 1500), None),
        Fence(AGENT, (), ("wlan0",), AtHome(HomePath(2, "eth0", HOME), 1500), None),
        Fence(AGENT, (), (), Held(), None, foreign_agent=AGENT_PATH),
        Fence(AGENT, (), (), Held(), None, home_link=HomePath(2, "eth0", HOME)),
    ],
)
async def test_frames_leave_only_where_the_second_line_stands(fence: Fence) -> None:
    plans = Plans()
    with pytest.raises(PlanError, match="not an access link"):
        await plans.apply(NetworkPlan(HOME, (), fence.traffic, fence))
    assert plans.wall.stands == []
    assert not plans.device.is_open
