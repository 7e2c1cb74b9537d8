# SPDX-License-Identifier: GPL-2.0-or-later
"""Outage and loss of a stream of numbered datagrams during one stage. Pure; all times CLOCK_MONOTONIC seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

INTERVAL: Final = 0.005
"""Seconds between datagrams when nothing is wrong (traffic.py sends at this pace)."""
_STILL_ON_THE_WAY: Final = 0.5
"""A stream whose last arrival is older than this at the end of a stage has not come back."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One numbered datagram that arrived."""

    number: int
    sent: float
    received: float


@dataclass(frozen=True, slots=True)
class Departure:
    """One numbered datagram that was sent, or refused with `errno`."""

    number: int
    sent: float
    errno: int


def outage(arrivals: Sequence[Arrival], begin: float, end: float) -> float | None:
    """The longest silence at the receiver that ends in [begin, end), in seconds; None if the stream did not come back.

    The silence that a move causes begins with the last arrival before it, so that one counts as well.
    """
    times = sorted(arrival.received for arrival in arrivals if arrival.received < end)
    before = [moment for moment in times if moment < begin]
    stage = [*before[-1:], *(moment for moment in times if moment >= begin)]
    if len(stage) < 2 or end - stage[-1] > _STILL_ON_THE_WAY:
        return None
    return max(later - earlier for earlier, later in pairwise(stage))


def lost(departures: Sequence[Departure], arrivals: Sequence[Arrival], *, begin: float, end: float) -> int:
    """How many of the datagrams sent in [begin, end) never arrived; refused ones are lost as well."""
    arrived = {arrival.number for arrival in arrivals}
    return sum(begin <= each.sent < end and each.number not in arrived for each in departures)
