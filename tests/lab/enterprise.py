# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's enterprise and its access networks, with something wrong in them for a while."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import vici

from homeward.lab import gateway, services
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import AGENT, GATEWAY, GATEWAY_NAME, HOSTS, INNER_NETWORK
from tests.lab.laptop import eventually

_AGENT_KEY = "/etc/homeward/laptop.key"
_CONFIGURATION = "/etc/homeward/agent.toml"


@contextmanager
def dropping(lab: LabState, host: str, chain: str, what: str) -> Iterator[None]:
    """The host drops this meanwhile; `chain` is input, output or forward, `what` as nft says it."""
    place = Host(lab, host)
    lines = (
        "table inet wall {",
        f"chain {chain} {{",
        f"type filter hook {chain} priority 0",
        f"{what} drop",
        "}",
        "}",
    )
    place.run("nft", "-f", "-", text="\n".join(lines) + "\n")
    try:
        yield
    finally:
        place.run("nft", "delete table inet wall")


@contextmanager
def gateway_with_key(lab: LabState, key: bytes) -> Iterator[None]:
    """The VPN gateway knows another pre-shared key meanwhile."""
    with _gateways_charon(lab) as session:
        owners = [GATEWAY_NAME, gateway.LAPTOP_IDENTITY]
        session.load_shared({"id": "lab", "type": "IKE", "data": key, "owners": owners})
    try:
        yield
    finally:
        gateway.configure(lab)


@contextmanager
def _gateways_charon(lab: LabState) -> Iterator[vici.Session]:
    folder = os.open(lab.run(GATEWAY), os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(f"/proc/self/fd/{folder}/charon.vici")
            yield vici.Session(connection)
    finally:
        os.close(folder)


@contextmanager
def no_agent(lab: LabState) -> Iterator[None]:
    """The home agent is down meanwhile."""
    Host(lab, AGENT).stop("agent")
    try:
        yield
    finally:
        start_agent(lab)


@contextmanager
def agent_with_key(lab: LabState, key: bytes) -> Iterator[None]:
    """The home agent runs, and knows the laptop by another key meanwhile."""
    host = Host(lab, AGENT)
    genuine = host.run("cat", _AGENT_KEY).stdout
    host.stop("agent")
    host.run("tee", _AGENT_KEY, text=key.hex() + "\n")
    start_agent(lab)
    try:
        yield
    finally:
        host.stop("agent")
        host.run("tee", _AGENT_KEY, text=genuine)
        start_agent(lab)


@contextmanager
def agent_with_nat(lab: LabState, nat: str) -> Iterator[None]:
    """The home agent has one more inside NAT on its list meanwhile."""
    host = Host(lab, AGENT)
    genuine = host.run("cat", _CONFIGURATION).stdout
    changed = genuine.replace("trusted_prefixes = [", f'trusted_prefixes = ["{nat}/32", ')
    changed = changed.replace("inside_nats = [", f'inside_nats = ["{nat}", ')
    assert changed.count(nat) == genuine.count(nat) + 2
    host.stop("agent")
    host.run("tee", _CONFIGURATION, text=changed)
    start_agent(lab)
    try:
        yield
    finally:
        host.stop("agent")
        host.run("tee", _CONFIGURATION, text=genuine)
        start_agent(lab)


@contextmanager
def gateway_translating(lab: LabState) -> Iterator[str]:
    """The VPN gateway hides its inner addresses behind its own, which is given, as where nothing routes to them."""
    rules = (
        "table ip inner {",
        "chain postrouting {",
        "type nat hook postrouting priority srcnat",
        f'ip saddr {INNER_NETWORK} oifname "inside" meta l4proto udp masquerade to :20000-29999',
        "}",
        "}",
    )
    host = Host(lab, GATEWAY)
    host.run("nft", "-f", "-", text="\n".join(rules) + "\n")
    address = HOSTS[GATEWAY].leg("inside").address
    assert address is not None
    try:
        yield str(address.ip)
    finally:
        host.run("nft", "delete table ip inner")


def start_agent(lab: LabState) -> None:
    """Start the home agent and wait until it listens."""
    host, log = Host(lab, AGENT), lab.log(AGENT, "agent")
    lives = log.read_text().count(" ready ")
    services.start_module(host, "agent", "homeward.agentd.main", "--config", _CONFIGURATION)
    eventually(lambda: log.read_text().count(" ready ") > lives, "the home agent is ready again")
