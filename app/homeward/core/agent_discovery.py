# SPDX-License-Identifier: GPL-2.0-or-later
"""Mobility agents of the present link: asked for, heard, remembered for as long as they say (RFC 5944 2.4).

Nothing here is proof of anything: an advertisement carries no signature. It says whom a proved network offers to be
registered through, and a forged one leads to an unanswered request at worst (docs/security.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from homeward.core.clock_sync import Entropy
from homeward.model.agent import AgentAdvertisement, AgentFlags, has_restarted
from homeward.model.effects import SendSolicitation
from homeward.model.errors import WireError
from homeward.model.inputs import AgentAdvertised
from homeward.wire.agent_advertisement import hear_advertisement

ALL_ROUTERS: Final = IPv4Address("224.0.0.2")
ALL_MOBILITY_AGENTS: Final = IPv4Address("224.0.0.11")
LIMITED_BROADCAST: Final = IPv4Address("255.255.255.255")
DESTINATIONS: Final = (ALL_ROUTERS, ALL_MOBILITY_AGENTS, LIMITED_BROADCAST)
"""Asked in turn, since an agent need not listen to all three (R-111)."""

FIRST_DELAY: Final = 1.0
"""MAX_SOLICITATION_DELAY of RFC 1256: the first solicitation waits a random part of it, in seconds."""
INITIAL: Final = 3
"""So many solicitations leave a second apart; then the interval doubles (R-109)."""
INTERVAL: Final = 1.0
INTERVAL_MAX: Final = 64.0
JITTER: Final = 0.25
"""Each interval is longer by up to this fraction of it, never shorter: the rates above are upper bounds."""
MOST_AGENTS: Final = 32
"""More on one link are not believed: somebody makes them up."""


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """A live agent; times in boot seconds. `expires_at` comes from the ICMP lifetime (R-121)."""

    address: IPv4Address
    hardware_address: bytes
    advertisement: AgentAdvertisement
    heard_at: float
    expires_at: float

    @property
    def is_foreign_agent(self) -> bool:
        """Whether it offers a care-of address, busy or not."""
        return AgentFlags.FOREIGN_AGENT in self.advertisement.flags

    @property
    def demands_registration(self) -> bool:
        """Whether even a co-located care-of address must be registered through an agent of this link (R-117)."""
        return AgentFlags.REGISTRATION_REQUIRED in self.advertisement.flags


class Change(Enum):
    """What an advertisement meant."""

    IGNORED = "ignored"
    """Not for us, not well formed, or not to be believed; `Heard.why` says so."""
    NEW_AGENT = "new-agent"
    REFRESHED = "refreshed"
    """The same as before, alive for longer; its challenge may be a new one."""
    CHANGED = "changed"
    """It offers something else now: care-of addresses, flags (busy or not), its lifetimes or prefixes."""
    RESTARTED = "restarted"
    """It has lost its visitors: who is registered through it must register again (R-119)."""
    GONE = "gone"
    """It took itself back, by a lifetime of zero."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The outcome of one advertisement. `suspicious` when somebody seems to pretend to be an agent (R-116)."""

    change: Change
    agent: KnownAgent | None = None
    why: str = ""
    suspicious: bool = False


