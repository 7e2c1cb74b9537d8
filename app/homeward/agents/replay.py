# SPDX-License-Identifier: GPL-2.0-or-later
"""Replay protection by time stamps, as the home agent sees it (RFC 5944 section 5.7.1).

What was accepted is kept in memory, and given back to the next life where somebody wrote it down. A life that knows
nothing, or not all of it, accepts no time stamp up to its `floor`. Where that is its own start, a request stays open
that the former life accepted from a clock ahead of ours, with a stamp that lies after our start: it could be played
again, within the tolerance. Only what is written down closes that.
"""

import math
from dataclasses import dataclass
from enum import Enum

from homeward.agents.policy import Identity
from homeward.model.instant import Instant
from homeward.model.registration import Identification, RegistrationRequest, Spi
from homeward.wire.identification import NTP_TO_UNIX_SECONDS, from_time, high32, join, low32

_ERA = 1 << 32
_HALF_ERA = 1 << 31


class Freshness(Enum):
    """What an Identification says about its request; the values are sentences for the log."""

    FRESH = "newer than everything accepted"
    DUPLICATE = "the very request that was accepted last"
    SKEWED = "the time stamp is further from our clock than the tolerance allows"
    BEFORE_START = "the time stamp is from before this agent's life, which cannot know whether it was used"
    USED = "the time stamp is not above the last one accepted"
    WRONG_NONCE = "the nonce is not the one that the node was given last"


@dataclass(frozen=True, slots=True)
class _Accepted:
    stamp: int
    spi: Spi | None = None
    request: RegistrationRequest | None = None


def floor_at(started: Instant) -> int:
    """The floor of a life that knows nothing of what was accepted before it."""
    return _exact(from_time(started.wall, 0), near=started.wall) - 1


class ReplayGuard:
    """Remembers the highest time stamp accepted from each mobile node, whatever SPI it came with.

    RFC 5944 wants it greater than any accepted *for the mobile node*: with a memory per SPI, a delayed request under
    the old key could undo a newer one under the new key. `tolerance` in seconds; stamps up to `floor` are refused.
    """

    def __init__(self, tolerance: float, floor: int | None) -> None:
        self.tolerance = tolerance
        self._floor = -1 if floor is None else floor
        self._last: dict[Identity, _Accepted] = {}

    def stamp(self, who: Identity) -> int | None:
        """The highest time stamp accepted, in units of 2^-32 s since 1900; None where none was."""
        last = self._last.get(who)
        return None if last is None else last.stamp

    def restore(self, who: Identity, stamp: int) -> None:
        """A former life accepted this one."""
        self._last[who] = _Accepted(stamp)

    def judge(self, who: Identity, request: RegistrationRequest, *, spi: Spi, at: Instant) -> Freshness:
        """Judge an authenticated request; changes nothing."""
        stamp = _exact(request.identification, near=at.wall)
        if abs(stamp / _ERA - NTP_TO_UNIX_SECONDS - at.wall) > self.tolerance:
            return Freshness.SKEWED
        last = self._last.get(who)
        if last is not None and last.spi == spi and last.request == request:
            return Freshness.DUPLICATE
        if last is not None and stamp <= last.stamp:
            return Freshness.USED
        if stamp <= self._floor:
            return Freshness.BEFORE_START
        return Freshness.FRESH

    def accept(self, who: Identity, request: RegistrationRequest, *, spi: Spi, at: Instant) -> Identification:
        """Remember a request that was acted upon; the Identification of the reply.

        A denied one changes nothing, so that denying it is repeatable.
        """
        stamp = _exact(request.identification, near=at.wall)
        self._last[who] = _Accepted(stamp, spi, request)
        return request.identification

    @staticmethod
    def repeat(who: Identity, request: RegistrationRequest) -> Identification:
        """The Identification of one more reply to a request that was accepted."""
        del who
        return request.identification

    @staticmethod
    def deny(who: Identity, request: RegistrationRequest) -> Identification:
        """The Identification of the denial of a fresh request."""
        del who
        return request.identification

    @staticmethod
    def resynchronise(who: Identity, request: RegistrationRequest, at: Instant) -> Identification:
        """The Identification of a code 133 reply: our seconds, the request's own low half."""
        del who
        return join(high32(from_time(at.wall, 0)), low32(request.identification))


def _exact(identification: Identification, *, near: float) -> int:
    """The time stamp in units of 2^-32 s since 1900, in the era nearest to `near`; a float would lose the low bits."""
    base = math.floor(near) + NTP_TO_UNIX_SECONDS
    seconds = base + (high32(identification) - base + _HALF_ERA) % _ERA - _HALF_ERA
    return seconds << 32 | low32(identification)
