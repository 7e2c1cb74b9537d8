# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of home agents' replies at a foreign agent (RFC 5944 3.7.3, RFC 4636, RFC 2794 3, RFC 4721 3.3).

A reply that proves less than it has to is dropped, and its request goes on waiting: the genuine one may still come.
Only when the time is over is the mobile node told what was wrong, so that a forger achieves no more than silence would.
"""

from dataclasses import replace
from typing import Final

from homeward.agents.foreign_events import (
    Admit,
    Expel,
    ForeignEffect,
    ForeignFinding,
    HomeAgentSpoke,
    Rejected,
    RelayFailed,
    VisitorChange,
    VisitorChanged,
)
from homeward.agents.foreign_relay import denial as denial_octets
from homeward.agents.foreign_relay import to_mobile_node
from homeward.agents.foreign_requests import home_agents_in_use
from homeward.agents.foreign_rules import ForeignPolicy, is_taken, wanted_encapsulation
from homeward.agents.offered_challenges import OfferedChallenges
from homeward.agents.visitors import PendingRequest, PendingRequests, Visitor, VisitorList
from homeward.model.errors import WireError
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.registration import RegistrationReply, ReplyCode, RequestFlags
from homeward.model.relay import ForeignToMobile, HomeToForeign
from homeward.wire import authenticator, relay
from homeward.wire.decoded import DecodedReply
from homeward.wire.extensions import ExtensionType
from homeward.wire.identification import low32

_UNREACHABLE: Final = {
    0: ReplyCode.FOREIGN_AGENT_HOME_NETWORK_UNREACHABLE,
    1: ReplyCode.FOREIGN_AGENT_HOME_AGENT_HOST_UNREACHABLE,
    3: ReplyCode.FOREIGN_AGENT_HOME_AGENT_PORT_UNREACHABLE,
}
_TOO_BIG: Final = 4
_FIXED_REQUEST: Final = 24


class ReplyIntake:
    """Matches replies with waiting requests, and makes, changes and ends visitors by them."""

    def __init__(
        self,
        policy: ForeignPolicy,
        visitors: VisitorList,
        pending: PendingRequests,
        *,
        challenges: OfferedChallenges | None,
    ) -> None:
        self._policy = policy
        self._visitors = visitors
        self._pending = pending
        self._challenges = challenges

    def adopt(self, policy: ForeignPolicy) -> None:
        """Go by another policy from now on."""
        self._policy = policy

    def answered(
        self, spoke: HomeAgentSpoke, decoded: DecodedReply, at: Instant
    ) -> tuple[ForeignEffect, ...]:
        """What a reply leads to."""
        reply = decoded.message
        pending = self._match(spoke, reply)
        if pending is None:
            text = f"no request for {reply.home_address} waits for such a reply"
            return (Rejected(ForeignFinding.UNMATCHED_REPLY, text, source=spoke.source),)
        fault = self._fault(decoded, pending)
        if fault is not None:
            code, finding, text = fault
            self._pending.replace(replace(pending, denied_with=code))
            return (_rejected(finding, text, spoke, pending),)
        self._pending.remove(pending)
        incomplete = _incomplete(reply, pending)
        if incomplete is not None:
            denied = self._deny(
                pending, incomplete, ForeignFinding.INCOMPLETE_REPLY, "the reply lacks something"
            )
            return tuple(denied)
        error, part, report = self._read_part(spoke, decoded, pending)
        effects = [] if error is not None else self._update(reply, pending, part, at)
        octets = relay.relay_reply(
            decoded,
            ForeignToMobile(error=error, challenge=self._next_challenge(pending)),
            mobile_foreign=pending.mobile_foreign,
        )
        # Packets have a way before the mobile node can know that they have.
        changes = [each for each in effects if isinstance(each, VisitorChanged)]
        first = [each for each in effects if not isinstance(each, VisitorChanged)]
        answer = to_mobile_node(octets, pending, given=reply.home_address)
        return (*first, answer, *changes, *report)

    def timed_out(self, at: Instant) -> list[ForeignEffect]:
        """Requests that have waited long enough (R-209)."""
        effects: list[ForeignEffect] = []
        for pending in self._pending.overdue(at.boot):
            text = f"home agent {pending.request.home_agent} gave no answer that counts"
            effects += self._deny(pending, pending.denied_with, ForeignFinding.TIMEOUT, text)
        return effects

    def unreachable(self, failed: RelayFailed) -> list[ForeignEffect]:
        """An ICMP error about a request that waits, where it quotes enough to be no guess (R-209)."""
        if failed.code == _TOO_BIG or len(failed.quoted) < _FIXED_REQUEST:
            return []
        effects: list[ForeignEffect] = []
        for pending in self._pending:
            if pending.request.home_agent != failed.home_agent:
                continue
            if not pending.relayed.startswith(failed.quoted[: len(pending.relayed)]):
                continue
            self._pending.remove(pending)
            code = _UNREACHABLE.get(failed.code, ReplyCode.FOREIGN_AGENT_HOME_AGENT_UNREACHABLE)
            text = f"home agent {failed.home_agent}: destination unreachable, code {failed.code}"
            effects += self._deny(pending, code, ForeignFinding.UNREACHABLE, text)
        return effects

    def _match(self, spoke: HomeAgentSpoke, reply: RegistrationReply) -> PendingRequest | None:
        """By home address, or by NAI where there was none yet, and the low half of the Identification (R-209)."""
        low = low32(reply.identification)
        for pending in self._pending:
            request = pending.request
            if low32(request.identification) != low:
                continue
            if request.home_address.is_unspecified:
                same = reply.nai is None or reply.nai == request.nai
            else:
                same = request.home_address == reply.home_address and (
                    request.nai is None or reply.nai is None or request.nai == reply.nai
                )
            expected = (request.home_agent, REGISTRATION_PORT, pending.care_of_address)
            if same and (spoke.source, spoke.source_port, spoke.destination) == expected:
                return pending
        return None

    def _fault(
        self, decoded: DecodedReply, pending: PendingRequest
    ) -> tuple[ReplyCode, ForeignFinding, str] | None:
        """What the reply would have to prove, and does not."""
        association = self._policy.home_agents.get(pending.request.home_agent)
        if pending.with_foreign_home and association is not None:
            extensions = (*decoded.covered, *decoded.unauthenticated)
            present = any(one.number == relay.FOREIGN_HOME for one in extensions)
            proved = authenticator.verify(decoded.octets, decoded, association, by=relay.FOREIGN_HOME)
            if not proved and (present or decoded.message.is_success):
                code = ReplyCode.FOREIGN_AGENT_HOME_AGENT_FAILED_AUTHENTICATION
                text = "no valid FA-HA authentication, which we share a key for"
                return code, ForeignFinding.FORGED_REPLY, text
        if decoded.authentication is None:
            code = ReplyCode.FOREIGN_AGENT_POORLY_FORMED_REPLY
            text = f"{len(decoded.authentications)} MN-HA authentication extensions instead of one"
            return code, ForeignFinding.POOR_REPLY, text
        return None

    def _read_part(
        self, spoke: HomeAgentSpoke, decoded: DecodedReply, pending: PendingRequest
    ) -> tuple[int | None, HomeToForeign, list[Rejected]]:
        """What the home agent tells us; or the error to add for the mobile node, whose reply stays as it is (R-210)."""
        nothing = HomeToForeign()
        echoed = [
            one.body
            for one in decoded.unauthenticated
            if one.number == ExtensionType.MOBILE_FOREIGN_CHALLENGE
        ]
        if any(one != pending.challenge for one in echoed):
            code = ReplyCode.FOREIGN_AGENT_WRONG_CHALLENGE_FROM_HOME_AGENT
            finding, text = ForeignFinding.HOME_AGENT_CHALLENGE, "it returned another challenge than was sent"
            return code, nothing, [_rejected(finding, text, spoke, pending)]
        try:
            part = relay.read_from_home_agent(decoded)
        except WireError as error:
            code = ReplyCode.FOREIGN_AGENT_POORLY_FORMED_REPLY
            return code, nothing, [_rejected(ForeignFinding.POOR_REPLY, str(error), spoke, pending)]
        given = decoded.message.home_address
        taken = home_agents_in_use(self._policy, self._visitors)
        if _binds_here(decoded.message, pending) and is_taken(given, self._policy, taken):
            code = ReplyCode.FOREIGN_AGENT_ADMINISTRATIVELY_PROHIBITED
            text = f"the home address {given} belongs to somebody here"
            return code, nothing, [_rejected(ForeignFinding.WRONG_HOME_ADDRESS, text, spoke, pending)]
        return None, part, []

    def _update(
        self, reply: RegistrationReply, pending: PendingRequest, part: HomeToForeign, at: Instant
    ) -> list[ForeignEffect]:
        """The visitor list after a reply. A denial changes nothing in it (RFC 5944 section 3.7.2)."""
        if not reply.is_success:
            return []
        if not _binds_here(reply, pending):
            return self._leave(reply, pending)
        visitor = self._visitor(reply, pending, part, at)
        before = self._visitors.get(visitor.home_address)
        self._visitors.put(visitor)
        change = VisitorChange.ADMITTED
        if before is not None:
            changed = before.hardware_address != visitor.hardware_address
            change = VisitorChange.CHANGED if changed else VisitorChange.RENEWED
        return [Admit(visitor), VisitorChanged(change, visitor)]

    def _leave(self, reply: RegistrationReply, pending: PendingRequest) -> list[ForeignEffect]:
        """It deregistered, or has a care-of address of its own now: unless some other address of its was meant."""
        request = pending.request
        meant = {request.home_address, *self._policy.care_of_addresses}
        if not reply.lifetime and request.care_of_address not in meant:
            return []
        visitor = self._visitors.get(reply.home_address)
        if visitor is None or visitor.home_agent != request.home_agent:
            return []
        self._visitors.remove(visitor.home_address)
        return [Expel(visitor), VisitorChanged(VisitorChange.LEFT, visitor)]

    def _visitor(
        self, reply: RegistrationReply, pending: PendingRequest, part: HomeToForeign, at: Instant
    ) -> Visitor:
        request = pending.request
        agreed = part.revocation_support if pending.with_revocation and pending.with_foreign_home else None
        udp = self._policy.behind_nat and part.udp_tunnel is not None and part.udp_tunnel.will_tunnel
        return Visitor(
            reply.home_address,
            request.home_agent,
            care_of_address=request.care_of_address,
            interface=pending.interface,
            hardware_address=pending.hardware_address,
            agent_address=pending.agent_address,
            identification=request.identification,
            lifetime=min(reply.lifetime, self._policy.lifetime_max),
            since=at.boot,
            reverse_tunnel=RequestFlags.REVERSE_TUNNEL in request.flags,
            encapsulating=pending.encapsulating,
            encapsulation=wanted_encapsulation(request.flags),
            udp=udp,
            keepalive=part.udp_tunnel.keepalive if udp and part.udp_tunnel is not None else 0,
            nai=request.nai,
            revocable_since=None if agreed is None else agreed.timestamp,
        )

    def _deny(
        self, pending: PendingRequest, code: ReplyCode, finding: ForeignFinding, text: str
    ) -> list[ForeignEffect]:
        part = ForeignToMobile(challenge=self._next_challenge(pending))
        octets = denial_octets(pending.request, code, part, mobile_foreign=pending.mobile_foreign)
        report = Rejected(
            finding,
            text,
            source=pending.source,
            hardware_address=pending.hardware_address,
            code=code,
            home_address=pending.request.home_address,
        )
        return [to_mobile_node(octets, pending), report]

    def _next_challenge(self, pending: PendingRequest) -> bytes | None:
        return None if self._challenges is None else self._challenges.offer(pending.node)


def _binds_here(reply: RegistrationReply, pending: PendingRequest) -> bool:
    """Whether this reply makes its receiver our visitor."""
    co_located = RequestFlags.DECAPSULATE_SELF in pending.request.flags
    return reply.is_success and reply.lifetime > 0 and pending.request.lifetime > 0 and not co_located


def _incomplete(reply: RegistrationReply, pending: PendingRequest) -> ReplyCode | None:
    """What the answer to a request with a NAI must have, and this one has not (R-273)."""
    if pending.request.nai is None:
        return None
    if reply.nai is None:
        return ReplyCode.FOREIGN_AGENT_MISSING_NAI
    if reply.home_agent.is_unspecified:
        return ReplyCode.FOREIGN_AGENT_MISSING_HOME_AGENT
    if reply.home_address.is_unspecified and reply.is_success:
        return ReplyCode.FOREIGN_AGENT_MISSING_HOME_ADDRESS
    return None


def _rejected(finding: ForeignFinding, text: str, spoke: HomeAgentSpoke, pending: PendingRequest) -> Rejected:
    return Rejected(finding, text, source=spoke.source, home_address=pending.request.home_address)
