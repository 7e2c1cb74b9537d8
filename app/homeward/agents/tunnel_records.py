# SPDX-License-Identifier: GPL-2.0-or-later
"""A tunnel in fifteen octets: a home agent has as many of them as it has bindings."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Final, NewType

from homeward.agents.agent_events import Forward
from homeward.model.encapsulation import Encapsulation
from homeward.model.overhead import inner_mtu, layer_of

Record = NewType("Record", bytes)
"""What a Forward says but for the home address: FAR, PORT (0 for none), KIND, and the boot time of its end."""

FAR: Final = slice(0, 4)
PORT: Final = slice(4, 6)
ENDS: Final = slice(0, 6)
KIND: Final = 6
ALL_BUT_END: Final = slice(0, 7)

_RECORD: Final = struct.Struct("!IHBd")
_END: Final = struct.Struct("!d")
_END_AT: Final = 7
_REVERSE_TUNNEL, _UDP, _PORT_KNOWN = 0x10, 0x20, 0x40
_ENCAPSULATIONS: Final = tuple(Encapsulation)
_NUMBERS: Final = {each.protocol: number for number, each in enumerate(_ENCAPSULATIONS)}
_PLAIN_KIND: Final = _NUMBERS[Encapsulation.IP_IN_IP.protocol]
_LONGEST: Final = 0xFFFF
_CACHED: Final = 1024


@dataclass(frozen=True, slots=True)
class Kind:
    """What tunnels of one kind have in common. `overhead` is what they add to a packet, in octets."""

    encapsulation: Encapsulation
    reverse_tunnel: bool
    udp: bool
    is_half_bound: bool
    overhead: int


def _kind(number: int) -> Kind | None:
    at, udp = number & 0x0F, bool(number & _UDP)
    if at >= len(_ENCAPSULATIONS) or number > _REVERSE_TUNNEL | _UDP | _PORT_KNOWN | 0x0F:
        return None
    encapsulation = _ENCAPSULATIONS[at]
    overhead = _LONGEST - inner_mtu(_LONGEST, (layer_of(encapsulation, udp=udp),))
    half_bound = udp and not number & _PORT_KNOWN
    return Kind(encapsulation, bool(number & _REVERSE_TUNNEL), udp, half_bound, overhead)


KINDS: Final = {number: kind for number in range(256) if (kind := _kind(number)) is not None}
"""By what stands at KIND."""


def record_of(tunnel: Forward) -> Record:
    """The tunnel, packed."""
    kind = _NUMBERS[tunnel.encapsulation.protocol]
    if tunnel.reverse_tunnel:
        kind |= _REVERSE_TUNNEL
    if tunnel.udp:
        kind |= _UDP
    port, end = tunnel.port, tunnel.expires
    if port is not None:
        kind |= _PORT_KNOWN
    return Record(_RECORD.pack(int(tunnel.endpoint), port or 0, kind, math.inf if end is None else end))


def plain_record(endpoint: int, *, reverse_tunnel: bool, expires: float | None) -> Record:
    """A tunnel of IP in IP."""
    kind = _PLAIN_KIND | _REVERSE_TUNNEL if reverse_tunnel else _PLAIN_KIND
    return Record(_RECORD.pack(endpoint, 0, kind, math.inf if expires is None else expires))


def far_end(record: Record) -> int:
    """The address of its other end."""
    return int.from_bytes(record[FAR], "big")


def end_of(record: Record) -> float:
    """The boot time at which it ends by itself, infinite where it does not."""
    found: float = _END.unpack_from(record, _END_AT)[0]
    return found


@lru_cache(maxsize=_CACHED)
def tunnel_of(home_address: int, record: Record) -> Forward:
    """The tunnel of that home address again; for each packet."""
    far, port, number, end = _RECORD.unpack(record)
    kind = KINDS[number]
    return Forward(
        IPv4Address(home_address),
        IPv4Address(far),
        encapsulation=kind.encapsulation,
        reverse_tunnel=kind.reverse_tunnel,
        udp=kind.udp,
        port=port if number & _PORT_KNOWN else None,
        expires=None if end == math.inf else end,
    )
