# SPDX-License-Identifier: GPL-2.0-or-later
"""Tunnels that nodes have left a moment ago, and from which what was still under way is taken."""

from __future__ import annotations

from collections import deque
from typing import Final

from homeward.agents.tunnel_records import Record

SLICE: Final = 128
"""So many ends are told at a time: with thousands of moves a second requests would wait for more of them."""


class Lingering:
    """The last tunnel that each home address had before the present one, until its time is over.

    Every method takes the same time however many there are; what is over is kept until `pop_ended`.
    """

    def __init__(self) -> None:
        self._former: dict[int, tuple[Record, float]] = {}
        self._ends: deque[tuple[float, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._former)

    def put(self, home_address: int, former: Record, *, until: float) -> None:
        """Take packets from this tunnel until that boot time. It must not be before that of another one."""
        self._former[home_address] = former, until
        self._ends.append((until, home_address))

    def get(self, home_address: int, boot: float) -> Record | None:
        """The tunnel from which packets of this home address are still taken, None when there is none."""
        former, until = self._former.get(home_address, (None, 0.0))
        return former if boot < until else None

    def pop(self, home_address: int) -> Record | None:
        """Take nothing from its former tunnel any more; which one that was, None when there was none."""
        return self._former.pop(home_address, (None, 0.0))[0]

    def pop_ended(self, boot: float) -> list[tuple[int, Record]]:
        """Those whose time is over, at most SLICE of them, with their home addresses; each is told once."""
        ended: list[tuple[int, Record]] = []
        while self._ends and self._ends[0][0] <= boot and len(ended) < SLICE:
            until, home_address = self._ends.popleft()
            former, its_until = self._former.get(home_address, (None, 0.0))
            if former is not None and its_until == until:
                del self._former[home_address]
                ended.append((home_address, former))
        return ended
