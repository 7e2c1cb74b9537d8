# SPDX-License-Identifier: GPL-2.0-or-later
"""Outage and loss, on streams whose holes are known."""

import pytest

from homeward.lab.measure import INTERVAL, Arrival, Departure, lost, outage


def _stream(begin: float, end: float, *, holes: tuple[tuple[float, float], ...] = ()) -> list[Arrival]:
    count = round((end - begin) / INTERVAL)
    moments = [(n, begin + n * INTERVAL) for n in range(count)]
    return [Arrival(n, at, at + 0.001) for n, at in moments if not any(a <= at < b for a, b in holes)]


def test_the_longest_silence_is_the_outage() -> None:
    arrivals = _stream(0, 10, holes=((5.0, 5.2), (7.0, 7.1)))
    assert outage(arrivals, 4.9, 10) == pytest.approx(0.205, abs=1e-6)
    assert outage(arrivals, 6.0, 10) == pytest.approx(0.105, abs=1e-6)
    assert outage(arrivals, 8.0, 10) == pytest.approx(INTERVAL, abs=1e-6)


def test_the_silence_begins_with_the_last_arrival_before_the_stage() -> None:
    # The cable was pulled at 5.1, what was sent from 5.0 on died already.
    assert outage(_stream(0, 10, holes=((5.0, 5.4),)), 5.1, 10) == pytest.approx(0.405, abs=1e-6)


def test_a_stream_that_does_not_come_back_has_no_outage_but_none() -> None:
    assert outage(_stream(0, 10, holes=((5.0, 10),)), 5.0, 10) is None
    assert outage(_stream(0, 10, holes=((9.0, 10),)), 5.0, 10) is None
    assert outage([], 5.0, 10) is None


def test_arrivals_are_judged_by_time_not_by_number() -> None:
    arrivals = _stream(0, 10, holes=((5.0, 5.2),))
    assert outage(arrivals[::-1], 4.9, 10) == outage(arrivals, 4.9, 10)


def test_a_stage_loses_what_it_sent_and_nobody_received() -> None:
    arrivals = _stream(0, 10, holes=((5.0, 5.2), (7.0, 7.1)))
    departures = [Departure(n, n * INTERVAL, 0) for n in range(2000)]
    assert lost(departures, arrivals, begin=4.9, end=6.0) == 40
    assert lost(departures, arrivals, begin=6.0, end=9.9) == 20
    assert lost(departures, arrivals, begin=8.0, end=9.9) == 0
