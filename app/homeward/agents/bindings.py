# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobility binding list of a home agent: one care-of address for each home address (RFC 5944 section 3.8.1)."""

import struct
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from ipaddress import IPv4Address

from homeward.agents.expiries import Expiries
from homeward.model import lifetime as lifetimes
from homeward.model.agent_memory import RevocationPeer
from homeward.model.encapsulation import Encapsulation
from homeward.model.registration import Identification, Spi
from homeward.model.values import quick


@quick
@dataclass(frozen=True, slots=True)
class Way:
    """How packets get to a care-of address: the outer end of the tunnel, and what the tunnel is made of.

    `endpoint` is the care-of address, or the address of the NAT that hides it. With `udp` the tunnel ends at `port`
    there, which is None as long as the tunnel is half bound (RFC 3519 section 4.6).
    """

    endpoint: IPv4Address
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    _: KW_ONLY
    udp: bool = False
    port: int | None = None


@quick
@dataclass(frozen=True, slots=True)
class Binding:
    """A home address is reachable at a care-of address, for `lifetime` seconds from `since` (boot time).

    `way` is how its packets get there. `reverse_tunnel` says whether the mobile node asked for one (T bit); without it
    nothing of its is decapsulated. `spi` names the association that it rests on. `co_located` is the D bit: the mobile
    node itself, not a foreign agent, is the tunnel's other end. `revocation` is who understands that it is revoked.
    """

    home_address: IPv4Address
    care_of_address: IPv4Address
    _: KW_ONLY
    node: str
    spi: Spi
    identification: Identification
    lifetime: int
    since: float
    reverse_tunnel: bool
    co_located: bool
    way: Way
    revocation: RevocationPeer | None = None

    @property
    def expires(self) -> float | None:
        """Boot time at which it ends by itself; None for ever."""
        return lifetimes.ends_at(self.since, self.lifetime)

    def remaining(self, boot: float) -> int:
        """Whole seconds left, as a Lifetime field says it; never more than was granted."""
        return lifetimes.remaining(self.since, self.lifetime, boot)


class Change(Enum):
    """What became of a binding."""

    MADE = "made"
    MOVED = "moved"
    RENEWED = "renewed"
    COMPLETED = "completed"
    """The first keepalive of a half-bound tunnel showed its port (RFC 3519 section 4.6)."""
    REMOVED = "removed"
    REVOKED = "revoked"
    EXPIRED = "expired"


_TIMES = struct.Struct("!dH")  # since, lifetime
_BINDING = struct.Struct("!dHQIIIBHBB")
# ... identification, SPI, care-of address, endpoint, encapsulation, port, flags of the way, other flags
_PEER = struct.Struct("!BIHIII")  # flags, address, port, SPI, announced, heard
_REVOCABLE_BINDING = struct.Struct(_BINDING.format + _PEER.format[1:])
_CARE_OF = slice(22, 26)
_PLACE = slice(22, 34)  # care-of address and way
_FLAGS_AT, _PEER_AT = 34, _BINDING.size
_UDP, _HALF_BOUND = 1, 2
_REVERSE_TUNNEL, _CO_LOCATED, _REVOCABLE = 1, 2, 4
_FOREIGN_AGENT, _INFORM = 1, 2
_IP_IN_IP = Encapsulation.IP_IN_IP.protocol
_ENCAPSULATIONS = {each.protocol: each for each in Encapsulation}


class BindingTable:
    """All bindings, and which of them ends next; every operation takes at most logarithmic time.

    Each is a run of octets until it is asked for, since as objects they would need six times as much room.
    """

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}
        self._expiries = Expiries(self._end_of)

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[Binding]:
        for home_address, packed in self._packed.items():
            yield unpack(IPv4Address(home_address), packed)

    def __contains__(self, home_address: IPv4Address) -> bool:
        """Whether the home address has a binding."""
        return int(home_address) in self._packed

    def home_addresses(self) -> list[int]:
        """Those that have a binding, as numbers, in order: quick even for a hundred thousand."""
        return sorted(self._packed)

    def get(self, home_address: IPv4Address) -> Binding | None:
        """The binding of a home address, if there is one."""
        packed = self._packed.get(int(home_address))
        return None if packed is None else unpack(home_address, packed)

    def put(self, binding: Binding) -> tuple[Change, Binding | None]:
        """Make this the only binding of its home address; whether that makes, moves or renews it.

        Where it leaves a foreign agent that understands revocation, also the binding that it had there.
        """
        change, before = self.put_packed(int(binding.home_address), _pack(binding), binding.expires)
        if before is None or not is_with_foreign_agent(before):
            return change, None
        left = unpack(binding.home_address, before)
        return change, left if left.care_of_address != binding.care_of_address else None

    def packed(self, home_address: int) -> bytes | None:
        """The binding of a home address as the run of octets that it is, if there is one."""
        return self._packed.get(home_address)

    def put_packed(
        self, home_address: int, packed: bytes, expires: float | None
    ) -> tuple[Change, bytes | None]:
        """As `put`, of a binding that is packed already; which one it takes the place of comes with the change."""
        before = self._packed.get(home_address)
        self._packed[home_address] = packed
        if before is None:
            self._expiries.note(home_address, expires, before=None)
            return Change.MADE, None
        self._expiries.note(home_address, expires, before=lifetimes.ends_at(*_TIMES.unpack_from(before)))
        return Change.RENEWED if before[_PLACE] == packed[_PLACE] else Change.MOVED, before

    def remove(self, home_address: IPv4Address) -> Binding | None:
        """Take the binding out and return it; None when there is none."""
        packed = self._packed.pop(int(home_address), None)
        return None if packed is None else unpack(home_address, packed)

    def next_expiry(self) -> float | None:
        """Boot time at which the next binding ends, None when none ever does."""
        return self._expiries.next()

    def may_end_before(self, boot: float) -> bool:
        """Whether one could end by itself before this; False is sure."""
        return self._expiries.may_end_before(boot)

    def expire(self, boot: float) -> list[Binding]:
        """Take out and return every binding whose lifetime is over at `boot`."""
        gone: list[Binding] = []
        while (key := self._expiries.due(boot)) is not None:
            gone.append(unpack(IPv4Address(key), self._packed.pop(key)))
        return gone

    def _end_of(self, key: int) -> float | None:
        packed = self._packed.get(key)
        return None if packed is None else lifetimes.ends_at(*_TIMES.unpack_from(packed))