class AgentDiscovery:
    """Searches for agents on one link at a time, and remembers those that are alive there."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._link: tuple[int, str, IPv4Address] | None = None
        self._known: dict[IPv4Address, KnownAgent] = {}
        self._sent = 0
        self._sent_at: float | None = None
        self._next: float | None = None
        self._once_more: float | None = None
        self._extra = 0
        self._search_fast = False

    # --- the link -----------------------------------------------------------------------------------------------------

    def attach(self, link_index: int, link_name: str, source: IPv4Address, at: float) -> None:
        """A sign of a new link: what was heard is forgotten and the search begins fast, beside DHCP (R-26, R-110).

        `source` may be 0.0.0.0 while the link has not lent us an address.
        """
        self.detach()
        self._link = (link_index, link_name, source)
        self._begin(at)

    def addressed(self, source: IPv4Address) -> None:
        """The link has lent us this address; what was heard and asked before stays."""
        if self._link is not None:
            self._link = (*self._link[:2], source)

    def detach(self) -> None:
        """There is no link: nobody is asked and nobody known."""
        self._link = None
        self._known.clear()
        self._next = self._once_more = None
        self._extra = 0
        self._search_fast = False

    # --- who is there -------------------------------------------------------------------------------------------------

    @property
    def agents(self) -> tuple[KnownAgent, ...]:
        """Live agents in order of preference: those that are not busy first, of these the first heard first.

        The order does not follow later advertisements, so that nobody wanders between two agents (R-123).
        """
        return tuple(sorted(self._known.values(), key=lambda one: one.advertisement.is_busy))

    @property
    def foreign_agents(self) -> tuple[KnownAgent, ...]:
        """Those that offer a care-of address, in the same order."""
        return tuple(one for one in self.agents if one.is_foreign_agent)

    def known(self, address: IPv4Address) -> KnownAgent | None:
        """The live agent with this address."""
        return self._known.get(address)

    def heard(self, fact: AgentAdvertised, at: float) -> Heard:
        """Take in an advertisement."""
        if self._link is None or fact.link_index != self._link[0]:
            return Heard(Change.IGNORED, why="an advertisement on a link that is not in use")
        try:
            heard = hear_advertisement(fact.packet)
        except WireError as error:
            return Heard(Change.IGNORED, why=f"no agent's advertisement: {error}")
        before = self._known.get(heard.source)
        fault = self._fault(heard.source, fact.hardware_address, before)
        if fault:
            return Heard(Change.IGNORED, why=fault, suspicious=True)
        return self._take(heard.source, heard.advertisement, fact.hardware_address, at=at)

    def _fault(self, source: IPv4Address, hardware_address: bytes, before: KnownAgent | None) -> str:
        assert self._link is not None
        if source.is_multicast or source.is_unspecified or source.is_loopback or source.is_reserved:
            return f"an advertisement from {source}, which is no host's address"
        if source == self._link[2]:
            return f"an advertisement from our own address {source}"
        if hardware_address and hardware_address[0] & 1:
            return f"an advertisement of {source} from a link-layer address of a group"
        if before is not None and before.hardware_address != hardware_address:
            return f"an advertisement of {source} from another link-layer address than before"
        if before is None and len(self._known) >= MOST_AGENTS:
            return f"an advertisement of {source}, the agent after the first {MOST_AGENTS} on one link"
        return ""

    def _take(
        self, source: IPv4Address, advertisement: AgentAdvertisement, hardware_address: bytes, *, at: float
    ) -> Heard:
        before = self._known.get(source)
        agent = KnownAgent(source, hardware_address, advertisement, at, at + advertisement.lifetime)
        if advertisement.lifetime == 0:
            self._forget(source, at)
            return Heard(Change.GONE if before is not None else Change.IGNORED, agent, "it takes itself back")
        self._known[source] = agent
        self._next = self._once_more = None  # None is solicited while one is heard.
        if before is None:
            return Heard(Change.NEW_AGENT, agent)
        if has_restarted(before.advertisement.sequence, advertisement.sequence):
            return Heard(Change.RESTARTED, agent)
        same = _offer(before.advertisement) == _offer(advertisement)
        return Heard(Change.REFRESHED if same else Change.CHANGED, agent)

    def expired(self, at: float) -> tuple[KnownAgent, ...]:
        """Forget the agents that have not been heard for the lifetime they gave; contact with them is lost (R-121)."""
        gone = tuple(one for one in self._known.values() if one.expires_at <= at)
        for one in gone:
            self._forget(one.address, at)
        return gone

    def _forget(self, address: IPv4Address, at: float) -> None:
        if self._known.pop(address, None) is None or self._known:
            return
        if self._search_fast:
            self._begin(at)
        else:
            # The search goes on where it was left: a timer alone never makes it faster.
            self._next = max(at, self._earliest(at))

    def registered(self) -> None:
        """We registered with an agent: the next search may begin fast again (R-110)."""
        self._search_fast = True
        self._extra = 0

    # --- asking -------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `due` or `expired` has something to do."""
        moments = [one.expires_at for one in self._known.values()]
        moments += [moment for moment in (self._next, self._once_more) if moment is not None]
        return min(moments, default=None)

    def ask_again(self, at: float) -> None:
        """One solicitation although agents are heard: a fresh challenge is needed (RFC 4721 3.3).

        Each further one waits twice as long, until we are registered.
        """
        if self._link is not None and self._next is None and self._once_more is None:
            self._once_more = at if self._sent_at is None else max(at, self._sent_at + _interval(self._extra))
            self._extra += 1

    def due(self, at: float) -> tuple[SendSolicitation, ...]:
        """The solicitation that is due now, if one is."""
        if self._link is None or not any(
            moment is not None and moment <= at for moment in (self._next, self._once_more)
        ):
            return ()
        index, name, source = self._link
        destination = DESTINATIONS[self._sent % len(DESTINATIONS)]
        searching = self._next is not None
        self._sent += 1
        self._sent_at = at
        self._once_more = None
        self._next = self._earliest(at) if searching else None
        return (SendSolicitation(index, name, source, destination),)

    def _begin(self, at: float) -> None:
        floor = at if self._sent_at is None else max(at, self._sent_at + INTERVAL)
        self._sent = 0
        self._search_fast = False
        self._next = floor + FIRST_DELAY * self._chance()

    def _earliest(self, at: float) -> float:
        """When the next one may leave, after as many as have been sent in this search."""
        since = at if self._sent_at is None else self._sent_at
        return since + _interval(self._sent - INITIAL + 1) * (1 + JITTER * self._chance())

    def _chance(self) -> float:
        return (self._entropy() & 0xFFFFFFFF) / (1 << 32)


def _interval(doublings: int) -> float:
    return min(math.ldexp(INTERVAL, min(max(0, doublings), 16)), INTERVAL_MAX)


def _offer(advertisement: AgentAdvertisement) -> AgentAdvertisement:
    """What it says without what is new each time."""
    return replace(advertisement, sequence=0, challenge=None)
