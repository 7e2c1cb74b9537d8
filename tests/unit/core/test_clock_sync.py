# SPDX-License-Identifier: GPL-2.0-or-later
"""Identifications only grow, follow the home agent's clock, and never fall below an accepted one (R-172 to R-177)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.core.clock_sync import IdentificationSource
from homeward.model.instant import Instant
from homeward.model.registration import Identification
from homeward.wire.identification import from_time, high32, join, low32, to_unix

NOW = 1_800_000_000.0


@pytest.mark.rows("R-172", "R-177")
@given(st.lists(st.floats(-5000, 5000), max_size=30), st.integers(0, 2**32 - 1))
def test_issued_identifications_only_grow_whatever_the_clock_does(steps: list[float], random: int) -> None:
    source = IdentificationSource(lambda: random)
    wall, issued = NOW, []
    for step in steps:
        wall += step
        issued.append(source.issue(Instant(0.0, wall)))
    assert issued == sorted(set(issued))
    assert all(len({low32(each) for each in issued[i : i + 4]}) == len(issued[i : i + 4]) for i in range(30))


@pytest.mark.rows("R-172")
def test_restart_with_a_clock_set_back_goes_on_above_what_was_used() -> None:
    last = int(from_time(NOW, 0))
    assert IdentificationSource(lambda: 0, last=last).issue(Instant(0.0, NOW - 600)) > last


@pytest.mark.rows("R-156")
@given(st.floats(-1e6, 1e6))
def test_resynchronisation_lands_within_a_second_of_the_agents_clock(ahead: float) -> None:
    source = IdentificationSource(lambda: 7)
    sent = Instant(0.0, NOW)
    request = source.issue(sent)
    source.resynchronise(join(high32(from_time(NOW + ahead, 0)), low32(request)), sent)
    again = source.issue(Instant(0.1, NOW + 0.1))
    assert abs(high32(again) - high32(from_time(NOW + ahead, 0))) <= 1


@pytest.mark.rows("R-174")
def test_resynchronisation_may_undercut_rejected_but_never_accepted_values() -> None:
    source = IdentificationSource(lambda: 7)
    sent = Instant(0.0, NOW)
    accepted = source.issue(sent)
    source.accepted(accepted)
    rejected = source.issue(Instant(0.0, NOW + 3600))
    source.resynchronise(join(high32(from_time(NOW - 7200, 0)), low32(rejected)), sent)
    assert accepted < source.issue(Instant(0.0, NOW + 1)) < rejected


def test_state_for_a_later_life_is_the_highest_issued() -> None:
    source = IdentificationSource(lambda: 7, last=5, offset=2.5)
    issued = source.issue(Instant(0.0, NOW))
    assert (source.last, source.offset) == (issued, 2.5)
    assert isinstance(Identification(source.last), int)


def test_the_clock_of_2036_begins_anew_and_requests_go_on() -> None:
    """NTP's seconds wrap on 7 February 2036, 06:28:16 UTC; what comes after is newer, not smaller."""
    wrap = 2**32 - 2_208_988_800
    source = IdentificationSource(lambda: 5)
    before = source.issue(Instant(1.0, wrap - 1.0))
    source.accepted(before)
    after = source.issue(Instant(3.0, wrap + 1.0))
    assert after < before
    assert abs(to_unix(after, wrap + 1.0) - (wrap + 1.0)) < 0.001
    again = source.issue(Instant(3.0, wrap + 1.0))
    assert after < again < after + 1000
    assert source.last == again
    restarted = IdentificationSource(lambda: 5, last=source.last)
    assert restarted.issue(Instant(1.0, wrap - 1.0)) > again, (
        "a clock that was set back goes on above what was used"
    )
