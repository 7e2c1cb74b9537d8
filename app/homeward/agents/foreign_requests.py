# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of the requests that mobile nodes make of a foreign agent: relayed, denied, or dropped (RFC 5944 3.7.2).

A request says nothing of the station it came from. Whoever overhears one and sends it again from a station of his own
would get its answer, and the visitor's packets with it: so the first station that sent it is the only one.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.agents.advertiser import LIMITED_BROADCAST
from homeward.agents.foreign_authentication import association_of, judge_sender
from homeward.agents.foreign_events import (
    ForeignEffect,
    ForeignFinding,
    MobileNodeSpoke,
    Rejected,
    SendToHomeAgent,
    SendToMobileNode,
)
from homeward.agents.foreign_relay import denial as denial_octets
from homeward.agents.foreign_relay import for_home_agent, reply_address
from homeward.agents.foreign_rules import (
    AccessLink,
    ForeignDenial,
    ForeignPolicy,
    judge_addresses,
    judge_form,
    judge_wishes,
)
from homeward.agents.offered_challenges import NodeKey, OfferedChallenges
from homeward.agents.rates import Rates
from homeward.agents.visitors import PendingRequest, PendingRequests, VisitorList
from homeward.model.errors import WireError
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.registration import RegistrationRequest, ReplyCode
from homeward.model.relay import ForeignToMobile, MobileToForeign
from homeward.wire import registration, relay
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.identification import low32

ALL_MOBILITY_AGENTS: Final = IPv4Address("224.0.0.11")

STATION_BURST: Final = 10.0
STATION_PER_SECOND: Final = 2.0
"""How often one station may ask. RFC 5944 section 3.6.3 has a mobile node wait a second or more."""
ALL_BURST: Final = 60.0
ALL_PER_SECOND: Final = 60.0
"""How often all together may: hardware addresses cost an attacker nothing."""
DENIALS_PER_SECOND: Final = 1.0
"""To one station (RFC 5944 section 3.7.2; RFC 3024 section 4.2.1 for code 76)."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that can be read, and what its sender says to us alone."""

    arrived: MobileNodeSpoke
    link: AccessLink
    node: NodeKey
    decoded: DecodedRequest
    part: MobileToForeign

    @property
    def request(self) -> RegistrationRequest:
        return self.decoded.message


