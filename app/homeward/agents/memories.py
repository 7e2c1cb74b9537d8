# SPDX-License-Identifier: GPL-2.0-or-later
"""Bindings as they are written down, and as they are read again in another life, when other clocks may run."""

from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address

from homeward.agents.bindings import Binding, RevocationPeer, Way
from homeward.agents.policy import Identity
from homeward.model.agent_memory import KeptBinding, KeptRevocationPeer, Memory
from homeward.model.instant import Instant
from homeward.model.registration import Identification, MobilitySecurityAssociation, Spi
from homeward.wire.extensions import ExtensionType


def remembered(identity: Identity, stamp: int | None, binding: Binding | None, at: Instant) -> Memory:
    """What is to be kept of a node as of now."""
    return Memory(str(identity), stamp, None if binding is None else _kept(binding, at))


def identity_of(memory: Memory) -> Identity:
    """Whose memory it is."""
    try:
        return IPv4Address(memory.identity)
    except AddressValueError:
        return memory.identity


def revived(
    kept: KeptBinding, at: Instant, *, revoked_by: MobilitySecurityAssociation | None
) -> Binding | None:
    """The binding with what is left of its time; None when that is over.

    `revoked_by` is the association under which it can be revoked: without it, it cannot be. A clock that was put back
    gives nobody more time than was granted.
    """
    left = at.wall - kept.since_wall
    binding = Binding(
        kept.home_address,
        kept.care_of_address,
        node=kept.node,
        spi=Spi(kept.spi),
        identification=Identification(kept.identification),
        lifetime=kept.lifetime,
        since=at.boot - max(0.0, left),
        reverse_tunnel=kept.reverse_tunnel,
        co_located=kept.co_located,
        way=Way(kept.endpoint, kept.encapsulation, udp=kept.udp, port=kept.port),
    )
    if binding.expires is not None and binding.expires <= at.boot:
        return None
    if kept.revocation is None or revoked_by is None:
        return binding
    return replace(binding, revocation=_peer(kept.revocation, revoked_by))


def _kept(binding: Binding, at: Instant) -> KeptBinding:
    way, peer = binding.way, binding.revocation
    return KeptBinding(
        binding.home_address,
        binding.care_of_address,
        node=binding.node,
        spi=binding.spi,
        identification=binding.identification,
        lifetime=binding.lifetime,
        since_wall=at.wall - (at.boot - binding.since),
        reverse_tunnel=binding.reverse_tunnel,
        co_located=binding.co_located,
        endpoint=way.endpoint,
        encapsulation=way.encapsulation,
        udp=way.udp,
        port=way.port,
        revocation=None if peer is None else _kept_peer(peer),
    )


def _kept_peer(peer: RevocationPeer) -> KeptRevocationPeer:
    return KeptRevocationPeer(
        peer.address,
        peer.port,
        peer.association.spi,
        is_foreign_agent=peer.is_foreign_agent,
        announced=peer.announced,
        heard=peer.heard,
        inform=peer.inform,
    )


def _peer(kept: KeptRevocationPeer, association: MobilitySecurityAssociation) -> RevocationPeer:
    by_foreign_agent = kept.is_foreign_agent
    return RevocationPeer(
        kept.address,
        kept.port,
        association,
        protection=(
            ExtensionType.FOREIGN_HOME_AUTHENTICATION
            if by_foreign_agent
            else ExtensionType.MOBILE_HOME_AUTHENTICATION
        ),
        announced=kept.announced,
        heard=kept.heard,
        inform=kept.inform,
    )
