# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether revocation is agreed on for a binding, and with whom (RFC 3543 section 4.2.1)."""

from homeward.agents.bindings import Binding
from homeward.agents.claims import Claim, ForeignAgentProof
from homeward.agents.policy import AgentPolicy
from homeward.agents.verdicts import Grant
from homeward.model.agent_memory import RevocationPeer
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.relay import HomeToForeign
from homeward.model.revocation import RevocationSupport
from homeward.wire.identification import seconds


def agree(
    claim: Claim, grant: Grant, policy: AgentPolicy, proof: ForeignAgentProof, at: Instant
) -> RevocationPeer | None:
    """Who is told when the binding ends before its time, None where nobody can be.

    A co-located mobile node only where it registers itself: through a foreign agent it is not supported (RFC 3543
    section 4.3.2). A foreign agent only with proof, since it may end the binding itself. Behind a NAT port 434 is
    nobody's, and the port that the request came from is the only way in.
    """
    if not policy.revocation:
        return None
    port = claim.arrived.source_port if grant.nat else REGISTRATION_PORT
    if claim.co_located:
        support, spi, able = claim.request.revocation_support, claim.node.association.spi, grant.direct
    elif claim.relay is not None:
        support, spi = claim.part.revocation_support, claim.relay.spi
        able = proof is ForeignAgentProof.VALID
    else:
        return None
    if support is None or not able:
        return None
    return RevocationPeer(
        claim.arrived.source,
        port,
        spi,
        is_foreign_agent=not claim.co_located,
        announced=seconds(at.wall),
        heard=support.timestamp,
        inform=support.inform and not claim.co_located,
    )


def told_mobile_node(binding: Binding) -> RevocationSupport | None:
    """What the mobile node reads of it, in front of its authenticator."""
    peer = binding.revocation
    return None if peer is None or peer.is_foreign_agent else RevocationSupport(peer.announced)


def told_foreign_agent(binding: Binding, grant: Grant) -> HomeToForeign | None:
    """What the foreign agent reads behind it, if anything."""
    peer = binding.revocation
    support = None
    if peer is not None and peer.is_foreign_agent:
        support = RevocationSupport(peer.announced, inform=peer.inform)
    if support is None and grant.to_foreign_agent is None:
        return None
    return HomeToForeign(udp_tunnel=grant.to_foreign_agent, revocation_support=support)
