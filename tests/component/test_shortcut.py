# SPDX-License-Identifier: GPL-2.0-or-later
"""The laptop's fast path while others meddle: it follows, or leaves the packets to the process; none goes astray."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet

from homeward.adapters import kernel_tunnels
from homeward.adapters.kernel_tunnels.shortcut import Shortcut
from homeward.model.plan import EMPTY_PLAN, Held
from homeward.model.tunnel_engine import TunnelEngine
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, ROUTER, Stations, eventually
from tests.world.ways import BY_NAME, Ways, application, heard, to_application

pytestmark = pytest.mark.root

UDP_WAY = BY_NAME["udp"]
BPF, TUN = TunnelEngine.BPF, TunnelEngine.TUN
UDP_SEGMENT = 103
INTO_DEVICE = """
    table netdev seen {
        chain into {
            type filter hook egress device homeward0 priority 0
            meta mark != 0 counter
            counter
        }
    }
"""
ANYTHING = "src 0.0.0.0/0 dst 0.0.0.0/0"
ESP = f"tmpl src {CARE_OF} dst 203.0.113.9 proto esp reqid 7 mode tunnel"


@pytest.fixture
async def ways(tmp_path: Path) -> AsyncIterator[Ways]:
    """A tunnel in UDP, in clear, which the kernel carries."""
    with Stations() as stations:
        made = Ways(stations, tmp_path)
        await made.apply(UDP_WAY.traffic(made))
        assert made.tunnel.engine is BPF
        yield made
        await made.shut()


async def goes(ways: Ways, number: int, *, bound_to: str = "") -> int:
    """Send a packet, see it come out at the other end, and say how many have gone past the process so far."""
    with application() as sender:
        if bound_to:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bound_to.encode())
        sender.sendto(struct.pack("!I", number), (str(PEER), 9))
        came = await eventually(lambda: UDP_WAY.came(ways))
    assert bytes(came[UDP].payload) == struct.pack("!I", number)
    return ways.shortcut.counted()[0]


async def comes(ways: Ways) -> bool:
    """Have a packet come in, and say whether it came past the process."""
    before = ways.shortcut.counted()[2]
    with application(HOME) as receiver:
        UDP_WAY.deliver(ways, to_application(receiver, b"answer"))
        assert await heard(receiver) == [b"answer"]
    return ways.shortcut.counted()[2] > before


def left(ways: Ways) -> list[Packet]:
    """The home address's packets that have left by the cable."""
    ways.look()
    found = [frame for frame in ways.frames if IP in frame and HOME.packed in bytes(frame)]
    ways.frames.clear()
    return found


# --- others' filters --------------------------------------------------------------------------------------------------


async def test_without_its_filter_packets_come_in_by_the_process_and_the_next_plan_mends_it(
    ways: Ways,
) -> None:
    assert await comes(ways)
    ways.stations.laptop.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    assert not await comes(ways)
    assert await goes(ways, 1) == 1
    await ways.apply(Held())
    await ways.apply(UDP_WAY.traffic(ways))
    assert await comes(ways)


async def test_others_filters_stay_and_one_before_ours_leaves_packets_to_the_process(ways: Ways) -> None:
    """The qdisc was ours; by now it is theirs as well."""
    run = ways.stations.laptop.run
    for preference, past in (("600", True), ("433", False)):
        words = f"filter add dev eth0 ingress pref {preference} protocol ip u32 match u32 0 0 classid 1:1"
        run("tc", *words.split())
        assert await comes(ways) is past
    await ways.plans.apply(EMPTY_PLAN)
    shown = run("tc", "filter", "show", "dev", "eth0", "ingress")
    assert "homeward_in" not in shown
    assert {"433", "600"} <= set(shown.split())


async def test_a_place_that_somebody_else_has_taken_is_left_to_them(ways: Ways) -> None:
    await ways.plans.apply(EMPTY_PLAN)
    run = ways.stations.laptop.run
    run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    theirs = "filter add dev eth0 ingress pref 434 protocol ip u32 match u32 0 0 classid 1:1"
    run("tc", *theirs.split())
    before = run("tc", "filter", "show", "dev", "eth0", "ingress")
    await ways.apply(UDP_WAY.traffic(ways))
    assert ways.tunnel.engine is TUN
    assert not await comes(ways)
    await goes(ways, 1)
    await ways.plans.apply(EMPTY_PLAN)
    assert run("tc", "filter", "show", "dev", "eth0", "ingress") == before


