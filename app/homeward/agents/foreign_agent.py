# SPDX-License-Identifier: GPL-2.0-or-later
"""The foreign agent's decisions: requests in from its links, replies back, and whose packets it carries (RFC 5944 3.7).

It cannot check what mobile node and home agent agree on. So it believes nobody more than it must: what it is asked on
an access link moves nothing, and only the reply that a home agent gives to a request that really waits makes a visitor.
A visitor is known by home address *and* station, and its packets are carried to its own home agent only.
"""

from ipaddress import IPv4Address
from typing import Final, assert_never

from homeward.agents.foreign_events import (
    Expel,
    ForeignEffect,
    ForeignFinding,
    ForeignInput,
    HomeAgentSpoke,
    MobileNodeSpoke,
    Rejected,
    RelayFailed,
    VisitorChange,
    VisitorChanged,
)
from homeward.agents.foreign_replies import ReplyIntake
from homeward.agents.foreign_requests import RequestIntake
from homeward.agents.foreign_revocation import RevocationIntake
from homeward.agents.foreign_rules import ForeignPolicy
from homeward.agents.offered_challenges import OfferedChallenges
from homeward.agents.visitors import PendingRequests, Visitor, VisitorList
from homeward.model.errors import WireError
from homeward.model.inputs import DeadlinePassed
from homeward.model.instant import Instant
from homeward.wire import port_434
from homeward.wire.decoded import DecodedReply, DecodedRevocation

PENDING_PER_STATION: Final = 3
"""A station with more requests than that displaces its own."""


class ForeignAgent:
    """One foreign agent on its links. Pure: the same inputs at the same instants give the same effects.

    `own_addresses` are all of this host, whoever uses them. `challenges`, where the policy demands them, are shared
    with the advertisers.
    """

    def __init__(
        self,
        policy: ForeignPolicy,
        *,
        own_addresses: frozenset[IPv4Address] = frozenset(),
        challenges: OfferedChallenges | None = None,
    ) -> None:
        own = own_addresses | {*policy.care_of_addresses, *(link.address for link in policy.links)}
        self._policy = policy
        self._visitors = VisitorList()
        self._pending = PendingRequests(policy.pending_max, per_station=PENDING_PER_STATION)
        self._requests = RequestIntake(
            policy, self._visitors, self._pending, own_addresses=own, challenges=challenges
        )
        self._replies = ReplyIntake(policy, self._visitors, self._pending, challenges=challenges)
        self._revocations = RevocationIntake(policy, self._visitors)

    def handle(self, arrived: ForeignInput, at: Instant) -> tuple[ForeignEffect, ...]:
        """What follows from an input at this instant. What is overdue ends first, so that nothing is renewed late."""
        ended = (*self._expire(at), *self._replies.timed_out(at))
        match arrived:
            case MobileNodeSpoke():
                return (*ended, *self._requests.asked(arrived, at))
            case HomeAgentSpoke():
                return (*ended, *self._from_home(arrived, at))
            case RelayFailed():
                return (*ended, *self._replies.unreachable(arrived))
            case DeadlinePassed():
                return ended
            case _:
                assert_never(arrived)

    def adopt(self, policy: ForeignPolicy) -> None:
        """Go by another policy from now on: its keys, its limits, its home agents. Visitors stay until they end.

        What is advertised, and by which addresses, needs another life.
        """
        self._policy = policy
        for part in (self._requests, self._replies, self._revocations):
            part.adopt(policy)

    def next_deadline(self) -> float | None:
        """Boot time at which DeadlinePassed is due, None when there is nothing to wait for."""
        moments = (self._visitors.next_expiry(), self._pending.next_end())
        return min((each for each in moments if each is not None), default=None)

    def visitors(self) -> tuple[Visitor, ...]:
        """All visitors, by home address."""
        return tuple(sorted(self._visitors, key=lambda visitor: visitor.home_address))

    def pending_count(self) -> int:
        """How many requests wait for their replies."""
        return len(self._pending)

    @property
    def is_busy(self) -> bool:
        """Whether somebody new would be refused: what the B bit says."""
        return self._pending.full or len(self._visitors) >= self._policy.visitors_max

    def _expire(self, at: Instant) -> list[ForeignEffect]:
        # Silently towards the mobile node, which reckons the same lifetime (RFC 5944 section 3.7).
        effects: list[ForeignEffect] = []
        for visitor in self._visitors.expire(at.boot):
            effects += [Expel(visitor), VisitorChanged(VisitorChange.EXPIRED, visitor)]
        return effects

    def _from_home(self, spoke: HomeAgentSpoke, at: Instant) -> tuple[ForeignEffect, ...]:
        try:
            decoded = port_434.decode(spoke.octets)
        except WireError as error:
            return (Rejected(ForeignFinding.MALFORMED, str(error), source=spoke.source),)
        match decoded:
            case DecodedReply():
                return self._replies.answered(spoke, decoded, at)
            case DecodedRevocation():
                return self._revocations.revoked(spoke, decoded)
            case _:
                text = "neither a reply nor a revocation"
                return (Rejected(ForeignFinding.NOT_A_REPLY, text, source=spoke.source),)
