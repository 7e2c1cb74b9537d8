# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of many things ends next, in logarithmic time at most."""

import heapq
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

_SLACK = 64
_AT_ONCE = 64
"""So many that have been put off are looked at for one answer. Where all of a hundred thousand have been, finding out
which one is next would keep everybody waiting for a tenth of a second; whoever asks too early asks again."""


class _Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...


_Key = TypeVar("_Key", bound=_Ordered)


class Expiries(Generic[_Key]):
    """Remembers ends of things that are kept elsewhere; `end_of` says when one ends now, None for never or not there.

    A thing whose end is put off keeps its place until that has come: most renewals change nothing here.
    """

    def __init__(self, end_of: Callable[[_Key], float | None]) -> None:
        self._end_of = end_of
        self._heap: list[tuple[float, _Key]] = []
        self._most = _SLACK

    def __len__(self) -> int:
        return len(self._heap)

    def note(self, key: _Key, end: float | None, *, before: float | None) -> None:
        """A thing ends now at `end`; `before` is when it did until now, None if never, or if it is new."""
        if end is None or (before is not None and before <= end):
            return
        heapq.heappush(self._heap, (end, key))
        # Whatever ended otherwise leaves an entry behind; away with them before they outnumber the rest.
        if len(self._heap) > self._most:
            ends = ((self._end_of(each), each) for each in {key for _, key in self._heap})
            self._heap = [(end, each) for end, each in ends if end is not None]
            heapq.heapify(self._heap)
            self._most = 2 * len(self._heap) + _SLACK

    def next(self) -> float | None:
        """When the next one ends, or earlier where many have been put off; None when none ever does."""
        for _ in range(_AT_ONCE):
            if not self._heap or self._is_right():
                break
        return self._heap[0][0] if self._heap else None

    def may_end_before(self, at: float) -> bool:
        """Whether one could: quickly, and perhaps of one that has been put off."""
        return bool(self._heap) and self._heap[0][0] < at

    def due(self, at: float) -> _Key | None:
        """One that is over at this time, and is to be taken out now; None when there is none."""
        while self._heap and self._heap[0][0] <= at:
            if self._is_right():
                return self._heap[0][1]
        return None

    def _is_right(self) -> bool:
        """Whether the first one ends when it was said to; if not, it is put where it belongs."""
        end, key = self._heap[0]
        now = self._end_of(key)
        if now is None:
            heapq.heappop(self._heap)
            return False
        if now > end:
            heapq.heapreplace(self._heap, (now, key))
            return False
        return True
