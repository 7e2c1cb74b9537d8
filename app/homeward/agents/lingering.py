# SPDX-License-Identifier: GPL-2.0-or-later
"""Tunnels that nodes have left a moment ago, and from which what was still under way is taken."""

from __future__ import annotations

from collections import deque

from homeward.agents.agent_events import Forward


class Lingering:
    """The last tunnel that each home address had before the present one, until its time is over.

    Every method takes the same time however many there are; what is over goes when something else comes.
    """

    def __init__(self) -> None:
        self._former: dict[int, tuple[Forward, float]] = {}
        self._ends: deque[tuple[float, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._former)

    def put(self, home_address: int, former: Forward, *, until: float) -> None:
        """Take packets from this tunnel until that boot time. It must not be before that of another one."""
        self._former[home_address] = former, until
        self._ends.append((until, home_address))

    def get(self, home_address: int, boot: float) -> Forward | None:
        """The tunnel from which packets of this home address are still taken, None when there is none."""
        former, until = self._former.get(home_address, (None, 0.0))
        return former if boot < until else None

    def pop(self, home_address: int) -> Forward | None:
        """Take nothing from its former tunnel any more; which one that was, None when there was none."""
        return self._former.pop(home_address, (None, 0.0))[0]

    def pop_ended(self, boot: float) -> list[Forward]:
        """Those whose time is over; each is told once."""
        ended = []
        while self._ends and self._ends[0][0] <= boot:
            until, home_address = self._ends.popleft()
            former, its_until = self._former.get(home_address, (None, 0.0))
            if former is not None and its_until == until:
                del self._former[home_address]
                ended.append(former)
        return ended
