# SPDX-License-Identifier: GPL-2.0-or-later
"""A home agent with one mobile node, and requests for it: genuine unless a test says what is wrong with them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from homeward.agents.agent_events import AgentEffect, Forward, Refused, RequestArrived, SendReply
from homeward.agents.home_agent import AgentPolicy, HomeAgent, Node
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.policy import ForeignAgentPeer
from homeward.model.instant import Instant
from homeward.model.registration import (
    AuthenticationAlgorithm,
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.relay import ForeignToHome, HomeToForeign
from homeward.model.secret import Secret
from homeward.wire import authenticator, relay
from homeward.wire import registration as codec
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.extensions import Extension, encode
from homeward.wire.identification import from_time

AGENT = IPv4Address("10.0.0.2")
HOME = IPv4Address("10.77.0.10")
OTHER_HOME = IPv4Address("10.77.0.11")
CARE_OF = IPv4Address("10.1.1.50")
ELSEWHERE = IPv4Address("10.1.2.60")
FOREIGN_AGENT = IPv4Address("10.1.3.1")
OUTSIDE = IPv4Address("198.51.100.7")
NAT = IPv4Address("10.1.9.9")
PORT = 40000
INSIDE = "inside"
T0 = Instant(boot=5000.0, wall=1_736_942_400.0)
D_T = RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL

SA = MobilitySecurityAssociation(
    Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(bytes(range(32)))
)
OLD_SA = MobilitySecurityAssociation(
    Spi(0x101), AuthenticationAlgorithm.HMAC_MD5, key=Secret(bytes(range(1, 17)))
)
OTHER_SA = MobilitySecurityAssociation(
    Spi(0x100), AuthenticationAlgorithm.HMAC_MD5, key=Secret(bytes(range(2, 18)))
)
FOREIGN_SA = MobilitySecurityAssociation(
    Spi(0x200), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(bytes(range(3, 35)))
)
FORGER = replace(SA, key=Secret(bytes(32)))

NETWORKS = TrustedNetworks(
    frozenset({INSIDE}), (IPv4Network("10.1.0.0/16"), IPv4Network("10.77.0.0/24")), frozenset({NAT})
)
POLICY = AgentPolicy(
    AGENT,
    NETWORKS,
    nodes=(Node("laptop", HOME, SA), Node("laptop", HOME, OLD_SA), Node("other", OTHER_HOME, OTHER_SA)),
)
WITH_FOREIGN_AGENT = replace(POLICY, foreign_agents=(ForeignAgentPeer(FOREIGN_AGENT, FOREIGN_SA),))
T = RequestFlags.REVERSE_TUNNEL
NO_PART = ForeignToHome()

_Wanted = TypeVar("_Wanted")


def after(seconds: float) -> Instant:
    """So many seconds after the agent's start, on both clocks."""
    return Instant(T0.boot + seconds, T0.wall + seconds)


def stamp(seconds: float, low: int = 0x155) -> Identification:
    """A time stamp so many seconds after the agent's start."""
    return from_time(T0.wall + seconds, low)


