# SPDX-License-Identifier: GPL-2.0-or-later
"""One series of Registration Requests along one path, and the judgement of what comes back."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.access import AgentPath, HomePath, Path, VpnPath
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import WireError
from homeward.model.inputs import DatagramReceived
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.nat_traversal import UdpTunnelReply, UdpTunnelRequest
from homeward.model.profile import ASSIGNED, ReplayStyle
from homeward.model.registration import (
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    ReplyCode,
    RequestFlags,
)
from homeward.model.relay import AaaAssociation, MobileToForeign
from homeward.model.reply_codes import sentence_for
from homeward.model.revocation import RevocationSupport
from homeward.wire import authenticator, relay
from homeward.wire import registration as codec
from homeward.wire.decoded import DecodedReply
from homeward.wire.identification import high32, low32

TTL_REVERSE_TUNNEL: Final = 255
"""Every request that asks for a reverse tunnel carries it (RFC 3024 section 3.2, R-213)."""
TTL_AT_HOME: Final = 64
"""A deregistration asks for no tunnel (X-10)."""

_ENCAPSULATION_FLAGS: Final = {
    Encapsulation.IP_IN_IP: RequestFlags(0),
    Encapsulation.GRE: RequestFlags.GRE,
    Encapsulation.MINIMAL: RequestFlags.MINIMAL,
}


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
    reply: RegistrationReply
    """What the authenticator covers of the answer."""
    challenge: bytes | None = None
    """What the foreign agent wants answered in the next request (RFC 4721 section 3.3)."""

    @property
    def udp_tunnel(self) -> UdpTunnelReply | None:
        """The tunnel in UDP that the home agent assents to, None where there is to be none (R-227, R-228)."""
        tunnel = self.reply.udp_tunnel
        return tunnel if tunnel is not None and tunnel.will_tunnel else None


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
    request: Pending
    reply: RegistrationReply


@dataclass(frozen=True, slots=True)
class DeniedByAgent:
    """A foreign agent will not serve us. Mostly unsigned: a ground to leave the agent, never to trust or to close.

    `relayed` is the home agent's signed acceptance where the agent's error stands beside one (R-160).
    """

    code: int
    sentence: str
    lifetime: int
    challenge: bytes | None = None
    relayed: RegistrationReply | None = None


Outcome = Ignored | Accepted | Resynchronise | Denied | DeniedByAgent


@dataclass(frozen=True, slots=True)
class Peer:
    """The home agent as a registration needs to know it."""

    home_agent: IPv4Address
    home_address: IPv4Address
    association: MobilitySecurityAssociation
    nai: str | None
    replay: ReplayStyle = ReplayStyle.TIMESTAMPS
    assigned: bool = False
    """Whether the home address comes, or came, from the home agent."""


@dataclass(frozen=True, slots=True)
class AgentShare:
    """What a request through a foreign agent says and proves to the agent itself (RFC 4721, R-145)."""

    association: MobilitySecurityAssociation | None = None
    aaa: AaaAssociation | None = None
    challenge: bytes | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request asks for besides the binding itself."""

    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    udp_tunnel: UdpTunnelRequest | None = None
    revocable: bool = False
    share: AgentShare = AgentShare()


PLAIN: Final = Terms()


