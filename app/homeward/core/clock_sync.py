# SPDX-License-Identifier: GPL-2.0-or-later
"""One source of Identifications per security association, shared by all paths and kept over restarts.

Sharing it means that a delayed older request can never override a newer one, whatever path each took (X-16).
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from homeward.model.instant import Instant
from homeward.model.registration import Identification
from homeward.wire import identification as ntp

Entropy = Callable[[], int]
"""Thirty-two fresh random bits at each call."""

OUTSTANDING = 8
"""More requests than can be waiting for an answer at once."""


_ERA = 1 << 64
"""After so many units NTP's clock begins anew: on 7 February 2036, and each 136 years."""


class IdentificationSource:
    """Issues timestamps that only grow (RFC 5944 section 5.7.1) and learns the home agent's clock (R-156, R-174).

    Which of two is the later one is reckoned across the era's end, as the home agent does; 0 stands for none at all.
    `accepted`, `denied` and `resynchronise` take the Identification of a signed reply, which in an acceptance is the
    request's own.
    """

    repeats_unchanged: Final = False
    """A retransmission is a new registration (R-162)."""

    def __init__(self, entropy: Entropy, *, last: int = 0, offset: float = 0.0) -> None:
        self._entropy = entropy
        self._last = last
        self._last_accepted = 0
        self._floor = last
        self._outstanding: deque[int] = deque(maxlen=OUTSTANDING)
        self.offset = offset

    @property
    def last(self) -> int:
        """The highest Identification issued; to be remembered over restarts (R-172)."""
        return self._last

    def issue(self, at: Instant) -> Identification:
        """The next Identification: the time as the home agent sees it, above everything issued or accepted."""
        stamp = int(ntp.from_time(at.wall + self.offset, self._entropy()))
        if not _is_later(stamp, self._floor):
            stamp = (self._floor + 1 + (self._entropy() & 0xFF)) % _ERA
        while ntp.low32(Identification(stamp)) in self._outstanding:
            stamp = (stamp + 1) % _ERA  # The low half alone matches replies to requests.
        self._outstanding.append(ntp.low32(Identification(stamp)))
        self._floor = stamp
        if _is_later(stamp, self._last):
            self._last = stamp
        return Identification(stamp)

    def accepted(self, reply: Identification) -> None:
        """The home agent accepted this one: nothing at or below it can ever be accepted again."""
        if _is_later(reply, self._last_accepted):
            self._last_accepted = reply

    def denied(self, reply: Identification) -> None:
        """A denial other than code 133 teaches nothing about time."""

    def resynchronise(self, reply: Identification, sent: Instant) -> None:
        """Adopt the clock of an authenticated code 133 that answers a request sent at `sent`.

        Issued but rejected values may be undercut, accepted ones never (R-174).
        """
        self.offset = ntp.to_unix(reply, sent.wall) - sent.wall
        self._floor = self._last_accepted


def _is_later(stamp: int, other: int) -> bool:
    """Whether it lies within half an era after the other, which 0 never forbids."""
    return not other or 0 < (stamp - other) % _ERA < _ERA // 2