def request(at: float = 0.0, **changes: object) -> RegistrationRequest:
    """A mobile node's request made so many seconds after the agent's start."""
    plain = RegistrationRequest(
        300, HOME, home_agent=AGENT, care_of_address=CARE_OF, identification=stamp(at), flags=D_T
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def octets(
    message: RegistrationRequest,
    association: MobilitySecurityAssociation = SA,
    *,
    covered: Sequence[Extension] = (),
    behind: Sequence[Extension] = (),
) -> bytes:
    """The message as the wire carries it, reserved flags and further extensions included."""
    fixed = struct.pack(
        "!BBH4s4s4sQ",
        1,
        message.flags,
        message.lifetime,
        message.home_address.packed,
        message.home_agent.packed,
        message.care_of_address.packed,
        message.identification,
    )
    if message.nai is not None:
        fixed += encode(Extension(131, message.nai.encode()))
    signed = authenticator.authenticate(fixed + b"".join(map(encode, covered)), association)
    return signed + b"".join(map(encode, behind))


def arrived(payload: bytes | RegistrationRequest, **changes: object) -> RequestArrived:
    """A datagram from the care-of address to the agent, through the inside interface."""
    if isinstance(payload, RegistrationRequest):
        payload = octets(payload)
    plain = RequestArrived(payload, CARE_OF, source_port=PORT, destination=AGENT, interface=INSIDE)
    return replace(plain, **changes)  # type: ignore[arg-type]


def co_located(at: float = 0.0, **changes: object) -> bytes:
    """A request as our own encoder makes it, with everything that it may say of UDP tunnels and revocation."""
    return codec.encode_request(request(at, **changes), SA)


def relayed(
    message: RegistrationRequest | bytes,
    part: ForeignToHome = NO_PART,
    *,
    by: MobilitySecurityAssociation | None = FOREIGN_SA,
    **changes: object,
) -> RequestArrived:
    """A request that came by way of the foreign agent, which adds its own part and its authenticator."""
    payload = message if isinstance(message, bytes) else octets(message)
    decoded = codec.decode(payload)
    assert isinstance(decoded, DecodedRequest)
    sent_on = relay.tell_home_agent(relay.through_mobile_home(decoded), part)
    if by is not None:
        sent_on = authenticator.authenticate(sent_on, by, by=relay.FOREIGN_HOME)
    return arrived(sent_on, **{"source": FOREIGN_AGENT, "source_port": 434, **changes})


def by_foreign_agent(at: float = 0.0, **changes: object) -> RegistrationRequest:
    """A request for the foreign agent's own care-of address."""
    return request(at, **{"care_of_address": FOREIGN_AGENT, "flags": T, **changes})


def agent(**changes: object) -> HomeAgent:
    """An agent that has just been started."""
    return HomeAgent(replace(POLICY, **changes), started=T0)  # type: ignore[arg-type]


def only(effects: Sequence[object], kind: type[_Wanted]) -> _Wanted:
    """The one effect of that kind; there must be exactly one."""
    found = [each for each in effects if isinstance(each, kind)]
    assert len(found) == 1, effects
    return found[0]


def none(effects: Sequence[AgentEffect], *kinds: type) -> bool:
    """Whether there is no effect of these kinds."""
    return not any(isinstance(each, kinds) for each in effects)


def reply_in(
    effects: Sequence[AgentEffect], association: MobilitySecurityAssociation = SA
) -> RegistrationReply:
    """The reply that is sent, after checking that it is signed as it must be."""
    sent = only(effects, SendReply)
    decoded = codec.decode(sent.octets)
    assert isinstance(decoded, DecodedReply)
    assert authenticator.verify(sent.octets, decoded, association)
    assert decoded.unauthenticated == ()
    return decoded.message


def relayed_reply_in(
    effects: Sequence[AgentEffect],
    *,
    by: MobilitySecurityAssociation | None = FOREIGN_SA,
    association: MobilitySecurityAssociation = SA,
) -> tuple[RegistrationReply, HomeToForeign]:
    """The reply that is sent to a foreign agent, and what is in it for the agent itself."""
    sent = only(effects, SendReply)
    decoded = codec.decode(sent.octets)
    assert isinstance(decoded, DecodedReply)
    assert authenticator.verify(sent.octets, decoded, association)
    proofs = [each for each in decoded.unauthenticated if each.number == relay.FOREIGN_HOME]
    if by is None:
        assert proofs == []
    else:
        assert authenticator.verify(sent.octets, decoded, by, by=relay.FOREIGN_HOME)
        assert decoded.unauthenticated[-1] == proofs[-1]
    return decoded.message, relay.read_from_home_agent(decoded)


def refused_in(effects: Sequence[AgentEffect]) -> Refused:
    """The refusal that is logged."""
    return only(effects, Refused)


def forward_in(effects: Sequence[AgentEffect]) -> Forward:
    """The forwarding delta, without the time at which it ends by itself."""
    return replace(only(effects, Forward), expires=None)
