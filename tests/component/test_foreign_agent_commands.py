# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operator sees of a real foreign agent, and what it takes over while it runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.agent_commands import Operator
from tests.component.foreign_network import (
    FOREIGN,
    HOME,
    HOME_AGENT,
    ForeignNetwork,
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


def test_visitors_status_and_reload(network: ForeignNetwork, tmp_path: Path, node: MobileNode) -> None:
    operator = Operator(network.foreign, tmp_path)
    with both_agents(network, tmp_path) as (_, foreign):
        operator.config, operator.log = tmp_path / "foreign.toml", tmp_path / "foreign.log"
        assert node.register().code == 0
        (visitor,) = operator.does("visitors --json").json["visitors"]
        assert (visitor["home_address"], visitor["home_agent"]) == (str(HOME), str(HOME_AGENT))
        assert 290 <= visitor["remaining"] <= 300
        assert str(HOME) in operator.does("visitors").out
        status = operator.does("status --json").json
        assert (status["role"], status["visitors"], status["busy"]) == ("foreign", 1, False)
        assert status["care_of_addresses"] == [str(FOREIGN)]
        assert status["replies"] == {"0": 1}
        assert "foreign agent 10.1.3.1" in operator.does("status").out
        assert "\nhomeward_agent_visitors 1\n" in operator.does("metrics").out
        assert operator.types("bindings").status == 1
        assert "nothing wrong" in operator.does("check").out

        refused = configure(operator, tmp_path, "behind_nat = true\n")
        assert (refused, "behind_nat cannot change" in operator.types("reload").err) == (1, True)
        assert configure(operator, tmp_path, "visitors_max = 1\n") == 0
        assert operator.does("status --json").json["busy"] is True
        os.kill(foreign.pid, signal.SIGHUP)
        foreign.wait_for("reloaded visitors=1", times=2)


def configure(operator: Operator, folder: Path, more: str) -> int:
    write_configurations(folder, foreign=more)
    return operator.types("reload").status
