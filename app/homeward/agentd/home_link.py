# SPDX-License-Identifier: GPL-2.0-or-later
"""The home link of a home agent: which addresses are answered for, and who is told where they are (RFC 5944 4.6)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.agent_home_link import AgentHomeLink
from homeward.agentd.log import entry
from homeward.wire.arp import ArpMessage

log: Final = logging.getLogger("links")

ANNOUNCEMENTS: Final = 3
"""How often everybody on the home link is told, the first time included (RFC 5944 section 4.6: a small number)."""
PAUSE: Final = 0.5
"""Seconds in between."""


@dataclass(slots=True)
class _Announcement:
    hardware: bytes | None
    asked: bytes
    left: int = ANNOUNCEMENTS
    timer: asyncio.TimerHandle | None = None


class HomeLink:
    """Answers for the addresses of nodes that are away. Raises LinkError, NotPermitted when it is made."""

    def __init__(self, name: str, agent: IPv4Address) -> None:
        self._away: set[IPv4Address] = set()
        self._announcements: dict[IPv4Address, _Announcement] = {}
        self._link = AgentHomeLink(name, agent, self._take_question)

    def proxy(self, address: IPv4Address) -> None:
        """Answer for an address from now on, and tell everybody that it is at ours."""
        self._away.add(address)
        self._announce(address, _Announcement(self._link.hardware, b""))

    def release(self, address: IPv4Address, asked: bytes | None) -> None:
        """Answer for it no more; tell everybody where it is if the request that ended it came from the link itself."""
        self._away.discard(address)
        self._forget(address)
        if asked is not None:
            self._announce(address, _Announcement(None, asked))

    def stop(self) -> None:
        """Answer for nobody any more."""
        for address in list(self._announcements):
            self._forget(address)
        self._away.clear()
        self._link.close()

    def _announce(self, address: IPv4Address, told: _Announcement) -> None:
        self._forget(address)
        self._announcements[address] = told
        self._tell(address)

    def _tell(self, address: IPv4Address) -> None:
        told = self._announcements[address]
        if told.hardware is None:
            told.hardware = self._link.sender_of(told.asked)
        if told.hardware is None:
            log.debug(entry("hardware-address-unknown", home_address=address))
        else:
            self._link.tell_all(address, told.hardware)
        told.left -= 1
        if told.left <= 0:
            del self._announcements[address]
            return
        told.timer = asyncio.get_running_loop().call_later(PAUSE, partial(self._tell, address))

    def _forget(self, address: IPv4Address) -> None:
        told = self._announcements.pop(address, None)
        if told is not None and told.timer is not None:
            told.timer.cancel()

    def _take_question(self, question: ArpMessage) -> None:
        # The node itself, coming home, asks for its own address to announce it: that is not to be contradicted.
        if question.target in self._away and question.sender != question.target:
            self._link.tell(question.sender_hardware, question.answer(self._link.hardware))
