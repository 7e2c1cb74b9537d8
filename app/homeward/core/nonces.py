# SPDX-License-Identifier: GPL-2.0-or-later
"""Identifications made of nonces instead of time (RFC 5944 5.7.2), where a profile asks for them.

The upper half is the nonce that the home agent gave in its last signed reply, the lower half one of our own. A nonce
that it refuses costs one request, since the refusal brings the next one (code 133).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from homeward.core.clock_sync import OUTSTANDING, Entropy, IdentificationSource
from homeward.model.instant import Instant
from homeward.model.profile import ReplayStyle
from homeward.model.registration import Identification
from homeward.wire.identification import high32, join, low32

_LOW: Final = 0xFFFFFFFF


class NonceSource:
    """The surface of IdentificationSource for nonces: the upper half of every signed reply is the next nonce (R-176).

    `offset` is always 0.
    """

    repeats_unchanged: Final = True
    """A retransmission is the very same packet (R-162)."""

    def __init__(self, entropy: Entropy, *, last: int = 0, offset: float = 0.0) -> None:
        self._entropy = entropy
        self._theirs = high32(Identification(last))
        self._outstanding: deque[int] = deque([low32(Identification(last))], maxlen=OUTSTANDING)
        self.offset = 0.0

    @property
    def last(self) -> int:
        """The home agent's nonce and our last one; to be remembered over restarts."""
        return int(join(self._theirs, self._outstanding[-1]))

    def issue(self, at: Instant) -> Identification:
        """The home agent's last nonce and a fresh one of our own, unlike any that may still be answered (R-177)."""
        ours = self._entropy() & _LOW
        while ours in self._outstanding:
            ours = (ours + 1) & _LOW
        self._outstanding.append(ours)
        return join(self._theirs, ours)

    def accepted(self, reply: Identification) -> None:
        """Its nonce is the next one."""
        self._theirs = high32(reply)

    def denied(self, reply: Identification) -> None:
        """The same: a reply that grants nothing uses a nonce up as well as one that does."""
        self._theirs = high32(reply)

    def resynchronise(self, reply: Identification, sent: Instant) -> None:
        """The same for code 133 (R-156)."""
        self._theirs = high32(reply)


Identifications = IdentificationSource | NonceSource
"""Where Identifications come from, by the style that is agreed on with the home agent."""


def source_for(
    style: ReplayStyle, entropy: Entropy, *, last: int = 0, offset: float = 0.0
) -> Identifications:
    """The source for this style, going on from what was remembered.

    What the other style remembered does no harm: the first request after a start is then answered by code 133.
    """
    match style:
        case ReplayStyle.TIMESTAMPS:
            return IdentificationSource(entropy, last=last, offset=offset)
        case ReplayStyle.NONCES:
            return NonceSource(entropy, last=last)
