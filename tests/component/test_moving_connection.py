# SPDX-License-Identifier: GPL-2.0-or-later
"""One real TCP connection over moves between a clear tunnel and a VPN's, by the adapters alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.kernel_tunnels.shortcut import Shortcut
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.tunnel_device import TunnelDevice, open_tun, open_tunnel_socket, receive_packet
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import ClearPath, VpnPath
from homeward.model.nat_traversal import TunnelKind
from homeward.model.plan import Fence, Held, NetworkPlan, Traffic, Tunnelled
from homeward.model.tunnel_engine import TunnelEngine
from homeward.wire.icmp_errors import checksum
from homeward.wire.ip_in_ip import decapsulate, encapsulate
from homeward.wire.udp_tunnel import unwrap, wrap
from tests.world.namespaces import Namespace, cable
from tests.world.stations import AGENT, CARE_OF, HOME, INNER, PEER, FarEnd, Stations

pytestmark = pytest.mark.root

_NO_CHECKSUM = 11  # SO_NO_CHECK


class HomeAgent:
    """Forwards between PEER and the laptop, which it answers by the way of the laptop's last packet."""

    def __init__(self, stations: Stations, vpn: FarEnd) -> None:
        with stations.agent:
            self._raw = open_tunnel_socket(AGENT)
            self._udp = stations.udp(AGENT, 434)
            self._tun = open_tun("hat0")
        self._udp.setsockopt(socket.SOL_SOCKET, _NO_CHECKSUM, 1)  # as the kernel of a home agent sends them
        stations.agent.ip("link set hat0 mtu 1480 up")
        stations.agent.ip(f"route add {HOME}/32 dev hat0")
        self._vpn = vpn
        self._answer: Callable[[bytes], object] = lambda packet: None
        self._readers = {
            self._raw.fileno(): self._from_clear,
            self._udp.fileno(): self._from_clear_in_udp,
            self._tun: self._to_laptop,
            vpn.fileno: self._from_vpn,
        }
        for descriptor, reader in self._readers.items():
            asyncio.get_running_loop().add_reader(descriptor, reader)

    def _from_clear(self) -> None:
        self._answer = lambda packet: self._send(encapsulate(packet, AGENT, CARE_OF))
        os.write(self._tun, decapsulate(receive_packet(self._raw)[0]).inner)

    def _send(self, packet: bytes) -> None:
        self._raw.sendto(packet, (str(CARE_OF), 0))

    def _from_clear_in_udp(self) -> None:
        octets, laptop = self._udp.recvfrom(0xFFFF)
        if octets[0] == 4:
            self._answer = lambda packet: self._udp.sendto(wrap(packet), laptop)
            os.write(self._tun, unwrap(octets, TunnelKind.IP_IN_IP))

    def _from_vpn(self) -> None:
        outer = self._vpn.sent()
        if outer is None or outer[9] not in (4, 17):
            return
        if outer[9] == 4:
            self._answer = lambda packet: self._deliver(encapsulate(packet, AGENT, INNER))
            os.write(self._tun, decapsulate(outer).inner)
        elif outer[28] == 4:
            ports = outer[22:24] + outer[20:22]
            self._answer = lambda packet: self._deliver(_datagram(wrap(packet), ports))
            os.write(self._tun, unwrap(outer[28:], TunnelKind.IP_IN_IP))

    def _deliver(self, outer: bytes) -> None:
        # Nobody fills the checksum in for a packet that is written into a TUN device.
        self._vpn.deliver(outer[:10] + checksum(outer[:20]).to_bytes(2, "big") + outer[12:])

    def _to_laptop(self) -> None:
        packet = os.read(self._tun, 0xFFFF)
        if packet[0] >> 4 == 4:
            self._answer(packet)

    def close(self) -> None:
        for descriptor in self._readers:
            asyncio.get_running_loop().remove_reader(descriptor)
        self._raw.close()
        self._udp.close()
        os.close(self._tun)


def _datagram(octets: bytes, ports: bytes) -> bytes:
    """In UDP without a checksum, from the home agent to the VPN's inner address."""
    length = 8 + len(octets)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 17, 0, AGENT.packed, INNER.packed)
    return header + ports + struct.pack("!HH", length, 0) + octets


