# SPDX-License-Identifier: GPL-2.0-or-later
"""Nonces: the home agent's comes back to it, ours is fresh each time, a refused one heals itself (R-176)."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.core.clock_sync import IdentificationSource
from homeward.core.nonces import NonceSource, source_for
from homeward.model.instant import Instant
from homeward.model.profile import ReplayStyle
from homeward.model.registration import Identification
from homeward.wire.identification import from_time, high32, join, low32

NOW = Instant(0.0, 1_800_000_000.0)


class Agent:
    """The home agent's side of RFC 5944 5.7.2."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.nonce = self._random.getrandbits(32)

    def answer(self, request: Identification) -> tuple[bool, Identification]:
        fits = high32(request) == self.nonce
        self.nonce = self._random.getrandbits(32)
        return fits, join(self.nonce, low32(request))


@pytest.mark.rows("R-176", "R-156")
def test_the_first_nonce_is_refused_and_every_later_one_fits() -> None:
    random = Random(1)
    source, agent = NonceSource(lambda: random.getrandbits(32)), Agent(2)
    request = source.issue(NOW)
    fits, reply = agent.answer(request)
    assert not fits
    source.resynchronise(reply, NOW)
    for _ in range(20):
        request = source.issue(NOW)
        fits, reply = agent.answer(request)
        assert fits
        source.accepted(reply)


@pytest.mark.rows("R-176", "R-177")
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1), st.integers(0, 2**64 - 1))
def test_no_nonce_of_ours_repeats_one_that_may_be_answered(draws: list[int], last: int) -> None:
    turn = iter(draws * 40)
    source = NonceSource(lambda: next(turn), last=last)
    ours = [low32(Identification(last))] + [low32(source.issue(NOW)) for _ in range(30)]
    assert all(len(set(ours[at : at + 8])) == len(ours[at : at + 8]) for at in range(len(ours)))


@pytest.mark.rows("R-176")
def test_a_restart_goes_on_with_the_agents_nonce_and_another_of_ours() -> None:
    source = NonceSource(lambda: 5)
    request = source.issue(NOW)
    source.accepted(join(0xABCDEF01, low32(request)))
    again = source_for(ReplayStyle.NONCES, lambda: 5, last=source.last, offset=3.0)
    request = again.issue(NOW)
    assert (high32(request), low32(request)) == (0xABCDEF01, 6)
    assert again.offset == 0.0


@pytest.mark.rows("R-176")
def test_a_denial_uses_a_nonce_up_and_no_time() -> None:
    stamps, nonces = source_for(ReplayStyle.TIMESTAMPS, lambda: 1), source_for(ReplayStyle.NONCES, lambda: 1)
    for source in (stamps, nonces):
        request = source.issue(NOW)
        source.denied(join(0xABCDEF01, low32(request)))
    assert high32(nonces.issue(NOW)) == 0xABCDEF01
    assert high32(stamps.issue(NOW)) == high32(from_time(NOW.wall, 0))


@pytest.mark.rows("R-162", "R-176")
def test_the_styles_differ_in_what_is_sent_again() -> None:
    stamps, nonces = source_for(ReplayStyle.TIMESTAMPS, lambda: 1), source_for(ReplayStyle.NONCES, lambda: 1)
    assert isinstance(stamps, IdentificationSource)
    assert not stamps.repeats_unchanged
    assert nonces.repeats_unchanged


@pytest.mark.parametrize("style", list(ReplayStyle))
def test_what_the_other_style_remembered_does_no_harm(style: ReplayStyle) -> None:
    for other in ReplayStyle:
        before = source_for(other, lambda: 77)
        before.issue(NOW)
        after = source_for(style, lambda: 77, last=before.last, offset=before.offset)
        assert low32(after.issue(NOW)) != low32(Identification(before.last))
