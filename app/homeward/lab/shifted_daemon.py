# SPDX-License-Identifier: GPL-2.0-or-later
"""homewardd with a wall clock that is wrong by what /run/clock-ahead says; SIGUSR2 says that somebody has set it.

It is the lab's own program, and homewardd has no such option: what a mobile node takes for the time decides whether its
requests are fresh, and nobody else needs to have a say in that. Only the clock's port is another one; all else, the
word to the daemon when the clock is set included, is as in the field.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final

from homeward.adapters.boottime_clock import BoottimeClock
from homeward.daemon import main as daemon
from homeward.model.instant import Instant

AHEAD: Final = "clock-ahead"
"""Below /run: how many seconds the wall clock is ahead of the right time."""
WORD: Final = signal.SIGUSR2


class ShiftedClock(BoottimeClock):
    """The machine's clocks, the wall clock set by the lab."""

    def __init__(self) -> None:
        super().__init__()
        self._told: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ahead = _ahead()
        signal.signal(WORD, self._set)

    def now(self) -> Instant:
        """This moment on both clocks."""
        at = super().now()
        return replace(at, wall=at.wall + self._ahead)

    def watch(self, observer: Callable[[], None] | None) -> None:
        """As the real one: whoever watches is told when the clock is set."""
        super().watch(observer)
        self._told = observer
        self._loop = None if observer is None else asyncio.get_running_loop()

    def _set(self, number: int, frame: FrameType | None) -> None:
        self._ahead = _ahead()
        if self._loop is not None and self._told is not None:
            self._loop.call_soon_threadsafe(self._told)


def _ahead() -> float:
    return float(Path("/run", AHEAD).read_text())


def main() -> int:
    """The daemon's own program, with this clock in the place of its own."""
    setattr(daemon, "BoottimeClock", ShiftedClock)  # noqa: B010 - a class is no variable to mypy
    return daemon.main()


if __name__ == "__main__":
    sys.exit(main())
