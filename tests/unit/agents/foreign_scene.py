# SPDX-License-Identifier: GPL-2.0-or-later
"""A foreign agent on one link, mobile nodes there, and a home agent far away: genuine unless a test says otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from homeward.agents.foreign_agent import ForeignAgent
from homeward.agents.foreign_events import (
    ForeignEffect,
    HomeAgentSpoke,
    MobileNodeSpoke,
    Rejected,
    SendToHomeAgent,
    SendToMobileNode,
)
from homeward.agents.foreign_rules import AccessLink, ForeignPolicy
from homeward.agents.offered_challenges import OfferedChallenges
from homeward.agents.visitors import Visitor
from homeward.model.inputs import DeadlinePassed
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.relay import AaaAssociation, HomeToForeign, MobileToForeign
from homeward.model.secret import Secret
from homeward.wire import registration as codec
from homeward.wire import relay
from homeward.wire.decoded import DecodedReply, DecodedRequest
from tests.unit.agents.scene import HOME, PORT, T, after, only, stamp
from tests.unit.agents.scene import OTHER_HOME as OTHER_HOME

HOME_AGENT = IPv4Address("10.0.0.2")
OTHER_HOME_AGENT = IPv4Address("10.0.0.3")
ADDRESS = IPv4Address("10.1.3.1")
CARE_OF = IPv4Address("10.1.3.1")
LINK = "trust3"
MAC = bytes.fromhex("020000000010")
OTHER_MAC = bytes.fromhex("020000000011")
NOWHERE = IPv4Address("0.0.0.0")
D = RequestFlags.DECAPSULATE_SELF


def association(spi: int, seed: int) -> MobilitySecurityAssociation:
    key = Secret(bytes(range(seed, seed + 32)))
    return MobilitySecurityAssociation(Spi(spi), AuthenticationAlgorithm.HMAC_SHA256, key=key)


SA = association(0x100, 0)
FORGER = association(0x100, 99)
FOREIGN_HOME = association(0x300, 40)
MOBILE_FOREIGN = association(0x200, 60)
SERVER = AaaAssociation(Spi(0x400), key=Secret(bytes(range(80, 96))))

POLICY = ForeignPolicy((CARE_OF,), (AccessLink(LINK, ADDRESS, IPv4Network("10.1.3.0/24")),))


def agent(*, own: Sequence[str] = (), **changes: object) -> ForeignAgent:
    policy = replace(POLICY, **changes)  # type: ignore[arg-type]
    numbers = itertools.count(1)
    challenges = OfferedChallenges(lambda: next(numbers)) if policy.challenge else None
    return ForeignAgent(policy, own_addresses=frozenset(map(IPv4Address, own)), challenges=challenges)


def request(at: float = 0.0, **changes: object) -> RegistrationRequest:
    plain = RegistrationRequest(
        300, HOME, home_agent=HOME_AGENT, care_of_address=CARE_OF, identification=stamp(at), flags=T
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def octets(
    message: RegistrationRequest,
    part: MobileToForeign = MobileToForeign(),  # noqa: B008 - frozen
    *,
    key: MobilitySecurityAssociation = SA,
    **keys: object,
) -> bytes:
    return relay.tell_foreign_agent(codec.encode_request(message, key), part, **keys)  # type: ignore[arg-type]


def spoke(message: RegistrationRequest | bytes, **changes: object) -> MobileNodeSpoke:
    payload = message if isinstance(message, bytes) else octets(message)
    source = HOME if isinstance(message, bytes) else message.home_address
    plain = MobileNodeSpoke(
        payload,
        source,
        source_port=PORT,
        destination=ADDRESS,
        ttl=255,
        hardware_address=MAC,
        interface=LINK,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def reply_to(
    message: RegistrationRequest,
    code: int = 0,
    part: HomeToForeign = HomeToForeign(),  # noqa: B008 - frozen
    *,
    key: MobilitySecurityAssociation = SA,
    foreign_home: MobilitySecurityAssociation | None = None,
    **changes: object,
) -> bytes:
    plain = RegistrationReply(
        code,
        message.lifetime,
        home_address=message.home_address,
        home_agent=message.home_agent,
        identification=message.identification,
        nai=message.nai,
        trusted_networks_configured=True,
    )
    signed = codec.encode_reply(replace(plain, **changes), key)  # type: ignore[arg-type]
    return relay.answer_foreign_agent(signed, part, foreign_home=foreign_home)


def home_spoke(payload: bytes, **changes: object) -> HomeAgentSpoke:
    plain = HomeAgentSpoke(payload, HOME_AGENT, source_port=434, destination=CARE_OF)
    return replace(plain, **changes)  # type: ignore[arg-type]


def exchange(
    one: ForeignAgent, message: RegistrationRequest, payload: bytes, at: float = 0.0
) -> tuple[ForeignEffect, ...]:
    """A request and the home agent's answer to it; what the answer leads to."""
    source = message.care_of_address if D in message.flags else message.home_address
    only(one.handle(spoke(message, source=source), after(at)), SendToHomeAgent)
    return one.handle(home_spoke(payload), after(at + 0.02))


def register(one: ForeignAgent, at: float = 0.0, **changes: object) -> Visitor:
    """Let a mobile node register all the way."""
    message = request(at, **changes)
    only(one.handle(spoke(message), after(at)), SendToHomeAgent)
    one.handle(home_spoke(reply_to(message)), after(at + 0.02))
    (visitor,) = [each for each in one.visitors() if each.home_address == message.home_address]
    return visitor


def deadline(one: ForeignAgent, at: float) -> tuple[ForeignEffect, ...]:
    return one.handle(DeadlinePassed(), after(at))


def relayed_in(effects: Sequence[ForeignEffect]) -> DecodedRequest:
    decoded = codec.decode(only(effects, SendToHomeAgent).octets)
    assert isinstance(decoded, DecodedRequest)
    return decoded


def told_in(effects: Sequence[ForeignEffect]) -> DecodedReply:
    decoded = codec.decode(only(effects, SendToMobileNode).octets)
    assert isinstance(decoded, DecodedReply)
    return decoded


def code_in(effects: Sequence[ForeignEffect]) -> int:
    return told_in(effects).message.code


def rejected_in(effects: Sequence[ForeignEffect]) -> Rejected:
    return only(effects, Rejected)
