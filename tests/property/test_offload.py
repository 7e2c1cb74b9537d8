# SPDX-License-Identifier: GPL-2.0-or-later
"""What is joined comes apart again as it was, and nothing is joined that could not: scapy is the judge."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw

from homeward.adapters.tunnel_device.offload import HEADER, cut, joined, runs
from homeward.wire.internet_checksum import checksum

ENDS = {"src": "10.0.1.10", "dst": "10.77.0.10"}
TIMES = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]

datas = st.binary(min_size=1, max_size=40)
numbers = st.integers(0, 0xFFFFFFFF)
identifications = st.integers(0, 0xFFFF)
options = st.sampled_from([[], TIMES])


def segment(
    data: bytes, *, seq: int = 1, flags: str = "A", id: int = 0, options: object = (), **changed: object
) -> bytes:
    ip = {
        "id": id,
        "flags": "DF",
        **ENDS,
        **{k: v for k, v in changed.items() if k in ("tos", "ttl", "src", "dst")},
    }
    tcp = {"sport": 5, "dport": 6, "ack": 9, "window": 77, **changed.get("tcp", {})}  # type: ignore[dict-item]
    return bytes(IP(**ip) / TCP(seq=seq & 0xFFFFFFFF, flags=flags, options=list(options), **tcp) / Raw(data))  # type: ignore[call-overload]


def stream(data: bytes, size: int, *, seq: int, id: int, options: object, last: str = "A") -> list[bytes]:
    found = []
    for at in range(0, len(data), size):
        flags = last if at + size >= len(data) else "A"
        found.append(
            segment(
                data[at : at + size],
                seq=seq + at,
                flags=flags,
                id=(id + len(found)) & 0xFFFF,
                options=options,
            )
        )
    return found


def is_right(packet: bytes) -> bool:
    """Both checksums, by scapy's own arithmetic."""
    told = IP(packet)
    made = IP(packet)
    del made.chksum, made[TCP].chksum
    again = IP(bytes(made))
    return (told.chksum, told[TCP].chksum) == (again.chksum, again[TCP].chksum)


@given(st.binary(min_size=1, max_size=600), st.integers(1, 80), numbers, identifications, options)
def test_cut_makes_what_scapy_makes(data: bytes, size: int, seq: int, id: int, options: object) -> None:
    whole = segment(data, seq=seq, id=id, flags="PA", options=options)
    assert list(cut(whole, size)) == stream(data, size, seq=seq, id=id, options=options, last="PA")


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
    data: bytes, size: int, seq: int, id: int, options: object
) -> None:
    sent = stream(data, size, seq=seq, id=id, options=options, last="PA")
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
def test_another_header_is_another_run(data: bytes, changed: dict[str, object], options: object) -> None:
    one, other = segment(data, seq=1, options=options), None
    ip_flags = changed.get("flags")
    if ip_flags is None:
        other = segment(data, seq=1 + len(data), options=options, **changed)
    else:
        packet: Packet = IP(segment(data, seq=1 + len(data), options=options))
        packet.flags = 0
        del packet.chksum
        other = bytes(packet)
    assert list(runs([one, other])) == [[one], [other]]


@given(datas, st.integers(0, 10_000), st.integers(1, 255))
def test_what_is_damaged_stays_alone(data: bytes, at: int, by: int) -> None:
    one, two = stream(data + data, len(data), seq=1, id=5, options=[])
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
    assume(True)
    list(cut(octets, size))
    assert list(runs([octets, octets])) in ([[octets], [octets]], [[octets, octets]])
