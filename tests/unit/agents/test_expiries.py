# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from homeward.agents.expiries import Expiries


class Things:
    """Things with ends, as the tables keep them."""

    def __init__(self) -> None:
        self.ends: dict[int, float | None] = {}
        self.expiries = Expiries(self.ends.get)

    def put(self, key: int, end: float | None) -> None:
        before = self.ends.get(key)
        self.ends[key] = end
        self.expiries.note(key, end, before=before)

    def expire(self, at: float) -> list[int]:
        gone = []
        while (key := self.expiries.due(at)) is not None:
            del self.ends[key]
            gone.append(key)
        return gone


steps = st.lists(
    st.tuples(st.integers(0, 5), st.none() | st.integers(0, 50).map(float), st.sampled_from("pppprx")),
    max_size=200,
)


@given(steps)
def test_like_looking_at_all_of_them(steps: list[tuple[int, float | None, str]]) -> None:
    things = Things()
    for key, end, what in steps:
        if what == "p":
            things.put(key, end)
        elif what == "r":
            things.ends.pop(key, None)
        elif end is not None:
            over = {each for each, its in things.ends.items() if its is not None and its <= end}
            gone = things.expire(end)
            assert len(gone) == len(over)
            assert set(gone) == over
        ends = [each for each in things.ends.values() if each is not None]
        assert things.expiries.next() == min(ends, default=None)


def test_what_is_renewed_over_and_over_takes_no_room() -> None:
    things = Things()
    for step in range(10_000):
        things.put(step % 10, 100.0 + step)
    assert len(things.expiries) == 10


def test_what_comes_and_goes_takes_no_room_either() -> None:
    things = Things()
    for step in range(10_000):
        things.put(step % 10, 100.0 + step)
        del things.ends[step % 10]
    assert len(things.expiries) <= 64


def test_where_all_have_been_put_off_the_answer_is_early_and_takes_no_long_search() -> None:
    """A home agent asks every half minute, and nobody is answered while it searches."""
    things = Things()
    for key in range(5000):
        things.put(key, 100.0 + key)
    for key in range(5000):
        things.put(key, 90_000.0)
    asked: list[int] = []
    things.expiries._end_of = lambda key: asked.append(key) or things.ends.get(key)  # type: ignore[func-returns-value]
    first = things.expiries.next()
    assert first is not None
    assert 100.0 < first <= 90_000.0
    assert len(asked) < 100
    assert things.expire(89_999.0) == []
    assert things.expiries.next() == 90_000.0
