# SPDX-License-Identifier: GPL-2.0-or-later
"""The fence on a real kernel: what leaves the machine, heard at the other end of the cable.

The first test proves that the check sees a leak by each of the ways that the others then try.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from homeward.adapters.nftables.fence import NftFence
from homeward.model.access import ClearPath, VpnPath
from homeward.model.names import MARK_IKE, MARK_NAME_QUERY, MARK_REGISTRATION, MARK_TUNNEL
from homeward.model.plan import Fence, Held, Tunnelled
from tests.world.namespaces import Namespace, cable
from tests.world.stations import AGENT, CARE_OF, HOME, INNER, PEER, ROUTER, FarEnd, Stations, Wire, eventually

pytestmark = pytest.mark.root

GATEWAY = IPv4Address("192.0.2.1")
SECRET = b"what must not be heard"
CLOSED = Fence(AGENT, (GATEWAY,), ("eth0",), Held(), None)
ETHERNET = "02:00:00:00:00:99"


@dataclass
class Scene:
    """A laptop behind its fence, the other end of its cable, and a container on it."""

    stations: Stations
    wire: Wire
    fence: NftFence
    container: Namespace

    def heard(self) -> list[Packet]:
        """The packets that left, other than ARP for the router."""
        return [frame for octets in self.wire.heard() if not _asks_for_router(frame := Ether(octets))]

    async def leaked(self) -> list[str]:
        """What was heard of the secret, after a moment."""
        await asyncio.sleep(0.05)
        return [frame.summary() for frame in self.heard() if SECRET in bytes(frame)]


def _asks_for_router(frame: Packet) -> bool:
    return ARP in frame and frame[ARP].psrc == str(CARE_OF) and frame[ARP].pdst == str(ROUTER)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    with Stations() as stations:
        container = Namespace()
        cable(stations.laptop, "vethc", container, "eth0")
        stations.laptop.ip("addr add 172.17.0.1/24 dev vethc")
        container.ip("addr add 172.17.0.2/24 dev eth0")
        container.ip("route add default via 172.17.0.1")
        stations.laptop.sysctl("ipv4/ip_forward", "1")
        stations.laptop.ip("-6 addr add 2001:db8::10/64 dev eth0 nodad")
        fence = NftFence()
        with stations.listen() as wire:
            yield Scene(stations, wire, fence, container)
        fence.close()
        container.close()


# --- the ways out: each tries to get the secret out of the machine ------------------------------------------


def udp_from_the_physical_address(scene: Scene) -> None:
    _send_udp(CARE_OF)


def udp_bound_to_the_device(scene: Scene) -> None:
    _send_udp(None, device="eth0")


def ping(scene: Scene) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        _quietly(lambda: raw.sendto(bytes(ICMP() / Raw(SECRET)), (str(PEER), 0)))


def a_raw_frame(scene: Scene) -> None:
    """As an application with a packet socket sends it: no inet hook ever sees it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0x0800))
        frame = (
            Ether(dst=ETHERNET) / IP(src=str(CARE_OF), dst=str(PEER)) / UDP(sport=1, dport=2) / Raw(SECRET)
        )
        _quietly(lambda: raw.send(bytes(frame)))


def a_frame_that_is_not_ip(scene: Scene) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0x88B5))
        _quietly(lambda: raw.send(bytes(Ether(dst=ETHERNET, type=0x88B5) / Raw(SECRET))))


def ipv6(scene: Scene) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.bind(("2001:db8::10", 0))
        _quietly(lambda: sender.sendto(SECRET, ("ff02::1", 9, 0, scene.stations.link)))


def a_container(scene: Scene) -> None:
    with scene.container:
        _send_udp(None)


