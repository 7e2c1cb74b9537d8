# SPDX-License-Identifier: GPL-2.0-or-later
"""Held traffic on a real kernel: applications see delay and never an error, and only the home address is tunnelled."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.kernel_tunnels.shortcut import Shortcut
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.tunnel_device import QUEUE_PACKETS, TunnelDevice
from homeward.model.access import ClearPath, VpnPath
from homeward.model.plan import EMPTY_PLAN, Fence, Held, NetworkPlan, Traffic, Tunnelled
from tests.world.stations import (
    AGENT,
    CARE_OF,
    HOME,
    INNER,
    PEER,
    ROUTER,
    FarEnd,
    Stations,
    TunnelEnd,
    eventually,
)

pytestmark = pytest.mark.root

EVERYTHING = (IPv4Network("0.0.0.0/0"),)


class Laptop:
    """Plans on real adapters, and the home agent's end of the tunnel."""

    def __init__(self, stations: Stations, state: Path) -> None:
        self.stations = stations
        self.end = TunnelEnd(stations)
        self.tunnel = TunnelDevice(shortcut=Shortcut())
        self.vpn = FarEnd(stations.laptop, "ipsec0", INNER)
        self.plans = NetlinkPlans(
            self.tunnel, NftFence(), switches=KernelSwitches(state), tunnel_device={INNER: "ipsec0"}.get
        )
        self.clear = Tunnelled(ClearPath(stations.link, "eth0", CARE_OF), AGENT, 1480)
        self.inside_vpn = Tunnelled(VpnPath(INNER), AGENT, 1400)

    def plan(self, traffic: Traffic) -> NetworkPlan:
        return NetworkPlan(HOME, EVERYTHING, traffic, Fence(AGENT, (), ("eth0",), traffic, INNER))

    async def apply(self, traffic: Traffic) -> None:
        await self.plans.apply(self.plan(traffic))

    async def close(self) -> None:
        await self.plans.close()
        self.vpn.close()
        self.end.__exit__()

    def tunnelled(self) -> Packet | None:
        """The next packet inside the tunnel at the home agent."""
        outer = self.end.came()
        return None if outer is None else IP(outer).payload


@pytest.fixture
async def laptop(tmp_path: Path) -> AsyncIterator[Laptop]:
    with Stations() as stations:
        made = Laptop(stations, tmp_path)
        yield made
        await made.close()


def application(source: IPv4Address | None = None) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if source is not None:
        opened.bind((str(source), 0))
    return opened


@pytest.mark.rows("R-68")
async def test_while_held_no_call_fails_and_afterwards_everything_arrives_in_order(laptop: Laptop) -> None:
    await laptop.apply(Held())
    with application() as sender:
        for number in range(200):
            sender.sendto(struct.pack("!I", number), (str(PEER), 9))
            if number % 20 == 0:
                await asyncio.sleep(0.002)
        await eventually(lambda: laptop.plans.counters()[0] == 200)
        assert laptop.tunnelled() is None
        assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    await laptop.apply(laptop.clear)
    arrived: list[int] = []
    for _ in range(200):
        packet = await eventually(laptop.tunnelled)
        assert (packet.src, packet.dst) == (str(HOME), str(PEER))
        arrived.append(struct.unpack("!I", bytes(packet[UDP].payload))[0])
    assert arrived == list(range(200))
    assert laptop.plans.counters() == (0, 0)


async def test_a_connection_attempt_waits_and_is_not_refused(laptop: Laptop) -> None:
    await laptop.apply(Held())
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        connecting = asyncio.create_task(loop.sock_connect(client, (str(PEER), 80)))
        await asyncio.sleep(0.3)
        assert not connecting.done()
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        await laptop.apply(laptop.clear)
        syn = await eventually(laptop.tunnelled)
        answer = TCP(sport=80, dport=syn[TCP].sport, flags="SA", seq=7, ack=syn[TCP].seq + 1)
        laptop.end.send(bytes(IP(src=str(PEER), dst=str(HOME)) / answer))
        await asyncio.wait_for(connecting, 2)


