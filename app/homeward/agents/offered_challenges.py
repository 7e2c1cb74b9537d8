# SPDX-License-Identifier: GPL-2.0-or-later
"""The challenges that a foreign agent has put out, and who has answered which (RFC 4721 3.2, 3.2.1).

A challenge makes a request fresh: it answers something that was advertised a moment ago. One that a mobile node has
answered, and every one advertised before it, is stale for that node. Nobody who has not proved who he is can make us
remember anything here.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

Entropy = Callable[[], int]
"""Thirty-two fresh random bits at each call."""

NodeKey = IPv4Address | str
"""What a mobile node is known by: its home address, or its NAI while it has none."""

CHALLENGE_WINDOW: Final = 2
"""So many of the last advertised challenges are good (RFC 4721 9)."""
CHALLENGE_OCTETS: Final = 16

_MOST_NODES: Final = 8192


class Verdict(Enum):
    """What a challenge in a request is worth."""

    FRESH = "fresh"
    UNKNOWN = "unknown"
    STALE = "stale"


class OfferedChallenges:
    """The window of advertised challenges, and for each mobile node the last one used and the last one offered."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._window: deque[bytes] = deque(maxlen=CHALLENGE_WINDOW)
        self._used_by_anybody: set[bytes] = set()
        self._last_used: OrderedDict[NodeKey, bytes] = OrderedDict()
        self._offered: OrderedDict[NodeKey, bytes] = OrderedDict()

    def advertise(self) -> bytes:
        """A new challenge for an advertisement to everybody; the oldest of the window is unknown from now on."""
        self._window.append(self._make())
        self._used_by_anybody.intersection_update(self._window)
        return self._window[-1]

    def repeat(self) -> bytes:
        """The challenge for an advertisement to one solicitor: the last advertised one, unless it has been used.

        So a flood of solicitations pushes nobody's challenge out of the window.
        """
        if not self._window or self._window[-1] in self._used_by_anybody:
            return self.advertise()
        return self._window[-1]

    def judge(self, node: NodeKey, challenge: bytes) -> Verdict:
        """Whether this node may answer this challenge now; changes nothing."""
        last = self._last_used.get(node)
        if challenge == last:
            return Verdict.STALE
        if challenge == self._offered.get(node):
            return Verdict.FRESH
        if challenge not in self._window:
            return Verdict.UNKNOWN
        window = list(self._window)
        if last in window and window.index(challenge) < window.index(last):
            return Verdict.STALE
        return Verdict.FRESH

    def use(self, node: NodeKey, challenge: bytes) -> None:
        """This node, which proved itself, has answered this challenge."""
        self._offered.pop(node, None)
        _remember(self._last_used, node, challenge)
        if challenge in self._window:
            self._used_by_anybody.add(challenge)

    def offer(self, node: NodeKey) -> bytes:
        """A challenge that this node has not used, for a reply to it (RFC 4721 3.3)."""
        if self._window and self.judge(node, self._window[-1]) is Verdict.FRESH:
            return self._window[-1]
        if node not in self._last_used:  # a stranger; nothing was advertised yet
            return self.repeat()
        made = self._offered.get(node) or self._make()
        _remember(self._offered, node, made)
        return made

    def _make(self) -> bytes:
        words = (self._entropy() & 0xFFFFFFFF for _ in range(CHALLENGE_OCTETS // 4))
        return b"".join(word.to_bytes(4, "big") for word in words)


def _remember(memory: OrderedDict[NodeKey, bytes], node: NodeKey, challenge: bytes) -> None:
    memory[node] = challenge
    memory.move_to_end(node)
    if len(memory) > _MOST_NODES:
        memory.popitem(last=False)
