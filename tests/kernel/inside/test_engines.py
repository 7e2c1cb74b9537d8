# SPDX-License-Identifier: GPL-2.0-or-later
"""Every engine in a kernel that has them all: the ways and attacks of tests/component, and what only it can show.

What the engines `bpf` and `tun` do is shown there first; here most of it is for ./dev test --all.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from homeward.adapters import kernel_tunnels
from homeward.adapters.kernel_tunnels.inward import inward
from homeward.model.names import IPIP_DEVICE, MARK_TUNNEL
from homeward.model.plan import EMPTY_PLAN, Held
from homeward.model.tunnel_engine import TunnelEngine
from tests.component import test_way_attacks as attacks
from tests.component import test_ways as journeys
from tests.component.test_ways import ways
from tests.kernel.inside.other_vpns import Policies
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, ROUTER, Stations, eventually
from tests.world.ways import (
    BY_NAME,
    Way,
    Ways,
    application,
    heard,
    in_ip,
    in_udp,
    on_each_engine,
    to_application,
)

__all__ = ["ways"]

BPF, IPIP, TUN = TunnelEngine.BPF, TunnelEngine.IPIP, TunnelEngine.TUN
ALL = (BPF, IPIP)
CHOSEN = tuple(BY_NAME[name] for name in ("ip-in-ip", "udp", "vpn", "vpn-udp"))
each_engine = on_each_engine(*CHOSEN, here=ALL)
past_the_process = pytest.mark.parametrize(
    ("ways", "way"),
    [(way.past, way) for way in CHOSEN],
    indirect=["ways"],
    ids=[f"{way.name}-{way.past.value}" for way in CHOSEN],
)
by_the_device = pytest.mark.parametrize(
    ("ways", "way"), [(IPIP, BY_NAME["ip-in-ip"])], indirect=["ways"], ids=["ipip"]
)


@past_the_process
async def test_packets_travel_both_ways(ways: Ways, way: Way) -> None:
    await journeys.test_packets_travel_both_ways(ways, way)


@past_the_process
async def test_nothing_that_is_wrong_anywhere_comes_in(ways: Ways, way: Way) -> None:
    await attacks.test_nothing_that_is_wrong_anywhere_comes_in_by_any_way(ways, way)


@pytest.mark.slow
@each_engine
async def test_while_held_packets_wait_and_afterwards_none_is_missing(ways: Ways, way: Way) -> None:
    await journeys.test_while_held_packets_wait_and_afterwards_none_is_missing(ways, way)


@pytest.mark.slow
@each_engine
async def test_the_empty_plan_leaves_nothing(ways: Ways, way: Way) -> None:
    await journeys.test_the_empty_plan_leaves_nothing_of_any_way(ways, way)


@pytest.mark.slow
@each_engine
async def test_what_was_not_agreed_on_is_refused(ways: Ways, way: Way) -> None:
    await attacks.test_what_was_not_agreed_on_is_refused_though_the_right_one_sends_it(ways, way)


@pytest.mark.slow
@each_engine
async def test_a_reply_inside_the_tunnel_answers_no_request(ways: Ways, way: Way) -> None:
    await attacks.test_a_reply_that_comes_inside_the_tunnel_answers_no_request(ways, way)


@pytest.mark.slow
@each_engine
async def test_an_open_way_is_no_hole_for_others(ways: Ways, way: Way) -> None:
    await attacks.test_an_open_way_is_no_hole_for_others(ways, way)


@pytest.mark.slow
@pytest.mark.parametrize("ways", [None], indirect=True, ids=["best"])
async def test_every_way_follows_every_other(ways: Ways) -> None:
    await journeys.test_every_way_follows_every_other_and_no_packet_is_lost_or_doubled(ways)


# --- the kernel's device ----------------------------------------------------------------------------------------------


def use_the_device(packet: bytes) -> None:
    """Whatever a program could do to send by the kernel's tunnel device what it should not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain, suppress(OSError):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, IPIP_DEVICE.encode())
        plain.sendto(b"secret", (str(PEER), 9))
    for mark in (0, MARK_TUNNEL):
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw, suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, IPIP_DEVICE.encode())
            raw.sendto(packet, (str(PEER), 0))
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as frames, suppress(OSError):
            frames.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            frames.sendto(packet, (IPIP_DEVICE, 0x0800))


