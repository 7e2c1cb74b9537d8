# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection that was made on a wide path goes on over a narrow one, in both directions, although nobody there
says that packets are too long (R-289).

The mobile node is a real kernel behind a TUN device of the test's; only its tunnel's end is made here. So its segments,
and the correspondent's, have the size that both kernels agreed on at the beginning: 1440 octets.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from homeward.wire.ip_in_ip import decapsulate
from tests.component.agent_modes import NARROW, Station, running
from tests.component.agent_network import AGENT, CARE_OF, HOME, AgentNetwork, AgentProcess, Namespace

pytestmark = pytest.mark.root

DEVICE = "test-tun"
ENOUGH = 300_000
NARROW_MTU = 1280


class Laptop:
    """A TUN device with the home address in the mobile node's host; its packets go through the tunnel from `at`."""

    def __init__(self, network: AgentNetwork) -> None:
        self._network = network
        with network.node.entered():
            self._tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self._tun, 0x400454CA, struct.pack("16sH22x", DEVICE.encode(), 0x1001))
        network.node.ip(f"link set {DEVICE} up mtu 1480")
        network.node.ip(f"address add {HOME}/32 dev {DEVICE}")
        network.node.ip(f"rule add from {HOME} lookup 99")
        network.node.ip(f"route add default dev {DEVICE} table 99")
        self._ways = {where: Station(network, where, 4) for where in (CARE_OF, NARROW)}
        self.longest = 0
        """Of the tunnel packets that came."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._tun, self._send)
        for way in self._ways.values():
            loop.add_reader(way.raw[4], self._receive, way.raw[4])

    def go_to(self, where: IPv4Address, mtu: int) -> None:
        assert self._ways[where].ask().code == 0
        self._at = self._ways[where]
        self._network.node.ip(f"link set {DEVICE} mtu {mtu}")
        self.longest = 0

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._tun)
        os.close(self._tun)
        self._network.node.ip(f"rule del from {HOME} lookup 99")
        for way in self._ways.values():
            loop.remove_reader(way.raw[4])
            way.close()

    def _send(self) -> None:
        packet = os.read(self._tun, 65535)
        if packet[0] >> 4 == 4:
            self._at.raw[4].sendto(packet, (str(AGENT), 0))

    def _receive(self, opened: socket.socket) -> None:
        packet = opened.recv(65535)
        self.longest = max(self.longest, len(packet))
        os.write(self._tun, decapsulate(packet).inner)


@pytest.fixture(scope="module")
def network() -> Iterator[AgentNetwork]:
    made, station = AgentNetwork(NARROW), Namespace()
    made.add_home_link(station, "10.79.0.20", "10.79.0.1")
    # The way to NARROW takes packets of 1280 octets, and what its router says of longer ones gets lost.
    made.router.ip(f"route add {NARROW}/32 dev to-node mtu lock {NARROW_MTU}")
    rules = (
        "add table ip lossy; add chain ip lossy out { type filter hook output priority 0; };"
        "add rule ip lossy out icmp type destination-unreachable drop"
    )
    made.router.run("nft", rules)
    yield made
    made.close()
    station.close()


@pytest.fixture(scope="module")
def agent(network: AgentNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running(network, Path(tmp_path_factory.mktemp("agent"))) as process:
        yield process


async def transfer(sender: socket.socket, receiver: socket.socket) -> None:
    """So many octets arrive within a time that a connection which has stalled does not keep."""
    loop = asyncio.get_running_loop()
    sending = loop.create_task(loop.sock_sendall(sender, bytes(ENOUGH)))
    got = 0
    async with asyncio.timeout(8):
        while got < ENOUGH:
            part = await loop.sock_recv(receiver, 65536)
            assert part
            got += len(part)
        await sending


async def go_on_over_a_narrow_path(network: AgentNetwork) -> int:
    """The length of the longest tunnel packet that came by the narrow path."""
    laptop = Laptop(network)
    with network.node.entered():
        listening = socket.create_server((str(HOME), 8000))
    with network.peer.entered():
        peer = socket.socket()
    opened = [listening, peer]
    try:
        laptop.go_to(CARE_OF, 1480)
        for each in opened:
            each.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(3):
            await loop.sock_connect(peer, (str(HOME), 8000))
            node, _ = await loop.sock_accept(listening)
        opened.append(node)
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > 1400
        await transfer(peer, node)
        await transfer(node, peer)
        laptop.go_to(NARROW, NARROW_MTU - 20)
        await transfer(peer, node)
        await transfer(node, peer)
        return laptop.longest
    finally:
        for each in opened:
            each.close()
        laptop.close()


@pytest.mark.rows("R-287", "R-289")
@pytest.mark.parametrize("dont_fragment", [True, False])
def test_an_established_connection_goes_on(
    agent: AgentProcess, network: AgentNetwork, dont_fragment: bool
) -> None:
    for host in (network.peer, network.node):
        host.setting("ipv4/ip_no_pmtu_disc", "0" if dont_fragment else "1")
        host.ip("route flush cache")
    told = agent.counter("icmp-sent-3-4")
    longest = asyncio.run(go_on_over_a_narrow_path(network))
    assert 1000 < longest <= NARROW_MTU
    assert (agent.counter("icmp-sent-3-4") > told) is dont_fragment