class RegistrationSeries:
    """Requests along one path: first at once, then after `timeout`, doubled each time (R-162 to R-164).

    After `transmissions` requests without an answer the series is exhausted one more doubling later.
    """

    def __init__(
        self,
        path: Path,
        peer: Peer,
        *,
        lifetime: int,
        timeout: float,
        transmissions: int,
        terms: Terms = PLAIN,
    ) -> None:
        self.path = path
        self.terms = terms
        self._peer = peer
        self._lifetime = lifetime
        self._timeout = timeout
        self._left = transmissions
        self.pending: Pending | None = None
        self.deadline: float | None = None
        self.exhausted = False
        self.clock_refused = False
        """Whether the home agent has answered one of these requests, signed, with code 133."""

    @property
    def destination(self) -> IPv4Address:
        """Where requests are sent: the foreign agent on a path through one, else the home agent (R-132)."""
        return self.path.agent if isinstance(self.path, AgentPath) else self._peer.home_agent

    @property
    def ttl(self) -> int:
        """The TTL of requests."""
        return TTL_AT_HOME if isinstance(self.path, HomePath) else TTL_REVERSE_TUNNEL

    def start(self, at: float) -> None:
        """Make the first transmission due at `at` (boot seconds)."""
        self.deadline = at

    def transmit(self, at: Instant, identification: Identification) -> bytes:
        """The octets of the next request; sets the deadline of the one after it."""
        peer, terms = self._peer, self.terms
        request = RegistrationRequest(
            self._lifetime,
            peer.home_address,
            home_agent=peer.home_agent,
            care_of_address=self.path.care_of_address,
            identification=identification,
            flags=self._flags(),
            nai=self._nai(),
            udp_tunnel=terms.udp_tunnel,
            revocation_support=RevocationSupport(high32(identification)) if terms.revocable else None,
        )
        again = self.pending is not None and self.pending.identification == identification
        if not again:
            # An answer to a packet that is sent twice may be one to the first.
            self.pending = Pending(identification, at, self._lifetime)
        self._left -= 1
        self.deadline = at.boot + self._timeout
        self._timeout *= 2
        octets = codec.encode_request(request, peer.association)
        if not isinstance(self.path, AgentPath):
            return octets
        share = terms.share
        return relay.tell_foreign_agent(
            octets,
            MobileToForeign(challenge=share.challenge),
            aaa=share.aaa,
            mobile_foreign=share.association,
        )

    def _flags(self) -> RequestFlags:
        """D for a care-of address of our own and never else (R-138); T wherever there is a tunnel."""
        match self.path:
            case HomePath():
                return RequestFlags(0)
            case AgentPath(is_co_located=False):
                own = RequestFlags(0)
            case _:
                own = RequestFlags.DECAPSULATE_SELF
        return own | RequestFlags.REVERSE_TUNNEL | _ENCAPSULATION_FLAGS[self.terms.encapsulation]

    def _nai(self) -> str | None:
        """In clear a home address of our own alone identifies us: an untrusted link need not learn who we are (RFC 5266
        section 5, R-51). One that was assigned belongs to the identifier, which therefore goes with it (R-274)."""
        own = not self._peer.assigned
        return None if own and not isinstance(self.path, VpnPath) else self._peer.nai

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
        if not isinstance(decoded, DecodedReply):
            return Ignored("a request instead of a reply", alarm=False)
        reply, pending = decoded.message, self.pending
        if pending is None or low32(reply.identification) != low32(pending.identification):
            return Ignored(
                "a reply that answers no outstanding request (replayed or late)", alarm=pending is not None
            )
        association = self.terms.share.association
        if association is not None and not authenticator.verify(
            datagram.octets, decoded, association, by=relay.MOBILE_FOREIGN
        ):
            return Ignored("a reply without the foreign agent's signature, or a wrong one", alarm=True)
        if not reply.by_home_agent:
            return self._denied_by_agent(decoded)
        if not authenticator.verify(datagram.octets, decoded, self._peer.association):
            return Ignored("a reply whose signature is missing or wrong", alarm=True)
        if reply.home_agent != self._peer.home_agent or not self._is_about_us(reply):
            return Ignored("a signed reply about other addresses", alarm=True)
        return self._judge_signed(decoded, pending, at)

    def _is_about_us(self, reply: RegistrationReply) -> bool:
        """Whether it is about our home address, or assigns us one (R-274)."""
        if self._peer.home_address == ASSIGNED:
            return reply.nai == self._peer.nai and (
                not reply.is_success or not reply.home_address.is_unspecified
            )
        return reply.home_address == self._peer.home_address

    def _denied_by_agent(self, decoded: DecodedReply) -> Outcome:
        reply = decoded.message
        if not isinstance(self.path, AgentPath):
            # Nobody asked a foreign agent: a hint at most, never a ground to act.
            return Ignored(f"an unsigned denial by a foreign agent ({reply.sentence})", alarm=False)
        try:
            part = relay.read_from_foreign_agent(decoded)
        except WireError as error:
            return Ignored(f"a malformed denial ({error})", alarm=False)
        self.pending = self.deadline = None
        return DeniedByAgent(reply.code, reply.sentence, reply.lifetime, part.challenge)

    def _judge_signed(self, decoded: DecodedReply, pending: Pending, at: Instant) -> Outcome:
        reply = decoded.message
        if reply.code == ReplyCode.IDENTIFICATION_MISMATCH:
            self.pending = None
            self.clock_refused = True
            return Resynchronise(pending, reply.identification)
        if self._peer.replay is ReplayStyle.TIMESTAMPS and reply.identification != pending.identification:
            return Ignored("a signed reply with another Identification", alarm=True)
        challenge = None
        if isinstance(self.path, AgentPath):
            try:
                part = relay.read_from_foreign_agent(decoded)
            except WireError as error:
                return Ignored(f"a malformed addition by the foreign agent ({error})", alarm=False)
            if part.error is not None and reply.is_success:
                self.pending = self.deadline = None
                return DeniedByAgent(part.error, sentence_for(part.error), 0, part.challenge, relayed=reply)
            challenge = part.challenge
        self.pending = None
        self.deadline = None
        if not reply.is_success:
            return Denied(reply.code, sentence_for(reply.code), pending, reply)
        return Accepted(
            pending,
            min(reply.lifetime, pending.lifetime),
            trusted_networks_configured=reply.trusted_networks_configured,
            round_trip=at.boot - pending.sent.boot,
            reply=reply,
            challenge=challenge,
        )


def _arrived_wrongly(datagram: DatagramReceived, peer: Peer) -> str:
    path = datagram.path
    if isinstance(path, AgentPath):
        expected, who = path.agent, "the foreign agent that was asked"
    else:
        expected, who = peer.home_agent, "the home agent"
    if datagram.source != expected or datagram.source_port != REGISTRATION_PORT:
        return f"a reply from {datagram.source} port {datagram.source_port}, which is not {who}"
    if not isinstance(path, VpnPath) and datagram.link_index != path.link_index:
        return "a reply that came in by another link than the request went out"
    return ""