class RequestIntake:
    """Judges requests. Writes down only what waits for its reply; visitors are made by replies."""

    def __init__(
        self,
        policy: ForeignPolicy,
        visitors: VisitorList,
        pending: PendingRequests,
        *,
        own_addresses: frozenset[IPv4Address],
        challenges: OfferedChallenges | None,
    ) -> None:
        self._policy = policy
        self._visitors = visitors
        self._pending = pending
        self._own = own_addresses
        self._challenges = challenges
        self._rates = Rates(burst=STATION_BURST, per_second=STATION_PER_SECOND)
        self._all = Rates(burst=ALL_BURST, per_second=ALL_PER_SECOND)
        self._denials = Rates(burst=1.0, per_second=DENIALS_PER_SECOND)

    def adopt(self, policy: ForeignPolicy) -> None:
        """Go by another policy from now on."""
        self._policy = policy

    def asked(self, arrived: MobileNodeSpoke, at: Instant) -> tuple[ForeignEffect, ...]:
        """What a datagram from an access link leads to."""
        link = self._policy.link(arrived.interface)
        if link is None or arrived.destination not in (link.address, ALL_MOBILITY_AGENTS, LIMITED_BROADCAST):
            return ()  # for somebody else, and passing by
        station = arrived.hardware_address
        if station[0] & 1 or not any(station):
            return (_dropped(arrived, ForeignFinding.WRONG_SOURCE, "it came from no single station"),)
        if not self._within_rates(station, at):
            return (_dropped(arrived, ForeignFinding.TOO_OFTEN, "more requests than mobile nodes make"),)
        asked = self._read(arrived, link)
        if isinstance(asked, Rejected):
            return (asked,)
        if isinstance(asked, tuple):
            decoded, denial = asked
            return self._deny(arrived, decoded, denial, link=link, at=at)
        denial_found = self._judge(asked)
        if denial_found is not None:
            return self._deny(arrived, asked.decoded, denial_found, link=link, at=at)
        return (self._relay(asked, at),)

    def _within_rates(self, station: bytes, at: Instant) -> bool:
        """Visitors' stations are limited each by itself only: no crowd of made-up ones keeps them from renewing."""
        if not self._rates.allow(station, at.boot):
            return False
        return self._visitors.is_station(station) or self._all.allow(None, at.boot)

    def _read(
        self, arrived: MobileNodeSpoke, link: AccessLink
    ) -> _Asked | Rejected | tuple[DecodedRequest, ForeignDenial]:
        try:
            decoded = registration.decode(arrived.octets)
        except WireError as error:
            return _dropped(arrived, ForeignFinding.MALFORMED, str(error))
        if isinstance(decoded, DecodedReply):
            return _dropped(arrived, ForeignFinding.NOT_A_REQUEST, "a reply came from an access link")
        request = decoded.message
        node = node_of(request)
        if self._is_copied(arrived, request, node):
            text = "another station has sent the same request"
            return _dropped(arrived, ForeignFinding.COPIED, text, request.home_address)
        try:
            relay.through_mobile_home(decoded)
            part = relay.read_for_foreign_agent(decoded)
        except WireError as error:
            code = ReplyCode.FOREIGN_AGENT_POORLY_FORMED_REQUEST
            return decoded, ForeignDenial(code, ForeignFinding.POORLY_FORMED, str(error))
        return _Asked(arrived, link, node, decoded, part)

    def _is_copied(self, arrived: MobileNodeSpoke, request: RegistrationRequest, node: NodeKey) -> bool:
        pending = self._pending.get((node, low32(request.identification)))
        if pending is not None:
            return pending.hardware_address != arrived.hardware_address
        visitor = self._visitors.get(request.home_address)
        return (
            visitor is not None
            and visitor.identification == request.identification
            and visitor.hardware_address != arrived.hardware_address
        )

    def _judge(self, asked: _Asked) -> ForeignDenial | None:
        arrived, request, node = asked.arrived, asked.request, asked.node
        waiting = [one for one in self._pending.of_station(arrived.hardware_address) if one.node == node]
        return (
            judge_form(arrived, request)
            or judge_sender(
                asked.decoded,
                asked.part,
                node,
                policy=self._policy,
                challenges=self._challenges,
                answered_before=waiting[-1].challenge if waiting else None,
            )
            or judge_addresses(
                request,
                policy=self._policy,
                own_addresses=self._own,
                home_agents=home_agents_in_use(self._policy, self._visitors),
            )
            or judge_wishes(arrived, request, asked.part, policy=self._policy)
            or self._judge_room(arrived, request)
        )

    def _judge_room(self, arrived: MobileNodeSpoke, request: RegistrationRequest) -> ForeignDenial | None:
        visitor = self._visitors.get(request.home_address)
        if visitor is not None and visitor.home_agent != request.home_agent:
            code = ReplyCode.FOREIGN_AGENT_ADMINISTRATIVELY_PROHIBITED
            text = f"a visitor of home agent {visitor.home_agent} has this home address"
            return ForeignDenial(code, ForeignFinding.WRONG_HOME_ADDRESS, text)
        if visitor is not None and visitor.hardware_address == arrived.hardware_address:
            return None  # who is here already never has to leave for a crowd at the door
        if request.lifetime and len(self._visitors) >= self._policy.visitors_max:
            text = f"there are {len(self._visitors)} visitors"
        elif self._pending.full and not self._pending.of_station(arrived.hardware_address):
            text = f"{len(self._pending)} requests wait for their replies"
        else:
            return None
        code = ReplyCode.FOREIGN_AGENT_INSUFFICIENT_RESOURCES
        return ForeignDenial(code, ForeignFinding.NO_ROOM, text)

    def _relay(self, asked: _Asked, at: Instant) -> SendToHomeAgent:
        request, part, arrived = asked.request, asked.part, asked.arrived
        if part.challenge is not None and self._challenges is not None:
            self._challenges.use(asked.node, part.challenge)
        octets, own_part, association = for_home_agent(asked.decoded, self._policy, at)
        care_of = request.care_of_address
        if care_of not in self._policy.care_of_addresses:
            visitor = self._visitors.get(request.home_address)
            care_of = self._policy.care_of_addresses[0] if visitor is None else visitor.care_of_address
        self._pending.put(
            PendingRequest(
                asked.node,
                request,
                relayed=octets,
                care_of_address=care_of,
                source=arrived.source,
                source_port=arrived.source_port,
                agent_address=asked.link.address,
                hardware_address=arrived.hardware_address,
                interface=arrived.interface,
                encapsulating=part.encapsulating_delivery,
                until=at.boot + self._policy.pending_time,
                with_foreign_home=association is not None,
                with_revocation=own_part.revocation_support is not None,
                mobile_foreign=association_of(self._policy, asked.node, asked.decoded),
                challenge=part.challenge,
            )
        )
        return SendToHomeAgent(octets, request.home_agent, source=care_of, port=REGISTRATION_PORT)

    def _deny(
        self,
        arrived: MobileNodeSpoke,
        decoded: DecodedRequest,
        denial: ForeignDenial,
        *,
        link: AccessLink,
        at: Instant,
    ) -> tuple[ForeignEffect, ...]:
        request, node = decoded.message, node_of(decoded.message)
        code = denial.code
        if code is not None and not self._denials.allow(arrived.hardware_address, at.boot):
            code = None
        report = Rejected(
            denial.finding,
            denial.text,
            source=arrived.source,
            hardware_address=arrived.hardware_address,
            code=code,
            home_address=request.home_address,
        )
        if code is None:
            return (report,)
        octets = denial_octets(
            request,
            code,
            ForeignToMobile(challenge=None if self._challenges is None else self._challenges.offer(node)),
            lifetime=denial.lifetime,
            mobile_foreign=association_of(self._policy, node, decoded),
        )
        reply = SendToMobileNode(
            octets,
            reply_address(request, arrived.source),
            port=arrived.source_port,
            source=link.address,
            hardware_address=arrived.hardware_address,
            interface=arrived.interface,
        )
        return (reply, report)


def node_of(request: RegistrationRequest) -> NodeKey:
    """What its sender is known by (RFC 2794 section 3)."""
    if request.home_address.is_unspecified and request.nai is not None:
        return request.nai
    return request.home_address


def home_agents_in_use(policy: ForeignPolicy, visitors: VisitorList) -> frozenset[IPv4Address]:
    """The home agents that our visitors depend on: nobody's home address may be one of them.

    Those that waiting requests name do not count: anybody could call a victim's address a home agent.
    """
    return frozenset({*policy.home_agents, *(visitor.home_agent for visitor in visitors)})


def _dropped(
    arrived: MobileNodeSpoke, finding: ForeignFinding, text: str, home_address: IPv4Address | None = None
) -> Rejected:
    return Rejected(
        finding,
        text,
        source=arrived.source,
        hardware_address=arrived.hardware_address,
        home_address=home_address,
    )
