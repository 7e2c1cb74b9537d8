# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobile nodes that a home agent serves, one by one and a hundred thousand of them."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import NoReturn, TypeAlias

from homeward.model.errors import ProfileError
from homeward.model.profile import ReplayStyle
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi
from homeward.model.secret import Secret
from homeward.model.values import quick

Identity: TypeAlias = int | str
"""What a node is known by, whatever association it uses: an address of its own, as a number, or its NAI."""


@quick
@dataclass(frozen=True, slots=True)
class Node:
    """A mobile node that this agent serves, by one security association; `name` is for people.

    It has a home address of its own, or gets one out of `home_addresses`; then `nai` says who it is (RFC 2794).
    A node with both an address and an NAI may ask for its address by the NAI. ProfileError for a node with neither.
    With `retired` the association makes and renews no binding any more, but what rests on it stays until it ends.
    """

    name: str
    home_address: IPv4Address | None
    association: MobilitySecurityAssociation
    _: KW_ONLY
    nai: str | None = None
    home_addresses: IPv4Network | None = None
    replay: ReplayStyle = ReplayStyle.TIMESTAMPS
    retired: bool = False

    def __post_init__(self) -> None:
        if (self.home_address is None) == (self.home_addresses is None):
            raise ProfileError(f"node {self.name!r} needs either a home address or a prefix to get one from")
        if self.home_address is None and self.nai is None:
            raise ProfileError(f"node {self.name!r} has no home address of its own, so it needs an NAI")

    @property
    def identity(self) -> Identity:
        """What it is remembered by."""
        return int(self.home_address) if self.home_address is not None else self.nai or self.name


_HEAD = struct.Struct("!IIBBHH")  # SPI, home address, algorithm, flags, octets of the key, octets of the name
_POOL = struct.Struct("!IB")
_SPI = struct.Struct("!I")
_ALGORITHMS = tuple(AuthenticationAlgorithm)
_NUMBERS = {algorithm: number for number, algorithm in enumerate(_ALGORITHMS)}
_HAS_ADDRESS, _HAS_NAI, _NONCES, _RETIRED = 1, 2, 4, 8

_Records: TypeAlias = bytes | tuple[bytes, ...]


