# SPDX-License-Identifier: GPL-2.0-or-later
"""What is joined comes apart again as it was, and nothing is joined that could not: scapy is the judge."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw

from homeward.adapters.tunnel_device.offload import HEADER, cut, joined, runs
from homeward.agents.agent_events import Forward
from homeward.agents.tunnels import Dropped, TunnelTable
from homeward.model.encapsulation import Encapsulation
from homeward.wire.internet_checksum import checksum

ENDS: dict[str, Any] = {"src": "10.0.1.10", "dst": "10.77.0.10"}
TIMES = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]

datas = st.binary(min_size=1, max_size=40)
numbers = st.integers(0, 0xFFFFFFFF)
identifications = st.integers(0, 0xFFFF)
options = st.sampled_from([[], TIMES])


def segment(
    data: bytes, *, seq: int = 1, flags: str = "A", number: int = 0, options: Any = (), **changed: Any
) -> bytes:
    ip: dict[str, Any] = {"id": number, "flags": "DF", **ENDS, **changed}
    tcp: dict[str, Any] = {"sport": 5, "dport": 6, "ack": 9, "window": 77, **ip.pop("tcp", {})}
    return bytes(IP(**ip) / TCP(seq=seq & 0xFFFFFFFF, flags=flags, options=list(options), **tcp) / Raw(data))


def stream(data: bytes, size: int, *, seq: int, number: int, options: Any, last: str = "A") -> list[bytes]:
    found: list[bytes] = []
    for at in range(0, len(data), size):
        flags = last if at + size >= len(data) else "A"
        found.append(
            segment(
                data[at : at + size],
                seq=seq + at,
                flags=flags,
                number=(number + len(found)) & 0xFFFF,
                options=options,
            )
        )
    return found


@given(st.binary(min_size=1, max_size=600), st.integers(1, 80), numbers, identifications, options)
def test_cut_makes_what_scapy_makes(data: bytes, size: int, seq: int, number: int, options: Any) -> None:
    whole = segment(data, seq=seq, number=number, flags="PA", options=options)
    assert list(cut(whole, size)) == stream(data, size, seq=seq, number=number, options=options, last="PA")


@given(
    st.binary(min_size=1, max_size=600),
    st.integers(1, 80),
    st.sampled_from(["A", "PA", "FA", "CA", "EA", "CPA"]),
)
def test_flags_stand_where_they_belong(data: bytes, size: int, flags: str) -> None:
    parts = [IP(part)[TCP].flags for part in cut(segment(data, flags=flags), size)]
    for flag in flags:
        where = [flag in str(part) for part in parts]
        expected = {"P": [False] * (len(parts) - 1) + [True], "C": [True] + [False] * (len(parts) - 1)}
        expected["F"] = expected["P"]
        assert where == expected.get(flag, [True] * len(parts))


@given(st.binary(min_size=2, max_size=1200), st.integers(1, 60), numbers, identifications, options)
def test_a_stream_is_joined_and_comes_apart_as_it_was(
    data: bytes, size: int, seq: int, number: int, options: Any
) -> None:
    sent = stream(data, size, seq=seq, number=number, options=options, last="PA")
    back = []
    for run in runs(sent):
        assert len(run) > 1 or len(sent) % 64 == 1
        if len(run) == 1:
            back += run
            continue
        header, *parts = joined(run)
        packet = b"".join(parts)
        assert len(header) == HEADER
        assert IP(packet).len == len(packet)
        assert checksum(packet[:20]) == 0
        back += cut(packet, int.from_bytes(header[4:6], "little"))
    assert back == sent


@given(
    st.lists(
        st.tuples(datas, st.integers(0, 3), st.sampled_from(["A", "PA", "FA", "SA", "RA", "UA"])), max_size=12
    )
)
def test_no_packet_is_lost_or_overtaken(parts: list[tuple[bytes, int, str]]) -> None:
    sent, seq = [], 1
    for data, gap, flags in parts:
        sent.append(segment(data, seq=seq + (gap == 3), flags=flags))
        seq += len(data)
    assert [packet for run in runs(sent) for packet in run] == sent
    for run in runs(sent):
        if len(run) > 1:
            assert all(IP(each)[TCP].flags in ("A", "PA") for each in run)
            assert not any("P" in str(IP(each)[TCP].flags) for each in run[:-1])
            sizes = [len(IP(each)[TCP].payload) for each in run]
            assert set(sizes[:-1]) == {sizes[0]}
            assert sizes[-1] <= sizes[0]


DIFFERENT = (
    {"tos": 1}, {"ttl": 63}, {"dst": "10.77.0.11"}, {"src": "10.0.1.11"}, {"flags": 0},
    {"tcp": {"sport": 4}}, {"tcp": {"dport": 4}}, {"tcp": {"ack": 10}}, {"tcp": {"window": 78}},
    {"tcp": {"urgptr": 1}}, {"tcp": {"reserved": 1}},
)  # fmt: skip


@given(datas, st.sampled_from(DIFFERENT), options)
def test_another_header_is_another_run(data: bytes, changed: dict[str, Any], options: Any) -> None:
    one = segment(data, seq=1, options=options)
    if "flags" not in changed:
        other = segment(data, seq=1 + len(data), options=options, **changed)
    else:
        packet: Packet = IP(segment(data, seq=1 + len(data), options=options))
        packet.flags = 0
        del packet.chksum
        other = bytes(packet)
    assert list(runs([one, other])) == [[one], [other]]


@given(datas, st.integers(0, 10_000), st.integers(1, 255))
def test_what_is_damaged_stays_alone(data: bytes, at: int, by: int) -> None:
    one, two = stream(data + data, len(data), seq=1, number=5, options=[])
    damaged = bytearray(two)
    damaged[at % len(two)] ^= by
    assert list(runs([one, bytes(damaged)])) == [[one], [bytes(damaged)]]


@given(datas)
def test_options_of_ip_and_other_protocols_stay_alone(data: bytes) -> None:
    datagram = bytes(IP(flags="DF", **ENDS) / UDP() / Raw(data))
    optioned = bytes(IP(flags="DF", options=[b"\x01"], **ENDS) / TCP(flags="A") / Raw(data))
    acknowledgement = segment(b"")
    assert all(len(run) == 1 for run in runs([datagram] * 2 + [optioned] * 2 + [acknowledgement] * 2))


@given(st.binary(max_size=80), st.integers(0, 90))
def test_anything_may_come(octets: bytes, size: int) -> None:
    list(cut(octets, size))
    assert list(runs([octets, octets])) in ([[octets], [octets]], [[octets, octets]])


@given(
    st.binary(min_size=1, max_size=4000),
    st.sampled_from([500, 1200, 1460, 1500]),
    st.sampled_from(Encapsulation),
    st.booleans(),
    st.sampled_from(["A", "S"]),
)
def test_segments_are_judged_as_each_alone(
    data: bytes, size: int, kind: Encapsulation, bound: bool, flags: str
) -> None:
    table = TunnelTable(IPv4Address("10.0.0.2"))
    if bound:
        here, there = IPv4Address("10.77.0.10"), IPv4Address("10.1.1.10")
        table.apply(Forward(here, there, encapsulation=kind, reverse_tunnel=True))
    segments = list(cut(segment(data, flags=flags), size))
    assert list(table.outbound_segments(segments, 1.0)) == [table.outbound(each, 1.0) for each in segments]


HERE, THERE, ELSEWHERE, AGENT = map(IPv4Address, ("10.77.0.10", "10.1.1.10", "10.1.1.11", "10.0.0.2"))


def seldom(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 6 + list(others))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A tunnel packet, mostly as it should be; or with something in it that rules go by, or cut off, or too long."""
    transport = TCP(flags=draw(seldom("A", "S"))) / Raw(draw(datas))
    length = {} if draw(seldom(True, False)) else {"len": 41}
    inner = IP(src=draw(seldom(str(HERE), "10.77.0.11")), dst="10.0.1.10", flags="DF", **length) / transport
    tos, source = draw(seldom(0, 1, 3)), draw(seldom(str(THERE), str(ELSEWHERE)))
    packet = bytearray(bytes(IP(src=source, dst=str(AGENT), flags="DF", proto=4, tos=tos) / inner))
    match draw(seldom("", "changed", "short", "long", "told wrongly")):
        case "changed":
            packet[draw(st.integers(0, 59))] = draw(st.integers(0, 255))
        case "short":
            del packet[draw(st.integers(0, len(packet) - 1)) :]
        case "long":
            packet += b"x"
        case "told wrongly":
            packet[3] ^= 1
    return bytes(packet)


