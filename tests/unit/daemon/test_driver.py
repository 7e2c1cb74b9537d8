# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop around the core: what it does when the world floods it, refuses, or breaks something of ours."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

import pytest

from homeward.daemon.driver import Driver
from homeward.daemon.executor import World
from homeward.daemon.journal_keeper import JournalKeeper
from homeward.model.access import ClearPath, Link
from homeward.model.errors import AdapterError, IkeError, PlanError, Unavailable
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import EMPTY_PLAN, Held, NetworkPlan
from homeward.model.secret import Secret
from homeward.model.status import ClientState
from homeward.model.vpn import VpnState
from tests.unit.daemon.parts import KEY, PSK, profile
from tests.world.fakes import (
    FakeClock,
    FakeJournals,
    FakeLinks,
    FakeNameQueries,
    FakeNetworkPlans,
    FakeRegistrations,
)
from tests.world.fakes_vpn import FakeVpnEngine, FakeVpnWorld

ETHERNET = Link(
    2,
    "eth0",
    access=True,
    why="Ethernet",
    carrier=True,
    addresses=(IPv4Interface("198.51.100.10/24"),),
    gateway=IPv4Address("198.51.100.1"),
    metric=100,
)
AGENT = profile().home_agent.address


class Engine(FakeVpnEngine):
    """An engine that can refuse."""

    refuses: AdapterError | None = None

    async def connect(self, source: IPv4Address) -> None:
        if self.refuses is not None:
            raise self.refuses
        await super().connect(source)

    async def disconnect(self) -> None:
        if self.refuses is not None:
            raise self.refuses
        await super().disconnect()


@dataclass
class Laptop:
    """A driver on fakes."""

    clock: FakeClock = field(default_factory=FakeClock)
    links: FakeLinks = field(default_factory=lambda: FakeLinks(ETHERNET))
    plans: FakeNetworkPlans = field(default_factory=FakeNetworkPlans)
    registrations: FakeRegistrations = field(default_factory=FakeRegistrations)
    vpn_world: FakeVpnWorld = field(default_factory=FakeVpnWorld)
    failures: list[BaseException] = field(default_factory=list)
    pictures: int = 0

    def __post_init__(self) -> None:
        self.vpn_world.key = PSK
        self.engine = Engine(self.vpn_world)
        names = FakeNameQueries({"gw.example.test": (self.vpn_world.gateway,)})
        world = World(
            self.registrations,
            self.plans,
            self.engine,
            names,
            JournalKeeper(FakeJournals(), FakeJournals()),
        )
        self.driver = Driver(
            profile(),
            key=Secret(KEY),
            pre_shared_key=Secret(PSK),
            clock=self.clock,
            links=self.links,
            world=world,
            entropy=lambda: 7,
            observer=self._seen,
            failed=self.failures.append,
        )

    def _seen(self, _snapshot: object) -> None:
        self.pictures += 1

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def until_vpn(self, state: VpnState) -> None:
        await until(lambda: self.driver.snapshot().vpn is state)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells that the driver has come so far
            await asyncio.sleep(0)


@pytest.fixture
async def laptop() -> AsyncIterator[Laptop]:
    made = Laptop()
    yield made
    made.engine.refuses = None
    await made.driver.stop()


def forged(number: int) -> DatagramReceived:
    path = ClearPath(2, "eth0", IPv4Address("198.51.100.10"))
    return DatagramReceived(path, bytes([number % 256]), AGENT, 434, 2)


async def test_flood_of_datagrams_does_not_keep_a_link_event_waiting_r64(laptop: Laptop) -> None:
    """However many forgeries stand in the queue, traffic is held a moment after the link went."""
    await laptop.driver.start()
    await laptop.settle()
    observer = laptop.registrations._observer
    assert observer is not None
    for number in range(20_000):
        observer(forged(number))
    laptop.links.change("eth0", carrier=False)
    assert laptop.driver._inputs.qsize() <= 100
    await until(lambda: laptop.driver.snapshot().state is ClientState.NO_NETWORK, seconds=1.0)


