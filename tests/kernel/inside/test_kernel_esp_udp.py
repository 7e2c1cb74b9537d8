# SPDX-License-Identifier: GPL-2.0-or-later
"""Mode mc behind a translator inside: the tunnel in UDP (RFC 3519) goes through the kernel's ESP like the other."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.kernel_tunnels.shortcut import Shortcut
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.strongswan.devices import device_with_address
from homeward.adapters.tunnel_device import TunnelDevice, open_tun
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import ClearPath, VpnPath
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import Fence, Held, NetworkPlan, Traffic, Tunnelled
from homeward.model.tunnel_engine import TunnelEngine
from tests.component.test_moving_connection import Transfer
from tests.kernel.inside.cable import Cable
from tests.kernel.inside.test_kernel_esp import (
    DOWN,
    KEY,
    OTHER_KEY,
    PORT,
    cable,
    came_by,
    data,
    policy,
    received,
    state,
    stations,
    vpn,
)
from tests.world.stations import AGENT, CARE_OF, HOME, INNER, PEER, ROUTER, Stations, eventually, take

__all__ = ["cable", "stations", "vpn"]

TUNNEL_DATA = b"\4\4\0\0"
_NO_CHECKSUM = 11  # SO_NO_CHECK


def plan(traffic: Traffic) -> NetworkPlan:
    fence = Fence(AGENT, (ROUTER,), ("eth0",), traffic, INNER)
    return NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), traffic, fence)


by_each_engine = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(TunnelEngine.BPF, id="bpf"),
        pytest.param(TunnelEngine.TUN, id="tun", marks=pytest.mark.slow),
    ],
)


@dataclass
class Laptop:
    """Its plan is open: a tunnel in UDP, from this port, in the VPN."""

    plans: NetlinkPlans
    registrations: UdpRegistrations
    port: int
    reported: list[DatagramReceived]

    def ask_in_clear(self, link: int) -> int:
        """The next question whether the link is trusted leaves; the port that its answer would come to."""
        path = ClearPath(link, "eth0", CARE_OF)
        self.registrations.send(path, AGENT, b"request in clear", ttl=255)
        opened = self.registrations._sockets[path].receiver
        assert opened is not None
        port: int = opened.getsockname()[1]
        return port

    async def close(self) -> None:
        await self.plans.close()
        self.registrations.stop()


async def connected(agent: socket.socket, state: Path, engine: TunnelEngine) -> Laptop:
    registrations = UdpRegistrations(device_with_address)
    tunnel = TunnelDevice(datagrams=registrations, shortcut=Shortcut(allowed=frozenset({engine})))
    registrations.on_tunnel_data = tunnel.take_datagram
    reported: list[DatagramReceived] = []
    registrations.start(reported.append)
    plans = NetlinkPlans(
        tunnel, NftFence(), switches=KernelSwitches(state), tunnel_device=device_with_address
    )
    await plans.apply(plan(Held()))
    registrations.send(VpnPath(INNER), AGENT, b"request", ttl=255)
    request = await eventually(lambda: take(agent))
    agent.setsockopt(socket.SOL_SOCKET, _NO_CHECKSUM, 1)  # as the kernel of a home agent sends them
    agent.sendto(b"reply", (str(INNER), request.port))
    await eventually(lambda: reported)
    await plans.apply(plan(Tunnelled(VpnPath(INNER), AGENT, 1388, udp=True)))
    assert plans.engine() is engine
    reported.clear()
    return Laptop(plans, registrations, request.port, reported)


@pytest.mark.rows("R-229", "R-230", "R-231")
@by_each_engine
async def test_a_tunnel_in_udp_leaves_in_esp_only_and_nothing_forged_in_clear_comes_in(
    stations: Stations, vpn: None, cable: Cable, tmp_path: Path, engine: TunnelEngine
) -> None:
    with (
        stations.udp(AGENT, 434) as agent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as application,
    ):
        laptop = await connected(agent, tmp_path, engine)
        application.bind((str(HOME), 9))
        for text in (b"one", b"two"):
            application.sendto(text, (str(PEER), 9))
            outer = await eventually(lambda: take(agent))
            assert (outer.source, outer.port) == (INNER, laptop.port)
            assert IP(outer.octets.removeprefix(TUNNEL_DATA)).payload.load == text
            agent.sendto(TUNNEL_DATA + data(text), (str(INNER), laptop.port))
            assert await eventually(lambda: received(application)) == text
        packets = cable.left()
        assert {(packet.dst, packet[UDP].dport) for packet in packets} == {(str(ROUTER), PORT)}
        assert len(packets) == 3
        assert laptop.plans.traffic().sent_packets == 2
        clear = laptop.ask_in_clear(stations.link)
        forge_in_clear(stations, laptop.port, clear)
        reply_inside(agent, laptop.port, clear)
        forge_in_another_vpns_esp(stations, agent, laptop.port, clear)
        agent.sendto(TUNNEL_DATA + data(b"genuine"), (str(INNER), laptop.port))
        assert await eventually(lambda: received(application)) == b"genuine"
        assert came_by(stations, 0x2002) == 2
        # Two replies to the home address came as well: nobody has asked from there.
        await eventually(lambda: laptop.plans.traffic().received_packets == 3 + 2)
        assert received(application) is None
        agent.sendto(b"\3by the VPN", (str(INNER), laptop.port))
        (heard,) = await eventually(lambda: laptop.reported)
        assert (heard.path, heard.octets) == (VpnPath(INNER), b"\3by the VPN")
    await laptop.close()


def forge_in_clear(stations: Stations, port: int, clear: int) -> None:
    """Packets of the tunnel, of both kinds, in the home agent's name on the access link."""
    there = stations.laptop.ip("-brief link show dev eth0").split()[2]
    forged = data(b"forged")
    with stations.agent, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("lan0", 0))
        for to in (INNER, CARE_OF):
            outer = IP(src=str(AGENT), dst=str(to))
            wire.send(bytes(Ether(dst=there) / IP(src=str(AGENT), dst=str(to), proto=4) / Raw(forged)))
            for taken in (port, clear, 434):
                datagram = UDP(sport=434, dport=taken, chksum=0) / Raw(TUNNEL_DATA + forged)
                wire.send(bytes(Ether(dst=there) / outer / datagram))


