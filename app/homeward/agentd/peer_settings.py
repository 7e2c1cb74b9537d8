# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a home agent's file: [[node]], [[foreign_agent]] and [[path]] (see agentd/settings.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, TypeVar

from homeward.agentd import toml_values as values
from homeward.agentd.nodes_file import LARGEST_POOL
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
    table: Mapping[str, Any], folder: Path, owner: int, more: tuple[Node, ...] = ()
) -> tuple[Node, ...]:
    """The mobile nodes, and `more` of them out of the nodes file; ProfileError where two cannot be told apart."""
    own = _each(table, "node", lambda entry: _node(entry, folder, owner))
    read = (*own, *more)
    seen: set[tuple[int | str, int]] = set()
    for number, node in enumerate(read, 1):
        spi = node.association.spi
        # As numbers: addresses are slow to compare, and there may be a hundred thousand.
        address = None if node.home_address is None else int(node.home_address)
        for whose in (address, node.nai):
            if whose is None:
                continue
            if (whose, spi) in seen:
                what = f"home address {node.home_address}" if whose == address else f"NAI {node.nai}"
                which = f"[[node]] number {number}" if number <= len(own) else f"nodes file: {node.name!r}"
                raise ProfileError(f"{which}: {what} has SPI {spi} already")
            seen.add((whose, spi))
    return read


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
