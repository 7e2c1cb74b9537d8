# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop around the core: what it does when the world floods it, refuses, or breaks something of ours."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.daemon.driver import Driver
from homeward.model.access import AgentPath, HomePath
from homeward.model.errors import IkeError, PlanError, Unavailable
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import EMPTY_PLAN, Held, NetworkPlan, ViaAgent
from homeward.model.secret import Secret
from homeward.model.status import ClientState
from homeward.model.vpn import VpnState
from tests.unit.daemon.laptop import Laptop, forged, settle, until
from tests.unit.daemon.parts import KEY, PSK, profile


class Driven(Laptop):
    """A laptop with a driver at work."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.failures: list[BaseException] = []
        self.driver = Driver(
            profile(),
            key=Secret(KEY),
            pre_shared_key=Secret(PSK),
            clock=self.clock,
            links=self.links,
            world=self.world(),
            entropy=lambda: 7,
            observer=lambda _snapshot: None,
            failed=self.failures.append,
        )

    async def until_vpn(self, state: VpnState) -> None:
        await until(lambda: self.driver.snapshot().vpn is state)


@pytest.fixture
async def laptop() -> AsyncIterator[Driven]:
    made = Driven()
    yield made
    made.engine.refuses = None
    await made.driver.stop()


async def test_flood_of_datagrams_does_not_keep_a_link_event_waiting_r64(laptop: Driven) -> None:
    """However many forgeries stand in the queue, traffic is held a moment after the link went."""
    await laptop.driver.start()
    await settle()
    for number in range(20_000):
        laptop.receive(forged(number))
    laptop.links.change("eth0", carrier=False)
    assert laptop.driver._inputs.qsize() <= 100
    await until(lambda: laptop.driver.snapshot().state is ClientState.NO_NETWORK, seconds=1.0)


async def test_datagrams_are_heard_again_after_a_flood(laptop: Driven) -> None:
    await laptop.driver.start()
    await settle()
    for number in range(1000):
        laptop.receive(forged(number))
    await until(laptop.driver._inputs.empty)
    laptop.receive(DatagramReceived(forged(0).path, b"", IPv4Address("198.51.100.66"), 434, 2))
    await settle()
    assert "198.51.100.66" in laptop.driver.snapshot().health[0].text


async def test_flood_writes_no_line_in_the_log_for_each_datagram(
    laptop: Driven, caplog: pytest.LogCaptureFixture
) -> None:
    await laptop.driver.start()
    await settle()
    caplog.clear()
    with caplog.at_level("INFO", "mip"):
        for number in range(60):
            laptop.driver.feed(forged(number % 2 * 3))
        await settle()
        await asyncio.sleep(0.05)
    assert len(caplog.records) <= 3


async def test_bug_in_the_plan_ends_the_driver_instead_of_leaving_it_deaf(laptop: Driven) -> None:
    async def broken(plan: NetworkPlan) -> None:
        raise RuntimeError("a bug of ours")

    apply, laptop.plans.apply = laptop.plans.apply, broken  # type: ignore[method-assign]
    await laptop.driver.start()
    await settle()
    assert [str(failure) for failure in laptop.failures] == ["a bug of ours"]
    laptop.plans.apply = apply  # type: ignore[method-assign]


async def test_bug_in_the_engine_ends_the_driver_instead_of_leaving_it_without_vpn(laptop: Driven) -> None:
    async def broken(source: IPv4Address) -> None:
        raise RuntimeError("a bug of ours")

    laptop.engine.connect = broken  # type: ignore[method-assign]
    await laptop.driver.start()
    await until(lambda: bool(laptop.failures))
    assert [str(failure) for failure in laptop.failures] == ["a bug of ours"]


async def test_engine_that_was_slow_once_is_asked_again(laptop: Driven) -> None:
    """It did not answer in time and yet is there: nobody will report that it was found again."""
    laptop.engine.refuses = Unavailable("connect", "charon does not answer")
    await laptop.driver.start()
    await laptop.until_vpn(VpnState.WAITING)
    laptop.engine.refuses = None
    laptop.clock.advance(3)
    laptop.driver.feed(forged(0))  # wakes the loop, whose clock stands still here
    await laptop.until_vpn(VpnState.UP)


async def test_disconnect_undoes_the_plan_even_if_the_engine_refuses(laptop: Driven) -> None:
    await laptop.driver.start()
    await laptop.until_vpn(VpnState.UP)
    laptop.engine.refuses = IkeError("list-sas", "no")
    await laptop.driver.stop()
    assert laptop.plans.standing == EMPTY_PLAN


async def test_ending_for_a_restart_holds_traffic_at_once(laptop: Driven) -> None:
    """Nobody watches the links from here on, so nothing may flow."""
    await laptop.driver.start()
    await settle()
    laptop.plans.events.clear()
    await laptop.driver.stop(leave_plan=True)
    assert laptop.plans.events[:1] == ["hold"]
    assert isinstance(laptop.plans.standing.traffic, Held)
    assert laptop.plans.standing != EMPTY_PLAN


async def test_plan_that_fails_is_no_end(laptop: Driven) -> None:
    laptop.plans.fails_next = PlanError("preparing the path", 19)
    await laptop.driver.start()
    await settle()
    laptop.clock.advance(1.1)
    laptop.driver.feed(forged(0))
    await settle()
    assert laptop.plans.standing != EMPTY_PLAN
    assert laptop.failures == []


async def test_end_is_heard_in_the_very_moment_in_which_a_fact_comes() -> None:
    """An order to end that were lost would keep Disconnect, and every order after it, waiting for ever."""
    for turns in range(12):
        laptop = Driven()
        await laptop.driver.start()
        await settle()
        laptop.driver.feed(forged(0))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await laptop.driver.stop()


async def test_waking_up_holds_at_once_and_voids_the_proof_s1(laptop: Driven) -> None:
    """asyncio's timers slept too, and would let traffic flow on an old proof for what was left of them."""
    await laptop.driver.start()
    await settle()
    asked = len(laptop.registrations.sent)
    laptop.plans.events.clear()
    laptop.clock.sleep(12 * 3600)
    assert laptop.plans.events == ["hold"]
    await settle()
    assert len(laptop.registrations.sent) == asked + 1


