# SPDX-License-Identifier: GPL-2.0-or-later
"""The home link of a home agent: whom it answers for, who is told where a node is, and its own advertisements.

RFC 5944 sections 4.6 (ARP) and 2.3. Advertisements come from the home agent's own address, which need not be of that
link: by it mobile nodes know that they are at home (R-126). The hardware address of a node that has come home is that
of the frame which brought its request.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.agent_home_link import AgentHomeLink
from homeward.adapters.agent_link import AgentLink, HeardPacket
from homeward.adapters.boottime_clock import BoottimeClock
from homeward.agentd.log import entry
from homeward.agents.advertiser import (
    AdvertisedService,
    Advertiser,
    SendAdvertisement,
    SolicitationHeard,
)
from homeward.agents.policy import AgentPolicy, ReverseTunnels
from homeward.model.agent import AgentFlags
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import AdapterError, WireError
from homeward.wire import agent_advertisement
from homeward.wire.arp import ArpMessage
from homeward.wire.datagram import UDP, read_udp_packet
from homeward.wire.ip_in_ip import inner_source, open_outer
from homeward.wire.link_frames import ipv4

log: Final = logging.getLogger("links")

ANNOUNCEMENTS: Final = 3
"""How often everybody on the home link is told, the first time included (RFC 5944 section 4.6: a small number)."""
PAUSE: Final = 0.5
"""Seconds in between."""

_LOOK_AGAIN: Final = 0.01  # seconds: the request and its frame come by two sockets, in either order
_LOOKS: Final = 20
_REMEMBERED: Final = 64
_SOONEST: Final = 0.001
_LONGEST_SLEEP: Final = 30.0


@dataclass(slots=True)
class _Announcement:
    hardware: bytes | None
    asked: bytes
    left: int = ANNOUNCEMENTS
    looks: int = _LOOKS
    timer: asyncio.TimerHandle | None = None


class HomeLink:
    """One home agent's home link, which `policy` names; `interval` in seconds between advertisements, 0 for none."""

    def __init__(self, name: str, policy: AgentPolicy, *, interval: float, clock: BoottimeClock) -> None:
        self._clock = clock
        self._away: set[IPv4Address] = set()
        self._announcements: dict[IPv4Address, _Announcement] = {}
        self._senders: deque[tuple[bytes, bytes]] = deque(maxlen=_REMEMBERED)
        self._name = name
        self._arp: AgentHomeLink | None = None
        self._link = AgentLink(name, policy.address)
        self._advertiser = (
            Advertiser(_service(policy, interval), entropy=_entropy, started=clock.now())
            if interval
            else None
        )
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen and to advertise. Raises LinkError, NotPermitted."""
        self._arp = AgentHomeLink(self._name, self._take_question)
        self._link.start(self._take_packet)
        self._advertise()

    def stop(self, *, farewell: bool = True) -> None:
        """Answer for nobody any more, and say that there is no home agent, unless another life follows at once."""
        for address in list(self._announcements):
            self._forget(address)
        self._away.clear()
        if self._timer is not None:
            self._timer.cancel()
        if farewell and self._advertiser is not None and self._link.is_open:
            self._send(self._advertiser.farewell())
        self._link.stop()
        if self._arp is not None:
            self._arp.close()
            self._arp = None

    def proxy(self, address: IPv4Address) -> None:
        """Answer for an address from now on, and tell everybody that it is at ours."""
        assert self._arp is not None
        self._away.add(address)
        self._announce(address, _Announcement(self._arp.hardware, b""))

    def release(self, address: IPv4Address, asked: bytes | None) -> None:
        """Answer for it no more; tell everybody where it is if the request that ended it came from the link itself."""
        self._away.discard(address)
        self._forget(address)
        if asked is not None:
            self._announce(address, _Announcement(None, asked))

    # --- ARP ---

    def _announce(self, address: IPv4Address, told: _Announcement) -> None:
        self._forget(address)
        self._announcements[address] = told
        self._tell(address)

    def _tell(self, address: IPv4Address) -> None:
        told = self._announcements[address]
        if told.hardware is None:
            told.hardware = self._sender_of(told.asked)
        if told.hardware is None and told.looks:
            told.looks -= 1
            self._tell_later(address, told, _LOOK_AGAIN)
            return
        if told.hardware is None or self._arp is None:
            log.warning(entry("hardware-address-unknown", home_address=address))
            del self._announcements[address]
            return
        self._arp.tell_all(address, told.hardware)
        told.left -= 1
        if told.left:
            self._tell_later(address, told, PAUSE)
        else:
            del self._announcements[address]

    def _tell_later(self, address: IPv4Address, told: _Announcement, delay: float) -> None:
        told.timer = asyncio.get_running_loop().call_later(delay, partial(self._tell, address))

    def _forget(self, address: IPv4Address) -> None:
        told = self._announcements.pop(address, None)
        if told is not None and told.timer is not None:
            told.timer.cancel()

    def _take_question(self, question: ArpMessage) -> None:
        # The node itself, coming home, asks for its own address to announce it: that is not to be contradicted.
        if self._arp is not None and question.target in self._away and question.sender != question.target:
            self._arp.tell(question.sender_hardware, question.answer(self._arp.hardware))

    def _sender_of(self, request: bytes) -> bytes | None:
        # The first one: whoever copies the frame afterwards only repeats what was accepted already.
        return next((hardware for payload, hardware in self._senders if payload == request), None)

    # --- what else comes in, and advertisements ---

    def _take_packet(self, heard: HeardPacket) -> None:
        try:
            if heard.packet[9] == UDP:
                datagram = read_udp_packet(heard.packet, checksummed=heard.checksummed)
                self._senders.append((datagram.payload, heard.hardware_address))
                return
            octets = open_outer(heard.packet, agent_advertisement.PROTOCOL)
        except WireError:
            return
        if self._advertiser is None:
            return
        source = IPv4Address(inner_source(heard.packet))
        solicitation = SolicitationHeard(octets, source, heard.hardware_address)
        for answer in self._advertiser.heard(solicitation, self._clock.now()):
            if isinstance(answer, SendAdvertisement):
                self._send(answer)
        self._arm()

    def _advertise(self) -> None:
        if self._advertiser is None:
            return
        for due in self._advertiser.due(self._clock.now()):
            try:
                self._link.refresh()
            except AdapterError as error:
                log.debug(entry("home-link-lost", link=self._name, cause=error))
            self._send(due)
        self._arm()

    def _arm(self) -> None:
        assert self._advertiser is not None
        if self._timer is not None:
            self._timer.cancel()
        wait = self._advertiser.next_deadline() - self._clock.now().boot
        wait = min(max(wait, _SOONEST), _LONGEST_SLEEP)
        self._timer = asyncio.get_running_loop().call_later(wait, self._advertise)

    def _send(self, what: SendAdvertisement) -> None:
        protocol, ttl = agent_advertisement.PROTOCOL, agent_advertisement.TTL
        packet = ipv4(what.source, what.destination, protocol, what.octets, ttl=ttl)
        try:
            if what.hardware_address is None:
                self._link.send_to_group(packet, what.destination)
            else:
                self._link.send(packet, what.hardware_address)
        except AdapterError as error:
            log.debug(entry("advertisement-failed", link=self._name, cause=error))


def _service(policy: AgentPolicy, interval: float) -> AdvertisedService:
    flags = AgentFlags.HOME_AGENT
    if policy.reverse_tunnels is not ReverseTunnels.REFUSED:
        flags |= AgentFlags.REVERSE_TUNNEL
    if Encapsulation.GRE in policy.encapsulations:
        flags |= AgentFlags.GRE
    if Encapsulation.MINIMAL in policy.encapsulations:
        flags |= AgentFlags.MINIMAL
    return AdvertisedService(
        policy.address, flags, registration_lifetime=policy.lifetime_max, interval=interval
    )


def _entropy() -> int:
    return secrets.randbits(32)
