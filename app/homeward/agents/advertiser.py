# SPDX-License-Identifier: GPL-2.0-or-later
"""When a mobility agent advertises itself on one link, and what it says (RFC 5944 2.1, 2.3; RFC 1256 4).

To everybody at an interval with chance in it, a third of the advertisement's own lifetime at most, so that two may be
lost. To one solicitor at once and to it alone; whoever solicits faster than that is allowed gets everybody's next
advertisement, which comes a second after the last one at the earliest.
"""

import math
from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.agents.offered_challenges import Entropy, OfferedChallenges
from homeward.model.agent import (
    ALSO_ROUTES,
    AdvertisedRouter,
    AgentAdvertisement,
    AgentFlags,
    next_sequence,
)
from homeward.model.errors import WireError
from homeward.model.instant import Instant
from homeward.wire.agent_advertisement import decode_solicitation, encode_advertisement

ALL_SYSTEMS: Final = IPv4Address("224.0.0.1")
LIMITED_BROADCAST: Final = IPv4Address("255.255.255.255")

LEAST_GAP: Final = 1.0
"""Seconds between two advertisements to everybody, whatever happens."""
ANSWERS_AT_ONCE: Final = 10.0
ANSWERS_PER_SECOND: Final = 10.0

_LEAST_SHARE: Final = 0.75  # of the interval: RFC 1256's MinAdvertisementInterval
_FIRST: Final = 3
_FIRST_INTERVAL: Final = 16.0  # RFC 1256's MAX_INITIAL_ADVERT_INTERVAL, for that many


@dataclass(frozen=True, slots=True)
class AdvertisedService:
    """What an agent offers on one link, for as long as it runs. `interval` in seconds is the longest between two.

    `flags` are those that do not change: busy is added when it is so. `subnet_prefix`, where given, goes with `address`
    as the link's router; all agents of a link give it, or none does (RFC 5944 2.3).
    """

    address: IPv4Address
    flags: AgentFlags
    _: KW_ONLY
    registration_lifetime: int
    care_of_addresses: tuple[IPv4Address, ...] = ()
    interval: float = 10.0
    subnet_prefix: int | None = None
    code: int = ALSO_ROUTES

    @property
    def lifetime(self) -> int:
        """How long, in whole seconds, an advertisement holds: three intervals."""
        return math.ceil(3 * self.interval)


@dataclass(frozen=True, slots=True)
class SolicitationHeard:
    """An ICMP message of type 10, and whom it came from."""

    octets: bytes
    source: IPv4Address
    hardware_address: bytes


@dataclass(frozen=True, slots=True)
class SendAdvertisement:
    """Send an ICMP message from `source` with TTL 1; `hardware_address` is None for the link's whole group."""

    octets: bytes
    source: IPv4Address
    destination: IPv4Address
    hardware_address: bytes | None = None


@dataclass(frozen=True, slots=True)
class SolicitationIgnored:
    """Why a solicitation got no answer, for the counters."""

    why: str