class NodeTable:
    """All nodes of a policy, found by what they are known by and the index of an association.

    Each is a run of octets until it is asked for: as objects, with their keys, they would need five times as much
    room. ProfileError where one cannot be told from another. Holds keys, so it is neither shown nor copied.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._by_identity: dict[Identity, _Records] = {}
        self._by_nai: dict[str, _Records] = {}
        """Of nodes that have an address of their own, but may ask for it by their NAI."""
        self._count = 0
        self.pools: set[IPv4Network] = set()
        """Where nodes without an address of their own get one from."""
        self.need_entropy = False
        for node in nodes:
            self._add(node)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Node]:
        """One for each association; those of one node come together."""
        for records in self._by_identity.values():
            yield from map(_unpacked, _each(records))

    def __contains__(self, identity: Identity) -> bool:
        """Whether a node is remembered by this."""
        return identity in self._by_identity

    def has(self, identity: Identity, spi: int) -> bool:
        """Whether `find` would find a node."""
        records, beginning = self._by_identity.get(identity, b""), _SPI.pack(spi)
        if isinstance(records, bytes):  # as nearly always: this is asked a hundred thousand times at a start
            return records.startswith(beginning)
        return any(each.startswith(beginning) for each in records)

    def __repr__(self) -> str:
        return f"NodeTable({self._count} associations)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a NodeTable holds keys, and is neither pickled nor copied")

    def find(self, identity: Identity, spi: int) -> Node | None:
        """The node that is remembered by this, with the association of that index."""
        records = self._by_identity.get(identity)
        return None if records is None else _find(records, spi)

    def find_plain(self, home_address: int, spi: int) -> tuple[bytes, bytes, AuthenticationAlgorithm] | None:
        """Name, key and algorithm of a node with this address of its own, which uses time stamps and is not retired.

        For requests by the thousand: the key is not to be kept by whoever asks for it.
        """
        records = self._by_identity.get(home_address)
        if records is None:
            return None
        beginning = _SPI.pack(spi)
        for record in records if isinstance(records, tuple) else (records,):
            if record.startswith(beginning):
                _, _, algorithm, flags, key_octets, name_octets = _HEAD.unpack_from(record)
                if flags & ~_HAS_NAI != _HAS_ADDRESS:
                    return None
                key_ends = _HEAD.size + key_octets
                name = record[key_ends : key_ends + name_octets]
                return name, record[_HEAD.size : key_ends], _ALGORITHMS[algorithm]
        return None

    def find_nai(self, nai: str, spi: int) -> Node | None:
        """The node with this NAI, whether or not it has an address of its own."""
        return _find(self._by_nai.get(nai, ()), spi) or self.find(nai, spi)

    def called(self, name: str) -> list[Node]:
        """The node of this name, once for each of its associations."""
        octets = name.encode()
        records = (each for found in self._by_identity.values() for each in _each(found) if octets in each)
        return [node for node in map(_unpacked, records) if node.name == name]

    def _add(self, node: Node) -> None:
        record, spi = _packed(node), node.association.spi
        if node.nai is not None:
            if self.find_nai(node.nai, spi) is not None:
                raise ProfileError(f"two nodes have NAI {node.nai} and SPI {spi}")
            index = self._by_nai if node.home_address is not None else self._by_identity
            index[node.nai] = (*_each(index.get(node.nai, ())), record)
        if node.home_address is not None:
            key = int(node.home_address)
            known = self._by_identity.get(key)
            if known is not None and _find(known, spi) is not None:
                raise ProfileError(f"two nodes have home address {node.home_address} and SPI {spi}")
            self._by_identity[key] = record if known is None else (*_each(known), record)
        if node.home_addresses is not None:
            _refuse_address_as_name(node)
            self.pools.add(node.home_addresses)
        self.need_entropy = self.need_entropy or node.replay is ReplayStyle.NONCES
        self._count += 1


def _each(records: _Records) -> tuple[bytes, ...]:
    return records if isinstance(records, tuple) else (records,)


def _find(records: _Records, spi: int) -> Node | None:
    beginning = _SPI.pack(spi)
    for record in _each(records):
        if record.startswith(beginning):
            return _unpacked(record)
    return None


def _packed(node: Node) -> bytes:
    association, name = node.association, node.name.encode()
    key, home, pool = association.key.reveal(), node.home_address, node.home_addresses
    head = _HEAD.pack(
        association.spi,
        0 if home is None else int(home),
        _NUMBERS[association.algorithm],
        (0 if home is None else _HAS_ADDRESS)
        | (0 if node.nai is None else _HAS_NAI)
        | (_NONCES if node.replay is ReplayStyle.NONCES else 0)
        | (_RETIRED if node.retired else 0),
        len(key),
        len(name),
    )
    behind = b"" if pool is None else _POOL.pack(int(pool.network_address), pool.prefixlen)
    return b"".join((head, key, name, behind, b"" if node.nai is None else node.nai.encode()))


def _unpacked(record: bytes) -> Node:
    spi, home, algorithm, flags, key_octets, name_octets = _HEAD.unpack_from(record)
    name_at = _HEAD.size + key_octets
    at = name_at + name_octets
    association = MobilitySecurityAssociation(
        Spi(spi), _ALGORITHMS[algorithm], key=Secret(record[_HEAD.size : name_at])
    )
    name, replay = record[name_at:at].decode(), ReplayStyle.TIMESTAMPS
    if flags == _HAS_ADDRESS:  # which nearly all are
        return Node(name, IPv4Address(home), association)
    pool = None
    if not flags & _HAS_ADDRESS:
        pool, at = IPv4Network(_POOL.unpack_from(record, at)), at + _POOL.size
    if flags & _NONCES:
        replay = ReplayStyle.NONCES
    return Node(
        name,
        None if pool is not None else IPv4Address(home),
        association,
        nai=record[at:].decode() if flags & _HAS_NAI else None,
        home_addresses=pool,
        replay=replay,
        retired=bool(flags & _RETIRED),
    )


def _refuse_address_as_name(node: Node) -> None:
    """What is remembered of nodes is written down by address or NAI: one must not be taken for the other."""
    try:
        IPv4Address(node.nai or "")
    except AddressValueError:
        return
    raise ProfileError(f"the NAI of node {node.name!r} reads as an address: {node.nai}")
