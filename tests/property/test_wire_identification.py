# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.wire.identification import RANDOM_BITS, from_time, high32, join, low32, to_unix

# 1900 to 2106: across the wrap of the NTP seconds in 2036 and that of 32-bit Unix seconds in 2038.
moments = st.floats(-2.2e9, 4.2e9)
chances = st.integers(0, (1 << 64) - 1)
RESOLUTION = 2.0 ** -(32 - RANDOM_BITS)


@given(moments, chances, st.floats(-2.1e9, 2.1e9))
def test_the_moment_comes_back_if_the_clocks_are_within_66_years(
    wall: float, low_random: int, skew: float
) -> None:
    assert to_unix(from_time(wall, low_random), near=wall + skew) == pytest.approx(wall, abs=2 * RESOLUTION)


@given(moments, chances)
def test_chance_fills_the_low_bits_and_no_other(wall: float, low_random: int) -> None:
    drawn, plain = from_time(wall, low_random), from_time(wall, 0)
    assert drawn >> RANDOM_BITS == plain >> RANDOM_BITS
    assert drawn & ((1 << RANDOM_BITS) - 1) == low_random & ((1 << RANDOM_BITS) - 1)


@given(st.floats(0, 2.0e9), st.floats(RESOLUTION * 2, 1e6), chances, chances)
def test_a_later_moment_has_a_greater_identification(wall: float, later: float, one: int, other: int) -> None:
    assert from_time(wall, one) < from_time(wall + later, other)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_halves_come_apart_as_they_were_joined(high: int, low: int) -> None:
    joined = join(high, low)
    assert (high32(joined), low32(joined)) == (high, low)
    assert 0 <= joined < 1 << 64