@by_the_device
async def test_nobody_else_sends_by_the_kernels_tunnel_device(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    ways.forget()
    for source in (HOME, CARE_OF):
        use_the_device(bytes(IP(src=str(source), dst=str(PEER)) / UDP(dport=9) / Raw(b"secret")))
    assert await attacks.leaked(ways) == []


@by_the_device
@pytest.mark.parametrize(
    "order", [f"filter del dev {IPIP_DEVICE} ingress", f"qdisc del dev {IPIP_DEVICE} clsact"]
)
async def test_nothing_comes_in_by_the_device_though_somebody_takes_its_filter_away(
    ways: Ways, way: Way, order: str
) -> None:
    await ways.apply(way.traffic(ways))
    ways.stations.laptop.run("tc", *order.split())
    with application(HOME) as receiver:
        for source in ("10.1.1.66", AGENT):
            elsewhere = IP(src=str(PEER), dst=str(HOME), flags="MF") / UDP(dport=receiver.getsockname()[1])
            ways.inject(in_ip(elsewhere / Raw(b"x"), source=source))
        ways.inject(in_ip(to_application(receiver, b"forged"), source="10.1.1.66"))
        assert await heard(receiver) == []


@by_the_device
async def test_while_held_nothing_comes_in_by_the_device(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    ways.plans.hold()
    with application(HOME) as receiver:
        way.deliver(ways, to_application(receiver, b"held"))
        await ways.apply(Held())
        way.deliver(ways, to_application(receiver, b"held"))
        assert await heard(receiver) == []


@by_the_device
async def test_undone_the_device_is_gone(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    there = [name for _, name in socket.if_nameindex()]
    assert IPIP_DEVICE in there
    await ways.plans.apply(EMPTY_PLAN)
    assert IPIP_DEVICE not in [name for _, name in socket.if_nameindex()]


@by_the_device
async def test_a_path_that_turns_out_narrow_lowers_the_home_device(ways: Ways, way: Way) -> None:
    await journeys.test_a_path_that_turns_out_narrow_lowers_the_device_in_every_tunnel(ways, way.name, 1280)
    assert ways.tunnel.engine is IPIP


@by_the_device
async def test_nothing_leaves_with_an_address_that_the_link_has_lost(ways: Ways, way: Way) -> None:
    await ways.apply(way.traffic(ways))
    laptop = ways.stations.laptop
    laptop.batch("addr add 10.1.1.11/24 dev eth0", f"addr del {CARE_OF}/24 dev eth0")
    await asyncio.sleep(0.05)
    ways.forget()
    with application() as sender:
        for number in range(3):
            journeys.send(sender, number)
        await eventually(lambda: ways.plans.counters()[0] == 3)
        laptop.batch(f"addr add {CARE_OF}/24 dev eth0", f"route replace default via {ROUTER} dev eth0")
        assert await journeys.numbers(ways, way, 3) == [0, 1, 2]
    await eventually(lambda: ways.tunnel.engine is IPIP)


@by_the_device
@pytest.mark.parametrize("bound", [b"", b"homeward0"])
async def test_long_packets_and_sockets_bound_to_the_device_are_carried(
    ways: Ways, way: Way, bound: bytes
) -> None:
    await ways.apply(way.traffic(ways))
    with application() as sender:
        if bound:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bound)
        for size in (4, 1452, 4000):
            sender.sendto(bytes(size), (str(PEER), 9))
            pieces = [await eventually(lambda: way.came(ways))]
            while pieces[-1].flags.MF:
                pieces.append(await eventually(lambda: way.came(ways)))
            assert sum(len(piece.payload) for piece in pieces) == size + 8


# --- another VPN ------------------------------------------------------------------------------------------------------


class Gateway:
    """Another VPN on the laptop, by IPsec policies for what comes in. Its gateway is honest, and nobody to us."""

    def __init__(self, stations: Stations) -> None:
        self._vpn = Policies(stations)
        # Outwards they would have the process carry the tunnel, which is shown elsewhere.
        stations.laptop.ip(f"xfrm policy delete src {CARE_OF}/32 dst 10.0.0.0/24 dir out")

    def deliver(self, packet: bytes) -> None:
        self._vpn.deliver(packet)


def open_fence(ways: Ways) -> None:
    """What comes in is not looked at, until the adapter has its next turn and puts the fence back."""
    for order in ("flush chain inet homeward input", "chain inet homeward input { policy accept; }"):
        ways.stations.laptop.run("nft", order)


async def forge(ways: Ways, way: Way) -> list[bytes]:
    """What an application hears when another VPN's gateway forges packets of our tunnel."""
    gateway = Gateway(ways.stations)
    await ways.apply(way.traffic(ways))
    assert ways.tunnel.engine is ways.engine
    with application(HOME) as receiver:
        inner = to_application(receiver, b"forged")
        # The fence lets that VPN's packets in from nobody. Here it is to be the engine that refuses them.
        open_fence(ways)
        gateway.deliver(
            bytes(in_ip(inner) if way.name == "ip-in-ip" else in_udp(inner, ways.ports[ways.clear]))
        )
        return await heard(receiver, 0.1)


another_vpn = pytest.mark.parametrize(
    ("ways", "way"),
    [(IPIP, BY_NAME["ip-in-ip"]), (BPF, BY_NAME["udp"])],
    indirect=["ways"],
    ids=["ipip", "bpf"],
)


@another_vpn
async def test_what_comes_out_of_another_vpns_esp_is_not_taken_for_clear(ways: Ways, way: Way) -> None:
    """The kernel has it come in by the link a second time, in clear: only it can tell, and is asked."""
    assert await forge(ways, way) == []


@another_vpn
async def test_a_program_that_does_not_ask_takes_it(
    ways: Ways, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the attack works."""

    def unasked(*arguments: Any, tells_ipsec: bool, **more: Any) -> bytes:
        return inward(*arguments, tells_ipsec=False, **more)

    monkeypatch.setattr(kernel_tunnels, "inward", unasked)
    assert await forge(ways, way) == [b"forged"]


@pytest.mark.parametrize(
    ("ways", "way"),
    [(TUN, BY_NAME[name]) for name in ("agent", "home")],
    indirect=["ways"],
    ids=["f", "home"],
)
async def test_where_no_engine_judges_it_is_the_fence_that_keeps_another_vpns_esp_out(
    ways: Ways, way: Way
) -> None:
    """What that ESP brings for the home address would look like a frame of the agent's, or a neighbour's."""
    gateway = Gateway(ways.stations)
    for_home = f"src 10.0.0.0/24 dst {HOME}/32 dir in"
    esp = f"tmpl src {ROUTER} dst {CARE_OF} proto esp reqid 1 mode tunnel"
    ways.stations.laptop.ip(f"xfrm policy add {for_home} {esp}")
    await ways.apply(way.traffic(ways))
    with application(HOME) as receiver:
        packet = bytes(to_application(receiver, b"forged"))
        gateway.deliver(packet)
        assert await heard(receiver, 0.1) == []
        open_fence(ways)
        gateway.deliver(packet)
        assert await heard(receiver, 0.1) == [b"forged"], "the attack works"
