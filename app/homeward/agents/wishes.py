# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent will not do for a mobile node that has proved who it is (RFC 5944 section 3.8.2)."""

from collections.abc import Callable
from ipaddress import IPv4Address

from homeward.agents.claims import Claim
from homeward.agents.findings import Finding
from homeward.agents.nat_rules import judge_way, may_end
from homeward.agents.policy import AgentPolicy, ReverseTunnels
from homeward.agents.verdicts import Denial, Grant
from homeward.model.registration import LIFETIME_DEREGISTER, ReplyCode, RequestFlags

_LOOPBACK = 127
_FIRST_MULTICAST = 224 << 24  # and everything above is reserved


def judge_wishes(
    claim: Claim,
    policy: AgentPolicy,
    *,
    home_address: IPv4Address,
    is_home: Callable[[IPv4Address], bool],
) -> Grant | Denial | None:
    """The way that a binding gets, or the first reason to deny an authentic and fresh request; None to end bindings.

    `home_address` is the one that the node has or is given, `is_home` tells addresses of ours. Broadcasts of the home
    network (B) are not offered, and asking for them is ignored, not denied (R-204).
    """
    denial = _judge_address(claim, policy)
    if denial is not None:
        return denial
    request = claim.request
    if request.nai is not None and claim.node.nai not in (None, request.nai):
        text = f"home address {request.home_address} belongs to another NAI"
        return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.WRONG_NAI, text)
    if request.lifetime == LIFETIME_DEREGISTER:
        if may_end(claim, policy.networks):
            return None
        text = f"care-of address {request.care_of_address} is not its source: relayed, or behind a NAT"
        return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.RELAYED, text)
    if claim.node.retired:
        text = f"nothing new rests on SPI {claim.node.association.spi}, which is retired"
        return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.RETIRED_ASSOCIATION, text)
    way = judge_way(claim, policy)
    if isinstance(way, Denial) and way.code != ReplyCode.ENCAPSULATION_UNAVAILABLE:
        return way
    denial = _judge_end(request.care_of_address, home_address, policy, is_home)
    if denial is None and isinstance(way, Grant) and way.way.endpoint != request.care_of_address:
        denial = _judge_end(way.way.endpoint, home_address, policy, is_home)
    if denial is not None or isinstance(way, Denial):
        return denial or way
    return _judge_reverse_tunnel(request.flags, policy.reverse_tunnels) or way


def _judge_address(claim: Claim, policy: AgentPolicy) -> Denial | None:
    request = claim.request
    if not claim.arrived.unicast:
        text = "it was broadcast or multicast"
    elif request.home_agent != policy.address:
        text = f"it is meant for home agent {request.home_agent}"
    elif request.flags.has_reserved:
        return Denial(ReplyCode.POORLY_FORMED_REQUEST, Finding.RESERVED_BITS, "a reserved flag is set")
    else:
        return None
    return Denial(ReplyCode.UNKNOWN_HOME_AGENT_ADDRESS, Finding.WRONG_HOME_AGENT, text)


def can_be_an_end(address: int) -> bool:
    """Whether it is none of the unspecified, loopback, multicast and reserved addresses."""
    return 0 < address < _FIRST_MULTICAST and address >> 24 != _LOOPBACK


def _judge_end(
    end: IPv4Address,
    home_address: IPv4Address,
    policy: AgentPolicy,
    is_home: Callable[[IPv4Address], bool],
) -> Denial | None:
    if end == home_address or not can_be_an_end(int(end)):
        text = f"nothing can be tunnelled to {end}"
        return Denial(ReplyCode.POORLY_FORMED_REQUEST, Finding.BAD_CARE_OF_ADDRESS, text)
    if end == policy.address or is_home(end):
        text = f"a tunnel to {end} would lead back into a tunnel"
        return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.LOOPING_CARE_OF_ADDRESS, text)
    return None


def _judge_reverse_tunnel(flags: RequestFlags, stance: ReverseTunnels) -> Denial | None:
    """RFC 3024 section 4.3.1, in its order: the encapsulation was judged before."""
    asked = flags.reverse_tunnel
    if stance is ReverseTunnels.MANDATORY and not asked:
        text = "a reverse tunnel is mandatory"
        return Denial(ReplyCode.REVERSE_TUNNEL_MANDATORY, Finding.REVERSE_TUNNEL_MANDATORY, text)
    if stance is ReverseTunnels.REFUSED and asked:
        text = "no reverse tunnels are offered"
        return Denial(ReplyCode.REVERSE_TUNNEL_UNAVAILABLE, Finding.REVERSE_TUNNEL_REFUSED, text)
    return None
