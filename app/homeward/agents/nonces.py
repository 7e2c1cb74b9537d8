# SPDX-License-Identifier: GPL-2.0-or-later
"""Replay protection by nonces, as the home agent sees it (RFC 5944 section 5.7.2).

Each reply gives the mobile node a new number, which its next request has to bring back. What the RFC leaves open: a
request with a wrong one is told the number that is due, not a new one again. Otherwise somebody who plays an old
request over and over would make every number stale before the mobile node could use it.
"""

from collections.abc import Callable
from typing import TypeAlias

from homeward.agents.nodes import Identity
from homeward.agents.replay import Freshness, Proof, proof_of
from homeward.model.instant import Instant
from homeward.model.registration import Identification, Spi
from homeward.wire.identification import high32, join, low32

Entropy: TypeAlias = Callable[[], int]
"""Where chance comes from: at least 32 bits that nobody can guess."""

_MASK = 0xFFFFFFFF


class NonceGuard:
    """Remembers the number that is due from each mobile node. A new life knows none, and gives new ones.

    `by` is what proved the request, and must have been verified.
    """

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._due: dict[Identity, int] = {}
        self._accepted: dict[Identity, tuple[Identification, Spi, bytes]] = {}

    def judge(self, who: Identity, identification: Identification, *, by: Proof, at: Instant) -> Freshness:
        """Judge an authenticated request; changes nothing."""
        del at
        if self._accepted.get(who) == (identification, by.spi, proof_of(by)):
            return Freshness.DUPLICATE
        due = self._due.get(who)
        return Freshness.FRESH if high32(identification) == due else Freshness.WRONG_NONCE

    def accept(
        self, who: Identity, identification: Identification, *, by: Proof, at: Instant
    ) -> Identification:
        """Use the number up and give the next one; the Identification of the reply."""
        del at
        self._accepted[who] = identification, by.spi, proof_of(by)
        return self._next(who, identification)

    def repeat(self, who: Identity, identification: Identification) -> Identification:
        """The Identification of one more reply to a request that was accepted: with the number that is due."""
        return join(self._due[who], low32(identification))

    def deny(self, who: Identity, identification: Identification) -> Identification:
        """The Identification of the denial of a fresh request, whose number is used up all the same."""
        return self._next(who, identification)

    def resynchronise(self, who: Identity, identification: Identification, at: Instant) -> Identification:
        """The Identification of a code 133 reply: the number that is due."""
        del at
        if who not in self._due:
            return self._next(who, identification)
        return join(self._due[who], low32(identification))

    def _next(self, who: Identity, identification: Identification) -> Identification:
        drawn = self._entropy() & _MASK
        while drawn in (self._due.get(who), high32(identification)):
            drawn = (drawn + 1 + (self._entropy() & 0xFF)) & _MASK
        self._due[who] = drawn
        return join(drawn, low32(identification))
