# SPDX-License-Identifier: GPL-2.0-or-later
"""What `homeward-agent` is told: one TOML file, read strictly. An unknown key is an error, not a wish ignored.

    version = 1
    address = "10.0.0.2"                        # the home agent's own address: UDP 434, and its end of every tunnel
    inside_interfaces = ["inside"]              # only what comes in here is answered (RFC 5265 section 4.3)
    trusted_prefixes = ["10.1.0.0/16", "10.9.0.0/24"]   # care-of addresses that are inside; empty answers nobody

    # All of the following may be left out; these are the values that hold then.
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

import difflib
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final, TypeVar

from homeward.agentd.key_file import read_key
from homeward.agents.home_agent import AgentPolicy, Node
from homeward.agents.ingress import TrustedNetworks
from homeward.model.errors import ProfileError
from homeward.model.registration import (
    LIFETIME_INFINITE,
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    Spi,
)

VERSION: Final = 1
AGENT_DEVICE: Final = "homeward-ha0"
"""The device that leads packets for bound home addresses to the agent and gives tunnelled ones back to the kernel."""
AGENT_TABLE: Final = "homeward-ha"
"""Our one nftables table on a home agent's host."""

_LONGEST_FILE: Final = 4 * 1024 * 1024
_LONGEST_INTERFACE_NAME: Final = 15
_LEAST_TOLERANCE: Final = 3.0
_MOST_TOLERANCE: Final = 300.0
_KEYS: Final = (
    "version",
    "address",
    "inside_interfaces",
    "trusted_prefixes",
    "inside_nats",
    "lifetime_max",
    "timestamp_tolerance",
    "answer_failed_authentication",
    "home_network",
    "node",
)
_NODE_KEYS: Final = ("name", "home_address", "spi", "algorithm", "key_file")

_Value = TypeVar("_Value")


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
    try:
        with path.open("rb") as file:
            _require_unwritable(os.fstat(file.fileno()), path, owner)
            text = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > _LONGEST_FILE:
        raise ProfileError(f"{path}: longer than {_LONGEST_FILE} octets")
    try:
        table = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: is not TOML: {error}") from error
    try:
        return _settings(table, path.parent, owner)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def _require_unwritable(found: os.stat_result, path: Path, owner: int) -> None:
    if found.st_uid not in (0, owner) or found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise ProfileError(
            f"{path}: belongs to user {found.st_uid} with mode {mode:04o}; only root may write it"
        )


def _settings(table: Mapping[str, Any], folder: Path, owner: int) -> AgentSettings:
    _refuse_unknown(table, _KEYS, "")
    version = _required(table, "version", _integer(1, 1 << 31))
    if version != VERSION:
        raise ProfileError(f"version {version} is not known, this program reads version {VERSION}")
    prefixes = tuple(_required(table, "trusted_prefixes", _list_of(_network)))
    for prefix in prefixes:
        if prefix.prefixlen == 0:
            raise ProfileError("trusted_prefixes: 0.0.0.0/0 would trust the whole Internet")
    no_nats: list[IPv4Address] = []
    nats = frozenset(_optional(table, "inside_nats", _list_of(_address), no_nats))
    for nat in nats:
        if not any(nat in prefix for prefix in prefixes):
            raise ProfileError(f"inside_nats: {nat} lies in no trusted prefix, so it would never be answered")
    interfaces = frozenset(_required(table, "inside_interfaces", _list_of(_interface)))
    policy = AgentPolicy(
        _required(table, "address", _address),
        TrustedNetworks(interfaces, prefixes, nats),
        nodes=_nodes(table, folder, owner),
        lifetime_max=_optional(table, "lifetime_max", _integer(1, LIFETIME_INFINITE), 1800),
        timestamp_tolerance=_optional(table, "timestamp_tolerance", _seconds, 7.0),
        answer_failed_authentication=_optional(table, "answer_failed_authentication", _boolean, False),
    )
    home_network = _required(table, "home_network", _network) if "home_network" in table else None
    return AgentSettings(policy, home_network=home_network)


def _nodes(table: Mapping[str, Any], folder: Path, owner: int) -> tuple[Node, ...]:
    entries = _required(table, "node", _list_of(_table))
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
    _refuse_unknown(entry, _NODE_KEYS, "in [[node]] ")
    algorithms = {each.value: each for each in AuthenticationAlgorithm}
    algorithm = _required(entry, "algorithm", _text)
    if algorithm not in algorithms:
        raise ProfileError(f"algorithm {algorithm!r} is not known{_nearest(algorithm, tuple(algorithms))}")
    association = MobilitySecurityAssociation(
        Spi(_required(entry, "spi", _integer(0, 0xFFFFFFFF))),
        algorithms[algorithm],
        key=read_key(folder / _required(entry, "key_file", _text), owner=owner),
    )
    return Node(_required(entry, "name", _text), _required(entry, "home_address", _address), association)


# --- values: each reader raises ValueError with what is wrong ---


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ProfileError(f"{where}the key {key!r} is not known{_nearest(key, known)}")


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def _required(table: Mapping[str, Any], key: str, read: Callable[[Any], _Value]) -> _Value:
    if key not in table:
        raise ProfileError(f"the key {key!r} is missing")
    try:
        return read(table[key])
    except ValueError as error:
        raise ProfileError(f"{key}: {error}") from error


def _optional(table: Mapping[str, Any], key: str, read: Callable[[Any], _Value], otherwise: _Value) -> _Value:
    return _required(table, key, read) if key in table else otherwise


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("must be a text that is not empty and prints")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return read


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > _LEAST_TOLERANCE:
        raise ValueError(f"must be a number of seconds above {_LEAST_TOLERANCE:g} (RFC 5944 section 5.7.1)")
    if value > _MOST_TOLERANCE:
        raise ValueError(
            f"must not be above {_MOST_TOLERANCE:g} seconds: so long a recorded request would be good"
        )
    return float(value)


def _address(value: Any) -> IPv4Address:
    try:
        return IPv4Address(_text(value))
    except AddressValueError as error:
        raise ValueError(f"{value!r} is not an IPv4 address") from error


def _network(value: Any) -> IPv4Network:
    try:
        return IPv4Network(_text(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not an IPv4 prefix such as 10.1.0.0/16 ({error})") from error


def _interface(value: Any) -> str:
    name = _text(value)
    if len(name) > _LONGEST_INTERFACE_NAME or "/" in name or " " in name or name in (".", ".."):
        raise ValueError(f"{name!r} is not the name of a network interface")
    if name == AGENT_DEVICE:
        raise ValueError(f"{name} is where mobile nodes' own packets come in: it can never be inside")
    return name


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be [[node]] tables")
    return value


def _list_of(read: Callable[[Any], _Value]) -> Callable[[Any], list[_Value]]:
    def read_all(value: Any) -> list[_Value]:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return [read(each) for each in value]

    return read_all
