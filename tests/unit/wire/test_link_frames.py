# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that we make ourselves, held against scapy's; and ARP."""

from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from homeward.model.errors import Truncated, UnknownMessage, WireError
from homeward.wire import arp, link_frames

HOME, AGENT = IPv4Address("10.77.0.10"), IPv4Address("10.1.3.1")
OURS, THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
ports = st.integers(0, 0xFFFF)


@pytest.mark.rows("R-105")
@given(addresses, addresses, ports, ports, st.binary(max_size=300), st.integers(1, 255))
def test_a_datagram_is_what_scapy_makes_of_it(
    source: IPv4Address, destination: IPv4Address, sport: int, dport: int, octets: bytes, ttl: int
) -> None:
    udp = UDP(sport=sport, dport=dport) / Raw(octets)
    theirs = bytes(IP(src=str(source), dst=str(destination), ttl=ttl, flags="DF", id=0) / udp)
    assert link_frames.udp((source, sport), (destination, dport), octets, ttl=ttl) == theirs


def test_a_datagram_never_says_that_it_has_no_checksum() -> None:
    for last in range(0x10000):
        packet = link_frames.udp((HOME, 434), (AGENT, 434), last.to_bytes(2, "big"), ttl=255)
        assert packet[26:28] != b"\0\0"


@pytest.mark.parametrize("octets", [65508, 70000])
def test_what_does_not_fit_is_refused(octets: int) -> None:
    with pytest.raises(WireError):
        link_frames.udp((HOME, 1), (AGENT, 434), bytes(octets), ttl=1)


@pytest.mark.parametrize(
    ("address", "hardware"),
    [
        ("224.0.0.2", "01005e000002"),
        ("224.0.0.11", "01005e00000b"),
        ("239.255.255.250", "01005e7ffffa"),
        ("255.255.255.255", "ffffffffffff"),
    ],
)
def test_a_group_has_an_ethernet_address(address: str, hardware: str) -> None:
    assert link_frames.hardware_group(IPv4Address(address)).hex() == hardware


def test_one_receiver_has_none_that_follows_from_its_address() -> None:
    with pytest.raises(WireError):
        link_frames.hardware_group(AGENT)


def test_an_announcement_and_an_answer_are_what_scapy_makes_of_them() -> None:
    announced = arp.gratuitous(HOME, OURS)
    theirs = ARP(op=1, hwsrc=OURS.hex(":"), psrc=str(HOME), pdst=str(HOME), hwdst="00:00:00:00:00:00")
    assert arp.encode(announced) == bytes(theirs)
    question = arp.ArpMessage(THEIRS, AGENT, HOME)
    answer = ARP(op=2, hwsrc=OURS.hex(":"), psrc=str(HOME), hwdst=THEIRS.hex(":"), pdst=str(AGENT))
    assert arp.encode(question.answer(OURS)) == bytes(answer)
    frame = Ether(dst=THEIRS.hex(":"), src=OURS.hex(":"), type=0x0806) / answer
    assert link_frames.ethernet(THEIRS, OURS, arp.ETHERTYPE, bytes(answer)) == bytes(frame)


@given(addresses, addresses, st.booleans(), st.binary(max_size=30))
def test_arp_comes_back_as_it_went_whatever_pads_the_frame(
    sender: IPv4Address, target: IPv4Address, is_reply: bool, padding: bytes
) -> None:
    message = arp.ArpMessage(OURS, sender, target, THEIRS, is_reply)
    assert arp.decode(arp.encode(message) + padding) == message


def test_other_messages_than_those_of_ethernet_and_ipv4_are_refused() -> None:
    right = arp.encode(arp.gratuitous(HOME, OURS))
    for at, octet in ((1, 6), (3, 1), (4, 8), (5, 16), (7, 3), (7, 0)):
        with pytest.raises(UnknownMessage):
            arp.decode(right[:at] + bytes([octet]) + right[at + 1 :])
    for length in range(28):
        with pytest.raises(Truncated):
            arp.decode(right[:length])


@given(st.binary(max_size=60))
def test_whatever_comes_as_arp_is_read_or_refused(octets: bytes) -> None:
    with suppress(WireError):
        assert arp.encode(arp.decode(octets)) == octets[:28]