async def test_the_oldest_packets_give_way_and_are_counted(laptop: Laptop) -> None:
    await laptop.apply(Held())
    with application() as sender:
        for number in range(QUEUE_PACKETS + 100):
            sender.sendto(struct.pack("!I", number), (str(PEER), 9))
            if number % 50 == 0:
                await asyncio.sleep(0.005)
        await eventually(lambda: laptop.plans.counters() == (QUEUE_PACKETS, 100))
    await laptop.apply(laptop.clear)
    first = await eventually(laptop.tunnelled)
    assert struct.unpack("!I", bytes(first[UDP].payload)) == (100,)


async def test_held_packets_wait_while_the_path_fails_and_leave_when_it_is_back(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    laptop.stations.laptop.ip(f"addr del {CARE_OF}/24 dev eth0")
    with application() as sender:
        for number in range(5):
            sender.sendto(struct.pack("!I", number), (str(PEER), 9))
    await eventually(lambda: laptop.plans.counters()[0] == 5)
    laptop.stations.laptop.ip(f"addr add {CARE_OF}/24 dev eth0")
    laptop.stations.laptop.ip(f"route add default via {ROUTER}")
    for number in range(5):
        packet = await eventually(laptop.tunnelled)
        assert struct.unpack("!I", bytes(packet[UDP].payload)) == (number,)


@pytest.mark.rows("R-187", "R-212", "R-216", "R-284")
async def test_what_is_tunnelled_is_ip_in_ip_between_the_right_ends(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    with application() as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8)
        sender.sendto(b"x", (str(PEER), 9))
    outer = IP(await eventually(laptop.end.came))
    assert (outer.src, outer.dst, outer.proto, outer.tos, outer.ttl) == (
        str(CARE_OF),
        str(AGENT),
        4,
        0xB8,
        64,
    )
    assert outer.flags.DF == outer.payload.flags.DF
    assert outer.id != 0 or outer.flags.DF


@pytest.mark.rows("R-12", "R-20", "R-58")
async def test_inside_the_vpn_the_packets_go_to_its_device_and_nowhere_else(laptop: Laptop) -> None:
    with laptop.stations.listen() as wire:
        await laptop.apply(laptop.inside_vpn)
        wire.heard()
        with application() as sender:
            sender.sendto(b"x", (str(PEER), 9))
        outer = IP(await eventually(laptop.vpn.sent))
        assert (outer.src, outer.dst, outer.proto, outer.payload.src) == (
            str(INNER),
            str(AGENT),
            4,
            str(HOME),
        )
        await asyncio.sleep(0.05)
        assert wire.heard() == []


@pytest.mark.parametrize("source", [CARE_OF, INNER])
async def test_only_the_home_address_is_tunnelled(laptop: Laptop, source: IPv4Address) -> None:
    await laptop.apply(laptop.clear)
    with application(source) as sender:
        sender.sendto(b"x", (str(PEER), 9))
    await eventually(lambda: laptop.tunnel.counted.refused_out == 1)
    assert laptop.tunnelled() is None


async def test_groups_are_not_reached_through_the_tunnel(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    with application() as sender:
        sender.sendto(b"x", ("224.0.0.251", 5353))
    await eventually(lambda: laptop.tunnel.counted.refused_out >= 1)
    assert laptop.tunnelled() is None


def to_application(receiver: socket.socket, payload: bytes, *, home: IPv4Address = HOME) -> bytes:
    udp = UDP(sport=9, dport=receiver.getsockname()[1]) / Raw(payload)
    return bytes(IP(src=str(PEER), dst=str(home)) / udp)


async def heard(receiver: socket.socket, seconds: float = 0.1) -> list[bytes]:
    await asyncio.sleep(seconds)
    came = []
    while True:
        try:
            came.append(receiver.recv(2000))
        except BlockingIOError:
            return came


@pytest.mark.rows("R-179", "R-186", "R-188")
async def test_the_home_agent_is_the_only_one_that_may_send(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    stranger = IPv4Address("10.1.1.66")
    laptop.stations.agent.ip(f"addr add {stranger}/32 dev lo")
    with application(HOME) as receiver:
        laptop.end.send(to_application(receiver, b"spoofed"), source=stranger)
        laptop.end.send(to_application(receiver, b"to another", home=IPv4Address("10.77.0.11")))
        laptop.end.send_octets(b"\x45 no packet at all, although it begins like one")
        laptop.end.send(to_application(receiver, b"genuine"))
        assert await heard(receiver) == [b"genuine"]


@pytest.mark.rows("R-64", "R-67")
async def test_nothing_comes_in_while_held(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    with application(HOME) as receiver:
        laptop.plans.hold()
        laptop.end.send(to_application(receiver, b"held by the device"))
        assert await heard(receiver) == []
        await laptop.apply(Held())
        laptop.end.send(to_application(receiver, b"held by the fence"))
        assert await heard(receiver) == []


@pytest.mark.slow
async def test_what_was_in_flight_in_the_vpn_still_comes_in_for_two_seconds(laptop: Laptop) -> None:
    await laptop.apply(laptop.inside_vpn)
    await laptop.apply(Held())
    await laptop.apply(laptop.clear)
    with application(HOME) as receiver:
        outer = bytes(IP(src=str(AGENT), dst=str(INNER), proto=4) / IP(to_application(receiver, b"late")))
        laptop.vpn.deliver(outer)
        assert await heard(receiver) == [b"late"]
        await asyncio.sleep(2.0)
        laptop.vpn.deliver(outer)
        assert await heard(receiver) == []


async def test_in_clear_nothing_comes_in_once_the_vpn_carries_the_traffic(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    await laptop.apply(laptop.inside_vpn)
    with application(HOME) as receiver:
        laptop.end.send(to_application(receiver, b"from anybody"))
        assert await heard(receiver) == []


async def test_a_held_datagram_that_is_too_long_for_the_new_path_is_dropped_without_an_error(
    laptop: Laptop,
) -> None:
    await laptop.apply(laptop.clear)
    laptop.plans.hold()
    with application() as sender:
        sender.connect((str(PEER), 9))
        sender.send(bytes(1452))
        await eventually(lambda: laptop.plans.counters()[0] == 1)
        await laptop.apply(laptop.inside_vpn)
        await eventually(lambda: laptop.plans.counters()[0] == 0)
        assert laptop.tunnel.counted.refused_out == 1
        sender.send(bytes(1372))
    assert len(await eventually(laptop.vpn.sent)) == 1420


@pytest.mark.rows("R-287", "R-288")
async def test_a_path_that_turns_out_narrow_lowers_the_device(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    with application() as sender:
        sender.sendto(bytes(1400), (str(PEER), 9))
        quoted = IP(await eventually(laptop.end.came))
        narrow = (
            IP(src=str(ROUTER), dst=str(CARE_OF))
            / ICMP(type=3, code=4, nexthopmtu=1300)
            / bytes(quoted)[:576]
        )
        with (
            laptop.stations.agent,
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as router,
        ):
            router.sendto(bytes(narrow), (str(CARE_OF), 0))
        await asyncio.sleep(0.05)
        sender.sendto(bytes(1400), (str(PEER), 9))
        await eventually(lambda: laptop.tunnel.counted.refused_out == 1)
        assert "mtu 1280" in laptop.stations.laptop.ip("link show homeward0")


@pytest.mark.rows("R-289")
async def test_the_other_end_is_asked_for_segments_that_fit_every_mode(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        connecting = asyncio.create_task(loop.sock_connect(client, (str(PEER), 80)))
        syn = await eventually(laptop.tunnelled)
        connecting.cancel()
    assert dict(syn[TCP].options)["MSS"] == 1360


async def test_links_that_come_and_go_beside_the_path_cost_no_packet(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    plan = laptop.plan(laptop.clear)
    assert plan.fence is not None
    with application() as sender:
        for number in range(20):
            links = ("eth0", "wlan7") if number % 2 else ("eth0",)
            await laptop.plans.apply(replace(plan, fence=replace(plan.fence, access_links=links)))
            sender.sendto(struct.pack("!I", number), (str(PEER), 9))
        for number in range(20):
            packet = await eventually(laptop.tunnelled)
            assert struct.unpack("!I", bytes(packet[UDP].payload)) == (number,)


async def test_an_inner_address_on_an_access_link_is_refused(laptop: Laptop) -> None:
    laptop.stations.laptop.ip(f"addr add {INNER}/32 dev eth0")
    plans = NetlinkPlans(
        TunnelDevice(),
        NftFence(),
        switches=KernelSwitches(Path("/nowhere")),
        tunnel_device=lambda inner: "eth0",
    )
    with pytest.raises(Exception, match="access link eth0"):
        await plans.apply(laptop.plan(laptop.inside_vpn))
    await plans.close()


DELETIONS = [
    "link del homeward0",
    "rule del pref 209",
    "rule del pref 200",
    "rule del pref 208",
    "route del default table 434",
    "route flush table 434",
]


@pytest.mark.parametrize("deletion", DELETIONS)
async def test_what_somebody_deletes_is_made_anew_and_open_again(laptop: Laptop, deletion: str) -> None:
    await laptop.apply(laptop.clear)
    rules = laptop.stations.laptop.ip("rule")
    told: list[str] = []
    laptop.plans.on_mended = told.append
    laptop.stations.laptop.ip(deletion)
    await eventually(lambda: told)
    assert laptop.stations.laptop.ip("rule") == rules
    with application() as sender:
        sender.sendto(b"x", (str(PEER), 9))
    assert (await eventually(laptop.tunnelled)).src == str(HOME)
    assert len(told) == 1
    assert told[0].endswith("made anew")
    await laptop.plans.apply(EMPTY_PLAN)
    await asyncio.sleep(0.05)
    assert len(told) == 1, "what we take away ourselves is nothing to mend"


@pytest.mark.parametrize("deletion", DELETIONS)
async def test_what_is_made_anew_stays_held_if_it_was(laptop: Laptop, deletion: str) -> None:
    await laptop.apply(laptop.clear)
    told: list[str] = []
    laptop.plans.on_mended = told.append
    laptop.plans.hold()
    laptop.stations.laptop.ip(deletion)
    await eventually(lambda: told)
    with application() as sender:
        sender.sendto(b"x", (str(PEER), 9))
    await eventually(lambda: laptop.plans.counters()[0] == 1)
    assert laptop.tunnelled() is None


async def test_a_hold_between_a_loss_and_its_mending_wins(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    told: list[str] = []
    laptop.plans.on_mended = told.append
    laptop.stations.laptop.ip("link del homeward0")
    laptop.tunnel._take_from_device()  # it notices now, and mending begins when the loop comes to it
    laptop.plans.hold()
    await eventually(lambda: told)
    with application() as sender:
        sender.sendto(b"x", (str(PEER), 9))
    await asyncio.sleep(0.05)
    assert laptop.tunnelled() is None


async def test_other_peoples_rules_are_no_business_of_ours(laptop: Laptop) -> None:
    await laptop.apply(laptop.clear)
    told: list[str] = []
    laptop.plans.on_mended = told.append
    for table in ("434", "77"):
        laptop.stations.laptop.ip(f"route add 198.51.100.0/24 dev lo table {table}")
        laptop.stations.laptop.ip(f"route del 198.51.100.0/24 table {table}")
    laptop.stations.laptop.ip("rule add pref 210 to 192.0.2.0/24 lookup main")
    laptop.stations.laptop.ip("rule del pref 210")
    await asyncio.sleep(0.1)
    assert told == []
