# SPDX-License-Identifier: GPL-2.0-or-later
"""Every code that the home agent can give has a cause, and there is no other code in its decisions."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from homeward import agents
from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.agents.home_agent import HomeAgent, Node
from homeward.agents.policy import ReverseTunnels
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import UdpTunnelRequest
from homeward.model.registration import ReplyCode, RequestFlags, Spi
from tests.unit.agents.scene import (
    D_T,
    ELSEWHERE,
    FORGER,
    HOME,
    NAT,
    POLICY,
    SA,
    T0,
    WITH_FOREIGN_AGENT,
    after,
    arrived,
    by_foreign_agent,
    co_located,
    octets,
    only,
    relayed,
    request,
)

OF_THE_HOME_AGENT = (
    "answers", "claims", "half_bound", "home_agent", "nat_rules", "releases", "support", "verdicts", "wishes",
)  # fmt: skip
NOBODY_LEFT = IPv4Network("10.77.0.10/32")  # the only address of the pool is another node's own
ROAMER = Node("roamer", None, SA, nai="roamer@example.test", home_addresses=NOBODY_LEFT)
NOWHERE = IPv4Address("0.0.0.0")

CAUSES: dict[ReplyCode, Callable[[], tuple[dict[str, object], RequestArrived]]] = {
    ReplyCode.ACCEPTED: lambda: ({}, arrived(request(1))),
    ReplyCode.ACCEPTED_WITHOUT_SIMULTANEOUS_BINDINGS: lambda: (
        {},
        arrived(request(1, flags=D_T | RequestFlags.SIMULTANEOUS)),
    ),
    ReplyCode.ADMINISTRATIVELY_PROHIBITED: lambda: ({}, arrived(request(1), source=ELSEWHERE)),
    ReplyCode.INSUFFICIENT_RESOURCES: lambda: (
        {"nodes": (ROAMER, Node("laptop", HOME, replace(SA, spi=Spi(0x109))))},
        arrived(octets(request(1, home_address=NOWHERE, nai="roamer@example.test"))),
    ),
    ReplyCode.MOBILE_NODE_FAILED_AUTHENTICATION: lambda: (
        {"answer_failed_authentication": True},
        arrived(octets(request(1), FORGER)),
    ),
    ReplyCode.FOREIGN_AGENT_FAILED_AUTHENTICATION: lambda: (
        {"foreign_agents": WITH_FOREIGN_AGENT.foreign_agents},
        relayed(by_foreign_agent(1), by=None),
    ),
    ReplyCode.IDENTIFICATION_MISMATCH: lambda: ({}, arrived(request(3600))),
    ReplyCode.POORLY_FORMED_REQUEST: lambda: (
        {},
        arrived(request(1, flags=D_T | RequestFlags.RESERVED_X)),
    ),
    ReplyCode.UNKNOWN_HOME_AGENT_ADDRESS: lambda: ({}, arrived(request(1, home_agent=ELSEWHERE))),
    ReplyCode.REVERSE_TUNNEL_UNAVAILABLE: lambda: (
        {"reverse_tunnels": ReverseTunnels.REFUSED},
        arrived(request(1)),
    ),
    ReplyCode.REVERSE_TUNNEL_MANDATORY: lambda: (
        {"reverse_tunnels": ReverseTunnels.MANDATORY},
        arrived(request(1, flags=RequestFlags.DECAPSULATE_SELF)),
    ),
    ReplyCode.ENCAPSULATION_UNAVAILABLE: lambda: (
        {"encapsulations": frozenset({Encapsulation.IP_IN_IP})},
        arrived(request(1, flags=D_T | RequestFlags.GRE)),
    ),
    ReplyCode.UDP_TUNNEL_ENCAPSULATION_UNAVAILABLE: lambda: (
        {},
        arrived(co_located(1, udp_tunnel=UdpTunnelRequest(kind=55)), source=NAT),
    ),
}


@pytest.mark.rows("R-221")
@pytest.mark.parametrize("code", list(CAUSES), ids=lambda code: code.name)
def test_a_code_and_its_cause(code: ReplyCode) -> None:
    changes, asked = CAUSES[code]()
    agent = HomeAgent(replace(POLICY, **changes), started=T0)  # type: ignore[arg-type]
    assert only(agent.handle(asked, after(1)), SendReply).octets[1] == code


def test_there_are_no_others() -> None:
    folder = Path(agents.__file__).parent
    named = {
        node.attr
        for name in OF_THE_HOME_AGENT
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "ReplyCode"
    }
    assert named == {code.name for code in CAUSES}
