# SPDX-License-Identifier: GPL-2.0-or-later
"""How often one station may ask, and be told no. What is remembered of stations is bounded, whoever makes them up."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

_MOST: Final = 4096


class Rates:
    """A token bucket for each key: `burst` at once, `per_second` after that. The least recent keys are forgotten."""

    def __init__(self, *, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def allow(self, key: Hashable, boot: float) -> bool:
        """Whether this one is within the rate; it counts if so."""
        tokens, since = self._buckets.get(key, (self._burst, boot))
        tokens = min(self._burst, tokens + (boot - since) * self._per_second)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, boot)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)
        return allowed
