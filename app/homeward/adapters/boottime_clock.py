# SPDX-License-Identifier: GPL-2.0-or-later
"""The clocks of the machine, and word of the moments in which they leap: waking up, and being set."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import struct
import time
from collections.abc import Callable
from typing import Final

from homeward.model.instant import Instant

log = logging.getLogger("mip")

_AT_THE_LEAP: Final = 0x1 | 0x2  # TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET
_NEVER: Final = struct.pack("@qqqq", 0, 0, 2**40, 0)  # struct itimerspec: no interval, the year 36812


class BoottimeClock:
    """CLOCK_BOOTTIME, which counts sleep, and CLOCK_REALTIME."""

    def __init__(self) -> None:
        self._timer: int | None = None
        self._observer: Callable[[], None] = lambda: None

    def now(self) -> Instant:
        """This moment on both clocks, in seconds."""
        return Instant(time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_REALTIME))

    def boot(self) -> float:
        """This moment of CLOCK_BOOTTIME alone, for what is asked of each packet."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def asleep(self) -> float:
        """How many seconds the machine has slept since it was booted."""
        awake = time.clock_gettime(time.CLOCK_MONOTONIC)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - awake

    def watch(self, observer: Callable[[], None] | None) -> None:
        """Call `observer` when the machine wakes up, or somebody sets the wall clock; None ends it.

        asyncio's own timers stand still during sleep and go on with what was left of them. A kernel timer for the wall
        clock that is cancelled when that is set (timerfd_create(2)) is cancelled by waking up as well.
        """
        if self._timer is not None:
            asyncio.get_running_loop().remove_reader(self._timer)
            os.close(self._timer)
            self._timer = None
        if observer is None:
            return
        try:
            self._timer = _open_timer()
        except OSError as error:
            log.warning("waking up will be noticed some seconds late: %s", error)
            return
        self._observer = observer
        asyncio.get_running_loop().add_reader(self._timer, self._leapt)

    def _leapt(self) -> None:
        assert self._timer is not None
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        _arm(self._timer)
        self._observer()


class SteadyClock(BoottimeClock):
    """The wall clock as it was at the start, running on with CLOCK_BOOTTIME whoever sets it.

    For a home agent: by a clock that was set back, every time stamp would be one that was used before, and nobody
    could register until the old time is reached again (RFC 5944 section 5.7.1). A mobile node follows by code 133.
    """

    def __init__(self) -> None:
        super().__init__()
        started = super().now()
        self._ahead = started.wall - started.boot

    def now(self) -> Instant:
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return Instant(boot, boot + self._ahead)


_libc = ctypes.CDLL(None, use_errno=True)


def _open_timer() -> int:
    timer: int = _libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
    if timer < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    try:
        _arm(timer)
    except OSError:
        os.close(timer)
        raise
    return timer


def _arm(timer: int) -> None:
    if _libc.timerfd_settime(timer, _AT_THE_LEAP, _NEVER, None) < 0:
        raise OSError(ctypes.get_errno(), "timerfd_settime")
