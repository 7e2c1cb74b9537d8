# SPDX-License-Identifier: GPL-2.0-or-later
"""Which challenges a mobile node may answer (RFC 4721)."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address

import pytest

from homeward.agents.offered_challenges import CHALLENGE_OCTETS, OfferedChallenges, Verdict

NODE = IPv4Address("10.77.0.10")
OTHER = "other@example.test"


def offered() -> OfferedChallenges:
    numbers = itertools.count(1)
    return OfferedChallenges(lambda: next(numbers))


@pytest.mark.rows("R-276")
def test_an_answered_one_and_all_before_it_are_stale_for_who_answered() -> None:
    ours = offered()
    older, newer = ours.advertise(), ours.advertise()
    assert len(newer) == CHALLENGE_OCTETS
    ours.use(NODE, newer)
    assert ours.judge(NODE, newer) is Verdict.STALE
    assert ours.judge(NODE, older) is Verdict.STALE
    assert ours.judge(OTHER, older) is Verdict.FRESH


def test_a_newer_one_is_good_after_an_older_one() -> None:
    ours = offered()
    older, newer = ours.advertise(), ours.advertise()
    ours.use(NODE, older)
    assert ours.judge(NODE, newer) is Verdict.FRESH
    third = ours.advertise()
    assert ours.judge(NODE, older) is Verdict.STALE, "used, though out of the window by now"
    assert ours.judge(OTHER, older) is Verdict.UNKNOWN
    assert ours.judge(NODE, third) is Verdict.FRESH


@pytest.mark.rows("R-276")
def test_what_a_reply_offers_is_good_for_its_receiver_alone_and_once() -> None:
    ours = offered()
    ours.use(NODE, ours.advertise())
    given = ours.offer(NODE)
    assert ours.offer(NODE) == given, "as long as it is not used"
    assert ours.judge(NODE, given) is Verdict.FRESH
    assert ours.judge(OTHER, given) is Verdict.UNKNOWN
    ours.use(NODE, given)
    assert ours.judge(NODE, given) is Verdict.STALE
    assert ours.offer(NODE) != given


def test_a_stranger_is_offered_what_everybody_knows() -> None:
    ours = offered()
    current = ours.advertise()
    assert all(ours.offer(f"stranger-{n}@example.test") == current for n in range(100))
    fresh = offered()
    assert fresh.judge(NODE, fresh.offer(NODE)) is Verdict.FRESH
