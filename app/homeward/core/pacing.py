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

    def take(self, at: float) -> float:
        """Take a token; the moment (boot seconds, at or after `at`) from which it is good."""
        if self._at is not None:
            self._tokens = min(float(BURST), self._tokens + (at - self._at) * RATE)
        self._at = at
        self._tokens -= 1
        return at if self._tokens >= 0 else at - self._tokens / RATE
