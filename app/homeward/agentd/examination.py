# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this host has what a configuration takes for granted: nothing is changed by looking."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from homeward.adapters import sqlite_agent_store
from homeward.agentd.configuration import Settings
from homeward.agentd.control_client import AgentAbsent, ask
from homeward.agentd.foreign_settings import ForeignSettings
from homeward.agentd.settings import AgentSettings
from homeward.model.errors import AdapterError, HomewardError
from homeward.model.names import REGISTRATION_PORT
from homeward.model.registration import AuthenticationAlgorithm

_SIOCGIFFLAGS: Final = 0x8913
_UP: Final = 0x1
_TUN: Final = Path("/dev/net/tun")
_CAP_NET_ADMIN: Final = 12
_CAP_NET_RAW: Final = 13
_SHORT_PREFIX: Final = 8
_OLD: Final = (AuthenticationAlgorithm.KEYED_MD5, AuthenticationAlgorithm.KEYED_MD5_RFC2002)


class Grade(Enum):
    """What a finding means."""

    RIGHT = "right"
    NOTE = "note"
    WRONG = "WRONG"
    """The agent would not start so, or serve nobody."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` is empty where nothing needs to be done."""

    grade: Grade
    what: str
    text: str
    advice: str = ""


def examine(settings: Settings, config: Path) -> list[Finding]:
    """All findings, in the order in which an agent needs things."""
    runs = _runs(settings.control)
    found = list(
        _of_foreign_agent(settings) if isinstance(settings, ForeignSettings) else _of_home_agent(settings)
    )
    found += _rights()
    found += _ports(runs)
    if isinstance(settings, AgentSettings):
        found += _store(settings.store)
    found += _folder("control", settings.control, "the control socket")
    found += _folder("metrics_file", settings.metrics_file, "the metrics", must_exist=True)
    text = "an agent answers at the control socket" if runs else "no agent answers here now"
    return [
        Finding(Grade.RIGHT, "configuration", f"{config} can be used"),
        *found,
        Finding(Grade.NOTE, "agent", text),
    ]


def _of_home_agent(settings: AgentSettings) -> Iterator[Finding]:
    policy, networks = settings.policy, settings.policy.networks
    yield from _nodes(settings)
    for name in sorted(networks.interfaces):
        yield _interface("inside_interfaces", name)
    if not networks.interfaces or not networks.prefixes:
        yield Finding(
            Grade.WRONG,
            "trust",
            "without inside_interfaces and trusted_prefixes nobody is answered",
            "name the interfaces towards the offices and the VPN gateway, and the prefixes behind them",
        )
    for prefix in networks.prefixes:
        if prefix.prefixlen < _SHORT_PREFIX or (prefix.is_global and prefix.prefixlen < 32):
            yield Finding(
                Grade.NOTE,
                "trusted_prefixes",
                f"{prefix} is {'very large' if prefix.prefixlen < _SHORT_PREFIX else 'public address space'}",
                "whoever sends from there by an inside interface is told that he is inside: be sure that he is",
            )
    yield _own_address("address", policy.address)


def _nodes(settings: AgentSettings) -> Iterator[Finding]:
    nodes = settings.policy.nodes
    usable = {node.name for node in nodes if not node.retired}
    names = {node.name for node in nodes}
    if not nodes:
        yield Finding(
            Grade.NOTE, "nodes", "there are none", "homeward-agent key add NAME --home-address A --out FILE"
        )
        return
    retired = sum(node.retired for node in nodes)
    keys = f"{len(nodes)} key(s){f', {retired} of them retired' if retired else ''}"
    yield Finding(Grade.RIGHT, "nodes", f"{len(names)} node(s) with {keys}; their files are closed to others")
    for name in sorted(names - usable)[:5]:
        advice = f"homeward-agent key add {name} --out FILE"
        yield Finding(Grade.NOTE, "nodes", f"all keys of {name} are retired: it cannot register", advice)
    weak = [node.name for node in nodes if node.association.algorithm in _OLD]
    if weak:
        text = f"{', '.join(sorted(set(weak))[:5])} use keyed MD5, which nobody should"
        yield Finding(Grade.NOTE, "nodes", text, "hmac-sha256 with our clients, hmac-md5 with others")


