# SPDX-License-Identifier: GPL-2.0-or-later
"""The metrics as a file for node_exporter's textfile collector, made anew every few seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from homeward.agentd.exposition import write_file
from homeward.agentd.log import entry

log: Final = logging.getLogger("control")

INTERVAL: Final = 15.0


class MetricsFile:
    """Writes `text()` to `place()`, as long as that is not None. What cannot be written is said once."""

    def __init__(self, place: Callable[[], Path | None], text: Callable[[], str]) -> None:
        self._place = place
        self._text = text
        self._written: Path | None = None
        self._failed = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Write it now, and from now on."""
        self._tick()

    def stop(self) -> None:
        """Write it no more, and take it away: old figures would pass for new ones."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._remove()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick)
        place = self._place()
        if place != self._written:
            self._remove()
        if place is None:
            return
        try:
            write_file(place, self._text())
        except OSError as error:
            if not self._failed:
                log.warning(entry("metrics-not-written", file=place, cause=error.strerror))
            self._failed = True
        else:
            self._written, self._failed = place, False

    def _remove(self) -> None:
        if self._written is not None:
            with suppress(OSError):
                self._written.unlink()
            self._written = None
