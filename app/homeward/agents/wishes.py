# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent will not do for a mobile node that has proved who it is (RFC 5944 section 3.8.2)."""

from collections.abc import Set
from dataclasses import dataclass
from ipaddress import IPv4Address

from homeward.agents.agent_events import Finding, RequestArrived
from homeward.model.registration import LIFETIME_DEREGISTER, RegistrationRequest, ReplyCode, RequestFlags


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is denied: the code for the mobile node, finding and text for the log."""

    code: ReplyCode
    finding: Finding
    text: str


def judge_wishes(
    arrived: RequestArrived,
    request: RegistrationRequest,
    *,
    agent: IPv4Address,
    nats: Set[IPv4Address],
    home_addresses: Set[IPv4Address],
) -> Denial | None:
    """The first reason to deny an authentic and fresh request, None when it can be granted.

    Broadcasts of the home network (B) are not offered, and asking for them is ignored, not denied (R-204).
    """
    if not arrived.unicast:
        return Denial(
            ReplyCode.UNKNOWN_HOME_AGENT_ADDRESS, Finding.WRONG_HOME_AGENT, "it was broadcast or multicast"
        )
    if request.home_agent != agent:
        text = f"it is meant for home agent {request.home_agent}"
        return Denial(ReplyCode.UNKNOWN_HOME_AGENT_ADDRESS, Finding.WRONG_HOME_AGENT, text)
    if request.flags.has_reserved:
        return Denial(ReplyCode.POORLY_FORMED_REQUEST, Finding.RESERVED_BITS, "a reserved flag is set")
    denial = _judge_source(arrived.source, request, nats)
    if denial is not None or request.lifetime == LIFETIME_DEREGISTER:
        return denial
    denial = _judge_care_of_address(request, agent, home_addresses)
    if denial is not None:
        return denial
    if request.flags & (RequestFlags.MINIMAL | RequestFlags.GRE):
        text = "only IP in IP is offered"
        return Denial(ReplyCode.ENCAPSULATION_UNAVAILABLE, Finding.ENCAPSULATION, text)
    return None


def _judge_source(source: IPv4Address, request: RegistrationRequest, nats: Set[IPv4Address]) -> Denial | None:
    """Whether the request came from its own care-of address (RFC 3519 section 4.6.1; wire-formats section 10).

    A wish to end all bindings is granted from anywhere inside: it can only take away, and only what its sender owns.
    It gets no word about trust, though, unless it came from the home address itself.
    """
    if source == request.care_of_address:
        return None
    if request.lifetime == LIFETIME_DEREGISTER and (
        request.care_of_address == request.home_address or source in nats
    ):
        return None
    code = ReplyCode.ADMINISTRATIVELY_PROHIBITED
    if source in nats:
        return Denial(
            code, Finding.NAT_UNSUPPORTED, "a tunnel through a NAT needs RFC 3519, which is not offered"
        )
    text = f"care-of address {request.care_of_address} is not its source: relayed, or behind a NAT"
    return Denial(code, Finding.RELAYED, text)


def _judge_care_of_address(
    request: RegistrationRequest, agent: IPv4Address, home_addresses: Set[IPv4Address]
) -> Denial | None:
    care_of = request.care_of_address
    unusable = care_of.is_unspecified or care_of.is_multicast or care_of.is_loopback or care_of.is_reserved
    if care_of == request.home_address or unusable:
        text = f"nothing can be tunnelled to {care_of}"
        return Denial(ReplyCode.POORLY_FORMED_REQUEST, Finding.BAD_CARE_OF_ADDRESS, text)
    if care_of == agent or care_of in home_addresses:
        text = f"a tunnel to {care_of} would lead back into a tunnel"
        return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.LOOPING_CARE_OF_ADDRESS, text)
    return None
