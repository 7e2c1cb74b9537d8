# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a registration lasts: seconds in a Lifetime field, of which one value means for ever (RFC 5944 3.3)."""

from __future__ import annotations

from homeward.model.registration import LIFETIME_INFINITE


def ends_at(since: float, lifetime: int) -> float | None:
    """When a lifetime that began at `since` is over, on the same clock; None for one without end."""
    return None if lifetime == LIFETIME_INFINITE else since + lifetime


def remaining(since: float, lifetime: int, now: float) -> int:
    """Whole seconds left of it, as a Lifetime field says it; never more than was granted."""
    return lifetime if lifetime == LIFETIME_INFINITE else max(0, int(since + lifetime - now))
