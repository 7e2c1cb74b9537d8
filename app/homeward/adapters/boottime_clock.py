# SPDX-License-Identifier: GPL-2.0-or-later
"""The two clocks of the machine."""

import time

from homeward.model.instant import Instant


class BoottimeClock:
    """CLOCK_BOOTTIME, which counts sleep, and CLOCK_REALTIME."""

    def now(self) -> Instant:
        """This moment on both clocks, in seconds."""
        return Instant(time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_REALTIME))
