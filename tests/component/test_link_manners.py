# SPDX-License-Identifier: GPL-2.0-or-later
"""How the laptop behaves on a link that is not its home: checksums, ARP, redirects, by real kernels."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import ClearPath
from homeward.model.inputs import DatagramReceived
from homeward.model.plan import EMPTY_PLAN
from tests.world.plan_holder import plans, the_plan
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, ROUTER, Stations, eventually, take

pytestmark = pytest.mark.root


@pytest.fixture
async def stations() -> AsyncIterator[Stations]:
    with Stations() as made:
        yield made


def router(stations: Stations) -> socket.socket:
    """A socket at the other end of the cable that sends whole packets, right or wrong."""
    with stations.agent:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


# --- checksums (RFC 5944 section 3.1) --------------------------------------------------------------------------------


@pytest.mark.rows("R-105", "R-136", "R-146")
async def test_a_reply_is_taken_with_a_right_checksum_or_none_and_dropped_with_a_wrong_one(
    stations: Stations,
) -> None:
    arrived: list[DatagramReceived] = []
    registrations = UdpRegistrations(lambda inner: None)
    registrations.start(arrived.append)
    with stations.udp(AGENT, 434) as agent, stations.listen() as wire, router(stations) as raw:
        registrations.send(ClearPath(stations.link, "eth0", CARE_OF), AGENT, b"request", ttl=255)
        seen = await eventually(lambda: take(agent))
        (request,) = [frame for octets in wire.heard() if UDP in (frame := Ether(octets))]
        assert request[UDP].chksum != 0

        def reply(octets: bytes, **checksum: int) -> Packet:
            udp = UDP(sport=434, dport=seen.port, **checksum) / Raw(octets)
            return IP(bytes(IP(src=str(AGENT), dst=str(CARE_OF)) / udp))

        wrong = reply(b"wrong")
        wrong[UDP].chksum = (wrong[UDP].chksum ^ 0x5555) or 1  # 0 would mean: none
        for packet in (wrong, reply(b"none", chksum=0), reply(b"right")):
            raw.sendto(bytes(packet), (str(CARE_OF), 0))
        await eventually(lambda: len(arrived) == 2)
        await asyncio.sleep(0.02)
    registrations.stop()
    assert [came.octets for came in arrived] == [b"none", b"right"]


# --- ARP (RFC 5944 section 4.6) --------------------------------------------------------------------------------------


def asked(stations: Stations, address: IPv4Address) -> list[Packet]:
    """Who answers when the router asks for an address by ARP."""
    answers = []
    with stations.agent, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as asker:
        asker.bind(("lan0", 0x0806))
        asker.settimeout(0.2)
        mine = asker.getsockname()[4].hex(":")
        question = ARP(op=1, hwsrc=mine, psrc=str(ROUTER), pdst=str(address))
        asker.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=mine) / question))
        try:
            while True:
                frame = Ether(asker.recv(2000))
                if ARP in frame and frame[ARP].op == 2 and frame[ARP].psrc == str(address):
                    answers.append(frame)
        except TimeoutError:
            return answers


@pytest.mark.rows("R-183", "R-191", "R-192")
async def test_away_from_home_arp_is_answered_for_the_care_of_address_alone(
    stations: Stations, tmp_path: Path
) -> None:
    made = plans(tmp_path)
    await made.apply(the_plan("eth0"))
    assert len(asked(stations, CARE_OF)) == 1
    assert asked(stations, HOME) == []
    await made.apply(EMPTY_PLAN)
    await made.close()


# --- redirects (RFC 5944 section 4.2.1) ------------------------------------------------------------------------------


def redirect(stations: Stations) -> None:
    """The router says that somebody else is a better way to PEER, quoting an answer of ours to a ping."""
    quoted = IP(src=str(CARE_OF), dst=str(PEER)) / ICMP(type="echo-reply")
    told = IP(src=str(ROUTER), dst=str(CARE_OF)) / ICMP(type=5, code=1, gw="10.1.1.77") / quoted
    with router(stations) as raw:
        raw.sendto(bytes(told), (str(CARE_OF), 0))


def way(stations: Stations) -> str:
    return stations.laptop.ip(f"route get {PEER} from {CARE_OF}")


@pytest.mark.rows("R-184")
async def test_a_redirect_to_another_router_is_ignored(stations: Stations, tmp_path: Path) -> None:
    stations.laptop.ip(
        "neigh add 10.1.1.77 lladdr 02:00:00:00:00:77 dev eth0"
    )  # a redirect to a stranger is lost
    switches = KernelSwitches(tmp_path)
    switches.set_for(frozenset({"eth0"}), frozenset())
    redirect(stations)
    await asyncio.sleep(0.05)
    assert f"via {ROUTER} " in way(stations)
    switches.restore()
    redirect(stations)
    await eventually(
        lambda: "via 10.1.1.77 " in way(stations)
    )  # the same words are heeded where nothing forbids it
