# SPDX-License-Identifier: GPL-2.0-or-later
"""Links that do not carry the home address: asked about trust without moving anything (X-26).

A probe is a registration, and an ordinary one would pull the binding to a link that is still closed. So these links are
probed with a lifetime of zero for their own care-of address: the home agent removes that absent entry and must answer,
signed and with TNC where it vouches (RFC 5944 section 3.8.2.2). What is learnt is shown; it opens nothing, since each
link that begins to carry the home address is proved anew.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from homeward.core.nonces import Identifications
from homeward.core.pacing import TokenBucket
from homeward.core.registration import (
    TTL_REVERSE_TUNNEL,
    Accepted,
    Denied,
    DeniedByAgent,
    Ignored,
    Outcome,
    Peer,
    RegistrationSeries,
    Resynchronise,
)
from homeward.model.access import Attachment, ClearPath, Path
from homeward.model.effects import Effect, SendRegistration
from homeward.model.instant import Instant
from homeward.model.profile import Timers
from homeward.model.status import OtherLink, Trust

NO_LIFETIME = 0
REMEMBERED_LINKS = 64


@dataclass(slots=True)
class _Asked:
    """One link, and what has become of the question about it."""

    attachment: Attachment
    series: RegistrationSeries
    trust: Trust = field(default=Trust.UNKNOWN)


class OtherLinks:
    """Side probes, one series for each stay on a link."""

    def __init__(self, peer: Peer, timers: Timers) -> None:
        self.peer = peer
        """The home agent, and the home address as far as it is known by now."""
        self._timers = timers
        self._buckets: dict[int, TokenBucket] = {}
        self._asked: dict[int, _Asked] = {}

    def observe(self, attachments: tuple[Attachment, ...], at: float) -> None:
        """These are the other usable links now. A new stay is a new question; a stay that is over is forgotten."""
        known = self._asked
        self._asked = {}
        for attachment in attachments:
            asked = known.get(attachment.link_index)
            if asked is not None and asked.attachment == attachment:
                self._asked[attachment.link_index] = asked
                continue
            series = RegistrationSeries(
                ClearPath(attachment.link_index, attachment.link_name, attachment.care_of_address),
                self.peer,
                lifetime=NO_LIFETIME,
                timeout=self._timers.probe_timeout,
                transmissions=self._timers.probe_transmissions,
            )
            series.start(self._bucket_of(attachment.link_index).take(at))
            self._asked[attachment.link_index] = _Asked(attachment, series)

    def _bucket_of(self, link_index: int) -> TokenBucket:
        """Each link's own share of questions, kept while the link is away, so that flapping earns nothing (X-22)."""
        bucket = self._buckets.pop(link_index, None) or TokenBucket()
        self._buckets[link_index] = bucket
        if len(self._buckets) > REMEMBERED_LINKS:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    @property
    def paths(self) -> frozenset[Path]:
        """The paths that are asked along."""
        return frozenset(asked.series.path for asked in self._asked.values())

    @property
    def shown(self) -> tuple[OtherLink, ...]:
        """What is known, for the snapshot."""
        return tuple(
            OtherLink(asked.attachment.link_name, asked.attachment.care_of_address, asked.trust)
            for asked in self._asked.values()
        )

    def series_for(self, path: Path) -> RegistrationSeries | None:
        """The question that runs along this very path."""
        return next((asked.series for asked in self._asked.values() if asked.series.path == path), None)

    def next_deadline(self) -> float | None:
        """When the next question is due."""
        due = [asked.series.deadline for asked in self._asked.values() if asked.series.deadline is not None]
        return min(due, default=None)

    def transmit_due(
        self, at: Instant, source: Identifications, taken: frozenset[IPv4Address]
    ) -> list[Effect]:
        """Questions that are due now. Never one for an address in `taken`: that would end the binding in use."""
        effects: list[Effect] = []
        for asked in self._asked.values():
            series = asked.series
            if series.deadline is None or at.boot < series.deadline:
                continue
            if not series.may_transmit or series.path.source in taken:
                series.stop()
                asked.trust = Trust.UNTRUSTED
                continue
            octets = series.transmit(at, source.issue(at))
            effects.append(SendRegistration(series.path, self.peer.home_agent, octets, TTL_REVERSE_TUNNEL))
        return effects

    def answered(
        self, series: RegistrationSeries, outcome: Outcome, source: Identifications, *, oldest: float
    ) -> None:
        """Take in what an answer means; one older than `oldest` seconds proves nothing (X-27)."""
        asked = next(asked for asked in self._asked.values() if asked.series is series)
        match outcome:
            case Ignored() | DeniedByAgent():
                pass
            case Resynchronise(request, identification):
                source.resynchronise(identification, request.sent)
            case Denied(reply=reply):
                source.denied(reply.identification)
                asked.trust = Trust.UNTRUSTED
            case Accepted() as answer:
                source.accepted(answer.reply.identification)
                vouched = answer.trusted_networks_configured and not answer.udp_tunnel
                fresh = answer.round_trip <= oldest
                asked.trust = Trust.TRUSTED if vouched and fresh else Trust.UNTRUSTED
