# SPDX-License-Identifier: GPL-2.0-or-later
"""The two series of registrations that may run at once, in clear and through the VPN."""

from homeward.core.binding import Binding
from homeward.core.clock_sync import Entropy, IdentificationSource
from homeward.core.pacing import TokenBucket
from homeward.core.registration import TTL_REVERSE_TUNNEL, Accepted, Peer, RegistrationSeries
from homeward.model.access import ClearPath, Path, VpnPath
from homeward.model.effects import Effect, SaveIdentification, SendRegistration
from homeward.model.instant import Instant
from homeward.model.journal import IdentificationState
from homeward.model.profile import Timers


class Registrar:
    """Runs the series, keeps the binding that their answers establish, and says when it must be renewed."""

    def __init__(
        self, peer: Peer, timers: Timers, entropy: Entropy, *, restored: IdentificationState | None
    ) -> None:
        self._peer = peer
        self._timers = timers
        self._bucket = TokenBucket()
        self.source = IdentificationSource(
            entropy,
            last=restored.last if restored else 0,
            offset=restored.offset if restored else 0.0,
        )
        self.clear: RegistrationSeries | None = None
        self.tunnel: RegistrationSeries | None = None
        self.binding: Binding | None = None
        self.retry_tunnel_at: float | None = None
        self.round_trip: float | None = None
        """The last round trip to the home agent on this attachment, in seconds."""
        self._newest = 0

    @property
    def probing(self) -> bool:
        """Whether requests in clear are still to leave."""
        return self.clear is not None and self.clear.deadline is not None

    @property
    def series(self) -> tuple[RegistrationSeries, ...]:
        """The series that exist."""
        return tuple(series for series in (self.clear, self.tunnel) if series is not None)

    def series_for(self, path: Path) -> RegistrationSeries | None:
        """The series that runs along this very path."""
        return next((series for series in self.series if series.path == path), None)

    def start_clear(self, path: ClearPath, at: float) -> None:
        """A new series in clear; on flapping links it waits for its turn (X-22)."""
        self.clear = self._series(path)
        self.clear.start(self._bucket.take(at))

    def start_tunnel(self, path: VpnPath, at: float) -> None:
        """A new series through the VPN."""
        self.tunnel = self._series(path)
        self.tunnel.start(at)
        self.retry_tunnel_at = None

    def renew(self, at: float) -> None:
        """A new series along the path of the binding, for its renewal."""
        binding = self.binding
        if binding is None:
            return
        match binding.path:
            case ClearPath() as path:
                self.start_clear(path, at)
            case VpnPath() as path:
                self.start_tunnel(path, at)

    def drop_series(self) -> None:
        """Answers to earlier requests prove nothing any more and match nothing."""
        self.clear = self.tunnel = None
        self.retry_tunnel_at = None

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
            identification = self.source.issue(at)
            self._newest = identification
            octets = series.transmit(at, identification)
            effects.append(SendRegistration(series.path, self._peer.home_agent, octets, TTL_REVERSE_TUNNEL))
            effects.append(self.remember())
        return effects, exhausted

    def remember(self) -> SaveIdentification:
        """The effect that keeps what is used up by now (R-172)."""
        return SaveIdentification(int(self._peer.association.spi), self.source.last, self.source.offset)

    def accepted(self, path: Path, answer: Accepted) -> None:
        """The home agent now binds the home address to this path, unless a newer request is under way elsewhere."""
        self.source.accepted(answer.request.identification)
        self.round_trip = answer.round_trip
        if answer.lifetime == 0:
            self.binding = None
            return
        self.binding = Binding(path, answer.lifetime, answer.request.sent.boot)

    def is_newest(self, answer: Accepted) -> bool:
        """Whether no request left after the one that this answers (X-27)."""
        return answer.request.identification == self._newest

    def next_deadline(self) -> float | None:
        """The next moment at which `transmit_due` has something to do."""
        deadlines = [series.deadline for series in self.series if series.deadline is not None]
        return min(deadlines, default=None)

    def _series(self, path: Path) -> RegistrationSeries:
        # At least two round trips and 100 ms, so that a slow path is not taken for a dead one.
        slowest = 2 * (self.round_trip or 0.0) + 0.1
        return RegistrationSeries(
            path,
            self._peer,
            lifetime=self._timers.lifetime,
            timeout=max(self._timers.probe_timeout, slowest),
            transmissions=self._timers.probe_transmissions,
        )
