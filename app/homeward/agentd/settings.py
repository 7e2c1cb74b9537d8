# SPDX-License-Identifier: GPL-2.0-or-later
"""What `homeward-agent` is told: one TOML file, read strictly. An unknown key is an error, not a wish ignored.

    version = 1
    address = "10.0.0.2"                        # the home agent's own address: UDP 434, and its end of every tunnel
    inside_interfaces = ["inside"]              # only what comes in here is answered (RFC 5265 section 4.3)
    trusted_prefixes = ["10.1.0.0/16", "10.9.0.0/24"]   # care-of addresses that are inside; empty answers nobody

    # All of the following may be left out; these are the values that hold then.
    role = "home"                               # "foreign" is another kind of file
    inside_nats = []                            # addresses of NATs inside; each must lie in a trusted prefix
    lifetime_max = 1800                         # seconds; longer ones are cut, 65535 allows "for ever"
    timestamp_tolerance = 7                     # seconds between the two clocks (RFC 5944 section 5.7.1); 3 to 300
    answer_failed_authentication = false        # true: code 131 instead of silence (RFC 5944 section 3.8.2.1)
    # home_network = "10.77.0.0/24"             # a home network without a link of its own: packets for those of its
                                                # addresses that have no binding end here, instead of circling

    [[node]]                                    # one for each mobile node, and for each further SPI of a node
    name = "laptop"                             # for people and for the log
    home_address = "10.77.0.10"
    spi = 0x100                                 # 256 to 4294967295
    algorithm = "hmac-sha256"                   # or "hmac-md5"
    key_file = "laptop.key"                     # relative to this file's own directory

A key file holds one line: the key in hexadecimal digits, also as `hex:0011…`, or else in base64, also as `base64:…`;
16 octets or more. It must be a regular file that belongs to root and that nobody else may read (mode 0600 or stricter).
This file decides who is trusted, so nobody but root may be able to write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

from homeward.agentd import toml_values as values
from homeward.agents.home_agent import AgentPolicy, Node
from homeward.agents.ingress import TrustedNetworks
from homeward.model.errors import ProfileError
from homeward.model.registration import LIFETIME_INFINITE, Spi

VERSION: Final = 1
ROLE: Final = "home"
"""What `role` says in such a file, and what it means where it is left out."""
AGENT_DEVICE: Final = "homeward-ha0"
"""The device that leads packets for bound home addresses to the agent and gives tunnelled ones back to the kernel."""
AGENT_TABLE: Final = "homeward-ha"
"""Our one nftables table on a home agent's host."""

_LEAST_TOLERANCE: Final = 3.0
_MOST_TOLERANCE: Final = 300.0
_KEYS: Final = (
    "version",
    "address",
    "role",
    "inside_interfaces",
    "trusted_prefixes",
    "inside_nats",
    "lifetime_max",
    "timestamp_tolerance",
    "answer_failed_authentication",
    "home_network",
    "node",
)
_NODE_KEYS: Final = ("name", "home_address", *values.ASSOCIATION_KEYS)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the file says, with the keys read. `home_network` is None where the home network has a link of its own."""

    policy: AgentPolicy
    _: KW_ONLY
    home_network: IPv4Network | None


def load(path: Path, *, owner: int = 0) -> AgentSettings:
    """Read the file and the key files that it names, which must belong to the user with the number `owner`.

    ProfileError, with a text for whoever wrote the file, for anything that is missing, unknown or unusable.
    """
    table = values.read_table(path, owner=owner)
    try:
        return _settings(table, path.parent, owner)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def _settings(table: Mapping[str, Any], folder: Path, owner: int) -> AgentSettings:
    values.refuse_unknown(table, _KEYS, "")
    role = values.optional(table, "role", values.text, ROLE)
    if role != ROLE:
        raise ProfileError(f"role {role!r} is not that of this file's reader, which is {ROLE!r}")
    version = values.required(table, "version", values.integer(1, 1 << 31))
    if version != VERSION:
        raise ProfileError(f"version {version} is not known, this program reads version {VERSION}")
    prefixes = tuple(values.required(table, "trusted_prefixes", values.list_of(values.network)))
    for prefix in prefixes:
        if prefix.prefixlen == 0:
            raise ProfileError("trusted_prefixes: 0.0.0.0/0 would trust the whole Internet")
    no_nats: list[IPv4Address] = []
    nats = frozenset(values.optional(table, "inside_nats", values.list_of(values.address), no_nats))
    for nat in nats:
        if not any(nat in prefix for prefix in prefixes):
            raise ProfileError(f"inside_nats: {nat} lies in no trusted prefix, so it would never be answered")
    interfaces = frozenset(values.required(table, "inside_interfaces", values.list_of(_interface)))
    policy = AgentPolicy(
        values.required(table, "address", values.address),
        TrustedNetworks(interfaces, prefixes, nats),
        nodes=_nodes(table, folder, owner),
        lifetime_max=values.optional(table, "lifetime_max", values.integer(1, LIFETIME_INFINITE), 1800),
        timestamp_tolerance=values.optional(table, "timestamp_tolerance", _seconds, 7.0),
        answer_failed_authentication=values.optional(
            table, "answer_failed_authentication", values.boolean, False
        ),
    )
    home_network = values.required(table, "home_network", values.network) if "home_network" in table else None
    return AgentSettings(policy, home_network=home_network)


def _nodes(table: Mapping[str, Any], folder: Path, owner: int) -> tuple[Node, ...]:
    entries = values.required(table, "node", values.list_of(values.table_of("[[node]]")))
    seen: set[tuple[IPv4Address, Spi]] = set()
    nodes = []
    for number, entry in enumerate(entries, 1):
        try:
            node = _node(entry, folder, owner)
        except ProfileError as error:
            raise ProfileError(f"[[node]] number {number}: {error}") from error
        key = (node.home_address, node.association.spi)
        if key in seen:
            raise ProfileError(f"[[node]] number {number}: home address {key[0]} has SPI {key[1]} already")
        seen.add(key)
        nodes.append(node)
    return tuple(nodes)


def _node(entry: Mapping[str, Any], folder: Path, owner: int) -> Node:
    values.refuse_unknown(entry, _NODE_KEYS, "in [[node]] ")
    association = values.association(entry, folder, owner)
    return Node(
        values.required(entry, "name", values.text),
        values.required(entry, "home_address", values.address),
        association,
    )


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > _LEAST_TOLERANCE:
        raise ValueError(f"must be a number of seconds above {_LEAST_TOLERANCE:g} (RFC 5944 section 5.7.1)")
    if value > _MOST_TOLERANCE:
        raise ValueError(
            f"must not be above {_MOST_TOLERANCE:g} seconds: so long a recorded request would be good"
        )
    return float(value)


def _interface(value: Any) -> str:
    name = values.interface(value)
    if name == AGENT_DEVICE:
        raise ValueError(f"{name} is where mobile nodes' own packets come in: it can never be inside")
    return name
