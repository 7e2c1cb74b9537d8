# SPDX-License-Identifier: GPL-2.0-or-later
import pytest

from homeward.agentd.metrics import BURST, REFILL_SECONDS, Metrics


@pytest.mark.rows("R-94")
def test_a_flood_is_counted_in_full_and_logged_in_part() -> None:
    metrics = Metrics()
    logged = [metrics.count("flood", 100.0) for _ in range(1000)]
    assert logged == [0] * BURST + [None] * (1000 - BURST)
    assert metrics.counts["flood"] == 1000


def test_the_next_line_says_what_was_left_out() -> None:
    metrics = Metrics()
    for _ in range(BURST + 7):
        metrics.count("flood", 100.0)
    assert metrics.count("flood", 100.0 + REFILL_SECONDS) == 7
    assert metrics.count("flood", 100.0 + REFILL_SECONDS) is None


def test_a_slow_trickle_is_logged_in_full() -> None:
    metrics = Metrics()
    assert [metrics.count("slow", step * REFILL_SECONDS) for step in range(50)] == [0] * 50


def test_credit_does_not_grow_without_end() -> None:
    metrics = Metrics()
    metrics.count("flood", 0.0)
    assert [metrics.count("flood", 1e6) for _ in range(BURST + 1)] == [0] * BURST + [None]


def test_one_flood_does_not_silence_another_fault() -> None:
    metrics = Metrics()
    for _ in range(100):
        metrics.count("flood", 100.0)
    assert metrics.count("other", 100.0) == 0