async def test_datagrams_are_heard_again_after_a_flood(laptop: Laptop) -> None:
    await laptop.driver.start()
    await laptop.settle()
    observer = laptop.registrations._observer
    assert observer is not None
    for number in range(1000):
        observer(forged(number))
    await until(laptop.driver._inputs.empty)
    observer(DatagramReceived(forged(0).path, b"", IPv4Address("198.51.100.66"), 434, 2))
    await laptop.settle()
    assert "198.51.100.66" in laptop.driver.snapshot().health[0].text


async def test_flood_writes_no_line_in_the_log_for_each_datagram(
    laptop: Laptop, caplog: pytest.LogCaptureFixture
) -> None:
    await laptop.driver.start()
    await laptop.settle()
    caplog.clear()
    with caplog.at_level("INFO", "mip"):
        for number in range(60):
            laptop.driver.feed(forged(number % 2 * 3))
        await laptop.settle()
        await asyncio.sleep(0.05)
    assert len(caplog.records) <= 3


async def test_bug_in_the_plan_ends_the_driver_instead_of_leaving_it_deaf(laptop: Laptop) -> None:
    async def broken(plan: NetworkPlan) -> None:
        raise RuntimeError("a bug of ours")

    apply, laptop.plans.apply = laptop.plans.apply, broken  # type: ignore[method-assign]
    await laptop.driver.start()
    await laptop.settle()
    assert [str(failure) for failure in laptop.failures] == ["a bug of ours"]
    laptop.plans.apply = apply  # type: ignore[method-assign]


async def test_bug_in_the_engine_ends_the_driver_instead_of_leaving_it_without_vpn(laptop: Laptop) -> None:
    async def broken(source: IPv4Address) -> None:
        raise RuntimeError("a bug of ours")

    laptop.engine.connect = broken  # type: ignore[method-assign]
    await laptop.driver.start()
    await until(lambda: bool(laptop.failures))
    assert [str(failure) for failure in laptop.failures] == ["a bug of ours"]


async def test_engine_that_was_slow_once_is_asked_again(laptop: Laptop) -> None:
    """It did not answer in time and yet is there: nobody will report that it was found again."""
    laptop.engine.refuses = Unavailable("connect", "charon does not answer")
    await laptop.driver.start()
    await laptop.until_vpn(VpnState.WAITING)
    laptop.engine.refuses = None
    laptop.clock.advance(3)
    laptop.driver.feed(forged(0))  # wakes the loop, whose clock stands still here
    await laptop.until_vpn(VpnState.UP)


async def test_disconnect_undoes_the_plan_even_if_the_engine_refuses(laptop: Laptop) -> None:
    await laptop.driver.start()
    await laptop.until_vpn(VpnState.UP)
    laptop.engine.refuses = IkeError("list-sas", "no")
    with pytest.raises(IkeError):
        await laptop.driver.stop()
    assert laptop.plans.standing == EMPTY_PLAN


async def test_ending_for_a_restart_holds_traffic_at_once(laptop: Laptop) -> None:
    """Nobody watches the links from here on, so nothing may flow."""
    await laptop.driver.start()
    await laptop.settle()
    laptop.plans.events.clear()
    await laptop.driver.stop(leave_plan=True)
    assert laptop.plans.events[:1] == ["hold"]
    assert isinstance(laptop.plans.standing.traffic, Held)
    assert laptop.plans.standing != EMPTY_PLAN


async def test_plan_that_fails_is_no_end(laptop: Laptop) -> None:
    laptop.plans.fails_next = PlanError("preparing the path", 19)
    await laptop.driver.start()
    await laptop.settle()
    laptop.clock.advance(1.1)
    laptop.driver.feed(forged(0))
    await laptop.settle()
    assert laptop.plans.standing != EMPTY_PLAN
    assert laptop.failures == []


async def test_end_is_heard_in_the_very_moment_in_which_a_fact_comes() -> None:
    """An order to end that were lost would keep Disconnect, and every order after it, waiting for ever."""
    for turns in range(12):
        laptop = Laptop()
        await laptop.driver.start()
        await laptop.settle()
        laptop.driver.feed(forged(0))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await laptop.driver.stop()
