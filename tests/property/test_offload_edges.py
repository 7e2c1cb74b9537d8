# SPDX-License-Identifier: GPL-2.0-or-later
"""What is joined and cut at the edges: odd headers, sums at their limits, the longest packets, data behind data."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.packet import Raw

from homeward.adapters.tunnel_device.offload import cut, joined, read_packets, runs
from homeward.wire.internet_checksum import checksum, put
from tests.property.test_offload import ENDS, options, segment, stream

LONGEST = 0xFFFF
FRONT = struct.Struct("=BBHHHH")


def read(front: tuple[int, int, int, int, int, int], packet: bytes) -> list[bytes]:
    """What comes out of a device that says this of the packet."""
    ours, its = os.pipe()
    try:
        os.write(its, FRONT.pack(*front) + packet)
        return list(read_packets(ours))
    finally:
        os.close(ours)
        os.close(its)


@given(st.binary(min_size=20, max_size=90), st.integers(0, 15), st.integers(0, 15), st.integers(1, 90))
def test_a_header_that_says_a_wrong_length_is_no_packet(
    octets: bytes, words: int, tcp_words: int, size: int
) -> None:
    """A program with the right to send frames writes what it likes."""
    packet = bytearray(octets)
    packet[0] = 0x40 | words
    if words * 4 + 12 < len(packet):
        packet[words * 4 + 12] = tcp_words << 4
    parts = list(cut(bytes(packet), size))
    data = (words + tcp_words) * 4
    if words < 5 or tcp_words < 5 or data >= len(packet):
        assert parts == []
    else:
        assert b"".join(part[data:] for part in parts) == bytes(packet[data:])


@given(
    st.integers(0, 0xFF),
    st.integers(0, 0xFF),
    *[st.integers(0, 0xFFFF)] * 4,
    st.binary(max_size=60),
)
def test_whatever_stands_in_front_a_packet_comes_of_it_or_none(
    flags: int, kind: int, header: int, size: int, start: int, place: int, octets: bytes
) -> None:
    parts = read((flags, kind, header, size, start, place), octets)
    if kind & 0x7F != 1:
        assert [len(part) for part in parts] == [len(octets)]


def with_sum(wanted: int, make: Any) -> bytes:
    """The packet that `make` makes of two octets, with those that give this checksum in its transport's header."""
    free = bytes(2)
    made = make(free)
    place = 26 if made[9] == 17 else 36
    now = int.from_bytes(made[place : place + 2], "big")
    # The two octets stand at an even place, so that they count as they are.
    by = (now - wanted) % 0xFFFF
    return bytes(make(by.to_bytes(2, "big")))


def test_a_sum_that_comes_out_even_is_written_as_tcp_and_as_udp_have_it() -> None:
    """Zero in TCP; in UDP zero would say that there is no checksum (RFC 768)."""
    tcp = with_sum(0, lambda free: segment(free))
    assert tcp[36:38] in (b"\0\0", b"\xff\xff")
    (again,) = cut(tcp, 100)
    assert again[36:38] == b"\0\0"
    udp = with_sum(0xFFFF, lambda free: bytes(IP(**ENDS) / UDP(sport=5, dport=6) / Raw(free)))
    pseudo = sum(struct.unpack("!4H", udp[12:20])) + 17 + len(udp) - 20
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    unfinished = udp[:26] + pseudo.to_bytes(2, "big") + udp[28:]
    (finished,) = read((1, 0, 0, 0, 20, 6), unfinished)
    assert finished[26:28] == b"\xff\xff"
    pseudo = sum(struct.unpack("!4H", tcp[12:20])) + 6 + len(tcp) - 20
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    (finished,) = read((1, 0, 0, 0, 20, 16), tcp[:36] + pseudo.to_bytes(2, "big") + tcp[38:])
    assert finished[36:38] == b"\0\0"


def test_sums_of_the_ip_header_come_out_even_too() -> None:
    base = segment(b"data", number=0)
    (first,) = cut(base, 100)
    number = int.from_bytes(first[10:12], "big")
    (even,) = cut(segment(b"data", number=number), 100)
    assert checksum(even[:20]) == 0
    assert even[10:12] == b"\0\0"


