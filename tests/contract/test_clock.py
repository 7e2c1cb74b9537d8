# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of Clock."""

import asyncio
import time

import pytest

from homeward.adapters.boottime_clock import BoottimeClock, SteadyClock
from homeward.ports.world import Clock
from tests.world.fakes import FakeClock


@pytest.fixture(params=["fake", "real"])
def clock(request: pytest.FixtureRequest) -> Clock:
    return FakeClock() if request.param == "fake" else BoottimeClock()


def test_it_never_goes_back(clock: Clock) -> None:
    first, second = clock.now(), clock.now()
    assert second.boot >= first.boot


def test_the_wall_clock_is_unix_time(clock: Clock) -> None:
    assert clock.now().wall > 1_700_000_000


async def test_sleep_is_counted_and_nothing_leaps_by_itself(clock: Clock) -> None:
    leaps: list[None] = []
    clock.watch(lambda: leaps.append(None))
    assert clock.asleep() >= 0
    await asyncio.sleep(0.05)
    clock.watch(None)
    clock.watch(None)
    assert leaps == []


def test_the_real_clock_counts_sleep_and_shows_the_wall() -> None:
    now = BoottimeClock().now()
    assert abs(now.boot - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
    assert now.boot >= time.clock_gettime(time.CLOCK_MONOTONIC) - 1
    assert abs(now.wall - time.time()) < 1


def test_a_steady_clock_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.clock_gettime
    clock = SteadyClock()
    before = clock.now()
    monkeypatch.setattr(time, "clock_gettime", lambda of: real(of) - 3600 * (of == time.CLOCK_REALTIME))
    after = clock.now()
    assert 0 <= after.wall - before.wall < 1
    assert after.wall - before.wall == pytest.approx(after.boot - before.boot, abs=1e-3)
    assert BoottimeClock().now().wall < before.wall - 3500
