# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the kernel's own IP-in-IP is loaded it answers our tunnel packets with "port unreachable", though we took them.

The home agent keeps it from saying so; on the laptop the fence does. Each is shown first without.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.tunnel_device import TunnelDevice, open_tunnel_socket
from homeward.model.access import ClearPath
from homeward.model.plan import Fence, NetworkPlan, Tunnelled
from tests.component.agent_network import AgentProcess
from tests.kernel.inside.cable import Cable
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, Stations, TunnelEnd, eventually

CONFIGURATION = f"""version = 1
address = "{AGENT}"
inside_interfaces = ["lan0"]
trusted_prefixes = ["10.1.0.0/16"]
home_network = "10.77.0.0/24"
[[node]]
name = "laptop"
home_address = "{HOME}"
spi = 0x100
algorithm = "hmac-sha256"
key_file = "laptop.key"
"""
UNREACHABLE, ECHO_REQUEST, ECHO_REPLY = 3, 8, 0
PORT = 3


@pytest.fixture
def stations() -> Iterator[Stations]:
    with Stations() as made:
        for host in (made.laptop, made.agent):
            host.sysctl("ipv4/icmp_ratelimit", "0")
        yield made


# --- the home agent ---


def answers_to_a_tunnel_packet() -> list[tuple[int, int]]:
    """Type and code of the errors that the agent's host sends for one tunnel packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as hears:
        hears.settimeout(5)
        with open_tunnel_socket(CARE_OF, whole=False) as tunnel:
            tunnel.sendto(data(1), (str(AGENT), 0))
        # It goes the same way, so that its answer comes behind all answers to the other.
        hears.sendto(bytes(ICMP(type=ECHO_REQUEST, id=7)), (str(AGENT), 0))
        heard: list[tuple[int, int]] = []
        while True:
            message = IP(hears.recv(4096))[ICMP]
            if message.type == ECHO_REPLY:
                return heard
            heard.append((message.type, message.code))


def test_a_home_agent_is_not_contradicted_by_its_kernel(stations: Stations, tmp_path: Path) -> None:
    assert answers_to_a_tunnel_packet() == [(UNREACHABLE, PORT)]

    key = tmp_path / "laptop.key"
    key.write_text("5a" * 32 + "\n")
    key.chmod(0o600)
    (tmp_path / "agent.toml").write_text(CONFIGURATION)
    with AgentProcess(stations.agent, tmp_path / "agent.toml", tmp_path / "log") as agent:
        agent.wait_for("ready ")
        assert answers_to_a_tunnel_packet() == []
        assert "not-silenced" not in agent.text()
        assert sum(agent.dump()["counters"].values()) > 0, "the agent has not seen the packet"
        assert agent.stop() == 0
    with stations.agent:
        assert "homeward" not in stations.agent.run("nft", "list", "ruleset")
    assert answers_to_a_tunnel_packet() == [(UNREACHABLE, PORT)]


# --- the laptop ---


@pytest.fixture
def cable(stations: Stations) -> Iterator[Cable]:
    made = Cable()
    yield made
    made.close()


@pytest.fixture
def home_agent(stations: Stations) -> Iterator[TunnelEnd]:
    with TunnelEnd(stations) as made:
        # This home agent is silent, so that what the laptop hears is of the laptop's making.
        stations.agent.sysctl("ipv4/icmp_ratemask", str(1 << UNREACHABLE))
        stations.agent.sysctl("ipv4/icmp_ratelimit", "100000000")
        yield made


def data(number: int) -> bytes:
    return bytes(IP(src=str(PEER), dst=str(HOME)) / UDP(sport=9, dport=9) / Raw(bytes([number])))


async def test_without_the_fence_the_laptops_kernel_answers(
    stations: Stations, cable: Cable, home_agent: TunnelEnd
) -> None:
    with open_tunnel_socket(CARE_OF, far_end=AGENT, device=stations.link):
        home_agent.send(data(1))
        (answer,) = await eventually(cable.left)
        assert (answer[ICMP].type, answer[ICMP].code) == (UNREACHABLE, 3)


async def test_a_home_agent_that_is_contradicted_by_its_kernel_costs_no_packet(stations: Stations) -> None:
    """Not every home agent is ours. Without the fence, which would keep the errors out."""
    tunnel = TunnelDevice()
    with TunnelEnd(stations) as home_agent:
        tunnel.attach(HOME)
        stations.laptop.batch(
            f"addr add {HOME}/32 dev homeward0", "link set homeward0 up", f"route add {PEER} dev homeward0"
        )
        tunnel.prepare(Tunnelled(ClearPath(stations.link, "eth0", CARE_OF), AGENT, 1480), stations.link)
        tunnel.open(linger=False)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
            application.bind((str(HOME), 9))
            for _ in range(10):
                application.sendto(b"data", (str(PEER), 9))
            for _ in range(10):
                await eventually(home_agent.came)
    tunnel.detach()


@pytest.fixture
async def plans(stations: Stations, tmp_path: Path) -> AsyncIterator[NetlinkPlans]:
    switches = KernelSwitches(tmp_path)
    made = NetlinkPlans(TunnelDevice(), NftFence(), switches=switches, tunnel_device=lambda inner: None)
    traffic = Tunnelled(ClearPath(stations.link, "eth0", CARE_OF), AGENT, 1480)
    fence = Fence(AGENT, (), ("eth0",), traffic, None)
    await made.apply(NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), traffic, fence))
    yield made
    await made.close()


async def test_with_the_fence_data_flows_both_ways_and_nothing_else_leaves(
    stations: Stations, plans: NetlinkPlans, cable: Cable, home_agent: TunnelEnd
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as application:
        application.bind((str(HOME), 9))
        for number in range(5):
            home_agent.send(data(number))
            assert await eventually(lambda: taken(application)) == bytes([number])
            application.sendto(b"back", (str(PEER), 9))
            await eventually(home_agent.came)
    packets = cable.left()
    assert len(packets) == 5
    assert all(packet.proto == socket.IPPROTO_IPIP for packet in packets), packets


def taken(application: socket.socket) -> bytes | None:
    try:
        return application.recv(99)
    except BlockingIOError:
        return None
