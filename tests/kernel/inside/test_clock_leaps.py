# SPDX-License-Identifier: GPL-2.0-or-later
"""That the clock's watch hears it when the wall clock is set, which only a kernel of our own may be asked to do.

Waking up comes by the same way in the kernel (timekeeping_resume), and cannot be had here.
"""

import asyncio
import time

from homeward.adapters.boottime_clock import BoottimeClock


async def test_each_setting_of_the_wall_clock_is_told_at_once_and_none_after_the_end() -> None:
    clock, leaps = BoottimeClock(), []
    told = asyncio.Event()

    def leapt() -> None:
        leaps.append(time.monotonic())
        told.set()

    clock.watch(leapt)
    for step in (3600.0, -7200.0, 3600.0):
        told.clear()
        began = time.monotonic()
        time.clock_settime(time.CLOCK_REALTIME, time.time() + step)
        async with asyncio.timeout(5):
            await told.wait()
        assert leaps[-1] - began < 1
    assert len(leaps) == 3
    clock.watch(None)
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    await asyncio.sleep(0.05)
    assert len(leaps) == 3
