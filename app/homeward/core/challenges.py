# SPDX-License-Identifier: GPL-2.0-or-later
"""Foreign agents' challenges: which one to answer, and whether there is a key to answer with (RFC 4721).

A challenge is answered once, by one registration and its retransmissions, and never after a newer one (R-276). It comes
from an advertisement or from a reply; neither has to be signed, and a forged one leads to a denial at worst.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from homeward.model.registration import MobilitySecurityAssociation
from homeward.model.relay import AaaAssociation

MOST_AGENTS: Final = 32
REMEMBERED: Final = 64
"""So many challenges of one agent are known to be used up or overtaken; far more than its own window (RFC 4721 9)."""


@dataclass(frozen=True, slots=True)
class ForeignKeys:
    """What is shared with foreign agents by their address (MN-FA), and with the server that they ask (MN-AAA)."""

    agents: Mapping[IPv4Address, MobilitySecurityAssociation] = field(default_factory=dict)
    server: AaaAssociation | None = None

    def mobile_foreign(self, agent: IPv4Address) -> MobilitySecurityAssociation | None:
        """The association with this agent; a reply of it then needs exactly one valid MN-FA extension (R-149)."""
        return self.agents.get(agent)

    def can_answer(self, agent: IPv4Address) -> bool:
        """Whether there is a key under which a challenge of this agent can be answered (R-275)."""
        return self.server is not None or agent in self.agents


@dataclass(slots=True)
class _Asked:
    """What one agent has asked."""

    newest: bytes | None = None
    spent: deque[bytes] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Answered, or overtaken by one that was answered."""
    waiting: list[bytes] = field(default_factory=list)
    """Heard since, oldest first; the last of them is `newest`."""
    demands: bool = False


class Challenges:
    """The challenges of the agents of one link, by the agent's address."""

    def __init__(self, keys: ForeignKeys) -> None:
        self.keys = keys
        self._asked: dict[IPv4Address, _Asked] = {}

    def forget(self, agent: IPv4Address | None = None) -> None:
        """This agent is gone, or all of them are."""
        if agent is None:
            self._asked.clear()
        else:
            self._asked.pop(agent, None)

    def advertised(self, agent: IPv4Address, challenge: bytes | None) -> None:
        """An advertisement of this agent carried this challenge; with None it asks for no answer."""
        asked = self._of(agent)
        asked.demands = challenge is not None
        self._heard(asked, challenge)

    def returned(self, agent: IPv4Address, challenge: bytes | None) -> None:
        """A reply through this agent carried this challenge, which is the next one to answer (RFC 4721 3.3)."""
        if challenge is not None:
            self._heard(self._of(agent), challenge)

    def demanded(self, agent: IPv4Address) -> None:
        """The agent denied a request for want of an answer to a fresh challenge (codes 104 to 106 and 108)."""
        self._of(agent).demands = True

    def demands(self, agent: IPv4Address) -> bool:
        """Whether this agent wants its challenges answered."""
        asked = self._asked.get(agent)
        return asked is not None and asked.demands

    def lacks_fresh_one(self, agent: IPv4Address) -> bool:
        """Whether an answer is due and nothing is there that may be answered: a solicitation brings a new one."""
        asked = self._asked.get(agent)
        return asked is not None and asked.demands and asked.newest is None

    def take(self, agent: IPv4Address) -> bytes | None:
        """The challenge that a new registration answers: the newest, and no other one from before it ever again.

        None where there is none to answer (see `lacks_fresh_one`), or no key to answer with. Retransmissions of that
        registration carry the same one (RFC 4721 3.1).
        """
        asked = self._asked.get(agent)
        if asked is None or asked.newest is None or not self.keys.can_answer(agent):
            return None
        newest = asked.newest
        asked.spent.extend(asked.waiting)
        asked.waiting.clear()
        asked.newest = None
        return newest

    def _of(self, agent: IPv4Address) -> _Asked:
        asked = self._asked.setdefault(agent, _Asked())
        if len(self._asked) > MOST_AGENTS:
            del self._asked[next(iter(self._asked))]
        return asked

    def _heard(self, asked: _Asked, challenge: bytes | None) -> None:
        if challenge is None or challenge in asked.spent or challenge in asked.waiting:
            return
        asked.waiting.append(challenge)
        del asked.waiting[:-REMEMBERED]
        asked.newest = challenge
