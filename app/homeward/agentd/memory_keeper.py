# SPDX-License-Identifier: GPL-2.0-or-later
"""What the home agent must still know in its next life: when it is durable, and when nothing more may be accepted.

Being killed loses nothing that was committed. Losing power may lose the last commits; so a horizon is kept on disk that
lies ahead of every time stamp accepted, is moved on every few seconds, and outlasts that. The next life in another
boot refuses every stamp up to it, in all its lives: what was lost may be among them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.model.agent_memory import Memory
from homeward.model.errors import AdapterError, Unavailable
from homeward.model.instant import Instant
from homeward.model.memory_records import MemoryRecord
from homeward.ports.agent_store import AgentStore, Mark
from homeward.wire.identification import NTP_TO_UNIX_SECONDS

log: Final = logging.getLogger("mip")

LEAD: Final = 15.0
"""Seconds, besides the tolerance, that the horizon is ahead of the clock when it is written."""
INTERVAL: Final = 5.0
"""Seconds between two horizons: two may fail, or the disk take so long, before anybody is refused."""
RETRY: Final = 1.0
"""Seconds until a store that refused is asked again."""

_QUIET_PAUSE: Final = 1.0
_QUIET_LOOK: Final = 0.025
_QUIET: Final = 50
"""Saved memories between two looks, up to which it is a quiet moment: 2,000 a second."""
_SETTLED: Final = 96
"""Memories that are settled in one quiet moment: a millisecond's work."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SAME_CLOCK: Final = 0.5  # seconds by which two readings of the same clocks differ at most