def ip_in_ip_to_the_agent(scene: Scene) -> None:
    """By a root process that does not know our mark."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 4) as raw:
        _quietly(
            lambda: raw.sendto(bytes(IP(src=str(HOME), dst=str(PEER)) / UDP() / SECRET), (str(AGENT), 0))
        )


def registration_port_without_the_mark(scene: Scene) -> None:
    _send_udp(CARE_OF, to=AGENT, port=434)


def registration_mark_to_another(scene: Scene) -> None:
    _send_udp(CARE_OF, to=PEER, port=434, mark=MARK_REGISTRATION)


def ike_mark_to_another(scene: Scene) -> None:
    _send_udp(CARE_OF, to=PEER, port=4500, mark=MARK_IKE)


def ike_mark_to_another_port(scene: Scene) -> None:
    _send_udp(CARE_OF, to=GATEWAY, port=53, mark=MARK_IKE)


def name_query_without_the_mark(scene: Scene) -> None:
    _send_udp(CARE_OF, to=ROUTER, port=53)


WAYS: list[Callable[[Scene], None]] = [
    udp_from_the_physical_address,
    udp_bound_to_the_device,
    ping,
    a_raw_frame,
    a_frame_that_is_not_ip,
    ipv6,
    a_container,
    ip_in_ip_to_the_agent,
    registration_port_without_the_mark,
    registration_mark_to_another,
    ike_mark_to_another,
    ike_mark_to_another_port,
    name_query_without_the_mark,
]


def _quietly(send: Callable[[], object]) -> None:
    try:
        send()
    except OSError:
        pass  # that a closed way also reports an error is no leak


def _send_udp(
    source: IPv4Address | None,
    *,
    to: IPv4Address = PEER,
    port: int = 9,
    mark: int = 0,
    device: str | None = None,
    octets: bytes = SECRET,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        if mark:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if device is not None:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if source is not None:
            sender.bind((str(source), 0))
        _quietly(lambda: sender.sendto(octets, (str(to), port)))


by_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@by_way
async def test_the_check_sees_a_leak(scene: Scene, way: Callable[[Scene], None]) -> None:
    way(scene)
    assert len(await scene.leaked()) == 1


@pytest.mark.rows("R-37")
@by_way
async def test_the_fence_stops_it(scene: Scene, way: Callable[[Scene], None]) -> None:
    scene.fence.put_up(CLOSED, HOME)
    way(scene)
    assert await scene.leaked() == []


@pytest.mark.rows("R-20", "R-58", "R-89")
@by_way
async def test_an_open_tunnel_is_no_hole(scene: Scene, way: Callable[[Scene], None]) -> None:
    traffic = Tunnelled(ClearPath(scene.stations.link, "eth0", CARE_OF), AGENT, 1480)
    scene.fence.put_up(Fence(AGENT, (GATEWAY,), ("eth0",), traffic, None), HOME)
    way(scene)
    assert await scene.leaked() == []


@pytest.mark.rows("R-37", "R-63")
async def test_a_link_that_is_plugged_in_later_is_closed_before_anybody_notices(scene: Scene) -> None:
    scene.fence.put_up(CLOSED, HOME)
    stations = scene.stations
    cable(stations.laptop, "usb0", stations.agent, "lan1")
    stations.laptop.ip("addr add 10.2.2.10/24 dev usb0")
    stations.agent.ip("addr add 10.2.2.1/24 dev lan1")
    with stations.listen("lan1") as wire:
        _send_udp(None, to=IPv4Address("10.2.2.1"), device="usb0")
        await asyncio.sleep(0.05)
        assert [frame for frame in wire.heard() if SECRET in frame] == []
        scene.fence.take_down()
        _send_udp(None, to=IPv4Address("10.2.2.1"), device="usb0")
        await asyncio.sleep(0.05)
        assert len([frame for frame in wire.heard() if SECRET in frame]) == 1


# --- what must pass -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "to", "port"),
    [
        (MARK_REGISTRATION, AGENT, 434),
        (MARK_IKE, GATEWAY, 500),
        (MARK_IKE, GATEWAY, 4500),
        (MARK_NAME_QUERY, ROUTER, 53),
    ],
)
async def test_what_is_ours_passes_both_ways(scene: Scene, mark: int, to: IPv4Address, port: int) -> None:
    if to == GATEWAY:
        scene.stations.agent.ip(f"addr add {GATEWAY}/32 dev lo")
    scene.fence.put_up(CLOSED, HOME)
    server = scene.stations.udp(to, port)
    with server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        client.sendto(b"question", (str(to), port))
        question, address = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(server, 99), 2)
        server.sendto(b"answer", address)
        assert question == b"question"
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 99), 2) == b"answer"


async def test_a_large_ike_message_passes_in_fragments(scene: Scene) -> None:
    scene.stations.agent.ip(f"addr add {GATEWAY}/32 dev lo")
    scene.fence.put_up(CLOSED, HOME)
    with scene.stations.udp(GATEWAY, 500) as server:
        _send_udp(CARE_OF, to=GATEWAY, port=500, mark=MARK_IKE, octets=bytes(4000))
        octets = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(server, 9999), 2)
        assert len(octets) == 4000


async def test_a_dhcp_client_is_heard_and_hears(scene: Scene) -> None:
    scene.fence.put_up(CLOSED, HOME)
    discover = (
        IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP() / DHCP(options=["end"])
    )
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0x0800))
        raw.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / discover))
    await eventually(lambda: any(DHCP in frame for frame in scene.heard()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.bind((str(CARE_OF), 68))
        with scene.stations.udp(ROUTER, 67) as server:
            client.sendto(b"renew", (str(ROUTER), 67))
            _, address = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(server, 99), 2)
            server.sendto(b"lease", address)
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 99), 2) == b"lease"


async def test_a_router_is_asked_for(scene: Scene) -> None:
    scene.fence.put_up(CLOSED, HOME)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        raw.sendto(bytes(ICMP(type=10)), ("224.0.0.2", 0))
    await eventually(lambda: any(ICMP in frame and frame[ICMP].type == 10 for frame in scene.heard()))


async def test_the_home_devices_own_traffic_and_the_loopback_are_free(scene: Scene) -> None:
    scene.fence.put_up(CLOSED, HOME)
    far_end = FarEnd(scene.stations.laptop, "homeward0", HOME)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as application:
        application.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"homeward0")
        application.bind((str(HOME), 0))
        application.sendto(b"out", (str(PEER), 9))
        await eventually(far_end.sent)
        answer = UDP(sport=9, dport=application.getsockname()[1]) / b"in"
        far_end.deliver(bytes(IP(src=str(PEER), dst=str(HOME)) / answer))
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(application, 99), 2) == b"in"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as local:
        local.bind(("127.0.0.1", 0))
        local.sendto(b"self", local.getsockname())
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(local, 99), 2) == b"self"
    far_end.close()


@pytest.mark.rows("R-12", "R-20", "R-89")
async def test_inside_the_vpn_only_the_home_agent_is_met(scene: Scene) -> None:
    far_end = FarEnd(scene.stations.laptop, "ipsec0", INNER)
    fence = Fence(AGENT, (GATEWAY,), ("eth0",), Tunnelled(VpnPath(INNER), AGENT, 1400), INNER)
    scene.fence.put_up(fence, HOME, vpn_device="ipsec0")
    _send_udp(INNER, to=PEER, device="ipsec0")
    _send_udp(INNER, to=AGENT, port=80, device="ipsec0")
    _send_udp(INNER, to=AGENT, port=434, device="ipsec0")
    _send_udp(INNER, to=ROUTER, port=53, device="ipsec0", mark=MARK_NAME_QUERY)
    _send_udp(INNER, to=GATEWAY, port=4500, device="ipsec0", mark=MARK_IKE)
    await asyncio.sleep(0.02)
    assert far_end.sent() is None
    _send_udp(INNER, to=AGENT, port=434, device="ipsec0", mark=MARK_REGISTRATION, octets=b"request")
    assert IP(await eventually(far_end.sent))[UDP].dport == 434
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 4) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_TUNNEL)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"ipsec0")
        raw.bind((str(INNER), 0))
        raw.sendto(bytes(IP(src=str(HOME), dst=str(PEER))), (str(AGENT), 0))
    assert IP(await eventually(far_end.sent)).proto == 4
    far_end.close()


# --- what must not come in ----------------------------------------------------------------------------------


async def test_nobody_outside_reaches_the_laptop(scene: Scene) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as service:
        service.bind(("0.0.0.0", 5353))
        with scene.stations.udp(PEER, 434) as stranger, scene.stations.udp(ROUTER, 53) as resolver:
            for sender in (stranger, resolver):
                sender.sendto(b"knock", (str(CARE_OF), 5353))
            await asyncio.sleep(0.05)
            assert service.recv(99) + service.recv(99) == b"knockknock"
            scene.fence.put_up(CLOSED, HOME)
            for sender in (stranger, resolver):
                sender.sendto(b"knock", (str(CARE_OF), 5353))
            await asyncio.sleep(0.05)
            with pytest.raises(BlockingIOError):
                service.recv(99)


async def test_a_reply_from_the_agent_reaches_none_but_our_own_socket(scene: Scene) -> None:
    scene.fence.put_up(CLOSED, HOME)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        other.bind((str(CARE_OF), 0))
        with scene.stations.udp(AGENT, 434) as agent:
            agent.sendto(b"reply", other.getsockname())
            await asyncio.sleep(0.05)
            with pytest.raises(BlockingIOError):
                other.recv(99)


# --- ARP (R-183, R-191) -------------------------------------------------------------------------------------


@pytest.mark.rows("R-183", "R-191")
async def test_no_frame_ever_names_the_home_address_in_arp(scene: Scene) -> None:
    def arp(sender: IPv4Address, target: IPv4Address) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0x0806))
            packet = ARP(op=1, hwsrc=ETHERNET, psrc=str(sender), pdst=str(target))
            frame = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=ETHERNET) / packet)
            _quietly(lambda: raw.send(frame))

    def heard() -> list[tuple[str, str]]:
        return [
            (frame[ARP].psrc, frame[ARP].pdst)
            for octets in scene.wire.heard()
            if ARP in (frame := Ether(octets))
        ]

    arp(HOME, ROUTER)
    arp(CARE_OF, HOME)
    await asyncio.sleep(0.02)
    assert heard() == [(str(HOME), str(ROUTER)), (str(CARE_OF), str(HOME))]
    scene.fence.put_up(CLOSED, HOME)
    arp(HOME, ROUTER)
    arp(CARE_OF, HOME)
    arp(CARE_OF, IPv4Address("10.1.1.77"))
    await asyncio.sleep(0.02)
    assert heard() == [(str(CARE_OF), "10.1.1.77")]


# --- tampering ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order",
    [
        "flush ruleset",
        "delete table inet homeward",
        "delete table netdev homeward",
        "insert rule inet homeward postrouting accept",
        "flush chain inet homeward input",
        "add chain inet homeward postrouting { policy accept; }",
    ],
)
async def test_a_fence_that_somebody_touches_is_put_back_and_reported(scene: Scene, order: str) -> None:
    told: list[str] = []
    scene.fence.on_tampered = told.append
    scene.fence.put_up(CLOSED, HOME)
    before = scene.stations.laptop.run("nft", "-s", "list", "ruleset")
    scene.stations.laptop.run("nft", order)
    await eventually(lambda: told)
    assert scene.stations.laptop.run("nft", "-s", "list", "ruleset") == before
    udp_bound_to_the_device(scene)
    assert await scene.leaked() == []
    assert told == ["another program changed the firewall; it was put back"]


async def test_what_others_do_to_their_own_tables_is_no_business_of_ours(scene: Scene) -> None:
    told: list[str] = []
    scene.fence.on_tampered = told.append
    scene.fence.put_up(CLOSED, HOME)
    scene.stations.laptop.run(
        "nft", "add table inet theirs; add chain inet theirs c; delete table inet theirs"
    )
    scene.fence.put_up(Fence(AGENT, (), ("eth0",), Held(), None), HOME)
    await asyncio.sleep(0.1)
    assert told == []


async def test_taking_the_fence_down_is_nothing_to_mend(scene: Scene) -> None:
    told: list[str] = []
    scene.fence.on_tampered = told.append
    scene.fence.put_up(CLOSED, HOME)
    scene.fence.take_down()
    scene.fence.take_down()
    await asyncio.sleep(0.05)
    assert told == []
    assert scene.stations.laptop.run("nft", "list", "ruleset") == ""


async def test_a_link_that_is_gone_does_not_keep_the_fence_down(scene: Scene) -> None:
    scene.fence.put_up(Fence(AGENT, (), ("eth0", "gone0"), Held(), None), HOME)
    assert "homeward" in scene.stations.laptop.run("nft", "list", "tables")
