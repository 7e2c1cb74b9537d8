# SPDX-License-Identifier: GPL-2.0-or-later
"""The home link of the real home agent: ARP in the name of a node that is away, and what is said when it comes back."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.l2 import ARP, Ether

from homeward.adapters.receive_merging import merges, set_merging
from homeward.model.agent import AgentAdvertisement, AgentFlags
from homeward.model.registration import RequestFlags
from homeward.wire.agent_advertisement import decode_advertisement, encode_solicitation
from tests.component.agent_modes import AT_HOME, D_T, Station, request, running
from tests.component.agent_network import AGENT, CARE_OF, AgentNetwork, AgentProcess, Namespace, udp

pytestmark = pytest.mark.root

LINK = "home"
NEIGHBOUR = IPv4Address("10.79.0.20")
OUR_MAC = "02:00:00:00:79:01"
THEIR_MAC = "02:00:00:00:79:20"
NOBODY = "00:00:00:00:00:00"
EVERYBODY = "ff:ff:ff:ff:ff:ff"


@pytest.fixture(scope="module")
def station() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


@pytest.fixture(scope="module")
def network(station: Namespace) -> Iterator[AgentNetwork]:
    made = AgentNetwork()
    made.add_home_link(station, str(NEIGHBOUR), "10.79.0.1")
    station.ip(f"link set dev lan address {THEIR_MAC}")
    made.agent.ip(f"link set dev home address {OUR_MAC}")
    # The strict check, which the agent has to loosen: a node that is home again speaks while its route is a tunnel.
    made.agent.setting(f"ipv4/conf/{LINK}/rp_filter", "1")
    yield made
    made.close()


@pytest.fixture
def agent(network: AgentNetwork, tmp_path: Path) -> Iterator[AgentProcess]:
    with running(network, tmp_path) as process:
        yield process


class Link:
    """All ARP on the home link, heard by the neighbour, who may also be the mobile node that is at home."""

    def __init__(self, station: Namespace) -> None:
        with station.entered():
            self._opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        self._opened.bind(("lan", 0x0806))

    def close(self) -> None:
        self._opened.close()

    def ask(self, address: IPv4Address, *, by: IPv4Address = NEIGHBOUR) -> None:
        question = ARP(op=1, hwsrc=THEIR_MAC, psrc=str(by), hwdst=NOBODY, pdst=str(address))
        self._opened.send(bytes(Ether(src=THEIR_MAC, dst=EVERYBODY, type=0x0806) / question))

    def hear(self, seconds: float, *, about: IPv4Address = AT_HOME) -> list[Ether]:
        """Whatever others say from or of an address within this time."""
        heard = []
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._opened.settimeout(left)
            try:
                frame, where = self._opened.recvfrom(200)
            except TimeoutError:
                break
            read = Ether(frame)
            if where[2] != socket.PACKET_OUTGOING and read[ARP].psrc == str(about):
                heard.append(read)
        return heard


@pytest.fixture
def link(station: Namespace, network: AgentNetwork) -> Iterator[Link]:
    made = Link(station)
    yield made
    made.close()


def is_gratuitous(frame: Ether, hardware: str) -> bool:
    message = frame[ARP]
    return (frame.dst, message.psrc, message.pdst, message.hwsrc) == (
        EVERYBODY,
        str(AT_HOME),
        str(AT_HOME),
        hardware,
    )


@pytest.mark.rows("R-201", "R-203")
def test_away_and_home_again(
    agent: AgentProcess, network: AgentNetwork, station: Namespace, link: Link
) -> None:
    link.ask(AT_HOME)
    assert link.hear(0.1) == []  # not away: nobody answers for it

    away = Station(network, CARE_OF, 4)
    assert away.ask(home_address=AT_HOME).code == 0
    told = link.hear(1.3)
    assert len(told) == 3  # repeated, in case a broadcast is lost
    assert all(is_gratuitous(each, OUR_MAC) for each in told)
    link.ask(AT_HOME)
    (answer,) = link.hear(0.15)
    assert (answer.dst, answer[ARP].op, answer[ARP].hwsrc) == (THEIR_MAC, 2, OUR_MAC)
    assert (answer[ARP].psrc, answer[ARP].pdst) == (str(AT_HOME), str(NEIGHBOUR))
    neighbour = udp(station, NEIGHBOUR)
    neighbour.sendto(b"hello", (str(AT_HOME), 7001))
    assert away.raw[4].recv(2000)[40 + 8 :] == b"hello"

    # Denied: nothing changes.
    station.ip(f"address add {AT_HOME}/24 dev lan")
    at_home = udp(station, AT_HOME)
    wrong = request(AT_HOME, home_address=AT_HOME, lifetime=0, home_agent=NEIGHBOUR)
    at_home.sendto(wrong, (str(AGENT), 434))
    assert at_home.recv(200)[1] == 136
    link.hear(0.05)  # the neighbour's own kernel asked too
    link.ask(AT_HOME)
    assert [each[ARP].hwsrc for each in link.hear(0.1)] == [OUR_MAC]
    # It announces itself, and is not contradicted.
    link.ask(AT_HOME, by=AT_HOME)
    assert link.hear(0.1) == []

    at_home.sendto(request(AT_HOME, home_address=AT_HOME, lifetime=0), (str(AGENT), 434))
    assert at_home.recv(200)[1] == 0
    told = link.hear(1.3)
    assert len(told) == 3
    assert all(is_gratuitous(each, THEIR_MAC) for each in told)
    link.ask(AT_HOME)
    assert link.hear(0.1) == []
    station.ip(f"address del {AT_HOME}/24 dev lan")
    for each in (neighbour, at_home):
        each.close()
    away.close()


@pytest.mark.rows("R-203")
def test_an_end_from_afar_is_quiet_and_stops_what_was_being_said(
    agent: AgentProcess, network: AgentNetwork, link: Link
) -> None:
    away = Station(network, CARE_OF)
    away.ask(home_address=AT_HOME)
    assert away.ask(home_address=AT_HOME, lifetime=0).code == 0
    link.hear(0.1)
    link.ask(AT_HOME)
    assert link.hear(0.7) == []
    away.close()


@pytest.mark.slow
@pytest.mark.rows("R-203")
def test_a_killed_agent_draws_no_packets(network: AgentNetwork, link: Link, tmp_path: Path) -> None:
    settings = f"cat /proc/sys/net/ipv4/conf/{LINK}/rp_filter"
    before = network.agent.run("sh", "-c", settings)
    away = Station(network, CARE_OF)
    with running(network, tmp_path) as first:
        assert network.agent.run("sh", "-c", settings) == "2\n"
        away.ask(home_address=AT_HOME)
        link.hear(0.05)
        first.kill()
        link.ask(AT_HOME)
        assert link.hear(0.1) == []
    with running(network, tmp_path) as second:  # which knows of the binding
        link.ask(AT_HOME)
        assert OUR_MAC in [each[ARP].hwsrc for each in link.hear(0.1)]
        assert [each["home_address"] for each in second.dump()["bindings"]] == [str(AT_HOME)]
        away.ask(lifetime=0, home_address=AT_HOME)
        link.hear(0.1)
        link.ask(AT_HOME)
        assert link.hear(0.1) == []
        away.ask(home_address=AT_HOME)
        link.hear(0.1)
    link.ask(AT_HOME)
    assert link.hear(0.1) == []
    assert before in ("1\n", "2\n")
    away.close()


@pytest.mark.parametrize("engine", ["bpf", "tun"])
def test_inside_links_merge_nothing_that_a_socket_would_get(
    network: AgentNetwork, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Merged TCP inside IP-in-IP reaches a raw socket as one packet that is too long, its checksum unfinished.
    monkeypatch.setenv("HOMEWARD_ENGINES", engine)
    with network.agent.entered():
        if not set_merging("inside", on=True):
            pytest.skip("this kernel's veth cannot be told to merge")
        assert merges("inside")
    away = Station(network, CARE_OF)
    with running(network, tmp_path), network.agent.entered():
        assert merges("inside") is (engine != "tun")
        away.ask(home_address=AT_HOME)
        assert merges("inside") is (engine != "tun")
        away.ask(home_address=AT_HOME, flags=D_T | RequestFlags.GRE)
        assert not merges("inside")
        away.ask(lifetime=0, home_address=AT_HOME)
    away.close()
    with network.agent.entered():
        assert merges("inside")
        assert set_merging("inside", on=False)


def advertisement(opened: socket.socket) -> tuple[AgentAdvertisement, bytes]:
    """The next one on the link, and the packet that carried it."""
    while True:
        packet = opened.recv(2000)
        if packet[9] == 1 and packet[(packet[0] & 15) * 4] == 9:
            return decode_advertisement(packet[(packet[0] & 15) * 4 :]), packet


@pytest.mark.rows("R-126")
def test_it_advertises_itself_there_and_answers_solicitations(
    network: AgentNetwork, station: Namespace, tmp_path: Path
) -> None:
    with station.entered():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        asker = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    opened.bind(("lan", 0x0800))
    opened.settimeout(3.0)
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan")
    asker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    with running(network, tmp_path):
        first, packet = advertisement(opened)
        assert (packet[8], packet[12:16], packet[16:20]) == (1, AGENT.packed, b"\xe0\0\0\x01")
        assert first.sequence == 0
        assert AgentFlags.HOME_AGENT in first.flags
        assert AgentFlags.FOREIGN_AGENT not in first.flags
        assert first.registration_lifetime == 1800
        asker.sendto(encode_solicitation(), ("224.0.0.11", 0))
        second, packet = advertisement(opened)
        assert second.sequence == 1
        assert packet[16:20] == NEIGHBOUR.packed
    last, _ = advertisement(opened)
    assert last.lifetime == 0
    opened.close()
    asker.close()