@given(st.integers(1, 0xFFFE), st.sampled_from([2, 4, 8]), st.sampled_from([22, 28, 34]))
def test_what_is_wrong_in_one_header_does_not_make_up_for_the_other(by: int, at: int, there: int) -> None:
    """Joined, both would be made right, and what was damaged would be healed."""
    one, two = stream(b"x" * 40, 20, seq=1, number=5, options=[])
    pair = []
    for each in (one, two):
        octets = bytearray(each)
        for place, change in ((at, by), (there, -by)):
            word = (int.from_bytes(octets[place : place + 2], "big") + change) % 0xFFFF
            octets[place : place + 2] = word.to_bytes(2, "big")
        pair.append(bytes(octets))
    wrong = [each for each in pair if checksum(each[:20])]
    for run in runs(pair):
        assert len(run) == 1 or not wrong


@given(st.integers(0, 3), st.sampled_from([1, 2, 3]))
def test_congestion_marks_stay_with_their_own_segments(first: int, second: int) -> None:
    one = segment(b"a" * 9, seq=1, tos=first)
    two = segment(b"b" * 9, seq=10, tos=(first + second) & 3)
    assert list(runs([one, two])) == [[one], [two]]


@pytest.mark.parametrize("flags", ["AE", "AC", "AEC", "AU", "AF", "PAE"])
def test_flags_that_are_told_once_are_not_joined(flags: str) -> None:
    one, two, three = (segment(b"a" * 9, seq=seq, flags="A") for seq in (1, 10, 19))
    odd = segment(b"a" * 9, seq=10, flags=flags)
    assert list(runs([one, odd, three])) == [[one], [odd], [three]]
    assert list(runs([one, two, three])) == [[one, two, three]]


@given(st.integers(900, 1460), options)
def test_no_more_is_joined_than_a_packet_can_have(size: int, chosen: Any) -> None:
    sent = stream(bytes(size) * 80, size, seq=1, number=0, options=chosen)
    back: list[bytes] = []
    for run in runs(sent):
        made = b"".join(joined(run)[1:]) if len(run) > 1 else run[0]
        assert len(made) <= LONGEST
        assert len(run) <= 64
        back += run
    assert back == sent


def test_the_longest_that_there_is_can_be_joined() -> None:
    data = LONGEST - 40
    sent = stream(bytes(data + 1500), 1285, seq=1, number=0, options=[])
    lengths = [sum(len(each) - 40 for each in run) + 40 for run in runs(sent)]
    assert max(lengths) <= LONGEST
    assert max(lengths) + 1285 > LONGEST
    exactly = stream(bytes(data), 1365, seq=1, number=0, options=[])
    assert [len(run) for run in runs(exactly)] == [len(exactly)]
    assert sum(map(len, joined(exactly)[1:])) == LONGEST


def test_acknowledgements_between_data_stay_where_they_were() -> None:
    data = stream(bytes(60), 20, seq=1, number=0, options=[])
    acknowledgement = segment(b"", seq=41)
    other = segment(b"x" * 20, seq=1, tcp={"sport": 9})
    for sent in ([data[0], acknowledgement, data[1]], [data[0], other, data[1], data[2]], [data[1], data[0]]):
        assert [each for run in runs(sent) for each in run] == sent
        assert all(len(run) == 1 or run == data[1:] for run in runs(sent))


def test_nothing_and_next_to_nothing_are_left_alone() -> None:
    empty = segment(b"")
    assert list(runs([b"", b"\x45", empty])) == [[b""], [b"\x45"], [empty]]
    assert read((0, 0, 0, 0, 0, 0), b"") == [b""]
    assert read((1, 1, 0, 100, 20, 16), b"") == []


def test_options_of_ip_are_on_every_segment_as_the_kernel_puts_them() -> None:
    packet = bytes(
        IP(flags="DF", options=[IPOption_NOP()] * 4, **ENDS) / TCP(flags="PA", seq=1) / Raw(bytes(50))
    )
    parts = list(cut(packet, 20))
    assert [part[20:24] for part in parts] == [b"\1\1\1\1"] * 3
    assert [len(part) for part in parts] == [64, 64, 54]
    for part in parts:
        told = IP(part)
        del told.chksum, told[TCP].chksum
        assert bytes(told) == part


def test_fragments_are_not_joined() -> None:
    whole = segment(b"a" * 9)
    for flags in (b"\x20\0", b"\x60\0", b"\0\1", b"\x40\1", b"\0\0", b"\xc0\0"):
        one, two = (
            put((each := segment(b"a" * 9, seq=seq))[:6] + flags + each[8:20], 10) + each[20:]
            for seq in (1, 10)
        )
        assert len(one) == len(whole)
        assert list(runs([one, two])) == [[one], [two]], flags