class Advertiser:
    """One agent on one link. Pure: chance comes from `entropy`, time from the caller."""

    def __init__(
        self,
        service: AdvertisedService,
        *,
        entropy: Entropy,
        started: Instant,
        challenges: OfferedChallenges | None = None,
    ) -> None:
        self.service = service
        self._entropy = entropy
        self._challenges = challenges
        self._sequence = 0
        self._busy = False
        self._sent = 0
        self._last: float | None = None
        self._due = started.boot
        self._credit = ANSWERS_AT_ONCE
        self._credited = started.boot

    def next_deadline(self) -> float:
        """Boot time at which `due` has something to send."""
        return self._due

    def due(self, at: Instant) -> tuple[SendAdvertisement, ...]:
        """The advertisement to everybody, if it is time for it."""
        if at.boot < self._due:
            return ()
        self._sent += 1
        self._last = at.boot
        interval = (
            min(self.service.interval, _FIRST_INTERVAL) if self._sent <= _FIRST else self.service.interval
        )
        chance = (self._entropy() & 0xFFFFFFFF) / (1 << 32)
        self._due = at.boot + interval * (_LEAST_SHARE + (1 - _LEAST_SHARE) * chance)
        challenge = self._challenges.advertise() if self._challenges is not None else None
        return (self._to_everybody(self._next(challenge)),)

    def heard(
        self, solicitation: SolicitationHeard, at: Instant
    ) -> tuple[SendAdvertisement | SolicitationIgnored, ...]:
        """Answer a solicitation; its sender need not be of this subnet (R-206)."""
        source = solicitation.source
        if source.is_multicast or source.is_loopback or source.is_reserved or source == self.service.address:
            return (SolicitationIgnored(f"a solicitation from {source}, which is no other host's address"),)
        if solicitation.hardware_address[0] & 1:
            return (SolicitationIgnored("a solicitation from a link-layer address of a group"),)
        try:
            decode_solicitation(solicitation.octets)
        except WireError as error:
            return (SolicitationIgnored(f"no solicitation: {error}"),)
        if not self._may_answer(at):
            self._soon(at)
            return (
                SolicitationIgnored("too many solicitations: everybody's next advertisement will answer"),
            )
        challenge = self._challenges.repeat() if self._challenges is not None else None
        destination = LIMITED_BROADCAST if source.is_unspecified else source
        return (
            SendAdvertisement(
                encode_advertisement(self._next(challenge)),
                self.service.address,
                destination,
                solicitation.hardware_address,
            ),
        )

    def set_busy(self, busy: bool, at: Instant) -> None:
        """No new registrations from now on, or again; everybody is told soon (R-118)."""
        if busy != self._busy:
            self._busy = busy
            self._soon(at)

    def lost_visitor(self, home_address: IPv4Address, hardware_address: bytes) -> SendAdvertisement:
        """Tell one visitor that its registration is gone: sequence number 0, to it alone (RFC 3543 4.1)."""
        challenge = self._challenges.repeat() if self._challenges is not None else None
        return SendAdvertisement(
            encode_advertisement(self._advertisement(0, challenge)),
            self.service.address,
            home_address,
            hardware_address,
        )

    def farewell(self) -> SendAdvertisement:
        """The last one, which takes the agent back at once: its lifetime is 0 (RFC 1256 4.1)."""
        return self._to_everybody(self._next(None, lifetime=0))

    def _to_everybody(self, advertisement: AgentAdvertisement) -> SendAdvertisement:
        return SendAdvertisement(encode_advertisement(advertisement), self.service.address, ALL_SYSTEMS)

    def _next(self, challenge: bytes | None, *, lifetime: int | None = None) -> AgentAdvertisement:
        sequence = self._sequence
        self._sequence = next_sequence(sequence)
        return self._advertisement(sequence, challenge, lifetime=lifetime)

    def _advertisement(
        self, sequence: int, challenge: bytes | None, *, lifetime: int | None = None
    ) -> AgentAdvertisement:
        service = self.service
        routers: tuple[AdvertisedRouter, ...] = ()
        prefixes: tuple[int, ...] | None = None
        if service.subnet_prefix is not None:
            routers, prefixes = (AdvertisedRouter(service.address),), (service.subnet_prefix,)
        return AgentAdvertisement(
            sequence,
            service.lifetime if lifetime is None else lifetime,
            registration_lifetime=service.registration_lifetime,
            flags=service.flags | (AgentFlags.BUSY if self._busy else AgentFlags(0)),
            care_of_addresses=service.care_of_addresses,
            routers=routers,
            code=service.code,
            prefix_lengths=prefixes,
            challenge=challenge,
        )

    def _may_answer(self, at: Instant) -> bool:
        gained = (at.boot - self._credited) * ANSWERS_PER_SECOND
        self._credit = min(ANSWERS_AT_ONCE, self._credit + gained)
        self._credited = at.boot
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _soon(self, at: Instant) -> None:
        soonest = at.boot if self._last is None else max(at.boot, self._last + LEAST_GAP)
        self._due = min(self._due, soonest)
