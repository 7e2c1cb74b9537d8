# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in the lab's hosts: configuration files, keys, and the programs in the order of their needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import ACCESS_NETWORKS, GATEWAY_ADDRESS, GATEWAY_NAME, AccessNetwork

File = tuple[str, int, str]
"""Path in the host, permissions, text."""

_LEASE_TIME: Final = "1h"


def make_keys(state: LabState) -> None:
    """Draw this lab's secrets; each lab has its own."""
    state.keys.mkdir(mode=0o700)


def files(state: LabState, host: str) -> list[File]:
    """The configuration of one host beyond what every host has."""
    return []


def start_all(state: LabState) -> Iterator[str]:
    """Start every service and yield a line when a group of them runs."""
    for network in ACCESS_NETWORKS.values():
        Host(state, network.name).start("dnsmasq", *_dnsmasq(network))
    yield "DHCP and DNS"


def _dnsmasq(network: AccessNetwork) -> tuple[str, ...]:
    first, last = network.pool
    return (
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file",
        "--log-facility=-",
        "--log-dhcp",
        "--log-queries",
        "--interface=access",
        "--except-interface=lo",
        "--bind-interfaces",
        "--no-ping",
        "--dhcp-authoritative",
        "--dhcp-leasefile=/run/dnsmasq.leases",
        f"--dhcp-range={first},{last},{network.prefix.netmask},{_LEASE_TIME}",
        f"--address=/{GATEWAY_NAME}/{GATEWAY_ADDRESS}",
    )


def read_if_there(path: Path) -> str:
    """A log's text, empty when it has not been written yet."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
