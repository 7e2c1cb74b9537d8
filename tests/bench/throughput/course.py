# SPDX-License-Identifier: GPL-2.0-or-later
"""All ways in turn, again and again, so that each is measured in the same minute as the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.throughput.offices import PEER, Failed, Hand, Way

ROUNDS: Final = 5
DIRECTIONS: Final = ("up", "down")
"""From the laptop to the correspondent, and from there to the laptop."""
KINDS: Final = ("tcp", "udp")

_SECONDS: Final = {"tcp": 1.5, "udp": 0.6}
_REST: Final = 0.05
_TICK: Final = 0.01  # seconds of /proc/stat, USER_HZ
_GIGA: Final = 1e9


@dataclass(slots=True)
class Found:
    """Of one way, kind and direction. `rates` are octets or datagrams per second, one of each round.

    `machine` and `programs` are seconds of the processors for all rounds: the whole machine's, our two programs'.
    """

    rates: list[float] = field(default_factory=list)
    amount: int = 0
    machine: float = 0.0
    programs: float = 0.0

    @property
    def middle(self) -> float:
        """Of the rounds."""
        return median(self.rates)

    def per_giga(self, seconds: float) -> float:
        """So many seconds for all rounds, by gigabyte or thousand million datagrams."""
        return seconds / (self.amount / _GIGA)


Figure = tuple[str, str, str]
"""Way, kind, direction."""


@dataclass(slots=True)
class Course:
    """What was found, and what could not be measured and why."""

    found: dict[Figure, Found] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def of(self, way: str, kind: str, direction: str) -> Found | None:
        """None where it could not be measured."""
        return self.found.get((way, kind, direction))

    def _forget(self, way: str, why: object) -> None:
        self.failed.append(f"{way} could not be measured: {why}")
        self.found = {figure: found for figure, found in self.found.items() if figure[0] != way}

    def run(self, ways: Sequence[Way]) -> None:
        """Measure all; a way that fails once is measured no more, and has no figures."""
        left = list(ways)
        # The first round is not counted: caches are cold, and programs have just begun.
        for number in range(1 + ROUNDS):
            for kind in KINDS:
                for direction in DIRECTIONS:
                    for way in tuple(left):
                        try:
                            found = self.found.setdefault((way.name, kind, direction), Found())
                            _once(way, kind, direction, found if number else Found())
                        except Failed as failure:
                            left.remove(way)
                            self._forget(way.name, f"{kind} {direction}: {failure}")
        for way in left:
            try:
                way.check({each: self.found[way.name, "tcp", each].amount for each in DIRECTIONS})
            except Failed as failure:
                self._forget(way.name, failure)


def _once(way: Way, kind: str, direction: str, found: Found) -> None:
    laptop, correspondent = way.office.at_laptop, way.office.at_correspondent
    if direction == "up":
        amount, seconds = _transfer(kind, laptop, way.laptop_address, correspondent, PEER, way, found)
    else:
        amount, seconds = _transfer(kind, correspondent, PEER, laptop, way.laptop_address, way, found)
    if not amount or not seconds:
        raise Failed(f"nothing came {direction} by {kind}")
    found.rates.append(amount / seconds)
    found.amount += amount


def _transfer(
    kind: str, sender: Hand, source: IPv4Address, receiver: Hand, to: IPv4Address, way: Way, found: Found
) -> tuple[int, float]:
    receiver.tell("listen", kind=kind, address=str(to))
    receiver.answer()
    time.sleep(_REST)
    machine, programs = _machine(), _programs(way)
    receiver.tell("take", kind=kind)
    sender.tell("send", kind=kind, address=str(source), to=str(to), seconds=_SECONDS[kind])
    sender.answer()
    taken = receiver.answer()
    found.machine += _machine() - machine
    found.programs += _programs(way) - programs
    return taken["amount"], taken["seconds"]


def _machine() -> float:
    """Seconds that all processors have worked since they were started."""
    user, nice, system, _idle, _wait, interrupts, soft, *_ = Path("/proc/stat").read_text().split()[1:]
    return sum(map(int, (user, nice, system, interrupts, soft))) * _TICK


def _programs(way: Way) -> float:
    """The same of the way's own programs, to the nanosecond."""
    # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) has it
    return sum(time.clock_gettime((~process << 3) | 2) for process in way.processes)
