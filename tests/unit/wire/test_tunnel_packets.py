# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tunnel's entry does to packets: cuts them, keeps TCP's segments small, puts them into UDP. Scapy judges."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_RR, defragment
from scapy.packet import Packet, Raw

from homeward.model.errors import WireError
from homeward.model.nat_traversal import TunnelKind
from homeward.wire.internet_checksum import checksum
from homeward.wire.ip_fragments import fragment, is_fragment, may_be_cut
from homeward.wire.segment_size import clamp
from homeward.wire.udp_packets import encapsulate
from homeward.wire.udp_tunnel import unwrap

PEER, HOME = "10.0.0.10", "10.77.0.10"
AGENT, NAT = IPv4Address("10.0.0.2"), IPv4Address("10.1.9.9")


def long(size: int, **fields: Any) -> bytes:
    return bytes(
        IP(src=PEER, dst=HOME, id=77, **fields)
        / UDP(sport=1, dport=2)
        / Raw(bytes(n % 251 for n in range(size)))
    )


@pytest.mark.rows("R-239")
@given(size=st.integers(0, 4000), room=st.integers(28, 1500))
def test_parts_make_the_whole_again(size: int, room: int) -> None:
    packet = long(size)
    parts = fragment(packet, room)
    assert all(len(part) <= room for part in parts)
    assert all(checksum(part[:20]) == 0 for part in parts)
    assert all(len(part) % 8 == 4 for part in parts[:-1])  # a header of 20 octets, and whole blocks of eight
    whole = [IP(part) for part in parts]
    if len(parts) == 1:
        assert parts[0] == packet
    else:
        (again,) = defragment(whole)
        assert bytes(again[UDP]) == packet[20:]
        assert all(is_fragment(part) for part in parts)


@pytest.mark.rows("R-239")
def test_a_part_can_be_cut_again() -> None:
    packet = long(3000)
    parts = [again for part in fragment(packet, 1500) for again in fragment(part, 600)]
    (whole,) = defragment([IP(part) for part in parts])
    assert bytes(whole[UDP]) == packet[20:]


def test_options_that_are_not_copied_stay_in_the_first_part() -> None:
    # Record route (7) is not copied, the security option (130) is.
    options: list[Any] = [IPOption_NOP(), IPOption_RR(length=7, routers=["0.0.0.0"]), b"\x82\x04ab"]
    raw = [each if isinstance(each, bytes) else bytes(each) for each in options]
    body = b"".join(raw)
    packet = bytes(IP(src=PEER, dst=HOME, id=5, options=[]) / Raw(bytes(900)))
    header = bytearray(packet[:20] + body)
    header[0] = 0x40 | len(header) // 4
    header[2:4] = (len(header) + 900).to_bytes(2, "big")
    parts = fragment(bytes(header) + packet[20:], 600)
    assert parts[0][20 : len(header)] == body
    assert parts[1][0] == 0x46
    assert parts[1][20:24] == b"\x82\x04ab"
    assert sum(len(part) - (part[0] & 15) * 4 for part in parts) == 900


def test_what_cannot_be_cut() -> None:
    assert may_be_cut(long(5))
    assert not may_be_cut(long(5, flags="DF"))
    for packet, room in ((long(600, flags="DF"), 500), (long(600), 27), (b"", 500), (long(5)[:-1], 500)):
        with pytest.raises(WireError):
            fragment(packet, room)


def syn(options: list[tuple[str, object]], flags: str = "S", **fields: Any) -> bytes:
    return bytes(IP(src=PEER, dst=HOME, **fields) / TCP(sport=1, dport=2, flags=flags, options=options))


def segment_size_of(packet: bytes) -> object:
    return dict(IP(packet)[TCP].options).get("MSS")


def _is_right(packet: bytes) -> bool:
    read: Packet = IP(packet)
    was = read[TCP].chksum
    del read[TCP].chksum
    return bool(IP(bytes(read))[TCP].chksum == was)


@pytest.mark.rows("R-289")
@pytest.mark.parametrize("flags", ["S", "SA", "SE"])
@pytest.mark.parametrize(
    "options",
    [
        [("MSS", 1460)],
        [("NOP", None), ("MSS", 1460), ("WScale", 7)],
        [("SAckOK", b""), ("Timestamp", (1, 2)), ("MSS", 0xFFFF), ("NOP", None)],
    ],
)
def test_large_segments_are_not_asked_for(options: list[tuple[str, object]], flags: str) -> None:
    clamped = clamp(syn(options, flags), 1360)
    assert segment_size_of(clamped) == 1360
    assert _is_right(clamped)
    assert len(clamped) == len(syn(options, flags))


@given(before=st.integers(0, 0xFFFF), most=st.integers(88, 1460), ahead=st.integers(0, 3))
def test_the_checksum_follows(before: int, most: int, ahead: int) -> None:
    clamped = clamp(syn([("NOP", None)] * ahead + [("MSS", before)]), most)
    assert segment_size_of(clamped) == min(before, most)
    assert _is_right(clamped)


@pytest.mark.parametrize(
    "packet",
    [
        syn([("MSS", 1360)]),
        syn([("MSS", 1460)], "A"),
        syn([]),
        syn([("MSS", 1460)], frag=1),
        syn([("MSS", 1460)], flags="S", proto=17),
        syn([("MSS", 1460)])[:-3],
        syn([("MSS", 1460)])[:30],
        syn([])[:-8] + bytes([0x70, 2]) + bytes(6) + b"\x05\x00\x02\x04",
        long(40),
    ],
)
def test_other_packets_stay_as_they_are(packet: bytes) -> None:
    assert clamp(packet, 1360) == packet


@given(st.binary(min_size=20, max_size=80))
def test_no_octets_upset_it(octets: bytes) -> None:
    packet = b"\x45" + octets[1:9] + b"\x06" + octets[10:]
    assert len(clamp(packet, 1360)) == len(packet)


@pytest.mark.rows("R-232", "R-284")
@pytest.mark.parametrize("kind", [TunnelKind.IP_IN_IP, TunnelKind.GRE])
@pytest.mark.parametrize(("flags", "tos"), [("DF", 0xB8), (0, 0)])
def test_a_packet_in_udp(kind: TunnelKind, flags: object, tos: int) -> None:
    inner = long(33, flags=flags, tos=tos)
    outer = IP(encapsulate(inner, (AGENT, 434), (NAT, 6000), kind=kind))
    assert (outer.src, outer.dst, outer.proto, outer.tos, outer.ttl) == (str(AGENT), str(NAT), 17, tos, 64)
    assert outer.flags == flags
    assert (outer[UDP].sport, outer[UDP].dport) == (434, 6000)
    assert unwrap(bytes(outer[UDP].payload), kind) == inner
    was = outer[UDP].chksum
    del outer[UDP].chksum
    assert IP(bytes(outer))[UDP].chksum == was


def test_a_sum_of_zero_is_said_as_all_ones() -> None:
    inner = long(2)[:28] + bytes(2)
    missing = encapsulate(inner, (AGENT, 434), (NAT, 6000))[26:28]
    assert encapsulate(inner[:28] + missing, (AGENT, 434), (NAT, 6000))[26:28] == b"\xff\xff"


def test_minimal_encapsulation_is_not_carried_in_udp() -> None:
    with pytest.raises(WireError):
        encapsulate(long(2), (AGENT, 434), (NAT, 6000), kind=TunnelKind.MINIMAL)