def _of_foreign_agent(settings: ForeignSettings) -> Iterator[Finding]:
    for name in sorted(settings.uplinks):
        yield _interface("uplink_interfaces", name)
    for link in settings.policy.links:
        yield _interface("[[access]]", link.interface)
        yield _own_address("[[access]]", link.address)
    for address in settings.policy.care_of_addresses:
        yield _own_address("care_of_addresses", address)


def _interface(key: str, name: str) -> Finding:
    if name not in {each for _, each in socket.if_nameindex()}:
        there = ", ".join(each for _, each in socket.if_nameindex())
        return Finding(Grade.WRONG, key, f"there is no interface {name}", f"there are {there}: see `ip link`")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh14x", name.encode(), 0))
    (flags,) = struct.unpack_from("h", answer, 16)
    if not flags & _UP:
        return Finding(Grade.NOTE, key, f"{name} is down", f"ip link set {name} up")
    return Finding(Grade.RIGHT, key, f"{name} is there and up")


def _own_address(key: str, address: IPv4Address) -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind((str(address), 0))
        except OSError:
            advice = f"`ip address add {address}/PREFIX dev INTERFACE`, or correct the configuration"
            return Finding(Grade.WRONG, key, f"{address} is not an address of this host", advice)
    return Finding(Grade.RIGHT, key, f"{address} is this host's")


def _rights() -> Iterator[Finding]:
    capabilities = _capabilities()
    if not capabilities & (1 << _CAP_NET_ADMIN) or not capabilities & (1 << _CAP_NET_RAW):
        yield Finding(Grade.WRONG, "rights", "this user may not change the network", "run it as root")
    if not os.access(_TUN, os.R_OK | os.W_OK):
        yield Finding(
            Grade.WRONG, "rights", f"{_TUN} cannot be opened", "modprobe tun; in a container, pass it in"
        )


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _ports(runs: bool) -> Iterator[Finding]:
    if runs:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind(("0.0.0.0", REGISTRATION_PORT))
        except OSError as error:
            text = f"UDP port {REGISTRATION_PORT} cannot be had: {error.strerror}"
            yield Finding(
                Grade.WRONG, "port", text, "`ss -ulpn sport = :434` shows who has it; or run this as root"
            )
            return
    yield Finding(Grade.RIGHT, "port", f"UDP port {REGISTRATION_PORT} is free")


def _store(place: Path | None) -> Iterator[Finding]:
    if place is None:
        text = "there is none: a crash forgets all bindings, and which requests were accepted"
        yield Finding(Grade.NOTE, "store", text, "leave `store` out of the configuration for the usual one")
        return
    if not place.exists():
        yield from _folder("store", place, "the store")
        return
    try:
        facts = sqlite_agent_store.check(place)
    except AdapterError as error:
        yield Finding(Grade.WRONG, "store", str(error), "homeward-agent restore FILE, or move the store away")
    else:
        yield Finding(Grade.RIGHT, "store", f"{place} is sound: {facts.records} node(s) remembered")


def _folder(key: str, place: Path | None, what: str, *, must_exist: bool = False) -> Iterator[Finding]:
    if place is None:
        return
    folder = place.parent
    while not must_exist and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        advice = f"make the folder {folder}, or name another {key}"
        yield Finding(Grade.WRONG, key, f"{what} cannot be written to {place}", advice)
    else:
        yield Finding(Grade.RIGHT, key, f"{what} can be written to {place}")


def _runs(control: Path | None) -> bool:
    try:
        ask(control, "status")
    except AgentAbsent:
        return False
    except HomewardError:
        return True
    return True