@given(
    st.lists(damaged(), min_size=2, max_size=12),
    seldom(Encapsulation.IP_IN_IP, Encapsulation.MINIMAL, Encapsulation.GRE),
    seldom(True, False),
    seldom(None, ELSEWHERE),
)
def test_tunnel_packets_of_one_moment_are_judged_as_each_alone(
    packets: list[bytes], kind: Encapsulation, reverse: bool, moves_to: IPv4Address | None
) -> None:
    table = TunnelTable(AGENT)
    table.apply(Forward(HERE, THERE, encapsulation=kind, reverse_tunnel=reverse))
    if moves_to is not None:
        table.apply(Forward(HERE, moves_to, reverse_tunnel=True), 1.0)
    each_alone = [table.inbound(packet, 1.5) for packet in packets]
    assert list(table.inbound_all(packets, 1.5)) == each_alone


def test_one_of_many_that_tells_its_length_wrongly_is_refused() -> None:
    table = TunnelTable(AGENT)
    table.apply(Forward(HERE, THERE, reverse_tunnel=True))
    inner = IP(src=str(HERE), dst="10.0.1.10", flags="DF") / TCP(flags="A") / Raw(b"data")
    right = bytes(IP(src=str(THERE), dst=str(AGENT), flags="DF", proto=4) / inner)
    wrong = right[:3] + bytes([right[3] ^ 1]) + right[4:]
    found = list(table.inbound_all([right, right, wrong, right], 1.0))
    assert found == [bytes(inner), bytes(inner), Dropped.MALFORMED, bytes(inner)]
