# SPDX-License-Identifier: GPL-2.0-or-later
"""The fake of ports/agent_store.py: it remembers what was saved, and what would outlast a loss of power."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from homeward.model.agent_memory import Memory
from homeward.model.errors import Unavailable
from homeward.model.memory_records import MemoryRecord, decode
from homeward.ports.agent_store import Mark


class FakeAgentStore:
    """`refuses` is what the next calls raise. `lose_power` takes it back to its last flush."""

    def __init__(self) -> None:
        self.refuses: Unavailable | None = None
        self.commits = 0
        self._kept: dict[str, Memory] = {}
        self._mark: Mark | None = None
        self._flushed: tuple[dict[str, Memory], Mark | None] = ({}, None)
        self.backups: dict[Path, tuple[dict[str, Memory], Mark | None]] = {}

    def open(self) -> Mark | None:
        self._may()
        return self._mark

    def memories(self) -> Iterator[Memory]:
        self._may()
        yield from self._kept.values()

    def save(self, memories: Collection[Memory | MemoryRecord]) -> None:
        self._may()
        self.commits += 1
        self._kept |= {
            each.identity: decode(*each) if isinstance(each, MemoryRecord) else each for each in memories
        }

    def settle(self, count: int) -> bool:
        self._may()
        return False

    def mark(self, mark: Mark) -> None:
        self._may()
        self._mark = mark

    def flush(self) -> None:
        self._may()
        self._flushed = dict(self._kept), self._mark

    def back_up(self, to: Path) -> None:
        self._may()
        self.backups[to] = dict(self._kept), self._mark

    def close(self) -> None:
        pass

    def lose_power(self) -> None:
        """Everything since the last flush is gone."""
        self._kept, self._mark = dict(self._flushed[0]), self._flushed[1]

    def _may(self) -> None:
        if self.refuses is not None:
            raise self.refuses
