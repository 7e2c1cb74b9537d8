# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from homeward.model.errors import LocalProtocolError
from homeward.model.registration import Identification
from homeward.wire.identification import RANDOM_BITS, from_time, high32, join, low32, to_unix

NOON = 1736942400.0  # 2025-01-15 12:00:00 UTC
WRAP = 2085978496.0  # 2036-02-07 06:28:16 UTC, the first second of NTP era 1


@pytest.mark.parametrize(
    ("wall", "low_random", "octets"),
    [
        (NOON, 0, "eb3221c000000000"),
        (NOON, 0xFFF, "eb3221c000000fff"),
        (NOON, 0xABCDE123, "eb3221c000000123"),
        (NOON + 0.5, 0, "eb3221c080000000"),
        (NOON + 0.75, 0x5A5, "eb3221c0c00005a5"),
        (NOON + 100, 0, "eb32222400000000"),
        (0.0, 0, "83aa7e8000000000"),
        (-2208988800.0, 0, "0000000000000000"),
        (WRAP - 1, 0, "ffffffff00000000"),
        (WRAP, 0, "0000000000000000"),
        (WRAP + 1.25, 7, "0000000140000007"),
        (-1e-20, 0, "83aa7e7ffffff000"),
    ],
)
def test_from_time(wall: float, low_random: int, octets: str) -> None:
    assert from_time(wall, low_random).to_bytes(8, "big").hex() == octets


@pytest.mark.parametrize("wall", [float("nan"), float("inf"), float("-inf")])
def test_no_time_at_all(wall: float) -> None:
    with pytest.raises(LocalProtocolError, match="no point in time"):
        from_time(wall, 0)


@pytest.mark.parametrize("moment", [0.0, NOON, NOON + 0.5, WRAP - 0.5, WRAP, WRAP + 86400.25, 2**32 - 1.0])
@pytest.mark.parametrize("skew", [0.0, -3600.0, 3600.0, -2.0e9, 2.0e9])
def test_to_unix_finds_the_era_from_a_clock_68_years_off(moment: float, skew: float) -> None:
    assert to_unix(from_time(moment, 0), near=moment + skew) == pytest.approx(moment, abs=2e-6)


def test_to_unix_around_the_wrap_of_2036() -> None:
    before, after = Identification(0xFFFFFFFF << 32), Identification(0)
    for clock in (WRAP - 10, WRAP + 10):
        assert to_unix(before, near=clock) == WRAP - 1
        assert to_unix(after, near=clock) == WRAP


def test_halves() -> None:
    identification = Identification(0xEB3221C012345678)
    assert high32(identification) == 0xEB3221C0
    assert low32(identification) == 0x12345678
    assert join(0xEB3221C0, 0x12345678) == identification
    assert join(0x1_EB3221C0, 0xF_12345678) == identification


def test_the_resynchronisation_of_code_133() -> None:
    asked = Identification(0xEB3221C012345678)
    answered = join(high32(from_time(NOON + 100, 0)), low32(asked))
    assert answered == 0xEB32222412345678
    assert high32(answered) - high32(asked) == 100


def test_time_orders_identifications_whatever_the_random_bits() -> None:
    step = 2.0 ** -(32 - RANDOM_BITS)
    assert from_time(NOON, (1 << RANDOM_BITS) - 1) < from_time(NOON + step, 0)
