# SPDX-License-Identifier: GPL-2.0-or-later
"""The timestamp style of Identification: a 64-bit NTP time stamp (RFC 5944 5.7.1).

The upper half counts seconds since 1900 and wraps in February 2036; the lower half is the fraction of
a second and at the same time what matches a reply to its request.
"""

from __future__ import annotations

import math
from typing import Final

from homeward.model.errors import LocalProtocolError
from homeward.model.registration import Identification

NTP_TO_UNIX_SECONDS: Final = 2_208_988_800
"""From the beginning of 1900 to the beginning of 1970."""

RANDOM_BITS: Final = 12
"""How many low bits are chance: a float of seconds since 1970 is exact to 2^-21 s or better until 2106."""

_ERA: Final = 1 << 32
_HALF_ERA: Final = 1 << 31
_LOW_MASK: Final = _ERA - 1
_RANDOM_MASK: Final = (1 << RANDOM_BITS) - 1


def from_time(wall: float, low_random: int) -> Identification:
    """The Identification of a moment, in seconds since 1970, with its lowest RANDOM_BITS taken from ``low_random``.

    The clock does not resolve those bits, and unpredictable ones make an Identification hard to guess.
    That each value is greater than the last one accepted is the caller's duty, who remembers it.
    """
    if not math.isfinite(wall):
        raise LocalProtocolError(f"{wall} is no point in time")
    seconds = math.floor(wall)
    # A moment just below a whole second rounds up to one when the second is taken off.
    fraction = min(int((wall - seconds) * _ERA), _LOW_MASK)
    return join(seconds + NTP_TO_UNIX_SECONDS, (fraction & ~_RANDOM_MASK) | (low_random & _RANDOM_MASK))


def to_unix(identification: Identification, near: float) -> float:
    """The moment, in seconds since 1970, in the NTP era that puts it within 68 years of ``near``."""
    base = math.floor(near)
    ahead = high32(identification) - (base + NTP_TO_UNIX_SECONDS)
    return base + (ahead + _HALF_ERA) % _ERA - _HALF_ERA + low32(identification) / _ERA


def join(high: int, low: int) -> Identification:
    """Two halves put together, each taken modulo 2^32; so a code 133 reply has the agent's time and our low half."""
    return Identification((high & _LOW_MASK) << 32 | (low & _LOW_MASK))


def seconds(wall: float) -> int:
    """The upper half of a moment's Identification, alone the time stamp of revocations (RFC 3543 3.5)."""
    return math.floor(wall) + NTP_TO_UNIX_SECONDS & _LOW_MASK


def is_later(stamp: int, than: int) -> bool:
    """Whether such a half is later than another one, which lies less than 68 years off."""
    return 0 < (stamp - than) & _LOW_MASK < _HALF_ERA


def high32(identification: Identification) -> int:
    """The seconds since 1900, modulo 2^32."""
    return identification >> 32


def low32(identification: Identification) -> int:
    """The fraction, by which a reply is matched to its request."""
    return identification & _LOW_MASK
