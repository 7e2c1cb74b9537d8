# SPDX-License-Identifier: GPL-2.0-or-later
"""Which way the packets of a binding take, judged by where its request came from (RFC 3519 sections 4.1 and 4.6).

A source address that is not the care-of address means that a NAT changed it, or that somebody relayed the request. We
believe in a NAT only where the administrator listed its address, and in a relay only where it is a foreign agent that
the policy names; everybody else is denied. What is believed about a NAT is not authenticated (RFC 3519 section 6),
which is why such bindings are short.
"""

from dataclasses import replace

from homeward.agents.bindings import Way
from homeward.agents.claims import Claim
from homeward.agents.findings import Finding
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.policy import AgentPolicy
from homeward.agents.verdicts import Denial, Grant
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import TunnelKind, UdpTunnelCode, UdpTunnelReply, UdpTunnelRequest
from homeward.model.registration import ReplyCode

_KINDS: dict[int, Encapsulation] = {
    TunnelKind.IP_IN_IP: Encapsulation.IP_IN_IP,
    TunnelKind.GRE: Encapsulation.GRE,
}
"""What a tunnel in UDP can carry here."""


def judge_way(claim: Claim, policy: AgentPolicy) -> Grant | Denial:
    """The way to the care-of address of a request for a binding, or why there is none."""
    misplaced = _misplaced(claim)
    if misplaced is not None:
        return misplaced
    source, care_of = claim.arrived.source, claim.request.care_of_address
    asked = claim.request.udp_tunnel if claim.co_located else claim.part.udp_tunnel
    if source == care_of:
        return _without_nat(claim, policy, asked, direct=claim.co_located)
    if policy.networks.is_nat(source):
        return _behind_nat(claim, policy, asked)
    if claim.co_located and claim.relay is not None:
        return _relayed(claim, policy, asked)
    text = f"care-of address {care_of} is not its source: relayed, or behind a NAT"
    return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.RELAYED, text)


def _misplaced(claim: Claim) -> Denial | None:
    """RFC 3519 section 4.6.1: the mobile node asks for its own care-of address only, the foreign agent for its own."""
    if claim.request.udp_tunnel is not None and not claim.co_located:
        text = "the mobile node asks for a tunnel in UDP to a foreign agent's care-of address"
    elif claim.part.udp_tunnel is not None and claim.co_located:
        text = "a foreign agent asks for a tunnel in UDP to a co-located care-of address"
    else:
        return None
    return Denial(ReplyCode.POORLY_FORMED_REQUEST, Finding.MISPLACED_UDP_REQUEST, text)


def _without_nat(
    claim: Claim, policy: AgentPolicy, asked: UdpTunnelRequest | None, *, direct: bool
) -> Grant | Denial:
    """No NAT in between: a tunnel in UDP only where it is forced, and a word that there is none where it was asked."""
    if asked is not None and asked.force:
        if not policy.allow_forced_udp:
            text = "a tunnel in UDP is asked for without a NAT in between, which is not allowed"
            return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.FORCED_UDP, text)
        return _in_udp(claim, policy, asked, Grant(Way(claim.arrived.source), direct=direct))
    return _plain(claim, policy, asked, direct=direct)


def _behind_nat(claim: Claim, policy: AgentPolicy, asked: UdpTunnelRequest | None) -> Grant | Denial:
    if asked is None:
        text = "a NAT lies in between, and no tunnel in UDP was asked for"
        return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.NAT_UNSUPPORTED, text)
    relayed = asked.through_foreign_agent and claim.co_located
    direct = claim.co_located and not relayed
    return _in_udp(claim, policy, asked, Grant(Way(claim.arrived.source), nat=True, direct=direct))


def _relayed(claim: Claim, policy: AgentPolicy, asked: UdpTunnelRequest | None) -> Grant | Denial:
    """A foreign agent's R bit had the mobile node register through it, with a care-of address of its own (R-117).

    That address is nobody's word but the mobile node's. Packets go there in clear, so it must lie inside.
    """
    care_of = claim.request.care_of_address
    if not policy.networks.covers(care_of):
        text = f"packets would go in clear to {care_of}, which lies in no trusted prefix"
        return Denial(ReplyCode.ADMINISTRATIVELY_PROHIBITED, Finding.UNTRUSTED_CARE_OF_ADDRESS, text)
    return _plain(claim, policy, asked, direct=False)


def _plain(
    claim: Claim, policy: AgentPolicy, asked: UdpTunnelRequest | None, *, direct: bool
) -> Grant | Denial:
    offered = (each for each in claim.request.flags.encapsulations if _is_offered(each, policy))
    encapsulation = next(offered, None)
    if encapsulation is None:
        text = "the encapsulation that it asks for is not offered"
        return Denial(ReplyCode.ENCAPSULATION_UNAVAILABLE, Finding.ENCAPSULATION, text)
    grant = Grant(Way(claim.request.care_of_address, encapsulation), direct=direct)
    declined = None if asked is None else UdpTunnelReply(UdpTunnelCode.DECLINED)
    return _tell(claim, grant, declined)


def _in_udp(claim: Claim, policy: AgentPolicy, asked: UdpTunnelRequest, grant: Grant) -> Grant | Denial:
    kind = asked.kind
    if kind == TunnelKind.AS_FLAGGED:
        kind = claim.request.flags.encapsulations[0].protocol
    encapsulation = _KINDS.get(kind)
    if encapsulation is None or encapsulation not in policy.encapsulations:
        text = f"encapsulation {kind} is not offered inside UDP"
        return Denial(ReplyCode.UDP_TUNNEL_ENCAPSULATION_UNAVAILABLE, Finding.UDP_ENCAPSULATION, text)
    half_bound = grant.nat and asked.through_foreign_agent and claim.co_located
    port = None if half_bound else claim.arrived.source_port
    way = Way(claim.arrived.source, encapsulation, udp=True, port=port)
    # "Forced" only where nothing but the wish made the tunnel, so that a mobile node that forces one still learns of a
    # NAT where it expects none.
    reply = UdpTunnelReply(forced=asked.force and not grant.nat, keepalive=policy.nat_keepalive)
    return _tell(claim, replace(grant, way=way), reply)


def _tell(claim: Claim, grant: Grant, reply: UdpTunnelReply | None) -> Grant:
    if reply is None:
        return grant
    if claim.co_located:
        return replace(grant, to_mobile_node=reply)
    return replace(grant, to_foreign_agent=reply)


def _is_offered(encapsulation: Encapsulation, policy: AgentPolicy) -> bool:
    return encapsulation is Encapsulation.IP_IN_IP or encapsulation in policy.encapsulations


def may_end(claim: Claim, networks: TrustedNetworks) -> bool:
    """Whether a wish to end bindings came from where it may: from the care-of address, or as somebody's own matter.

    Ending all bindings is granted from anywhere inside: it can only take away, and only what its sender owns. It gets
    no word about trust, though, unless it came from the home address itself.
    """
    source, request = claim.arrived.source, claim.request
    if source == request.care_of_address or networks.is_nat(source) or claim.relay is not None:
        return True
    return request.care_of_address == request.home_address
