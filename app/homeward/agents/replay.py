# SPDX-License-Identifier: GPL-2.0-or-later
"""Replay protection by time stamps, as the home agent sees it (RFC 5944 section 5.7.1).

What was accepted is kept in memory, and given back to the next life where somebody wrote it down. A life that knows
nothing, or not all of it, accepts no time stamp up to its `floor`. Where that is its own start, a request stays open
that the former life accepted from a clock ahead of ours, with a stamp that lies after our start: it could be played
again, within the tolerance. Only what is written down closes that.
"""

import math
import struct
from enum import Enum
from typing import Protocol

from homeward.agents.nodes import Identity
from homeward.model.instant import Instant
from homeward.model.registration import Identification, Spi
from homeward.wire.identification import NTP_TO_UNIX_SECONDS, from_time, join, low32, seconds

_ERA = 1 << 32
_HALF_ERA = 1 << 31
_LOW64 = (1 << 64) - 1
_ACCEPTED = struct.Struct("!IQI16s")  # era, time stamp, SPI, the beginning of the authenticator
_PROOF_OCTETS = 16
_NO_PROOF = bytes(_PROOF_OCTETS)


class Freshness(Enum):
    """What an Identification says about its request; the values are sentences for the log."""

    FRESH = "newer than everything accepted"
    DUPLICATE = "the very request that was accepted last"
    SKEWED = "the time stamp is further from our clock than the tolerance allows"
    BEFORE_START = "the time stamp is from before this agent's life, which cannot know whether it was used"
    USED = "the time stamp is not above the last one accepted"
    WRONG_NONCE = "the nonce is not the one that the node was given last"


def floor_at(started: Instant) -> int:
    """The floor of a life that knows nothing of what was accepted before it."""
    return _exact(from_time(started.wall, 0), near=started.wall) - 1


class Proof(Protocol):
    """What proved a request: the index of an association, and the authenticator made with its key."""

    @property
    def spi(self) -> Spi: ...
    @property
    def authenticator(self) -> bytes: ...


def proof_of(by: Proof) -> bytes:
    """What tells an authenticated request from all others of its SPI: as much of the authenticator as all have."""
    return by.authenticator[:_PROOF_OCTETS]


class ReplayGuard:
    """Remembers the highest time stamp accepted from each mobile node, whatever SPI it came with.

    RFC 5944 wants it greater than any accepted *for the mobile node*: with a memory per SPI, a delayed request under
    the old key could undo a newer one under the new key. `tolerance` in seconds; stamps up to `floor` are refused.
    `by` is what proved the request, and must have been verified.
    """

    def __init__(self, tolerance: float, floor: int | None) -> None:
        self.tolerance = tolerance
        self._floor = -1 if floor is None else floor
        self._accepted: dict[Identity, bytes] = {}

    def stamp(self, who: Identity) -> int | None:
        """The highest time stamp accepted, in units of 2^-32 s since 1900; None where none was."""
        last = self._accepted.get(who)
        if last is None:
            return None
        era, stamp, _, _ = _ACCEPTED.unpack(last)
        return int(era << 64 | stamp)

    def restore(self, who: Identity, stamp: int) -> None:
        """A former life accepted this one; which request it came with is forgotten."""
        self._accepted[who] = _ACCEPTED.pack(stamp >> 64, stamp & _LOW64, 0, _NO_PROOF)

    def judge(self, who: Identity, identification: Identification, *, by: Proof, at: Instant) -> Freshness:
        """Judge an authenticated request; changes nothing."""
        stamp = _exact(identification, near=at.wall)
        if abs(stamp / _ERA - NTP_TO_UNIX_SECONDS - at.wall) > self.tolerance:
            return Freshness.SKEWED
        last = self._accepted.get(who)
        if last is not None:
            era, highest, spi, proof = _ACCEPTED.unpack(last)
            highest |= era << 64
            if stamp == highest and spi == by.spi and proof == proof_of(by):
                return Freshness.DUPLICATE
            if stamp <= highest:
                return Freshness.USED
        return Freshness.FRESH if stamp > self._floor else Freshness.BEFORE_START

    def accept(
        self, who: Identity, identification: Identification, *, by: Proof, at: Instant
    ) -> Identification:
        """Remember a request that was acted upon; the Identification of the reply.

        A denied one changes nothing, so that denying it is repeatable.
        """
        stamp = _exact(identification, near=at.wall)
        self._accepted[who] = _ACCEPTED.pack(stamp >> 64, stamp & _LOW64, by.spi, proof_of(by))
        return identification

    def accept_fresh(
        self, who: Identity, identification: Identification, *, by: Proof, at: Instant
    ) -> int | None:
        """Accept a request if `judge` would call it fresh; its time stamp, with its era. Else None, and no change."""
        stamp = _exact(identification, near=at.wall)
        if stamp <= self._floor or abs(stamp / _ERA - NTP_TO_UNIX_SECONDS - at.wall) > self.tolerance:
            return None
        last = self._accepted.get(who)
        if last is not None:
            era, highest, _, _ = _ACCEPTED.unpack(last)
            if stamp <= era << 64 | highest:
                return None
        self._accepted[who] = _ACCEPTED.pack(stamp >> 64, stamp & _LOW64, by.spi, proof_of(by))
        return stamp

    @staticmethod
    def repeat(who: Identity, identification: Identification) -> Identification:
        """The Identification of one more reply to a request that was accepted."""
        del who
        return identification

    @staticmethod
    def deny(who: Identity, identification: Identification) -> Identification:
        """The Identification of the denial of a fresh request."""
        del who
        return identification

    @staticmethod
    def resynchronise(who: Identity, identification: Identification, at: Instant) -> Identification:
        """The Identification of a code 133 reply: our seconds, the request's own low half."""
        del who
        return join(seconds(at.wall), low32(identification))


def _exact(identification: Identification, *, near: float) -> int:
    """The time stamp in units of 2^-32 s since 1900, in the era nearest to `near`; a float would lose the low bits."""
    base = math.floor(near) + NTP_TO_UNIX_SECONDS
    ahead = (identification >> 32) - base
    if -_HALF_ERA <= ahead < _HALF_ERA:  # as until 2036, when an era ends
        return identification
    whole = base + (ahead + _HALF_ERA) % _ERA - _HALF_ERA
    return whole << 32 | low32(identification)
