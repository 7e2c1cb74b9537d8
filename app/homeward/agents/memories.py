# SPDX-License-Identifier: GPL-2.0-or-later
"""Bindings as they are written down, and as they are read again in another life, when other clocks may run."""

from ipaddress import AddressValueError, IPv4Address

from homeward.agents.bindings import Binding, Way
from homeward.agents.nodes import Identity
from homeward.model.agent_memory import KeptBinding, Memory
from homeward.model.instant import Instant
from homeward.model.registration import Identification, Spi


def remembered(identity: Identity, stamp: int | None, binding: Binding | None, at: Instant) -> Memory:
    """What is to be kept of a node as of now."""
    return Memory(name_of(identity), stamp, None if binding is None else _kept(binding, at))


def identity_of(memory: Memory) -> Identity:
    """Whose memory it is."""
    home_address = None if memory.binding is None else int(memory.binding.home_address)
    if home_address is not None and name_of(home_address) == memory.identity:
        return home_address  # as nearly always, and much sooner found out
    try:
        return int(IPv4Address(memory.identity))
    except AddressValueError:
        return memory.identity


def revived(kept: KeptBinding, at: Instant) -> Binding | None:
    """The binding with what is left of its time; None when that is over.

    A clock that was put back gives nobody more time than was granted.
    """
    way = Way(kept.endpoint, kept.encapsulation, udp=kept.udp, port=kept.port)
    binding = Binding(
        kept.home_address,
        kept.care_of_address,
        node=kept.node,
        spi=Spi(kept.spi),
        identification=Identification(kept.identification),
        lifetime=kept.lifetime,
        since=at.boot - max(0.0, at.wall - kept.since_wall),
        reverse_tunnel=kept.reverse_tunnel,
        co_located=kept.co_located,
        way=way,
        revocation=kept.revocation,
    )
    return None if binding.expires is not None and binding.expires <= at.boot else binding


def _kept(binding: Binding, at: Instant) -> KeptBinding:
    way = binding.way
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
        revocation=binding.revocation,
    )


def name_of(identity: Identity) -> str:
    """What it is written down under."""
    if isinstance(identity, str):
        return identity
    # As str(IPv4Address) writes it, in half the time.
    return f"{identity >> 24}.{identity >> 16 & 255}.{identity >> 8 & 255}.{identity & 255}"
