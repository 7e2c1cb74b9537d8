# SPDX-License-Identifier: GPL-2.0-or-later
"""A memory as octets: flags and time stamp, then the binding where there is one, then who can be told of its end.

Big-endian, of fixed size but for the node's name at the end. SQLite's integers have a sign and 64 bits, a time stamp
has no sign and, from 2036 on, more bits. Whatever is not exactly so is a ValueError: half a memory could let a request
in a second time.
"""

from __future__ import annotations

import math
import struct
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from homeward.model.agent_memory import KeptBinding, KeptRevocationPeer, Memory
from homeward.model.encapsulation import Encapsulation

_HEAD: Final = struct.Struct("!BIQ")
_BINDING: Final = struct.Struct("!IIIIQHdBH")
_PEER: Final = struct.Struct("!BIHIII")

_STAMP, _BOUND, _REVERSE_TUNNEL, _CO_LOCATED, _UDP, _PORT, _PEER_KEPT = (1 << bit for bit in range(7))
_FOREIGN_AGENT, _INFORM = 1, 2
_LOW: Final = (1 << 64) - 1
_IP_IN_IP: Final = Encapsulation.IP_IN_IP.protocol
_ENCAPSULATIONS: Final = {each.protocol: each for each in Encapsulation}

_PLAIN: Final = struct.Struct("!BIQIIIIQHdBH")
_PLAIN_REVOCABLE: Final = struct.Struct(_PLAIN.format + _PEER.format[1:])
_PLAIN_FLAGS: Final = _STAMP | _BOUND | _CO_LOCATED


class MemoryRecord(NamedTuple):
    """A memory that is written down already."""

    identity: str
    octets: bytes


def record_plain(
    identity: str,
    home_address: int,
    care_of_address: int,
    *,
    stamp: int,
    node: bytes,
    spi: int,
    identification: int,
    lifetime: int,
    since_wall: float,
    reverse_tunnel: bool,
    peer: tuple[int, int, int] | None,
) -> MemoryRecord:
    """What `encode` makes of a binding that tunnels IP in IP to a co-located care-of address.

    `peer` are port, `announced` and `heard` of the node itself, where it understands revocation.
    """
    flags = _PLAIN_FLAGS | _REVERSE_TUNNEL if reverse_tunnel else _PLAIN_FLAGS
    if peer is None:
        octets = _PLAIN.pack(
            flags, stamp >> 64, stamp & _LOW, home_address, care_of_address, care_of_address, spi,
            identification, lifetime, since_wall, _IP_IN_IP, 0,
        )  # fmt: skip
    else:
        port, announced, heard = peer
        octets = _PLAIN_REVOCABLE.pack(
            flags | _PEER_KEPT, stamp >> 64, stamp & _LOW, home_address, care_of_address, care_of_address, spi,
            identification, lifetime, since_wall, _IP_IN_IP, 0, 0, care_of_address, port, spi, announced, heard,
        )  # fmt: skip
    return MemoryRecord(identity, octets + node)


def encode(memory: Memory) -> bytes:
    """The record of a memory. ValueError for one that has no place in it."""
    stamp, binding = memory.stamp, memory.binding
    flags = 0 if stamp is None else _STAMP
    try:
        if binding is None:
            return _HEAD.pack(flags, (stamp or 0) >> 64, (stamp or 0) & _LOW)
        flags |= (
            _BOUND
            | (_REVERSE_TUNNEL if binding.reverse_tunnel else 0)
            | (_CO_LOCATED if binding.co_located else 0)
            | (_UDP if binding.udp else 0)
            | (_PORT if binding.port is not None else 0)
            | (_PEER_KEPT if binding.revocation is not None else 0)
        )
        return b"".join(
            (
                _HEAD.pack(flags, (stamp or 0) >> 64, (stamp or 0) & _LOW),
                _BINDING.pack(
                    int(binding.home_address),
                    int(binding.care_of_address),
                    int(binding.endpoint),
                    binding.spi,
                    binding.identification,
                    binding.lifetime,
                    binding.since_wall,
                    binding.encapsulation.protocol,
                    binding.port or 0,
                ),
                b"" if binding.revocation is None else _encode_peer(binding.revocation),
                binding.node.encode(),
            )
        )
    except struct.error as error:
        raise ValueError(f"a memory of {memory.identity} cannot be written down: {error}") from error


def decode(identity: object, record: object) -> Memory:
    """The memory of a record. ValueError for anything that `encode` did not make."""
    if not isinstance(identity, str) or not isinstance(record, bytes):
        raise ValueError("a record is no record")
    try:
        flags, high, low = _HEAD.unpack_from(record)
        stamp = high << 64 | low if flags & _STAMP else None
        if flags >= 1 << 7 or (stamp is None and high | low):
            raise ValueError("it has unknown flags")
        if flags & _BOUND:
            return Memory(identity, stamp, _decode_binding(flags, record))
        if flags & ~_STAMP or len(record) != _HEAD.size:
            raise ValueError("it is longer than it says")
    except (struct.error, ValueError) as error:
        raise ValueError(f"the record of {identity!r} is not understood: {error}") from error
    return Memory(identity, stamp, None)


def _decode_binding(flags: int, record: bytes) -> KeptBinding:
    home, care_of, endpoint, spi, identification, lifetime, since, protocol, port = _BINDING.unpack_from(
        record, _HEAD.size
    )
    end = _HEAD.size + _BINDING.size
    peer = None
    if flags & _PEER_KEPT:
        peer, end = _decode_peer(record, end), end + _PEER.size
    if protocol not in _ENCAPSULATIONS:
        raise ValueError(f"{protocol} is no encapsulation")
    if not math.isfinite(since):
        raise ValueError("it began at no time")
    if port and not flags & _PORT:
        raise ValueError("it has a port and says it has none")
    return KeptBinding(
        IPv4Address(home),
        IPv4Address(care_of),
        node=record[end:].decode(),
        spi=spi,
        identification=identification,
        lifetime=lifetime,
        since_wall=since,
        reverse_tunnel=bool(flags & _REVERSE_TUNNEL),
        co_located=bool(flags & _CO_LOCATED),
        endpoint=IPv4Address(endpoint),
        encapsulation=_ENCAPSULATIONS[protocol],
        udp=bool(flags & _UDP),
        port=port if flags & _PORT else None,
        revocation=peer,
    )


def _encode_peer(peer: KeptRevocationPeer) -> bytes:
    flags = (_FOREIGN_AGENT if peer.is_foreign_agent else 0) | (_INFORM if peer.inform else 0)
    return _PEER.pack(flags, int(peer.address), peer.port, peer.spi, peer.announced, peer.heard)


def _decode_peer(record: bytes, start: int) -> KeptRevocationPeer:
    flags, address, port, spi, announced, heard = _PEER.unpack_from(record, start)
    if flags > _FOREIGN_AGENT | _INFORM:
        raise ValueError("its revocation peer has unknown flags")
    return KeptRevocationPeer(
        IPv4Address(address),
        port,
        spi,
        is_foreign_agent=bool(flags & _FOREIGN_AGENT),
        announced=announced,
        heard=heard,
        inform=bool(flags & _INFORM),
    )
