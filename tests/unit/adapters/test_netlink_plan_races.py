# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes between the steps of a network plan: newer orders, and other programs."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.model.access import ClearPath
from homeward.model.errors import PlanError
from homeward.model.plan import Fence, Held, NetworkPlan, Traffic, Tunnelled

AGENT, HOME, CARE_OF = IPv4Address("10.0.0.2"), IPv4Address("10.77.0.10"), IPv4Address("10.1.1.10")


def plan(traffic: Traffic) -> NetworkPlan:
    return NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), traffic, Fence(AGENT, (), (), Held(), None))


HELD = plan(Held())
OPEN = plan(Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1480))
NARROW = plan(Tunnelled(ClearPath(2, "eth0", CARE_OF), AGENT, 1400))


class Device:
    """The home device, as far as it matters whether it is open."""

    def __init__(self) -> None:
        self.on_lost: Callable[[], None] = lambda: None
        self.is_open = False

    def attach(self, home_address: IPv4Address) -> None:
        pass

    def detach(self) -> None:
        pass

    def hold(self) -> None:
        self.is_open = False

    def prepare(self, traffic: Tunnelled, device: int) -> None:
        pass

    def open(self, *, linger: bool) -> None:
        self.is_open = True

    def counters(self) -> tuple[int, int]:
        return 0, 0


class Wall:
    def put_up(
        self,
        fence: Fence,
        home_address: IPv4Address,
        *,
        vpn_device: str | None = None,
        lingering: Traffic | None = None,
    ) -> None:
        pass

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
        super().__init__(self.device, Wall(), switches=Switches(), tunnel_device=lambda inner: None)
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