async def test_a_qdisc_that_was_there_before_stays_and_ours_does_not(ways: Ways) -> None:
    run = ways.stations.laptop.run
    assert "clsact" in run("tc", "qdisc", "show", "dev", "eth0")
    await ways.plans.apply(EMPTY_PLAN)
    assert "clsact" not in run("tc", "qdisc", "show", "dev", "eth0")
    run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    await ways.apply(UDP_WAY.traffic(ways))
    assert await comes(ways)
    await ways.plans.apply(EMPTY_PLAN)
    assert "clsact" in run("tc", "qdisc", "show", "dev", "eth0")


async def test_a_link_that_is_not_used_any_more_is_given_back(
    ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeward.adapters.kernel_tunnels.shortcut._LEFT_AFTER", 0.01)
    await ways.apply(BY_NAME["vpn-udp"].traffic(ways))
    show = ["tc", "filter", "show", "dev"]
    await eventually(lambda: not ways.stations.laptop.run(*show, "eth0", "ingress"))
    assert "homeward_in" in ways.stations.laptop.run(*show, "ipsec0", "ingress")
    await ways.apply(BY_NAME["home"].traffic(ways))
    await eventually(lambda: not ways.stations.laptop.run(*show, "ipsec0", "ingress"))


# --- the way to the home agent ----------------------------------------------------------------------------------------


async def test_its_packets_follow_when_the_router_changes(ways: Ways) -> None:
    other = IPv4Address("10.1.1.2")
    ways.stations.agent.ip(f"addr add {other}/24 dev lan0")
    show = f"route show table 435 via {other}"
    assert ways.stations.laptop.ip(show) == ""
    ways.stations.laptop.ip(f"route replace default via {other} dev eth0")
    await eventually(lambda: ways.stations.laptop.ip(show))
    assert await goes(ways, 1) == 1


@pytest.mark.parametrize("metric", ["0", "434"])
async def test_a_route_that_somebody_deletes_is_put_back(ways: Ways, metric: str) -> None:
    before = ways.stations.laptop.ip("route show table 435")
    ways.stations.laptop.ip(f"route del 10.0.0.2 table 435 metric {metric}")
    await eventually(lambda: ways.stations.laptop.ip("route show table 435") == before)
    assert await goes(ways, 1) == 1


async def test_while_there_is_no_route_packets_come_back_to_the_process_and_no_application_hears_of_it(
    ways: Ways,
) -> None:
    """Before anybody has noticed: the kernel drops the routes of a link without a word."""
    laptop = ways.stations.laptop
    laptop.ip("route del 10.0.0.2 table 435 metric 0")  # nobody has looked at the news yet
    with application() as sender:
        sender.connect((str(PEER), 9))
        sender.send(struct.pack("!I", 1))
        came = await eventually(lambda: UDP_WAY.came(ways))
        assert bytes(came[UDP].payload) == struct.pack("!I", 1)
        assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert ways.tunnel.counted.led_back == 1
    assert ways.tunnel.traffic().sent_packets == 1


@pytest.mark.parametrize("others", [(), ("10.1.1.11/24",)], ids=["alone", "one of two"])
async def test_nothing_leaves_with_an_address_that_the_link_has_lost(
    ways: Ways, others: tuple[str, ...]
) -> None:
    laptop = ways.stations.laptop
    for other in others:
        laptop.ip(f"addr add {other} dev eth0")
    laptop.ip(f"addr del {CARE_OF}/24 dev eth0")
    await asyncio.sleep(0.02)
    ways.forget()
    with application() as sender:
        for number in range(5):
            sender.sendto(struct.pack("!I", number), (str(PEER), 9))
        await eventually(lambda: ways.plans.counters()[0] == 5)
        assert left(ways) == []
        assert not ways.shortcut.leads
        laptop.ip(f"addr add {CARE_OF}/24 dev eth0")
        laptop.ip(f"route replace default via {ROUTER}")
        for number in range(5):
            came = await eventually(lambda: UDP_WAY.came(ways))
            assert bytes(came[UDP].payload) == struct.pack("!I", number)
    await eventually(lambda: ways.shortcut.leads)
    past = ways.shortcut.counted()[0]
    assert await goes(ways, 9) == past + 1


async def test_it_sends_from_where_the_registrations_are_sent_from_now(ways: Ways) -> None:
    """A socket whose link was taken away under it is made anew when the next request is due."""
    ways.registrations._shut(ways.registrations._sockets[ways.clear])
    ways.registrations.send(ways.clear, AGENT, b"\1renewal", ttl=255)
    assert ways.tunnel.engine is BPF
    ways.forget()
    with application() as sender:
        sender.sendto(b"x", (str(PEER), 9))
        await eventually(lambda: ways.look() or ways.frames)
    receiver = ways.registrations._sockets[ways.clear].receiver
    assert receiver is not None
    now = receiver.getsockname()[1]
    assert now != ways.ports[ways.clear]
    assert {frame[UDP].sport for frame in ways.frames if UDP in frame} == {now}
    assert ways.shortcut.counted()[0] == 1
    ways.ports[ways.clear] = now
    assert await comes(ways)


@pytest.mark.parametrize("size", [4, 1440, 4000])
async def test_an_application_that_is_bound_to_the_device_is_carried_by_the_process(
    ways: Ways, size: int
) -> None:
    """The kernel looks for the outer packet's way by the link that the socket is bound to."""
    with application() as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"homeward0")
        sender.sendto(bytes(size), (str(PEER), 9))
        pieces = [await eventually(lambda: UDP_WAY.came(ways))]
        while pieces[-1].flags.MF:
            pieces.append(await eventually(lambda: UDP_WAY.came(ways)))
    assert sum(len(piece.payload) for piece in pieces) == size + 8
    assert ways.tunnel.traffic().sent_packets == ways.tunnel.counted.sent == len(pieces)
    assert await goes(ways, 1, bound_to="homeward0") == len(pieces) + 1