def _pack(binding: Binding) -> bytes:
    way, peer = binding.way, binding.revocation
    said = (
        binding.since,
        binding.lifetime,
        binding.identification,
        binding.spi,
        int(binding.care_of_address),
        int(way.endpoint),
        way.encapsulation.protocol,
        way.port or 0,
        (_UDP if way.udp else 0) | (_HALF_BOUND if way.port is None else 0),
        (_REVERSE_TUNNEL if binding.reverse_tunnel else 0)
        | (_CO_LOCATED if binding.co_located else 0)
        | (0 if peer is None else _REVOCABLE),
    )
    if peer is None:
        return _BINDING.pack(*said) + binding.node.encode()
    flags = (_FOREIGN_AGENT if peer.is_foreign_agent else 0) | (_INFORM if peer.inform else 0)
    reachable = (int(peer.address), peer.port, peer.spi, peer.announced, peer.heard)
    return _REVOCABLE_BINDING.pack(*said, flags, *reachable) + binding.node.encode()


def is_with_foreign_agent(packed: bytes) -> bool:
    """Whether it is one with a foreign agent that understands revocation."""
    return bool(packed[_FLAGS_AT] & _REVOCABLE and packed[_PEER_AT] & _FOREIGN_AGENT)


def pack_plain(
    care_of_address: int,
    *,
    node: bytes,
    spi: int,
    identification: int,
    lifetime: int,
    since: float,
    reverse_tunnel: bool,
    peer: tuple[int, int, int] | None,
) -> bytes:
    """A binding that tunnels IP in IP to a co-located care-of address, as `put_packed` takes it.

    `peer` are port, `announced` and `heard` of the node itself, where it understands revocation.
    """
    flags = _REVERSE_TUNNEL | _CO_LOCATED if reverse_tunnel else _CO_LOCATED
    if peer is None:
        return (
            _BINDING.pack(
                since, lifetime, identification, spi, care_of_address, care_of_address, _IP_IN_IP, 0,
                _HALF_BOUND, flags,
            )
            + node
        )  # fmt: skip
    port, announced, heard = peer
    return (
        _REVOCABLE_BINDING.pack(
            since, lifetime, identification, spi, care_of_address, care_of_address, _IP_IN_IP, 0,
            _HALF_BOUND, flags | _REVOCABLE, 0, care_of_address, port, spi, announced, heard,
        )
        + node
    )  # fmt: skip


def unpack(home_address: IPv4Address, packed: bytes) -> Binding:
    """The binding again, from the run of octets that a table has of it."""
    said = _BINDING.unpack_from(packed)
    since, lifetime, identification, spi, care_of, end, protocol, port, kind, flags = said
    care_of_address = IPv4Address(care_of)
    revocable = flags & _REVOCABLE
    return Binding(
        home_address,
        care_of_address,
        node=packed[_PEER_AT + _PEER.size if revocable else _PEER_AT :].decode(),
        spi=spi,
        identification=identification,
        lifetime=lifetime,
        since=since,
        reverse_tunnel=bool(flags & _REVERSE_TUNNEL),
        co_located=bool(flags & _CO_LOCATED),
        way=Way(
            care_of_address if end == care_of else IPv4Address(end),
            _ENCAPSULATIONS[protocol],
            udp=bool(kind & _UDP),
            port=None if kind & _HALF_BOUND else port,
        ),
        revocation=_unpack_peer(packed) if revocable else None,
    )


def _unpack_peer(packed: bytes) -> RevocationPeer:
    flags, address, port, spi, announced, heard = _PEER.unpack_from(packed, _PEER_AT)
    return RevocationPeer(
        IPv4Address(address),
        port,
        spi,
        is_foreign_agent=bool(flags & _FOREIGN_AGENT),
        announced=announced,
        heard=heard,
        inform=bool(flags & _INFORM),
    )
