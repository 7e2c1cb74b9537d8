# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps a flapping link from flooding the home agent (X-22)."""

BURST = 3
RATE = 1.0
"""New series per second once the burst is used up."""


class TokenBucket:
    """Says when the next new series of requests may begin."""

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._at: float | None = None
        self._turn = 0.0

    def take(self, at: float) -> float:
        """The moment (boot seconds, at or after `at`) from which the series that begins now may send.

        It takes the place of the one before: if that still waited for its turn, its turn is inherited, so that a link
        that flapped for a minute is heard a second later.
        """
        if at < self._turn:
            return self._turn
        if self._at is not None:
            self._tokens = min(float(BURST), self._tokens + (at - self._at) * RATE)
        self._at = at
        self._tokens -= 1
        self._turn = at if self._tokens >= 0 else at - self._tokens / RATE
        return self._turn