async def test_a_connection_that_is_bound_to_the_device_stands(ways: Ways) -> None:
    with ways.stations.agent:
        listener = socket.create_server((str(PEER), 0))
    listener.close()  # the other end is this test: it answers the segment that opens the connection
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"homeward0")
        connecting = asyncio.create_task(
            asyncio.get_running_loop().sock_connect(client, listener_address := (str(PEER), 80))
        )
        opening = await eventually(lambda: UDP_WAY.came(ways))
        assert (opening.dst, opening.payload.dport) == listener_address
        connecting.cancel()


@pytest.mark.parametrize("name", ["udp", "gre-in-udp"])
async def test_datagrams_that_a_card_is_to_cut_go_into_the_device_whole_and_unmarked(
    ways: Ways, name: str
) -> None:
    """As QUIC sends them. The kernel refuses to put headers on such a packet when they are on already."""
    way = BY_NAME[name]
    await ways.apply(way.traffic(ways))
    run = ways.stations.laptop.run
    run("nft", "-f", "-", stdin=INTO_DEVICE)
    sizes = [1000, 1000, 500]
    with application() as sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, sizes[0])
        sender.sendto(bytes(sum(sizes)), (str(PEER), 9))
        came = [await eventually(lambda: way.came(ways)) for _ in sizes]
    assert [len(packet[UDP].payload) for packet in came] == sizes
    marked, seen = re.findall(r"packets (\d+) bytes (\d+)", run("nft", "list", "table", "netdev", "seen"))
    assert (marked, seen) == (("0", "0"), ("1", str(sum(sizes) + 28)))
    assert (ways.tunnel.counted.sent, ways.shortcut.counted()[0]) == (3, 0)


# --- IPsec ------------------------------------------------------------------------------------------------------------


async def test_where_another_vpns_policies_stand_the_process_carries_the_tunnel_past_them(ways: Ways) -> None:
    laptop = ways.stations.laptop
    # Only the inner packet's own way must not meet them: there is none on this device.
    for setting in ("disable_xfrm", "disable_policy"):
        laptop.sysctl(f"ipv4/conf/homeward0/{setting}", "1")
    laptop.ip(f"xfrm policy add {ANYTHING} dir out priority 1 {ESP}")
    await eventually(lambda: ways.tunnel.engine is TUN)
    past = ways.shortcut.counted()[0]
    assert await goes(ways, 1) == past
    await ways.apply(Held())
    await ways.apply(UDP_WAY.traffic(ways))
    assert await goes(ways, 2) == past
    laptop.ip("xfrm policy flush")
    await eventually(lambda: ways.tunnel.engine is BPF)
    assert await goes(ways, 3) == past + 1


async def test_a_policy_of_an_xfrm_interface_or_for_what_comes_in_is_no_reason(ways: Ways) -> None:
    laptop = ways.stations.laptop
    laptop.ip(f"xfrm policy add {ANYTHING} dir out if_id 7 {ESP}")
    laptop.ip(f"xfrm policy add {ANYTHING} dir in {ESP}")
    laptop.ip("xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out action allow")
    await asyncio.sleep(0.05)
    assert ways.tunnel.engine is BPF


# --- holding ----------------------------------------------------------------------------------------------------------


