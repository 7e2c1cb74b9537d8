# SPDX-License-Identifier: GPL-2.0-or-later
"""The series of registrations that may run at once: in clear, through the VPN, and by what the access link offers."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from homeward.core.binding import Binding
from homeward.core.clock_sync import Entropy
from homeward.core.nonces import Identifications, source_for
from homeward.core.pacing import TokenBucket
from homeward.core.registration import Accepted, AgentShare, Peer, RegistrationSeries, Terms
from homeward.model.access import AgentPath, ClearPath, HomePath, Path, VpnPath
from homeward.model.effects import Effect, SaveIdentification, SendRegistration
from homeward.model.encapsulation import Encapsulation
from homeward.model.instant import Instant
from homeward.model.journal import IdentificationState
from homeward.model.nat_traversal import UdpTunnelRequest
from homeward.model.profile import ASSIGNED, Timers
from homeward.model.registration import (
    LIFETIME_DEREGISTER,
    LIFETIME_INFINITE,
    Identification,
    RegistrationReply,
)

LOCAL_TRANSMISSIONS = 2
"""Requests to a foreign agent, or from the home link, before the co-located care-of address is gone back to."""


@dataclass(slots=True)
class Wishes:
    """What we ask the home agent for; a wish that it refuses is dropped until the next change of connectivity."""

    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    udp_tunnel: bool = True
    force_udp: bool = False
    lifetime: int = 1800


class Registrar:
    """Runs the series, keeps the binding that their answers establish, and says when it must be renewed."""

    def __init__(
        self,
        peer: Peer,
        timers: Timers,
        entropy: Entropy,
        *,
        restored: IdentificationState | None,
        wishes: Wishes | None = None,
    ) -> None:
        self.peer = peer
        self._timers = timers
        self._moves = TokenBucket()
        """For what begins with a link event; what else is asked takes nothing from it, so that it delays no move."""
        self._repeats = TokenBucket()
        self._nearby = TokenBucket()
        """Whatever agents say of themselves, requests to them are paced like those on a flapping link (X-22)."""
        self._asked_for = wishes or Wishes(lifetime=timers.lifetime)
        self.wishes = replace(self._asked_for)
        self.source: Identifications = source_for(
            peer.replay,
            entropy,
            last=restored.last if restored else 0,
            offset=restored.offset if restored else 0.0,
        )
        self.clear: RegistrationSeries | None = None
        self.tunnel: RegistrationSeries | None = None
        self.local: RegistrationSeries | None = None
        self.binding: Binding | None = None
        self.retry_tunnel_at: float | None = None
        self.round_trip: float | None = None
        """The last round trip to the home agent on this attachment, in seconds."""
        self.revocation_floor: int | None = None
        """The clock of the home agent's revocations when it last agreed to them (RFC 3543 section 3.2)."""
        self.last_revocation: int | None = None
        self._newest = 0

    @property
    def probing(self) -> bool:
        """Whether requests in clear are still to leave."""
        return self.clear is not None and self.clear.deadline is not None

    @property
    def series(self) -> tuple[RegistrationSeries, ...]:
        """The series that exist."""
        return tuple(series for series in (self.clear, self.tunnel, self.local) if series is not None)

    def series_for(self, path: Path) -> RegistrationSeries | None:
        """The series that runs along this very path."""
        return next((series for series in self.series if series.path == path), None)

    def start_clear(self, path: ClearPath, at: float) -> None:
        """A new series in clear on a new attachment; on flapping links it waits for its turn (X-22)."""
        self.clear = self._series(path)
        self.clear.start(self._moves.take(at))

    def repeat_clear(self, path: ClearPath, at: float) -> None:
        """Another series in clear on the same attachment, by a verdict, an answer or an agent's unsigned word."""
        self.clear = self._series(path)
        self.clear.start(self._repeats.take(at))

    def start_tunnel(self, path: VpnPath, at: float) -> None:
        """A new series through the VPN."""
        self.tunnel = self._series(path)
        self.tunnel.start(at)
        self.retry_tunnel_at = None

    def start_local(
        self,
        path: AgentPath | HomePath,
        at: float,
        *,
        lifetime: int = LIFETIME_INFINITE,
        share: AgentShare | None = None,
        encapsulation: Encapsulation | None = None,
        udp_tunnel: UdpTunnelRequest | None = None,
    ) -> None:
        """A new series through a foreign agent, which takes no longer `lifetime` than this, or from the home link."""
        most = LIFETIME_DEREGISTER if isinstance(path, HomePath) else min(self.wishes.lifetime, lifetime)
        terms = Terms(encapsulation or self.wishes.encapsulation, udp_tunnel, share=share or AgentShare())
        self.local = self._series(path, terms, lifetime=most, transmissions=LOCAL_TRANSMISSIONS)
        self.local.start(self._nearby.take(at))

    def finish_series(self) -> None:
        """All that was asked has been answered by one proof."""
        self.clear = self.tunnel = self.local = None
        self.retry_tunnel_at = None

    def drop_series(self) -> None:
        """Answers to earlier requests prove nothing any more and match nothing."""
        self.finish_series()
        self.wishes = replace(self._asked_for)

    def transmit_due(self, at: Instant) -> tuple[list[Effect], list[RegistrationSeries]]:
        """Requests that are due now, and the series that have just run out of tries."""
        effects: list[Effect] = []
        exhausted: list[RegistrationSeries] = []
        for series in self.series:
            if series.deadline is None or at.boot < series.deadline:
                continue
            if not series.may_transmit:
                series.stop()
                series.exhausted = True
                exhausted.append(series)
                continue
            identification = self._identification(series, at)
            self._newest = identification
            octets = series.transmit(at, identification)
            effects.append(SendRegistration(series.path, series.destination, octets, series.ttl))
            effects.append(self.remember())
        return effects, exhausted

    def _identification(self, series: RegistrationSeries, at: Instant) -> Identification:
        """A new one for each transmission; with nonces a retransmission is the very same packet (R-162)."""
        if series.pending is not None and self.source.repeats_unchanged:
            return series.pending.identification
        return self.source.issue(at)

    def remember(self) -> SaveIdentification:
        """The effect that keeps what is used up by now (R-172)."""
        return SaveIdentification(int(self.peer.association.spi), self.source.last, self.source.offset)

    def accepted(self, series: RegistrationSeries, answer: Accepted) -> None:
        """The home agent now binds the home address to this path, unless a newer request is under way elsewhere."""
        self.noticed(answer)
        self.round_trip = answer.round_trip
        path, since = series.path, answer.request.sent.boot
        if isinstance(path, HomePath):
            # Nothing is bound at home, so nothing ends by itself: T_MONITOR alone has it asked again.
            self.binding = Binding(path, LIFETIME_INFINITE, since)
        elif answer.lifetime == LIFETIME_DEREGISTER:
            self.binding = None
        else:
            self.binding = Binding(
                path,
                answer.lifetime,
                since,
                encapsulation=series.terms.encapsulation,
                udp_tunnel=answer.udp_tunnel,
            )

    def noticed(self, answer: Accepted) -> None:
        """What every authentic answer teaches: the Identification is used up, and how far revocations have come."""
        self.source.accepted(answer.reply.identification)
        support = answer.reply.revocation_support
        self.revocation_floor = support.timestamp if support is not None else None

    def denied(self, reply: RegistrationReply) -> None:
        """A signed answer that brings no registration may use its Identification up all the same (R-176)."""
        self.source.denied(reply.identification)

    def adopt(self, answer: Accepted) -> None:
        """From now on the home address is the one that the home agent has assigned (R-274)."""
        self.peer = replace(self.peer, home_address=answer.reply.home_address)

    def is_newest(self, answer: Accepted) -> bool:
        """Whether no request left after the one that this answers (X-27)."""
        return answer.request.identification == self._newest

    def next_deadline(self) -> float | None:
        """The next moment at which `transmit_due` has something to do."""
        deadlines = [series.deadline for series in self.series if series.deadline is not None]
        return min(deadlines, default=None)

    @property
    def home_address(self) -> IPv4Address | None:
        """The home address, None while the home agent has not assigned one yet."""
        address = self.peer.home_address
        return None if address == ASSIGNED else address

    def _series(
        self,
        path: Path,
        terms: Terms | None = None,
        *,
        lifetime: int | None = None,
        transmissions: int | None = None,
    ) -> RegistrationSeries:
        # At least two round trips and 100 ms, so that a slow path is not taken for a dead one.
        slowest = 2 * (self.round_trip or 0.0) + 0.1
        return RegistrationSeries(
            path,
            self.peer,
            lifetime=self.wishes.lifetime if lifetime is None else lifetime,
            timeout=max(self._timers.probe_timeout, slowest),
            transmissions=transmissions or self._timers.probe_transmissions,
            terms=terms or self._own_terms(),
        )

    def _own_terms(self) -> Terms:
        """For care-of addresses of our own: a tunnel in UDP where a translator turns up, and revocation (RFC 3543)."""
        wishes = self.wishes
        asked = UdpTunnelRequest(force=wishes.force_udp) if wishes.udp_tunnel else None
        return Terms(wishes.encapsulation, asked, revocable=True)
