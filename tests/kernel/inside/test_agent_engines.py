# SPDX-License-Identifier: GPL-2.0-or-later
"""The attacks of tests/component/test_agent_engines.py where the kernel has an `ipip` device for IP-in-IP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component import test_agent_engines as attacks
from tests.component.agent_modes import running
from tests.component.agent_network import AgentNetwork, AgentProcess
from tests.component.agent_tunnels import BY_KERNEL, Tunnel
from tests.component.test_agent_engines import network, peer

__all__ = ["network", "peer"]


@pytest.fixture(scope="module")
def engine() -> str:
    return BY_KERNEL


@pytest.fixture(scope="module")
def agent(network: AgentNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running(network, Path(tmp_path_factory.mktemp("agent"))) as process:
        yield process


@pytest.fixture
def tunnel(agent: AgentProcess, network: AgentNetwork) -> Iterator[Tunnel]:
    made = Tunnel(network, "ip-in-ip")
    yield made
    made.close()


def test_this_kernel_carries_ip_in_ip(agent: AgentProcess) -> None:
    assert agent.dump()["engine"] == "ipip"


test_data_goes_both_ways = attacks.test_data_goes_both_ways_with_the_headers_that_it_should_have
test_marks_that_cannot_be_carried_on = attacks.test_a_mark_that_cannot_be_carried_on_costs_the_packet
test_options_and_fragments = attacks.test_options_and_fragments_inside_pass
test_forgeries = attacks.test_forged_reverse_tunnels
test_a_tunnel_of_another_kind = attacks.test_a_tunnel_of_another_kind
test_not_granted = attacks.test_a_reverse_tunnel_that_was_not_granted
test_from_outside = attacks.test_the_right_addresses_by_the_outside_interface
test_the_tunnels_own_exit = attacks.test_packets_from_the_tunnels_own_exit
test_nothing_passes_when_the_binding_has_ended = attacks.test_nothing_passes_when_the_binding_has_ended