class Flood(threading.Thread):
    """An application that sends as fast as it can, numbered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self._socket = application()
        self._socket.setblocking(True)
        self._goes_on = True

    def run(self) -> None:
        while self._goes_on:
            self._socket.sendto(struct.pack("!I", self.sent), (str(PEER), 9))
            self.sent += 1

    def end(self) -> None:
        self._goes_on = False
        self.join()
        self._socket.close()


def _stand_still(seconds: float) -> None:
    """The daemon does nothing at all meanwhile."""
    time.sleep(seconds)


@pytest.mark.rows("R-64")
async def test_no_packet_leaves_after_hold_though_an_application_sends_all_the_time(ways: Ways) -> None:
    flood = Flood()
    flood.start()
    try:
        for _ in range(5):
            await asyncio.sleep(0.02)
            await eventually(lambda: left(ways))
            ways.plans.hold()
            _stand_still(0.002)  # what was on its way at that moment has arrived
            left(ways)
            before = flood.sent
            _stand_still(0.02)
            assert flood.sent > before
            assert left(ways) == []
            await ways.plans.apply(ways.plan(UDP_WAY.traffic(ways)))
            assert ways.tunnel.engine is not None
        await eventually(lambda: ways.tunnel.engine is BPF)
    finally:
        flood.end()


async def test_packets_that_waited_leave_before_those_that_take_the_shortcut(ways: Ways) -> None:
    ways.plans.hold()
    with application() as sender:
        for number in range(100):
            sender.sendto(struct.pack("!I", number), (str(PEER), 9))
        await eventually(lambda: ways.plans.counters()[0] == 100)
        for number in range(100, 130):  # in the device, not yet seen
            sender.sendto(struct.pack("!I", number), (str(PEER), 9))
        await ways.plans.apply(ways.plan(UDP_WAY.traffic(ways)))
        await eventually(lambda: ways.shortcut.leads)
        for number in range(130, 160):
            sender.sendto(struct.pack("!I", number), (str(PEER), 9))
        came = [await eventually(lambda: UDP_WAY.came(ways)) for _ in range(160)]
    numbers = [struct.unpack("!I", bytes(packet[UDP].payload))[0] for packet in came]
    assert numbers == list(range(160))
    assert ways.shortcut.counted()[0] == 30


@pytest.mark.rows("R-64")
async def test_a_daemon_that_is_stuck_carries_nothing_for_long(
    ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asleep, stuck or dead: nobody decides where the laptop is, and applications see delay."""
    monkeypatch.setattr(kernel_tunnels, "ALIVE", 0.2)
    await ways.apply(Held())
    await ways.apply(UDP_WAY.traffic(ways))
    assert await goes(ways, 1) == 1
    _stand_still(0.25)
    ways.forget()
    with application() as sender, application(HOME) as receiver:
        sender.sendto(b"late", (str(PEER), 9))
        UDP_WAY.deliver(ways, to_application(receiver, b"late"))
        _stand_still(0.02)
        assert left(ways) == []
        with pytest.raises(BlockingIOError):
            receiver.recv(99)
        # Back again, it does by itself what could not be done past it.
        await eventually(lambda: UDP_WAY.came(ways))
        assert await heard(receiver) == [b"late"]
    assert ways.shortcut.counted()[0] == 1


# --- what the machine can do ------------------------------------------------------------------------------------------


async def test_without_programs_on_routes_the_process_carries_everything(tmp_path: Path) -> None:
    with Stations() as stations:
        made = Ways(stations, tmp_path)
        made.shortcut.give_up("no route can name a program")
        await made.apply(UDP_WAY.traffic(made))
        assert made.tunnel.engine is TUN
        await goes(made, 1)
        assert "encap" not in stations.laptop.ip("route show table 434")
        await made.shut()


@pytest.mark.parametrize("named", ["tun", "", "nonsense", "tun,ipip"])
async def test_engines_that_are_not_named_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("HOMEWARD_ENGINES", named)
    with Stations() as stations:
        made = Ways(stations, tmp_path)
        await made.apply(UDP_WAY.traffic(made))
        assert made.tunnel.engine is TUN
        await made.shut()


async def test_who_shows_it_is_told_when_something_else_carries_packets(ways: Ways) -> None:
    told: list[TunnelEngine | None] = []
    ways.tunnel.on_engine = lambda: told.append(ways.tunnel.engine)
    await ways.apply(BY_NAME["ip-in-ip"].traffic(ways))
    await asyncio.sleep(0)
    await ways.apply(UDP_WAY.traffic(ways))
    await asyncio.sleep(0)
    assert (told[0], told[-1]) == (TUN, BPF)


async def test_a_later_life_removes_what_an_earlier_one_attached(ways: Ways) -> None:
    await ways.plans.close()
    show = ["tc", "filter", "show", "dev", "eth0", "ingress"]
    assert "homeward_in" in ways.stations.laptop.run(*show)
    Shortcut().clear_away()
    assert ways.stations.laptop.run(*show) == ""
    assert "clsact" not in ways.stations.laptop.run("tc", "qdisc", "show", "dev", "eth0")
