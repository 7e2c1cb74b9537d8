# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that a program with the right to do so puts into the home device: no odd one may hold the others up."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from homeward.model.names import HOME_DEVICE
from homeward.model.tunnel_engine import TunnelEngine
from tests.component.test_ways import send
from tests.world.stations import HOME, PEER, Stations, eventually
from tests.world.ways import BY_NAME, Way, Ways, application

pytestmark = pytest.mark.root

CHOSEN = [BY_NAME[name] for name in ("ip-in-ip", "minimal", "udp", "agent-encapsulating", "home")]


@pytest.fixture
async def ways(tmp_path: Path) -> AsyncIterator[Ways]:
    with Stations() as stations:
        made = Ways(stations, tmp_path, TunnelEngine.TUN)
        yield made
        await made.shut()


def odd_frames() -> list[bytes]:
    ends = {"src": str(HOME), "dst": str(PEER)}
    segment = bytes(IP(flags="DF", **ends) / TCP(sport=9, dport=9, flags="A") / Raw(bytes(1460)))
    short = bytes(IP(flags="DF", **ends) / UDP(sport=9, dport=9))
    cut_off = [segment[:length] for length in (16, 17, 19, 20, 30)]
    lies = [b"\x41" + segment[1:], b"\x4f" + segment[1:], segment[:2] + b"\0\x14" + segment[4:]]
    longer = [segment[:2] + b"\xff\xff" + segment[4:], short[:2] + b"\x05\xdc" + short[4:]]
    return cut_off + lies + longer


@pytest.mark.parametrize("way", CHOSEN, ids=lambda way: way.name)
async def test_what_follows_an_odd_frame_leaves_all_the_same(ways: Ways, way: Way) -> None:
    """Too long for the path, or too short for what is asked of a packet, and each says something else of itself."""
    await ways.apply(way.traffic(ways))
    ways.stations.laptop.ip(f"link set {HOME_DEVICE} mtu 1500")
    ways.tunnel._mtu = 1400  # as after a path that has just turned out narrow
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as frames, application() as sender:
        for at, octets in enumerate(odd_frames()):
            frames.sendto(octets, (HOME_DEVICE, 0x0800))
            ways.forget()
            send(sender, at)
            came: list[int] = []
            while not came or came[-1] != at:
                packet = await eventually(lambda: way.came(ways))
                if UDP in packet and packet[UDP].dport == 9 and len(bytes(packet[UDP].payload)) >= 4:
                    came.append(int.from_bytes(bytes(packet[UDP].payload)[:4], "big"))
    assert ways.plans.counters() == (0, 0)
