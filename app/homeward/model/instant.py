# SPDX-License-Identifier: GPL-2.0-or-later
"""A moment, on the two clocks that matter to a mobile node."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment read on both clocks.

    `boot` is CLOCK_BOOTTIME in seconds: it counts sleep, so lifetimes and deadlines are reckoned on it.
    `wall` is Unix time in seconds: it may jump, and serves the Identification timestamp alone (RFC 5944 section 5.7.1).
    """

    boot: float
    wall: float