async def test_setting_the_clock_is_no_waking_up(laptop: Driven) -> None:
    await laptop.driver.start()
    await settle()
    asked = len(laptop.registrations.sent)
    laptop.plans.events.clear()
    laptop.clock.jump(3600)
    await settle()
    assert laptop.plans.events == []
    assert len(laptop.registrations.sent) == asked


async def test_flood_of_advertisements_leaves_room_for_an_answer(laptop: Driven) -> None:
    """Anybody on the link can advertise: what the home agent says must still be heard."""
    await laptop.driver.start()
    await settle()
    for _ in range(20_000):
        laptop.agents.advertise(2, b"\x45")
    waiting = laptop.driver._inputs.qsize()
    assert waiting < 16
    laptop.receive(forged(1))
    assert laptop.driver._inputs.qsize() == waiting + 1
    await until(laptop.driver._inputs.empty)


async def test_agents_are_heard_on_access_links_with_a_carrier_until_the_end(laptop: Driven) -> None:
    await laptop.driver.start()
    assert laptop.agents.watched == {2}
    laptop.links.change("eth0", carrier=False)
    assert laptop.agents.watched == frozenset()
    laptop.links.change("eth0", carrier=True, access=False)
    assert laptop.agents.watched == frozenset()
    laptop.links.change("eth0", access=True)
    assert laptop.agents.watched == {2}
    laptop.home_links.announce(HomePath(2, "eth0", IPv4Address("10.77.0.10")))
    await laptop.driver.stop()
    assert laptop.agents.watched == frozenset()
    assert laptop.home_links.announced is None


@pytest.mark.rows("R-230")
async def test_the_sockets_of_whatever_carries_traffic_keep_their_ports(laptop: Driven) -> None:
    await laptop.driver.start()
    await settle()
    home, agent = IPv4Address("10.77.0.10"), IPv4Address("10.1.3.1")
    by_agent = AgentPath(2, "eth0", home, agent, b"\2\0\0\0\0\1", agent)
    for path in (by_agent, HomePath(2, "eth0", home)):
        laptop.registrations.send(path, agent, b"request", ttl=255)
    plan = laptop.driver._core.plan
    assert plan is not None
    laptop.driver._core.plan = replace(plan, traffic=ViaAgent(by_agent, 1480))
    laptop.driver._retain_sockets()
    assert by_agent in laptop.registrations._ports
    assert HomePath(2, "eth0", home) not in laptop.registrations._ports