class Scene:
    """With `udp` the tunnels are in UDP; by `engine` and nothing else past the process."""

    def __init__(
        self,
        stations: Stations,
        state: Path,
        *,
        udp: bool = False,
        engine: TunnelEngine = TunnelEngine.TUN,
    ) -> None:
        self.stations = stations
        self.vpn = FarEnd(stations.laptop, "ipsec0", INNER)
        self.agent = HomeAgent(stations, self.vpn)
        self._registrations = UdpRegistrations({INNER: "ipsec0"}.get)
        self._registrations.start(lambda reply: None)
        shortcut = Shortcut(allowed=frozenset({engine}))
        self.tunnel = TunnelDevice(datagrams=self._registrations, shortcut=shortcut)
        self._registrations.on_tunnel_data = self.tunnel.take_datagram
        self.plans = NetlinkPlans(
            self.tunnel, NftFence(), switches=KernelSwitches(state), tunnel_device={INNER: "ipsec0"}.get
        )
        less = 12 if udp else 0
        path = ClearPath(stations.link, "eth0", CARE_OF)
        self.clear = Tunnelled(path, AGENT, 1480 - less, udp=udp)
        self.inside_vpn = Tunnelled(VpnPath(INNER), AGENT, 1400 - less, udp=udp)
        for each in (self.clear, self.inside_vpn) if udp else ():
            self._registrations.send(each.path, AGENT, b"\1request", ttl=64)

    async def apply(self, traffic: Traffic) -> None:
        fence = Fence(AGENT, (), ("eth0",), traffic, INNER)
        await self.plans.apply(NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), traffic, fence))

    async def close(self) -> None:
        await self.plans.close()
        self._registrations.stop()
        self.agent.close()
        self.vpn.close()


# IP-in-IP by the process carries the lab's stories, moves and connections included.
@pytest.fixture(params=[pytest.param("ip-in-ip-tun", marks=pytest.mark.slow), "udp-tun", "udp-bpf"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    engine = TunnelEngine(request.param.rpartition("-")[2])
    with Stations() as stations:
        made = Scene(stations, tmp_path, udp=request.param.startswith("udp"), engine=engine)
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
        # What lies in the receiver's buffer has arrived, but is counted when it is read: let that be little.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
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


class FarStations(Stations):
    """The home agent is one hop farther, behind a link of 1300 octets."""

    def __init__(self) -> None:
        super().__init__()
        router, self.agent = self.agent, Namespace()
        self._router = router
        for address in (AGENT, PEER):
            router.ip(f"addr del {address}/32 dev lo")
            self.agent.ip(f"addr add {address}/32 dev lo")
        router.sysctl("ipv4/ip_forward", "1")
        cable(router, "wan0", self.agent, "wan0")
        for host, own, other in ((router, "192.0.2.1", AGENT), (self.agent, "192.0.2.2", CARE_OF)):
            host.ip(f"addr add {own}/30 dev wan0")
            host.ip("link set wan0 mtu 1300")
            host.ip(f"route add {other}/32 via {'192.0.2.2' if host is router else '192.0.2.1'}")

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._router.close()


@pytest.mark.rows("R-287", "R-288")
@pytest.mark.parametrize("engine", [TunnelEngine.TUN, TunnelEngine.BPF])
async def test_a_connection_finds_its_way_through_a_hop_that_is_too_narrow(
    tmp_path: Path, engine: TunnelEngine
) -> None:
    """Nobody but a router in between knows, and it tells the tunnel's end, not the application."""
    with FarStations() as stations:
        scene = Scene(stations, tmp_path, udp=True, engine=engine)
        await scene.apply(scene.clear)
        transfer = Transfer()
        await transfer.open(stations)
        async with asyncio.timeout(5):
            while transfer.arrived < 300_000:  # noqa: ASYNC110 - what is waited for happens in the kernel
                await asyncio.sleep(0.01)
        assert "mtu 1268 " in stations.laptop.ip("link show homeward0")
        assert scene.tunnel.engine is engine
        assert await transfer.finish()
        await scene.close()
