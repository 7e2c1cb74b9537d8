# SPDX-License-Identifier: GPL-2.0-or-later
"""The real foreign and home agents between real kernels, and mobile nodes made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeward.model.agent import AgentFlags
from tests.component.agent_network import AgentProcess
from tests.component.foreign_network import (
    FOREIGN,
    HOME,
    PEER,
    ForeignNetwork,
    ForeignProcess,
    MobileNode,
    both_agents,
)

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def network() -> Iterator[ForeignNetwork]:
    made = ForeignNetwork()
    yield made
    made.close()


@pytest.fixture
def agents(network: ForeignNetwork, tmp_path: Path) -> Iterator[tuple[AgentProcess, ForeignProcess]]:
    with both_agents(network, tmp_path) as processes:
        yield processes


@pytest.fixture
def node(network: ForeignNetwork) -> Iterator[MobileNode]:
    made = MobileNode(network.node)
    yield made
    made.close()


@pytest.mark.rows("R-206", "R-210", "R-211")
def test_discovery_registration_and_data_both_ways(
    network: ForeignNetwork, agents: tuple[AgentProcess, ForeignProcess], node: MobileNode
) -> None:
    _, foreign = agents
    node.drain()
    node.solicit()
    found = node.advertisement(to=HOME)
    assert found is not None
    assert AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL in found.flags
    assert found.care_of_addresses == (FOREIGN,)
    reply = node.register()
    assert (reply.code, reply.lifetime, reply.trusted_networks_configured) == (0, 300, True)
    (visitor,) = foreign.dump()["visitors"]
    assert (visitor["home_address"], visitor["hardware_address"]) == (str(HOME), "02:00:00:00:00:10")
    network.peer.run("ping", "-c2", "-i0.05", "-W1", str(HOME))
    network.node.run("ping", "-c2", "-i0.05", "-W1", "-I", str(HOME), str(PEER))
    assert foreign.counter("packets-out") >= 4
    assert foreign.counter("packets-in") >= 4
