# SPDX-License-Identifier: GPL-2.0-or-later
"""How the foreign agent's process begins and ends, and what home agents end: each test has processes of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from homeward.agentd.control_client import ask
from tests.component.foreign_network import (
    HOME,
    PEER,
    ForeignNetwork,
    ForeignProcess,
    MobileNode,
    both_agents,
    write_configurations,
)

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def network() -> Iterator[ForeignNetwork]:
    made = ForeignNetwork()
    yield made
    made.close()


@pytest.fixture
def node(network: ForeignNetwork) -> Iterator[MobileNode]:
    made = MobileNode(network.node)
    yield made
    made.close()


def ping(network: ForeignNetwork) -> None:
    network.peer.run("ping", "-c2", "-i0.05", "-W1", str(HOME))
    network.node.run("ping", "-c2", "-i0.05", "-W1", "-I", str(HOME), str(PEER))


@pytest.mark.slow
def test_the_home_agents_revocation_ends_the_visitor_and_is_told_to_it(
    network: ForeignNetwork, tmp_path: Path, node: MobileNode
) -> None:
    with both_agents(network, tmp_path) as (_, foreign):
        assert node.register().code == 0
        time.sleep(1.1)  # a revocation must be later than what it revokes, and its clock counts whole seconds
        node.drain()
        ask(tmp_path / "control", "revoke", address=str(HOME))
        foreign.wait_for("visitor-revoked")
        told = node.advertisement(to=HOME)
        assert told is not None
        assert told.sequence == 0
        assert foreign.dump()["visitors"] == []
        assert redirects(network) == "0"
    assert redirects(network) == "1", "a setting of somebody else's link is put back"


def redirects(network: ForeignNetwork) -> str:
    return network.foreign.run("sysctl", "-n", "net.ipv4.conf.trust3.send_redirects").strip()


def leftovers(network: ForeignNetwork) -> list[str]:
    """What of ours is in the foreign agent's host."""
    host = network.foreign
    found = [line for line in host.ip("rule show").splitlines() if "43" in line or "homeward" in line]
    found += host.run("nft", "list", "tables").splitlines()
    for table in (435, 436):
        shown = subprocess.run(
            host.command("ip", "route", "show", "table", str(table)),
            capture_output=True,
            text=True,
            check=False,
        )
        found += shown.stdout.splitlines()
    found += [line for line in host.ip("neighbour show").splitlines() if "PERMANENT" in line]
    return found + [line for line in host.ip("link show").splitlines() if "homeward" in line]


@pytest.mark.slow
def test_nothing_is_left_by_a_life_that_ended_and_a_killed_ones_rest_is_taken_over(
    network: ForeignNetwork, tmp_path: Path, node: MobileNode
) -> None:
    with both_agents(network, tmp_path) as (_, foreign):
        assert node.register().code == 0
        second = ForeignProcess(network.foreign, tmp_path / "foreign.toml", tmp_path / "second.log")
        assert second.wait() == 1
        assert "is another foreign agent running here?" in second.text()
        ping(network)
        foreign.kill()
        assert len(leftovers(network)) > 5
        again = ForeignProcess(network.foreign, tmp_path / "foreign.toml", tmp_path / "again.log")
        again.wait_for("ready ")
        assert str(HOME) not in network.foreign.ip("neighbour show"), "a new life has no visitors"
        node.drain()
        heard = node.advertisement(to=IPv4Address("224.0.0.1"))
        assert heard is not None
        assert heard.sequence < 3, "so that visitors see that they have to register again"
        assert node.register().code == 0
        ping(network)
        node.drain()
        assert again.stop() == 0
        farewell = node.advertisement()
        while farewell is not None and farewell.lifetime:
            farewell = node.advertisement()
        assert farewell is not None
        assert leftovers(network) == []


def test_without_its_device_it_ends(network: ForeignNetwork, tmp_path: Path) -> None:
    _, path = write_configurations(tmp_path)
    foreign = ForeignProcess(network.foreign, path, tmp_path / "foreign.log")
    foreign.wait_for("ready ")
    network.foreign.ip("link delete homeward-fa0")
    assert foreign.wait() == 1
    assert leftovers(network) == []
