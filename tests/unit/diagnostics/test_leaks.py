# SPDX-License-Identifier: GPL-2.0-or-later
"""The leak check sees leaks: first one injected, then everything that looks almost like what may leave."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from homeward.diagnostics.captures import read
from homeward.diagnostics.evidence import Evidence, Stage
from homeward.diagnostics.leaks import Leak, find_leaks

LAPTOP, ROUTER = "02:00:00:00:01:01", "02:00:00:00:04:01"
OUTSIDE, INSIDE = "198.51.100.50", "10.1.1.50"
HOME, AGENT, GATEWAY = "10.77.0.10", "10.0.0.2", "192.0.2.1"

REQUEST = MobileIP() / MobileIPRRQ(homeaddr=HOME, haaddr=AGENT, coaddr=OUTSIDE, id=1)
ACCEPTED = MobileIP(type=3) / MobileIPRRP(code=0, homeaddr=HOME, haaddr=AGENT, id=1)
DATA = IP(src=HOME, dst="10.0.0.10") / TCP(dport=5001)


def out(packet: Packet, at: float) -> Packet:
    frame = Ether(src=LAPTOP, dst=ROUTER) / packet
    frame.time = at
    return frame


def back(packet: Packet, at: float) -> Packet:
    frame = Ether(src=ROUTER, dst=LAPTOP) / packet
    frame.time = at
    return frame


def leaks(tmp_path: Path, *frames: Packet, inside: bool = False) -> list[Leak]:
    capture = tmp_path / "switch-cable.pcap"
    wrpcap(str(capture), list(frames), linktype=1)
    stage = Stage(
        "stage",
        inside=inside,
        begin=100.0,
        end=110.0,
        access_address=INSIDE if inside else OUTSIDE,
        mobike=False,
    )
    evidence = Evidence(
        home_address=HOME,
        home_agent=AGENT,
        gateway=GATEWAY,
        gateway_name="gw.example.test",
        cable=capture,
        hardware_address=LAPTOP,
        inner_network=IPv4Network("10.9.0.0/24"),
        captures=tmp_path,
        charon_log=tmp_path / "charon.log",
        stages=(stage,),
    )
    return find_leaks(evidence, read(capture))


def test_an_injected_leak_is_seen(tmp_path: Path) -> None:
    (leak,) = leaks(
        tmp_path, *(out(IP(src=OUTSIDE, dst="10.0.0.10") / TCP(dport=5001), 104 + n) for n in range(3))
    )
    assert (leak.stage, leak.state, leak.count) == ("stage", "outside", 3)
    assert "10.0.0.10" in str(leak)
    assert leak.after == pytest.approx(4.0)


ALLOWED = {
    "ARP": ARP(psrc=OUTSIDE, pdst="198.51.100.1"),
    "DHCP": IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP() / DHCP(options=["end"]),
    "router solicitation": IP(src=OUTSIDE, dst="224.0.0.2") / ICMP(type=10),
    "the query for the gateway": IP(src=OUTSIDE, dst="198.51.100.1") / UDP(sport=5, dport=53)
    / DNS(qd=DNSQR(qname="gw.example.test.")),
    "the probe": IP(src=OUTSIDE, dst=AGENT) / UDP(sport=434, dport=434) / REQUEST,
    "IKE": IP(src=OUTSIDE, dst=GATEWAY) / UDP(sport=500, dport=500) / Raw(bytes(28)),
    "ESP": IP(src=OUTSIDE, dst=GATEWAY) / UDP(sport=4500, dport=4500) / Raw(b"\1" * 40),
}  # fmt: skip


@pytest.mark.parametrize("packet", ALLOWED.values(), ids=ALLOWED)
def test_what_may_leave_is_no_leak(tmp_path: Path, packet: Packet) -> None:
    assert leaks(tmp_path, out(packet, 101.0)) == []


FORBIDDEN = {
    "home address in ARP": ARP(psrc=HOME, pdst="198.51.100.1"),
    "data in a clear tunnel": IP(src=OUTSIDE, dst=AGENT) / DATA,
    "data as it is": DATA,
    "another name": IP(src=OUTSIDE, dst="198.51.100.1") / UDP(sport=5, dport=53) / DNS(qd=DNSQR(qname="w.test.")),
    "two questions": IP(src=OUTSIDE, dst="198.51.100.1") / UDP(sport=5, dport=53)
    / DNS(qd=[DNSQR(qname="gw.example.test."), DNSQR(qname="w.test.")]),
    "no DNS on port 53": IP(src=OUTSIDE, dst="198.51.100.1") / UDP(sport=5, dport=53) / Raw(b"tunnel"),
    "a probe to somebody else": IP(src=OUTSIDE, dst="10.0.0.3") / UDP(sport=434, dport=434) / REQUEST,
    "a probe from another address": IP(src=HOME, dst=AGENT) / UDP(sport=434, dport=434) / REQUEST,
    "IKE to somebody else": IP(src=OUTSIDE, dst="203.0.113.9") / UDP(sport=500, dport=500) / Raw(bytes(28)),
    "ping": IP(src=OUTSIDE, dst=GATEWAY) / ICMP(),
    "an ICMP error": IP(src=OUTSIDE, dst=GATEWAY) / ICMP(type=3, code=3),
    "multicast DNS": IP(src=OUTSIDE, dst="224.0.0.251") / UDP(sport=5353, dport=5353) / DNS(),
    "IPv6 solicitation": IPv6(src="fe80::1", dst="ff02::2") / ICMPv6ND_RS(),
    "IPv6 multicast report": IPv6(src="fe80::1", dst="ff02::16") / ICMPv6MLReport2(),
    "LLDP": Raw(b"x" * 20),
}  # fmt: skip


@pytest.mark.parametrize("packet", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_looks_almost_like_it_is_a_leak(tmp_path: Path, packet: Packet) -> None:
    frame = out(packet, 101.0)
    if isinstance(packet, Raw):
        frame[Ether].type = 0x88CC
    (leak,) = leaks(tmp_path, frame)
    assert leak.count == 1


def test_inside_the_clear_tunnel_opens_with_the_agents_answer_and_not_before(tmp_path: Path) -> None:
    tunnelled = IP(src=INSIDE, dst=AGENT) / DATA
    answer = IP(src=AGENT, dst=INSIDE) / UDP(sport=434, dport=434) / ACCEPTED
    assert leaks(tmp_path, back(answer, 101.0), out(tunnelled, 101.1), inside=True) == []
    (early,) = leaks(tmp_path, out(tunnelled, 100.9), back(answer, 101.0), inside=True)
    assert early.state == "undecided"
    denied = IP(src=AGENT, dst=INSIDE) / UDP(sport=434, dport=434) / ACCEPTED.copy()
    denied[MobileIPRRP].code = 131
    (unproved,) = leaks(tmp_path, back(denied, 101.0), out(tunnelled, 101.1), inside=True)
    assert unproved.state == "undecided"


def test_inside_nothing_but_the_home_addresss_packets_goes_into_the_tunnel(tmp_path: Path) -> None:
    answer = IP(src=AGENT, dst=INSIDE) / UDP(sport=434, dport=434) / ACCEPTED
    strange = IP(src=INSIDE, dst=AGENT) / IP(src="10.8.8.8", dst="10.0.0.10") / ICMP()
    plain = IP(src=INSIDE, dst="10.0.0.10") / TCP(dport=80)
    found = leaks(tmp_path, back(answer, 101.0), out(strange, 101.1), out(plain, 101.2), inside=True)
    assert [leak.state for leak in found] == ["inside", "inside"]


def test_what_others_send_and_what_lies_between_stages_is_nobodys_leak(tmp_path: Path) -> None:
    ping = IP(src="203.0.113.1", dst=OUTSIDE) / ICMP()
    assert leaks(tmp_path, back(ping, 101.0), out(IP(src=OUTSIDE, dst=GATEWAY) / ICMP(), 111.0)) == []