class MemoryKeeper:
    """Between decisions and store. Without a store nothing is kept, and nothing is refused for that.

    `tolerance` in seconds is how far ahead of the clock a time stamp may be accepted; `on_recovered` is called when
    everything is durable again after it was not.
    """

    def __init__(
        self,
        store: AgentStore | None,
        *,
        clock: Callable[[], Instant],
        metrics: Metrics,
        tolerance: float,
        boot_id: str | None = None,
    ) -> None:
        self.on_recovered: Callable[[], None] = lambda: None
        self.tolerance = tolerance
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._boot_id = boot_id or _BOOT_ID.read_text().strip()
        self._unsaved: dict[str, Memory | MemoryRecord] = {}
        self._refused = False
        self._mark: Mark | None = None
        self._shift = 0.0
        self._durable = -math.inf
        self._thread: ThreadPoolExecutor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._saved = self._commits = self._failed = 0
        self._settler: asyncio.TimerHandle | None = None
        self._saved_before = 0

    # --- one life after another ---

    def open(self) -> int | Literal["started"] | None:
        """Take the store over; up to which time stamp nothing may be accepted, as HomeAgent wants it. Unavailable."""
        if self._store is None:
            log.warning(entry("nothing-kept", text="store is none: bindings end with this process"))
            return "started"
        now = self._clock()
        before, ahead = self._store.open(), now.wall - now.boot
        if before is None:
            floor = now.wall
        elif before.boot_id == self._boot_id:
            floor = before.floor
            self._shift = ahead - before.ahead
        else:
            floor = max(before.horizon, before.floor)
        self._mark = Mark(self._boot_id, max(before.horizon if before else 0.0, self._ahead()), floor, ahead)
        log.info(entry("store-opened", since="this-boot" if self._is_exact(before) else "another-boot"))
        return _stamp(floor)

    def memories(self) -> Iterator[Memory]:
        """What the life before knew, told by the clock of this one. Unavailable."""
        if self._store is None:
            return
        for memory in self._store.memories():
            yield self._on_our_clock(memory)

    def start(self) -> None:
        """Everything of the life before is taken over: keep that, and the first horizon. Unavailable."""
        if self._store is None or self._mark is None:
            return
        self._store.save(list(self._unsaved.values()))
        self._unsaved.clear()
        self._store.mark(self._mark)
        self._store.flush()
        self._durable = self._mark.horizon
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._move_on)

    def stop(self) -> None:
        """Keep what is left to keep, and let go of the store."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._settler is not None:
            self._settler.cancel()
            self._settler = None
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
            self.commit()
        if self._store is not None:
            self._store.close()

    # --- commits ---

    def note(self, memory: Memory | MemoryRecord) -> None:
        """To be kept with the next commit."""
        self._unsaved[memory.identity] = memory

    def commit(self) -> bool:
        """Keep what was noted; whether nothing is left that a crash would lose. Where it is, it is tried again."""
        if self._store is None:
            self._unsaved.clear()
        if not self._unsaved:
            return True
        assert self._store is not None
        try:
            self._store.save(self._unsaved.values())
        except AdapterError as error:
            self._complain(error)
            return False
        self._saved += len(self._unsaved)
        self._commits += 1
        self._unsaved.clear()
        if self._settler is None and self._thread is not None:
            self._settler = asyncio.get_running_loop().call_later(_QUIET_PAUSE, self._settle)
        return True

    def _settle(self) -> None:
        """In a quiet moment do what need not be done by commits."""
        self._settler = None
        quiet, self._saved_before = self._saved - self._saved_before <= _QUIET, self._saved
        assert self._store is not None
        try:
            goes_on = self._store.settle(_SETTLED) if quiet else True
        except AdapterError as error:
            self._complain(error)
            return
        if goes_on:
            self._settler = asyncio.get_running_loop().call_later(_QUIET_LOOK, self._settle)

    def may_accept(self, at: Instant) -> bool:
        """Whether what is accepted now would be known, or refused, in every next life."""
        if self._store is None:
            return True
        if at.wall + self.tolerance > self._durable and self._timer is not None and not self._refused:
            self._again_in(0.0)  # the machine was asleep: not in five seconds, but now
        return not self._unsaved and at.wall + self.tolerance <= self._durable

    def figures(self) -> dict[str, int | float | bool]:
        """For the status: what was kept since the start, whether it can be, and the horizon in Unix seconds."""
        if self._store is None:
            return {}
        return {
            "records": self._saved,
            "commits": self._commits,
            "failed": self._failed,
            "unsaved": len(self._unsaved),
            "well": self.may_accept(self._clock()),
            "horizon": round(self._durable, 3),
        }

    def back_up(self, to: Path) -> None:
        """A consistent copy; may be called from any thread. Unavailable."""
        if self._store is None:
            raise Unavailable(f"copy the store to {to}", "this agent has none; name one with the key 'store'")
        self._store.back_up(to)

    # --- the horizon ---

    def _move_on(self) -> None:
        """Write the next horizon; the disk is waited for elsewhere."""
        self._timer = None
        assert self._store is not None
        assert self._mark is not None
        assert self._thread is not None
        try:
            if not self.commit():
                raise Unavailable("keep a horizon", "memories come first")
            mark = replace(self._mark, horizon=max(self._mark.horizon, self._ahead()))
            self._store.mark(mark)
        except AdapterError as error:
            self._missed(error)
            return
        self._mark = mark
        loop = asyncio.get_running_loop()
        flushed = self._thread.submit(self._store.flush)
        flushed.add_done_callback(lambda done: _tell(loop, lambda: self._flushed(done, mark.horizon)))

    def _flushed(self, done: Future[None], horizon: float) -> None:
        if self._thread is None:  # stopped meanwhile
            return
        error = done.exception()
        if isinstance(error, AdapterError):
            self._missed(error)
            return
        if error is not None:
            raise error
        self._durable = max(self._durable, horizon)
        self._again_in(RETRY if self._unsaved else INTERVAL)
        if self._refused and not self._unsaved:
            self._refused = False
            log.info(entry("store-works-again"))
            self.on_recovered()

    def _missed(self, error: AdapterError) -> None:
        self._complain(error)
        self._again_in(RETRY)

    def _again_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._move_on)

    def _complain(self, error: AdapterError) -> None:
        self._failed += 1
        unlogged = self._metrics.count("store-failed", self._clock().boot)
        if unlogged is not None:
            text = "no request is answered until the store works again"
            log.error(entry("store-failed", cause=error, text=text, unlogged=unlogged or None))
        if not self._refused and self._timer is not None:
            self._again_in(RETRY)
        self._refused = True

    def _ahead(self) -> float:
        return self._clock().wall + LEAD + self.tolerance

    def _is_exact(self, before: Mark | None) -> bool:
        return before is not None and before.boot_id == self._boot_id

    def _on_our_clock(self, memory: Memory) -> Memory:
        """Somebody has set the wall clock between two lives of one boot: what was left of a binding is still left."""
        if memory.binding is None or abs(self._shift) < _SAME_CLOCK:
            return memory
        binding = replace(memory.binding, since_wall=memory.binding.since_wall + self._shift)
        return replace(memory, binding=binding)


def _stamp(wall: float) -> int:
    """The highest time stamp of this moment, in units of 2^-32 s since 1900; a microsecond late rather than early."""
    return (int(wall * (1 << 20)) + 1 << 12) + (NTP_TO_UNIX_SECONDS << 32)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:  # the loop has ended
        pass
