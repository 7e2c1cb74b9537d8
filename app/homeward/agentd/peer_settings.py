# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a home agent's file: [[node]], [[foreign_agent]] and [[path]] (see agentd/settings.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

from homeward.agentd import toml_values as values
from homeward.agentd.nodes_file import LARGEST_POOL
from homeward.agents.nodes import NodeTable
from homeward.agents.path_mtu import LEAST
from homeward.agents.policy import ForeignAgentPeer, Node
from homeward.model.errors import ProfileError
from homeward.model.profile import ReplayStyle
from homeward.model.registration import nai_fault

_NODE_KEYS: Final = ("name", "home_address", "nai", "home_addresses", "replay", *values.ASSOCIATION_KEYS)
_FOREIGN_AGENT_KEYS: Final = ("address", *values.ASSOCIATION_KEYS)
_PATH_KEYS: Final = ("prefix", "mtu")
_LONGEST: Final = 0xFFFF

_Read = TypeVar("_Read")


def nodes(
    table: Mapping[str, Any], folder: Path, owner: int, more: Iterable[Node] = ()
) -> tuple[tuple[Node, ...] | NodeTable, Census]:
    """The mobile nodes, `more` of them out of the nodes file; ProfileError where two cannot be told apart."""
    own = _each(table, "node", lambda entry: _node(entry, folder, owner))
    seen: set[tuple[object, int]] = set()
    for number, node in enumerate(own, 1):
        for what, whose in (("home address", node.home_address), ("NAI", node.nai)):
            key = (whose, int(node.association.spi))
            if whose is not None and key in seen:
                raise ProfileError(f"[[node]] number {number}: {what} {whose} has SPI {key[1]} already")
            seen.add(key)
    census = Census()
    # One by one: as objects all at once, a hundred thousand would need memory that never comes back.
    found = NodeTable(census.counted(chain(own, more)))
    return (found if census.keys > len(own) else own), census


class Census:
    """How many nodes and keys there are, and which are retired: counted while they are read."""

    def __init__(self) -> None:
        self.nodes = 0
        self.keys = 0
        self.retired: set[tuple[str, int]] = set()
        """Name and SPI."""
        self._names: set[str] = set()

    def counted(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """The same nodes."""
        for node in nodes:
            self.keys += 1
            self._names.add(node.name)
            if node.retired:
                self.retired.add((node.name, int(node.association.spi)))
            yield node
        self.nodes = len(self._names)
        self._names.clear()


def foreign_agents(table: Mapping[str, Any], folder: Path, owner: int) -> tuple[ForeignAgentPeer, ...]:
    """The foreign agents that share a key with us."""

    def read_one(entry: Mapping[str, Any]) -> ForeignAgentPeer:
        values.refuse_unknown(entry, _FOREIGN_AGENT_KEYS, "in [[foreign_agent]] ")
        address = values.required(entry, "address", values.address)
        return ForeignAgentPeer(address, values.association(entry, folder, owner))

    read = _each(table, "foreign_agent", read_one)
    seen: set[object] = set()
    for number, peer in enumerate(read, 1):
        if (peer.address, peer.spi) in seen:
            text = f"address {peer.address} has SPI {peer.spi} already"
            raise ProfileError(f"[[foreign_agent]] number {number}: {text}")
        seen.add((peer.address, peer.spi))
    return read


def paths(table: Mapping[str, Any]) -> tuple[tuple[IPv4Network, int], ...]:
    """The narrow paths."""

    def read_one(entry: Mapping[str, Any]) -> tuple[IPv4Network, int]:
        values.refuse_unknown(entry, _PATH_KEYS, "in [[path]] ")
        prefix = values.required(entry, "prefix", values.network)
        return prefix, values.required(entry, "mtu", values.integer(LEAST, _LONGEST))

    return _each(table, "path", read_one)


def _node(entry: Mapping[str, Any], folder: Path, owner: int) -> Node:
    values.refuse_unknown(entry, _NODE_KEYS, "in [[node]] ")
    name = values.required(entry, "name", values.text)
    if ("home_address" in entry) == ("home_addresses" in entry):
        raise ProfileError("one of the keys 'home_address' and 'home_addresses' is needed, and not both")
    own = "home_address" in entry
    if not own and "nai" not in entry:
        raise ProfileError(
            "the key 'nai' is missing: without a home address of its own nothing else names it"
        )
    return Node(
        name,
        values.required(entry, "home_address", values.address) if own else None,
        values.association(entry, folder, owner),
        nai=values.required(entry, "nai", _nai) if "nai" in entry else None,
        home_addresses=None if own else values.required(entry, "home_addresses", _pool),
        replay=values.optional(entry, "replay", values.one_of(ReplayStyle), ReplayStyle.TIMESTAMPS),
    )


def _each(
    table: Mapping[str, Any], key: str, read: Callable[[Mapping[str, Any]], _Read]
) -> tuple[_Read, ...]:
    name = f"[[{key}]]"
    no_entries: list[Mapping[str, Any]] = []
    found = []
    entries = values.optional(table, key, values.list_of(values.table_of(name)), no_entries)
    for number, entry in enumerate(entries, 1):
        try:
            found.append(read(entry))
        except ProfileError as error:
            raise ProfileError(f"{name} number {number}: {error}") from error
    return tuple(found)


def _nai(value: Any) -> str:
    nai = values.text(value)
    fault = nai_fault(nai)
    if fault is not None:
        raise ValueError(f"cannot be used: {fault}")
    return nai


def _pool(value: Any) -> IPv4Network:
    pool = values.network(value)
    if pool.prefixlen < LARGEST_POOL:
        raise ValueError(f"{pool} is too large, /{LARGEST_POOL} is the most")
    return pool
