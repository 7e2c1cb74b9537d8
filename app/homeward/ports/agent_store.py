# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent writes down so that its next life goes on from there, as a Protocol.

A process that is killed loses nothing of what was saved. A machine that loses power may lose the last saves: which
time stamps were accepted is then not known exactly, but none was above the horizon, which is written ahead of time.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from homeward.model.agent_memory import Memory
from homeward.model.memory_records import MemoryRecord


@dataclass(frozen=True, slots=True)
class Mark:
    """What one life tells the next about all memories at once; times are Unix seconds.

    `boot_id` is the machine's boot in which it was written: another one, or none, means that the last saves may be
    lost. Then no time stamp above `horizon` was ever accepted, and none above `floor` was lost in an earlier boot.
    `ahead` is the agent's wall clock minus the clock that counts from boot.
    """

    boot_id: str
    horizon: float
    floor: float
    ahead: float


class AgentStore(Protocol):
    """One home agent's memories. Only `flush` and `back_up` may be called from another thread than the rest.

    Every call raises Unavailable, with what to do, when the store cannot do what it is asked.
    """

    def open(self) -> Mark | None:
        """Take the store over, for this process alone; what the last life marked, None when there never was one."""

    def memories(self) -> Iterator[Memory]:
        """All that is kept, in no order, one memory for each identity."""

    def save(self, memories: Collection[Memory | MemoryRecord]) -> None:
        """Keep these, each in place of what was kept of its identity: all of them, or none with Unavailable.

        Some may be written down as records already. When it returns, our own death loses none of them any more.
        """

    def settle(self, count: int) -> bool:
        """Put so many of the memories saved first in order; whether it is worth while to go on.

        Nothing changes by it but what the next saves and the next `open` cost: it is for quiet moments.
        """

    def mark(self, mark: Mark) -> None:
        """Keep this in place of the mark before, like a memory; `flush` makes it outlast a loss of power."""

    def flush(self) -> None:
        """Wait until a loss of power loses nothing of what was saved before this call."""

    def back_up(self, to: Path) -> None:
        """Write a copy of what is saved at one moment into a file that is empty or not there, while the agent works.

        The copy has no boot: whoever starts from it knows that later saves are missing.
        """

    def close(self) -> None:
        """Let go of the store; what was saved stays."""
