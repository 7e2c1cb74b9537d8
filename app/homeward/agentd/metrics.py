# SPDX-License-Identifier: GPL-2.0-or-later
"""How often things happened, and which of them are worth a line in the log now."""

from __future__ import annotations

from collections import Counter
from typing import Final

BURST: Final = 5
"""So many lines of one code are written at once ..."""
REFILL_SECONDS: Final = 10.0
"""... and one more each time so many seconds have passed. A flood fills no disk, and a new fault is never drowned."""


class Metrics:
    """Counts by code, and limits how often each code is logged."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}
        self._suppressed: Counter[str] = Counter()

    def count(self, code: str, boot: float) -> int | None:
        """Count one event. Returns how many like it went unlogged since the last line if this one may be logged,
        None if it may not."""
        self.counts[code] += 1
        tokens, since = self._buckets.get(code, (float(BURST), boot))
        tokens = min(float(BURST), tokens + (boot - since) / REFILL_SECONDS)
        if tokens < 1:
            self._buckets[code] = (tokens, boot)
            self._suppressed[code] += 1
            return None
        self._buckets[code] = (tokens - 1, boot)
        return self._suppressed.pop(code, 0)
