# SPDX-License-Identifier: GPL-2.0-or-later
"""When the home agent may accept anything, seen from what it keeps: horizon, floor, and a store that refuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agentd import memory_keeper
from homeward.agentd.memory_keeper import LEAD, MemoryKeeper
from homeward.agentd.metrics import Metrics
from homeward.model.agent_memory import KeptBinding, Memory
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import Unavailable
from homeward.model.instant import Instant
from homeward.wire.identification import NTP_TO_UNIX_SECONDS
from tests.world.fake_agent_store import FakeAgentStore

TOLERANCE = 7.0
START = Instant(1000.0, 1_790_000_000.0)
FULL = Unavailable("write the store", "the disk is full")
MEMORY = Memory("10.77.0.10", 1, None)


class Life:
    """One life of an agent's memory; `at` is its clock."""

    def __init__(self, store: FakeAgentStore, boot_id: str = "one", at: Instant = START) -> None:
        self.at = at
        self.recovered = 0
        self.metrics = Metrics()
        self.keeper = MemoryKeeper(
            store, clock=lambda: self.at, metrics=self.metrics, tolerance=TOLERANCE, boot_id=boot_id
        )
        self.keeper.on_recovered = self._recovered
        self.floor = self.keeper.open()
        self.memories = list(self.keeper.memories())
        self.keeper.start()

    def _recovered(self) -> None:
        self.recovered += 1

    def pass_by(self, seconds: float) -> None:
        self.at = Instant(self.at.boot + seconds, self.at.wall + seconds)

    def floor_wall(self) -> float:
        assert isinstance(self.floor, int)
        return self.floor / (1 << 32) - NTP_TO_UNIX_SECONDS


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_keeper, "INTERVAL", 0.01)
    monkeypatch.setattr(memory_keeper, "RETRY", 0.01)


async def test_the_floor_of_each_kind_of_life() -> None:
    store = FakeAgentStore()
    first = Life(store)
    assert first.floor_wall() == pytest.approx(START.wall, abs=1e-3)
    first.pass_by(100)
    again = Life(store, at=first.at)
    assert again.floor == first.floor  # exact: nothing is refused that was not accepted
    after = Life(store, "two", at=first.at)
    assert after.floor_wall() == pytest.approx(first.at.wall + LEAD + TOLERANCE, abs=1e-3)
    last = Life(store, "two", at=first.at)
    assert last.floor == after.floor  # what was lost in the boot before is lost for this whole boot
    for life in (first, again, after, last):
        life.keeper.stop()


async def test_without_a_store_everything_may_be_accepted_and_the_floor_is_the_start() -> None:
    keeper = MemoryKeeper(None, clock=lambda: START, metrics=Metrics(), tolerance=TOLERANCE)
    assert keeper.open() == "started"
    keeper.start()
    keeper.note(MEMORY)
    assert keeper.commit()
    assert keeper.may_accept(START)
    with pytest.raises(Unavailable, match="this agent has none"):
        keeper.back_up(memory_keeper.Path("/nowhere"))
    keeper.stop()


@pytest.mark.rows("R-173")
async def test_nothing_is_accepted_beyond_the_horizon_on_disk() -> None:
    life = Life(FakeAgentStore())
    life.pass_by(LEAD)
    assert life.keeper.may_accept(life.at)
    life.pass_by(0.01)
    assert not life.keeper.may_accept(life.at)
    await asyncio.sleep(0.05)  # it slept, as the machine did: the next horizon is written at once
    assert life.keeper.may_accept(life.at)
    life.keeper.stop()


@pytest.mark.rows("R-173")
async def test_the_horizon_counts_only_once_it_is_on_disk(quick: None) -> None:
    store = FakeAgentStore()
    life = Life(store)
    store.refuses = FULL
    life.pass_by(LEAD + 1)
    await asyncio.sleep(0.05)
    assert not life.keeper.may_accept(life.at)
    store.refuses = None
    await asyncio.sleep(0.05)
    assert life.keeper.may_accept(life.at)
    assert life.recovered == 1
    life.keeper.stop()


async def test_what_could_not_be_kept_is_kept_later_and_until_then_nothing_is_accepted(quick: None) -> None:
    store = FakeAgentStore()
    life = Life(store)
    store.refuses = FULL
    life.keeper.note(MEMORY)
    assert not life.keeper.commit()
    assert not life.keeper.may_accept(life.at)
    assert life.keeper.figures()["unsaved"] == 1
    assert life.metrics.counts["store-failed"] >= 1
    store.refuses = None
    await asyncio.sleep(0.05)
    assert life.recovered == 1
    assert life.keeper.may_accept(life.at)
    assert list(store.memories()) == [MEMORY]
    life.keeper.stop()


async def test_the_last_memory_of_a_batch_is_kept_with_one_commit() -> None:
    store = FakeAgentStore()
    life = Life(store)
    for stamp in (1, 2, 3):
        life.keeper.note(replace(MEMORY, stamp=stamp))
    life.keeper.note(replace(MEMORY, identity="other"))
    before = store.commits
    assert life.keeper.commit()
    assert store.commits == before + 1
    assert [each.stamp for each in store.memories()] == [3, 1]
    life.keeper.stop()


async def test_a_wall_clock_that_was_set_between_two_lives_takes_nothing_from_a_binding() -> None:
    store = FakeAgentStore()
    first = Life(store)
    address = IPv4Address("10.77.0.10")
    binding = KeptBinding(
        address,
        address,
        node="laptop",
        spi=256,
        identification=1,
        lifetime=300,
        since_wall=START.wall - 10,
        reverse_tunnel=True,
        co_located=True,
        endpoint=address,
        encapsulation=Encapsulation.IP_IN_IP,
    )
    first.keeper.note(replace(MEMORY, binding=binding))
    assert first.keeper.commit()
    first.keeper.stop()
    hour_later_by_the_wall = Instant(START.boot + 5, START.wall + 3605)
    (memory,) = Life(store, at=hour_later_by_the_wall).memories
    assert memory.binding is not None
    assert hour_later_by_the_wall.wall - memory.binding.since_wall == pytest.approx(15)
