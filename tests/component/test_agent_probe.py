# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody outside hears of a home agent, and that a probe tells a leak from silence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.component.agent_commands import CONFIGURATION, Operator
from tests.component.agent_network import AGENT, AGENT_OUTSIDE, HOME, AgentNetwork

pytestmark = pytest.mark.root

BRIEF = "--seconds 0.6"


@pytest.fixture(scope="module")
def network() -> Iterator[AgentNetwork]:
    made = AgentNetwork()
    yield made
    made.close()


@pytest.fixture
def operator(network: AgentNetwork, tmp_path: Path) -> Operator:
    return Operator(network.agent, tmp_path)


@pytest.fixture
def stranger(network: AgentNetwork, tmp_path: Path) -> Operator:
    """Somebody at the other side of the router, without any key; what he sends comes in by the outside interface."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    return Operator(network.node, folder)


@contextmanager
def firewall(network: AgentNetwork, verdict: str) -> Iterator[None]:
    network.router.run("nft", "add table ip edge")
    try:
        chain = "{ type filter hook forward priority 0; }"
        network.router.run("nft", f"add chain ip edge forward {chain}")
        network.router.run("nft", f"add rule ip edge forward ip daddr {AGENT_OUTSIDE} {verdict}")
        yield
    finally:
        network.router.run("nft", "delete table ip edge")


@pytest.mark.rows("R-61", "R-94")
def test_an_agent_is_silent_for_outsiders_and_says_that_they_came_through(
    operator: Operator, stranger: Operator, network: AgentNetwork
) -> None:
    network.router.ip(f"route add {AGENT}/32 via {AGENT_OUTSIDE}")
    with operator.agent():
        operator.adds()
        try:
            said = stranger.does(f"probe {AGENT} --home-address {HOME} {BRIEF}")
        finally:
            network.router.ip(f"route del {AGENT}/32 via {AGENT_OUTSIDE}")
        assert "Silence." in said.out
        assert "3 request(s) and 3 IP-in-IP packet(s) sent from 10.1.1.50" in said.out
        # The second half of the proof: no firewall stopped them here, and the agent shows it.
        status = operator.does("status --json").json
        assert status["violations"] == {"wrong-interface": 6}
        assert status["sources"][0]["prefix"] == "10.1.1.0/24"
        assert "10.1.1.0/24" in said.out


@pytest.mark.rows("R-61")
def test_a_firewall_that_drops_lets_nothing_come_near(
    operator: Operator, stranger: Operator, network: AgentNetwork
) -> None:
    with operator.agent(), firewall(network, "drop"):
        said = stranger.does(f"probe {AGENT_OUTSIDE} --json {BRIEF}")
        assert said.json["silent"] is True
        assert (said.json["sent"], said.json["heard"]) == (3, [])
        assert operator.does("status --json").json["violations"] == {}


def test_a_firewall_that_refuses_is_heard(
    operator: Operator, stranger: Operator, network: AgentNetwork
) -> None:
    with operator.agent(), firewall(network, "reject with icmp type admin-prohibited"):
        said = stranger.types(f"probe {AGENT_OUTSIDE} {BRIEF}")
    assert said.status == 1
    assert "ICMP 3/13 from 10.1.1.1 to UDP 434: a firewall refuses it" in said.out
    assert "drop, not refuse" in said.out


def test_a_host_without_an_agent_is_heard(stranger: Operator) -> None:
    said = stranger.types(f"probe {AGENT_OUTSIDE} {BRIEF}")
    assert said.status == 1
    assert (
        f"ICMP 3/3 from {AGENT_OUTSIDE} to UDP 434: the packet arrived, and nobody listens there" in said.out
    )
    assert f"ICMP 3/2 from {AGENT_OUTSIDE} to IP-in-IP" in said.out


def test_an_agent_that_answers_is_heard(operator: Operator, stranger: Operator) -> None:
    # By the inside interface and from a trusted prefix: as if somebody had trusted the outside by mistake.
    operator.configure(CONFIGURATION + "answer_failed_authentication = true\n")
    with operator.agent():
        operator.adds()
        said = stranger.types(f"probe {AGENT} --home-address {HOME} {BRIEF}")
        assert said.status == 1
        assert f"a Registration Reply from {AGENT}, code 131" in said.out
        assert "SOMETHING ANSWERS" in said.out
        assert operator.does("bindings --json").json["bindings"] == []


def test_nothing_is_proved_where_nothing_can_be_sent(stranger: Operator, network: AgentNetwork) -> None:
    network.node.ip("route del default via 10.1.1.1")
    try:
        said = stranger.types(f"probe {AGENT_OUTSIDE} {BRIEF}")
    finally:
        network.node.ip("route add default via 10.1.1.1")
    assert (said.status, "That proves nothing" in said.err) == (1, True)
    with_router = stranger.types(f"probe 203.0.113.9 {BRIEF}")
    assert with_router.status == 1
    assert "It cannot be reached from here at all" in with_router.out
