# SPDX-License-Identifier: GPL-2.0-or-later
"""The octets of a request as it goes on to the home agent, and of what goes back to the mobile node (RFC 5944 3.7)."""

from ipaddress import IPv4Address

from homeward.agents.advertiser import LIMITED_BROADCAST
from homeward.agents.foreign_events import SendToMobileNode
from homeward.agents.foreign_rules import ForeignPolicy, wanted_encapsulation
from homeward.agents.visitors import PendingRequest
from homeward.model.encapsulation import Encapsulation
from homeward.model.instant import Instant
from homeward.model.nat_traversal import TunnelKind, UdpTunnelRequest
from homeward.model.registration import (
    LIFETIME_DEREGISTER,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    ReplyCode,
    RequestFlags,
)
from homeward.model.relay import ForeignToHome, ForeignToMobile
from homeward.model.revocation import RevocationSupport
from homeward.wire import relay
from homeward.wire.decoded import DecodedRequest
from homeward.wire.extensions import ExtensionType
from homeward.wire.identification import seconds

_BEFORE_SERVER = frozenset(
    {ExtensionType.ENCAPSULATING_DELIVERY_STYLE, ExtensionType.MOBILE_FOREIGN_CHALLENGE}
)


def for_home_agent(
    decoded: DecodedRequest, policy: ForeignPolicy, at: Instant
) -> tuple[bytes, ForeignToHome, MobilitySecurityAssociation | None]:
    """The relayed octets, what we ask the home agent for ourselves, and the association that proves it.

    Our own wishes go with a care-of address of ours only: a UDP tunnel for somebody else's would lead to us (RFC 3519
    section 4.5), and FA-HA authentication says that the address is one that we offer (R-171).
    """
    request = decoded.message
    ours = RequestFlags.DECAPSULATE_SELF not in request.flags
    binds = request.lifetime != LIFETIME_DEREGISTER
    association = policy.home_agents.get(request.home_agent) if ours and binds else None
    part = ForeignToHome(
        udp_tunnel=_udp_tunnel(request) if ours and policy.behind_nat else None,
        revocation_support=(
            RevocationSupport(seconds(at.wall)) if policy.revocation and association is not None else None
        ),
    )
    return relay.tell_home_agent(_kept(decoded), part, foreign_home=association), part, association


def _kept(decoded: DecodedRequest) -> bytes:
    """What stays as the mobile node made it: through MN-HA; and through MN-AAA where there is one, which may be meant
    for a server behind the home agent (RFC 4721 section 3.2). But what else a mobile node puts there could pass for
    ours, so then none of it stays."""
    for at, one in enumerate(decoded.unauthenticated):
        if one.number == ExtensionType.GENERALIZED_AUTHENTICATION:
            behind = decoded.unauthenticated[at + 1 :]
            return decoded.octets[: behind[0].offset] if behind else decoded.octets
        if one.number not in _BEFORE_SERVER:
            break
    return relay.through_mobile_home(decoded)


def reply_address(
    request: RegistrationRequest, source: IPv4Address, *, given: IPv4Address | None = None
) -> IPv4Address:
    """Where the answer to a request goes (RFC 5944 section 3.7.2.3); `given` is the home address in a home agent's
    reply. A mobile node with a care-of address of its own is answered where it asked from."""
    if RequestFlags.DECAPSULATE_SELF in request.flags and not source.is_unspecified:
        return source
    if not request.home_address.is_unspecified:
        return request.home_address
    return given if given is not None and not given.is_unspecified else LIMITED_BROADCAST


def to_mobile_node(
    octets: bytes, pending: PendingRequest, *, given: IPv4Address | None = None
) -> SendToMobileNode:
    """The answer to a relayed request, to the station that it came from."""
    return SendToMobileNode(
        octets,
        reply_address(pending.request, pending.source, given=given),
        port=pending.source_port,
        source=pending.agent_address,
        hardware_address=pending.hardware_address,
        interface=pending.interface,
    )


def denial(
    request: RegistrationRequest,
    code: ReplyCode,
    part: ForeignToMobile,
    *,
    lifetime: int | None = None,
    mobile_foreign: MobilitySecurityAssociation | None,
) -> bytes:
    """A denial of our own; the lifetime is the request's unless another is given (RFC 5944 section 3.7.2.3)."""
    reply = RegistrationReply(
        code,
        request.lifetime if lifetime is None else lifetime,
        home_address=request.home_address,
        home_agent=request.home_agent,
        identification=request.identification,
    )
    return relay.deny_request(reply, part, mobile_foreign=mobile_foreign)


def _udp_tunnel(request: RegistrationRequest) -> UdpTunnelRequest:
    gre = wanted_encapsulation(request.flags) is Encapsulation.GRE
    return UdpTunnelRequest(kind=TunnelKind.GRE if gre else TunnelKind.AS_FLAGGED)