def reply_inside(agent: socket.socket, port: int, clear: int) -> None:
    """What looks like a Registration Reply comes out of our own tunnel."""
    for taken in (port, clear):
        for to in (HOME, INNER, CARE_OF):
            reply = IP(src=str(AGENT), dst=str(to)) / UDP(sport=434, dport=taken) / Raw(b"\3forged")
            agent.sendto(TUNNEL_DATA + bytes(reply), (str(INNER), port))


def forge_in_another_vpns_esp(stations: Stations, agent: socket.socket, port: int, clear: int) -> None:
    """That VPN's gateway is an honest one for its own users, and nobody to us. Afterwards it is ours again."""
    selectors = [f"src {AGENT}/32 dst {to}/32" for to in (INNER, CARE_OF)]
    theirs = state(DOWN, 0x2002, OTHER_KEY)
    stations.laptop.batch(theirs, *(policy("in", selector, DOWN) for selector in selectors))
    stations.agent.batch(
        "xfrm policy flush",
        "xfrm state flush",
        theirs,
        *(policy("out", selector, DOWN) for selector in selectors),
    )
    for end in ((str(INNER), port), (str(CARE_OF), clear)):
        agent.sendto(TUNNEL_DATA + data(b"forged"), end)
    stations.agent.batch("xfrm state flush", state(DOWN, 0x1002, KEY))


@by_each_engine
async def test_a_connection_carries_much_through_esp(
    stations: Stations, vpn: None, tmp_path: Path, engine: TunnelEngine
) -> None:
    """Segments that the kernel cuts last of all: after the tunnel's headers are on, and before they are encrypted."""
    with stations.udp(AGENT, 434) as agent:
        laptop = await connected(agent, tmp_path, engine)
        with stations.agent:
            device = open_tun("hat0")
        stations.agent.batch("link set hat0 mtu 1388 up", f"route add {HOME}/32 dev hat0")
        loop = asyncio.get_running_loop()
        laptops_end = (str(INNER), laptop.port)
        loop.add_reader(agent, lambda: _pass_on(agent, device))
        loop.add_reader(device, lambda: agent.sendto(TUNNEL_DATA + os.read(device, 0xFFFF), laptops_end))
        transfer = Transfer()
        await transfer.open(stations)
        async with asyncio.timeout(20):
            while transfer.arrived < 500_000:  # noqa: ASYNC110 - what is waited for happens in the kernel
                await asyncio.sleep(0.01)
        assert await transfer.finish()
        loop.remove_reader(agent)
        loop.remove_reader(device)
        os.close(device)
    await laptop.close()


def _pass_on(agent: socket.socket, device: int) -> None:
    octets = agent.recv(0xFFFF)
    if octets.startswith(TUNNEL_DATA):
        os.write(device, octets.removeprefix(TUNNEL_DATA))
