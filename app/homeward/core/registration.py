# SPDX-License-Identifier: GPL-2.0-or-later
"""One series of Registration Requests along one path, and the judgement of what comes back."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from homeward.model.access import ClearPath, Path
from homeward.model.errors import WireError
from homeward.model.inputs import DatagramReceived
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.registration import (
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    ReplyCode,
    RequestFlags,
)
from homeward.model.reply_codes import sentence_for
from homeward.wire import authenticator
from homeward.wire import registration as codec
from homeward.wire.identification import low32

TTL_REVERSE_TUNNEL = 255
"""Every request that asks for a reverse tunnel carries it (RFC 3024 section 3.2, R-213)."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The most recent request of a series: only an answer to this one counts (R-147)."""

    identification: Identification
    sent: Instant
    lifetime: int


@dataclass(frozen=True, slots=True)
class Ignored:
    """Not an answer, or not one to believe; `alarm` when somebody seems to have tried something."""

    why: str
    alarm: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The home agent registered us; the authenticator was verified."""

    request: Pending
    lifetime: int
    """The smaller of asked and granted, in seconds, counted from the sending of the request (R-152)."""
    trusted_networks_configured: bool
    round_trip: float
    udp_tunnel: bool = False
    """The home agent saw a NAT on the way and will tunnel in UDP (RFC 3519), which we never ask for yet."""


@dataclass(frozen=True, slots=True)
class Resynchronise:
    """Authenticated code 133: the clocks differ."""

    request: Pending
    identification: Identification


@dataclass(frozen=True, slots=True)
class Denied:
    """An authenticated denial by the home agent."""

    code: int
    sentence: str


Outcome = Ignored | Accepted | Resynchronise | Denied


@dataclass(frozen=True, slots=True)
class Peer:
    """The home agent as a registration needs to know it."""

    home_agent: IPv4Address
    home_address: IPv4Address
    association: MobilitySecurityAssociation
    nai: str | None


class RegistrationSeries:
    """Requests along one path: first at once, then after `timeout`, doubled each time (R-162 to R-164).

    After `transmissions` requests without an answer the series is exhausted one more doubling later.
    """

    def __init__(self, path: Path, peer: Peer, *, lifetime: int, timeout: float, transmissions: int) -> None:
        self.path = path
        self._peer = peer
        self._lifetime = lifetime
        self._timeout = timeout
        self._left = transmissions
        self.pending: Pending | None = None
        self.deadline: float | None = None
        self.exhausted = False

    def start(self, at: float) -> None:
        """Make the first transmission due at `at` (boot seconds)."""
        self.deadline = at

    def transmit(self, at: Instant, identification: Identification) -> bytes:
        """The octets of the next request; sets the deadline of the one after it."""
        peer = self._peer
        # The trust probe never carries the NAI: the home address alone identifies us, and an untrusted link need not
        # learn who we are (RFC 5266 section 5, R-51).
        request = RegistrationRequest(
            self._lifetime,
            peer.home_address,
            home_agent=peer.home_agent,
            care_of_address=self.path.source,
            identification=identification,
            flags=RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL,
            nai=None if isinstance(self.path, ClearPath) else peer.nai,
        )
        self.pending = Pending(identification, at, self._lifetime)
        self._left -= 1
        self.deadline = at.boot + self._timeout
        self._timeout *= 2
        return codec.encode_request(request, peer.association)

    @property
    def may_transmit(self) -> bool:
        """Whether another transmission is left."""
        return self._left > 0

    def stop(self) -> None:
        """No more transmissions; a late answer to the last one still counts."""
        self.deadline = None

    def judge(self, datagram: DatagramReceived, at: Instant) -> Outcome:
        """What a datagram on this path's socket means (RFC 5944 section 3.6.2.1); a request is answered only once."""
        suspicion = _arrived_wrongly(datagram, self._peer)
        if suspicion:
            return Ignored(suspicion, alarm=True)
        try:
            decoded = codec.decode(datagram.octets)
        except WireError as error:
            return Ignored(f"a malformed reply ({error})", alarm=False)
        reply = decoded.message
        if not isinstance(reply, RegistrationReply):
            return Ignored("a request instead of a reply", alarm=False)
        pending = self.pending
        if pending is None or low32(reply.identification) != low32(pending.identification):
            return Ignored(
                "a reply that answers no outstanding request (replayed or late)", alarm=pending is not None
            )
        if not reply.by_home_agent:
            # No MN-HA extension can be asked of a foreign agent: a hint at most, never a ground to act.
            return Ignored(f"an unsigned denial by a foreign agent ({sentence_for(reply.code)})", alarm=False)
        if not authenticator.verify(datagram.octets, decoded, self._peer.association):
            return Ignored("a reply whose signature is missing or wrong", alarm=True)
        if reply.home_address != self._peer.home_address or reply.home_agent != self._peer.home_agent:
            return Ignored("a signed reply about other addresses", alarm=True)
        return self._judge_signed(reply, pending, at)

    def _judge_signed(self, reply: RegistrationReply, pending: Pending, at: Instant) -> Outcome:
        if reply.code == ReplyCode.IDENTIFICATION_MISMATCH:
            self.pending = None
            return Resynchronise(pending, reply.identification)
        if reply.identification != pending.identification:
            return Ignored("a signed reply with another Identification", alarm=True)
        self.pending = None
        self.deadline = None
        if not reply.is_success:
            return Denied(reply.code, sentence_for(reply.code))
        return Accepted(
            pending,
            min(reply.lifetime, pending.lifetime),
            trusted_networks_configured=reply.trusted_networks_configured,
            round_trip=at.boot - pending.sent.boot,
            udp_tunnel=reply.udp_tunnel is not None and reply.udp_tunnel.will_tunnel,
        )


def _arrived_wrongly(datagram: DatagramReceived, peer: Peer) -> str:
    if datagram.source != peer.home_agent or datagram.source_port != REGISTRATION_PORT:
        return f"a reply from {datagram.source} port {datagram.source_port}, which is not the home agent"
    if isinstance(datagram.path, ClearPath) and datagram.link_index != datagram.path.link_index:
        return "a reply that came in by another link than the request went out"
    return ""
