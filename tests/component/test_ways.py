# SPDX-License-Identifier: GPL-2.0-or-later
"""Every way of the home address's packets on a real kernel: both directions, held and released, and handed over."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from homeward.adapters.tunnel_device import TunnelCounters
from homeward.model.plan import EMPTY_PLAN, Held
from homeward.model.plan import Tunnelled as Tunnel
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, ROUTER, Stations, eventually
from tests.world.ways import (
    BY_NAME,
    TUNNEL_DATA,
    WAYS,
    Way,
    Ways,
    application,
    heard,
    in_ip,
    in_udp,
    on_each_engine,
    to_application,
)

pytestmark = pytest.mark.root
each_way = on_each_engine(*WAYS)


@pytest.fixture
async def ways(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ways]:
    with Stations() as stations:
        made = Ways(stations, tmp_path, getattr(request, "param", None))
        yield made
        await made.shut()


async def numbers(ways: Ways, way: Way, count: int) -> list[int]:
    """What the next packets at the other end carry."""
    came = [await eventually(lambda: way.came(ways)) for _ in range(count)]
    return [struct.unpack("!I", bytes(packet[UDP].payload)[:4])[0] for packet in came]


def send(sender: socket.socket, *which: int, size: int = 4) -> None:
    for number in which:
        sender.sendto(struct.pack("!I", number).ljust(size, b"."), (str(PEER), 9))


@pytest.mark.rows("R-181", "R-187", "R-212", "R-217", "R-218", "R-229", "R-232", "R-291")
@each_way
async def test_packets_travel_both_ways(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    assert ways.tunnel.engine is ways.engine
    with application() as sender:
        send(sender, 7)
        packet = await eventually(lambda: way.came(ways))
        assert (packet.src, packet.dst, packet.ttl) == (str(HOME), str(PEER), 64)
        assert packet[UDP].chksum not in (None, 0)
    assert ways.tunnel.traffic() == TrafficCounts(1, 32, 0, 0)
    with application(HOME) as receiver:
        way.deliver(ways, to_application(receiver, b"answer"))
        assert await heard(receiver) == [b"answer"]
    past = ways.shortcut.counted()
    if ways.engine is TunnelEngine.TUN:
        assert past == (0, 0, 0, 0)
    else:
        assert (past, ways.tunnel.counted) == ((1, 32, 1, 34), TunnelCounters())


@pytest.mark.rows("R-64", "R-68")
@each_way
async def test_while_held_packets_wait_and_afterwards_none_is_missing(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    ways.forget()
    ways.plans.hold()
    await ways.apply(Held())
    with application() as sender, application(HOME) as receiver:
        for number in range(30):
            send(sender, number)
            await asyncio.sleep(0.001)
        way.deliver(ways, to_application(receiver, b"while held"))
        assert await heard(receiver) == []
        assert ways.plans.counters() == (30, 0)
        ways.look()
        assert [frame.summary() for frame in ways.frames if _tells(frame)] == []
        assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        ways.forget()
        await ways.apply(way.traffic(ways))
        assert await numbers(ways, way, 30) == list(range(30))
        way.deliver(ways, to_application(receiver, b"now"))
        assert await heard(receiver) == [b"now"]


def _tells(frame: Packet) -> bool:
    """Whether anything of the home address is in a packet that left."""
    return HOME.packed in bytes(frame)


@pytest.mark.rows("R-151")
async def test_every_way_follows_every_other_and_no_packet_is_lost_or_doubled(ways: Ways) -> None:
    await ways.apply(Held())
    number = 0
    with application() as sender, application(HOME) as receiver:
        for before, way in pairwise(_every_pair_once()):
            ways.plans.hold()
            send(sender, number)
            await eventually(lambda: ways.plans.counters()[0])
            await ways.apply(way.traffic(ways))
            send(sender, number + 1)
            assert await numbers(ways, way, 2) == [number, number + 1], (before.name, way.name)
            way.deliver(ways, to_application(receiver, way.name.encode()))
            assert await heard(receiver, 0.01) == [way.name.encode()], (before.name, way.name)
            number += 2
    assert ways.plans.counters() == (0, 0)
    assert ways.tunnel.counted.refused_out == 0
    assert ways.tunnel.traffic().sent_packets == number


def _every_pair_once() -> list[Way]:
    """A walk on which each way is entered from several others."""
    chosen = [BY_NAME[name] for name in ("ip-in-ip", "udp", "agent", "home", "minimal", "vpn")]
    walk = list(chosen)
    for step in (2, 3, 5):
        walk += [chosen[(at * step) % len(chosen)] for at in range(1, len(chosen) + 1)]
    return walk


@pytest.mark.rows("R-184")
@each_way
async def test_the_empty_plan_leaves_nothing_of_any_way(ways: Ways, way: Way) -> None:
    def standing() -> str:
        run = ways.stations.laptop.run
        shown = [
            run("ip", "neigh", "show", "nud", "permanent"),
            run("ip", "rule"),
            run("nft", "list", "ruleset"),
        ]
        return "\n".join([*shown, run("ip", "-4", "route", "show", "table", "all"), run("ip", "-br", "link")])

    before = standing()
    await ways.apply(way.traffic(ways), foreign_agent=ways.by_agent, home_link=ways.at_home)
    assert standing() != before
    await ways.plans.apply(EMPTY_PLAN)
    assert standing() == before


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("R-239", "R-289")
@each_way
async def test_the_longest_packet_just_fits_the_link_and_nothing_is_fragmented_outside(
    ways: Ways, way: Way
) -> None:
    """The figures of wire-formats.md section 14 for a path of 1500 octets, at the device and on the cable."""
    traffic = way.traffic(ways)
    await ways.apply(traffic)
    assert f"mtu {traffic.mtu} " in ways.stations.laptop.ip("link show homeward0")
    with application() as sender:
        send(sender, 1, size=traffic.mtu - 28)
        sent = await eventually(lambda: _largest(ways))
    whole = (
        1500
        if not way.through_vpn
        else traffic.mtu + (32 if isinstance(traffic, Tunnel) and traffic.udp else 20)
    )
    assert sent.len == whole
    assert not sent.flags.MF


def _largest(ways: Ways) -> Packet | None:
    ways.look()
    packets = [frame[IP] for frame in ways.frames if IP in frame and frame[IP].len > 1000]
    return max(packets, key=lambda packet: packet.len, default=None)


@pytest.mark.rows("R-239")
@pytest.mark.parametrize("name", ["udp", "gre-in-udp", "vpn-udp"])
async def test_what_is_too_long_is_fragmented_before_it_goes_into_udp(ways: Ways, name: str) -> None:
    way = BY_NAME[name]
    await ways.apply(way.traffic(ways))
    with application() as sender:
        send(sender, 1, size=4000)
        pieces = [await eventually(lambda: way.came(ways)) for _ in range(3)]
    assert [bool(piece.flags.MF) for piece in pieces] == [True, True, False]
    assert sum(len(piece.payload) for piece in pieces) == 4008


@pytest.mark.rows("R-290")
async def test_fragments_travel_as_ip_in_ip_where_minimal_encapsulation_was_agreed_on(ways: Ways) -> None:
    minimal, ip_in_ip = BY_NAME["minimal"], BY_NAME["ip-in-ip"]
    await ways.apply(minimal.traffic(ways))
    with application() as sender, application(HOME) as receiver:
        # Not as long as the device allows: IP-in-IP needs 8 octets more, and would be fragmented again.
        ways.stations.laptop.ip("link set homeward0 mtu 1400")
        send(sender, 1, size=3000)
        pieces = [await eventually(lambda: ip_in_ip.came(ways)) for _ in range(3)]
        assert [bool(piece.flags.MF) for piece in pieces] == [True, True, False]
        send(sender, 2)
        assert await numbers(ways, minimal, 1) == [2]
        long = to_application(receiver, bytes(1900))
        half = IP(bytes(long))
        for offset, more in ((0, 1), (1200, 0)):
            octets = bytes(half.payload)[offset : offset + 1200]
            piece = IP(src=str(PEER), dst=str(HOME), id=7, flags=more, frag=offset // 8, proto=17) / octets
            ways.inject(in_ip(piece))
        assert await heard(receiver) == [bytes(1900)]


@pytest.mark.rows("R-287", "R-288")
@pytest.mark.parametrize(
    ("name", "room"), [("gre", 1276), ("udp", 1268), ("gre-in-udp", 1264), ("minimal", 1288)]
)
async def test_a_path_that_turns_out_narrow_lowers_the_device_in_every_tunnel(
    ways: Ways, name: str, room: int
) -> None:
    way = BY_NAME[name]
    await ways.apply(way.traffic(ways))
    with application() as sender:
        send(sender, 1, size=1400)
        quoted = await eventually(lambda: _largest(ways))
        told = bytes([3, 4, 0, 0, 0, 0]) + struct.pack("!H", 1300) + bytes(quoted)[:576]
        total = sum(struct.unpack(f"!{len(told) // 2}H", told))
        total = (total & 0xFFFF) + (total >> 16)
        total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        icmp = told[:2] + total.to_bytes(2, "big") + told[4:]
        ways.inject(IP(src=str(ROUTER), dst=str(CARE_OF), proto=1) / icmp)
        await asyncio.sleep(0.02)
        send(sender, 2, size=1400)
        await eventually(lambda: f"mtu {room} " in ways.stations.laptop.ip("link show homeward0"))


# --- the headers around -----------------------------------------------------------------------------------------------


@pytest.mark.rows("R-284")
@pytest.mark.parametrize("name", ["ip-in-ip", "gre", "minimal", "udp", "gre-in-udp", "agent-encapsulating"])
async def test_the_type_of_service_is_seen_outside(ways: Ways, name: str) -> None:
    way = BY_NAME[name]
    await ways.apply(way.traffic(ways))
    ways.forget()
    with application() as sender:
        for tos in (0xB8, 0x00, 0x02):
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
            send(sender, 1)
            frame = await eventually(lambda: _next_from_laptop(ways))
            assert (frame[IP].tos, frame[IP].ttl) == (tos, 64)


def _next_from_laptop(ways: Ways) -> Packet | None:
    ways.look()
    while ways.frames:
        frame = ways.frames.popleft()
        if IP in frame and PEER.packed in bytes(frame):
            return frame
    return None


async def test_congestion_that_a_tunnel_in_udp_met_reaches_the_receiver(ways: Ways) -> None:
    way = BY_NAME["udp"]
    await ways.apply(way.traffic(ways))
    with application(HOME) as receiver:
        receiver.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS
        able = to_application(receiver, b"able")
        able.tos = 2
        ways.inject(in_udp(able, ways.ports[ways.clear], tos=3))
        await asyncio.sleep(0.03)
        octets, ((_, _, tos),), _, _ = receiver.recvmsg(99, 64)
        assert (octets, tos) == (b"able", b"\x03")
        ways.inject(in_udp(to_application(receiver, b"unable"), ways.ports[ways.clear], tos=3))
        assert await heard(receiver) == []


@pytest.mark.rows("R-230")
async def test_data_leaves_from_the_port_of_the_registrations_over_all_renewals(ways: Ways) -> None:
    way = BY_NAME["udp"]
    await ways.apply(way.traffic(ways))
    ways.forget()
    ports = set()
    with application() as sender:
        for number in range(3):
            ways.registrations.send(ways.clear, AGENT, b"\1renewal", ttl=255)
            ways.registrations.retain(frozenset({ways.clear}))
            send(sender, number)
            await eventually(lambda: len([f for f in _from_laptop(ways) if UDP in f]) >= 2)
            ports |= {(frame[UDP].sport, frame[UDP].dport) for frame in ways.frames if UDP in frame}
            ways.frames.clear()
    assert ports == {(ways.ports[ways.clear], 434)}


def _from_laptop(ways: Ways) -> list[Packet]:
    ways.look()
    return [frame for frame in ways.frames if IP in frame]


@pytest.mark.rows("R-229")
async def test_a_registration_is_never_put_into_its_own_tunnel(ways: Ways) -> None:
    await ways.apply(BY_NAME["udp"].traffic(ways))
    ways.forget()
    ways.registrations.send(ways.clear, AGENT, b"\1renewal", ttl=255)
    frame = await eventually(lambda: next(iter(_from_laptop(ways)), None))
    assert (frame[IP].ttl, bytes(frame[UDP].payload)) == (255, b"\1renewal")


@pytest.mark.parametrize("name", ["udp", "gre-in-udp", "vpn-udp"])
async def test_a_tunnel_in_udp_that_sums_its_packets_up_is_heard_as_well(ways: Ways, name: str) -> None:
    """As the process at the other end sends them; only ours looks at such a sum."""
    way = BY_NAME[name]
    await ways.apply(way.traffic(ways))
    with application(HOME) as receiver:
        for checksum, comes in ((None, [b"x"]), (0xBAD, [])):
            packet = way.wrapped(ways, to_application(receiver, b"x"))
            assert isinstance(packet, Packet)
            packet[UDP].chksum = checksum
            (ways.vpn.deliver if way.through_vpn else ways.inject)(bytes(packet))
            assert await heard(receiver) == comes
    assert ways.shortcut.counted() == (0, 0, 0, 0)


@pytest.mark.rows("R-237")
async def test_the_answer_to_a_keepalive_is_reported_and_an_applications_ping_still_works(ways: Ways) -> None:
    await ways.apply(BY_NAME["udp"].traffic(ways))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 1) as ping:
        ping.bind((str(HOME), 0))
        echo = IP(src=str(AGENT), dst=str(HOME), proto=1) / b"\0\0\xff\xf7\0\7\0\1"
        ways.inject(in_udp(echo, ways.ports[ways.clear]))
        await eventually(lambda: ways.reported)
        assert ways.reported[0].octets.startswith(TUNNEL_DATA)
        assert ping.recv(99)[20:] == b"\0\0\xff\xf7\0\7\0\1"


# --- no ARP -----------------------------------------------------------------------------------------------------------


@pytest.mark.rows("R-134", "R-181", "R-183", "R-217")
@pytest.mark.parametrize("name", ["agent", "agent-encapsulating"])
async def test_by_an_agent_every_packet_goes_to_its_hardware_address_and_nobody_is_asked(
    ways: Ways, name: str
) -> None:
    await ways.apply(BY_NAME[name].traffic(ways))
    ways.stations.laptop.ip("neigh flush all")
    ways.forget()
    with application() as sender:
        for peer in (str(PEER), "10.1.1.77", "192.0.2.200"):
            sender.sendto(b"x", (peer, 9))
        await eventually(lambda: len(_from_laptop(ways)) == 3)
    assert {frame.dst for frame in ways.frames} == {ways.agent_hardware.hex(":")}
    assert [frame for frame in ways.frames if ARP in frame] == []


@pytest.mark.rows("R-183", "R-191")
async def test_at_home_neighbours_are_asked_for_in_the_name_of_the_links_own_address(ways: Ways) -> None:
    await ways.apply(BY_NAME["home"].traffic(ways), home_link=ways.at_home)
    ways.stations.laptop.ip("neigh flush all")
    ways.forget()
    with application() as sender:
        send(sender, 1)
        assert await numbers(ways, BY_NAME["home"], 1) == [1]
        sender.sendto(b"x", ("10.1.1.77", 9))
        await asyncio.sleep(0.02)
    ways.look()
    asked = [
        (frame[ARP].psrc, frame[ARP].pdst) for frame in ways.frames if ARP in frame and frame[ARP].op == 1
    ]
    assert (str(CARE_OF), "10.1.1.77") in asked
    assert {sender for sender, _ in asked} == {str(CARE_OF)}
    assert Ether in ways.frames[0]
