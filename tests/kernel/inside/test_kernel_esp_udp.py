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
from homeward.model.access import VpnPath
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import Fence, Held, NetworkPlan, Traffic, Tunnelled
from homeward.model.tunnel_engine import TunnelEngine
from tests.component.test_moving_connection import Transfer
from tests.kernel.inside.cable import Cable
from tests.kernel.inside.test_kernel_esp import PORT, cable, data, received, stations, vpn
from tests.world.stations import AGENT, HOME, INNER, PEER, ROUTER, Stations, eventually, take

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
    return Laptop(plans, registrations, request.port)


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
        there = stations.laptop.ip("-brief link show dev eth0").split()[2]
        with stations.agent, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("lan0", 0))
            forged = UDP(sport=434, dport=laptop.port, chksum=0) / Raw(TUNNEL_DATA + data(b"forged"))
            wire.send(bytes(Ether(dst=there) / IP(src=str(AGENT), dst=str(INNER)) / forged))
        agent.sendto(TUNNEL_DATA + data(b"genuine"), (str(INNER), laptop.port))
        assert await eventually(lambda: received(application)) == b"genuine"
        assert received(application) is None
        traffic = laptop.plans.traffic()
        assert (traffic.sent_packets, traffic.received_packets) == (2, 3)
    await laptop.close()


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
