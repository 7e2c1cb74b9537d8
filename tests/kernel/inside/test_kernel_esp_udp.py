# SPDX-License-Identifier: GPL-2.0-or-later
"""Mode mc behind a translator inside: the tunnel in UDP (RFC 3519) goes through the kernel's ESP like the other."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.strongswan.devices import device_with_address
from homeward.adapters.tunnel_device import TunnelDevice
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import VpnPath
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import Fence, Held, NetworkPlan, Traffic, Tunnelled
from tests.kernel.inside.cable import Cable
from tests.kernel.inside.test_kernel_esp import PORT, cable, data, received, stations, vpn
from tests.world.stations import AGENT, HOME, INNER, PEER, ROUTER, Stations, eventually, take

__all__ = ["cable", "stations", "vpn"]

TUNNEL_DATA = b"\4\4\0\0"


def plan(traffic: Traffic) -> NetworkPlan:
    fence = Fence(AGENT, (ROUTER,), ("eth0",), traffic, INNER)
    return NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), traffic, fence)


@pytest.mark.rows("R-229", "R-230", "R-231")
async def test_a_tunnel_in_udp_leaves_in_esp_only_and_nothing_forged_in_clear_comes_in(
    stations: Stations,
    vpn: None,
    cable: Cable,
    tmp_path: Path,
) -> None:
    registrations = UdpRegistrations(device_with_address)
    tunnel = TunnelDevice(datagrams=registrations)
    registrations.on_tunnel_data = tunnel.take_datagram
    reported: list[DatagramReceived] = []
    registrations.start(reported.append)
    plans = NetlinkPlans(
        tunnel, NftFence(), switches=KernelSwitches(tmp_path), tunnel_device=device_with_address
    )
    await plans.apply(plan(Held()))
    with (
        stations.udp(AGENT, 434) as agent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as application,
    ):
        registrations.send(VpnPath(INNER), AGENT, b"request", ttl=255)
        request = await eventually(lambda: take(agent))
        agent.sendto(b"reply", (str(INNER), request.port))
        await eventually(lambda: reported)
        await plans.apply(plan(Tunnelled(VpnPath(INNER), AGENT, 1388, udp=True)))
        application.bind((str(HOME), 9))
        for text in (b"one", b"two"):
            application.sendto(text, (str(PEER), 9))
            outer = await eventually(lambda: take(agent))
            assert (outer.source, outer.port) == (INNER, request.port)
            assert IP(outer.octets.removeprefix(TUNNEL_DATA)).payload.load == text
            agent.sendto(TUNNEL_DATA + data(text), (str(INNER), request.port))
            assert await eventually(lambda: received(application)) == text
        packets = cable.left()
        assert {(packet.dst, packet[UDP].dport) for packet in packets} == {(str(ROUTER), PORT)}
        assert len(packets) == 3
        there = stations.laptop.ip("-brief link show dev eth0").split()[2]
        with stations.agent, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("lan0", 0))
            forged = UDP(sport=434, dport=request.port) / Raw(TUNNEL_DATA + data(b"forged"))
            wire.send(bytes(Ether(dst=there) / IP(src=str(AGENT), dst=str(INNER)) / forged))
        agent.sendto(TUNNEL_DATA + data(b"genuine"), (str(INNER), request.port))
        assert await eventually(lambda: received(application)) == b"genuine"
        assert received(application) is None
    await plans.close()
    registrations.stop()
