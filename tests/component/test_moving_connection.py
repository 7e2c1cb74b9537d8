# SPDX-License-Identifier: GPL-2.0-or-later
"""One real TCP connection over moves between a clear tunnel and a VPN's, by the adapters alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.tunnel_device import TunnelDevice, open_tun, open_tunnel_socket, receive_packet
from homeward.model.access import ClearPath, VpnPath
from homeward.model.plan import Fence, Held, NetworkPlan, Traffic, Tunnelled
from homeward.wire.icmp_errors import checksum
from homeward.wire.ip_in_ip import decapsulate, encapsulate
from tests.world.stations import AGENT, CARE_OF, HOME, INNER, PEER, FarEnd, Stations

pytestmark = pytest.mark.root


class HomeAgent:
    """Forwards between PEER and the laptop, which it answers by the path of the laptop's last packet."""

    def __init__(self, stations: Stations, vpn: FarEnd) -> None:
        with stations.agent:
            self._raw = open_tunnel_socket(AGENT)
            self._tun = open_tun("hat0")
        stations.agent.ip("link set hat0 mtu 1480 up")
        stations.agent.ip(f"route add {HOME}/32 dev hat0")
        self._vpn = vpn
        self._through_vpn = False
        self._readers = {
            self._raw.fileno(): self._from_clear,
            self._tun: self._to_laptop,
            vpn.fileno: self._from_vpn,
        }
        for descriptor, reader in self._readers.items():
            asyncio.get_running_loop().add_reader(descriptor, reader)

    def _from_clear(self) -> None:
        self._through_vpn = False
        os.write(self._tun, decapsulate(receive_packet(self._raw)[0]).inner)

    def _from_vpn(self) -> None:
        outer = self._vpn.sent()
        if outer is not None and outer[9] == 4:
            self._through_vpn = True
            os.write(self._tun, decapsulate(outer).inner)

    def _to_laptop(self) -> None:
        packet = os.read(self._tun, 0xFFFF)
        if packet[0] >> 4 != 4:
            return
        if self._through_vpn:
            outer = encapsulate(packet, AGENT, INNER)
            # Nobody fills the checksum in for a packet that is written into a TUN device.
            self._vpn.deliver(outer[:10] + checksum(outer[:20]).to_bytes(2, "big") + outer[12:])
        else:
            self._raw.sendto(encapsulate(packet, AGENT, CARE_OF), (str(CARE_OF), 0))

    def close(self) -> None:
        for descriptor in self._readers:
            asyncio.get_running_loop().remove_reader(descriptor)
        self._raw.close()
        os.close(self._tun)


class Scene:
    def __init__(self, stations: Stations, state: Path) -> None:
        self.stations = stations
        self.vpn = FarEnd(stations.laptop, "ipsec0", INNER)
        self.agent = HomeAgent(stations, self.vpn)
        self.plans = NetlinkPlans(
            TunnelDevice(), NftFence(), switches=KernelSwitches(state), tunnel_device={INNER: "ipsec0"}.get
        )
        self.clear = Tunnelled(ClearPath(stations.link, "eth0", CARE_OF), AGENT, 1480)
        self.inside_vpn = Tunnelled(VpnPath(INNER), AGENT, 1400)

    async def apply(self, traffic: Traffic) -> None:
        fence = Fence(AGENT, (), ("eth0",), traffic, INNER)
        await self.plans.apply(NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), traffic, fence))

    async def close(self) -> None:
        await self.plans.close()
        self.agent.close()
        self.vpn.close()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with Stations() as stations:
        made = Scene(stations, tmp_path)
        yield made
        await made.close()


class Transfer:
    """A connection from the home address that carries random octets up, and counts what arrives."""

    def __init__(self) -> None:
        self.arrived = 0
        self.at = 0.0
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._going_on = True

    async def open(self, stations: Stations) -> None:
        loop = asyncio.get_running_loop()
        with stations.agent:
            listener = socket.create_server((str(PEER), 0))
        listener.setblocking(False)
        self._client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connected = loop.sock_connect(self._client, listener.getsockname())
        (self._server, peer), _ = await asyncio.gather(loop.sock_accept(listener), connected)
        assert peer[0] == str(HOME)
        listener.close()
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while self._going_on:
            octets = os.urandom(16384)
            self._sent.update(octets)
            await loop.sock_sendall(self._client, octets)
            await asyncio.sleep(0)
        self._client.shutdown(socket.SHUT_WR)

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while octets := await loop.sock_recv(self._server, 65536):
            self._received.update(octets)
            self.arrived += len(octets)
            self.at = time.perf_counter()

    async def first_octet_after(self, moment: float) -> float:
        """Seconds from that moment until something arrived."""
        async with asyncio.timeout(10):
            while self.at <= moment:  # noqa: ASYNC110 - what is waited for happens in the kernel
                await asyncio.sleep(0.001)
        return self.at - moment

    async def finish(self) -> bool:
        """Whether everything arrived as it was sent, with no error at either end."""
        self._going_on = False
        await asyncio.wait_for(asyncio.gather(*self._tasks), 20)
        self._client.close()
        self._server.close()
        return self._sent.digest() == self._received.digest()


@pytest.mark.rows("R-7", "R-8", "R-179", "R-216")
async def test_a_connection_survives_every_move_and_goes_on(scene: Scene) -> None:
    await scene.apply(scene.clear)
    transfer = Transfer()
    await transfer.open(scene.stations)
    for traffic in (scene.inside_vpn, scene.clear) * 3:
        await asyncio.sleep(0.3)
        scene.plans.hold()
        await scene.apply(Held())
        arrived = transfer.arrived
        await asyncio.sleep(0.1)
        assert transfer.arrived - arrived < 200_000, "nothing but what had left before may still arrive"
        await scene.apply(traffic)
        await transfer.first_octet_after(time.perf_counter())
    assert await transfer.finish()
    assert transfer.arrived > 1_000_000
    # How soon it goes on is measured by `./dev bench adapters`.
