# SPDX-License-Identifier: GPL-2.0-or-later
"""RFC 2003 encapsulation as a pure function: tables, properties, and scapy as the oracle for the headers."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from homeward.model.errors import TrailingOctets, Truncated, UnknownMessage, WireError
from homeward.wire.ip_in_ip import check_ipv4, decapsulate, encapsulate

CARE_OF = IPv4Address("198.51.100.7")
AGENT = IPv4Address("10.0.0.2")
HOME = "10.77.0.10"
PEER = "10.0.0.10"


def packet(payload: bytes = b"hello", **header: object) -> bytes:
    return bytes(IP(src=HOME, dst=PEER, **header) / UDP(sport=1, dport=2) / Raw(payload))


addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
packets = st.builds(
    lambda payload, tos, flags, ttl, identification: packet(
        payload, tos=tos, flags=flags, ttl=ttl, id=identification
    ),
    st.binary(max_size=1400),
    st.integers(0, 255),
    st.sampled_from(["", "DF"]),
    st.integers(1, 255),
    st.integers(0, 0xFFFF),
)


@given(packets, addresses, addresses)
def test_what_goes_in_comes_out_again(inner: bytes, source: IPv4Address, destination: IPv4Address) -> None:
    arrived = decapsulate(encapsulate(inner, source, destination))
    # A sender that marks congestion itself has it copied out and in again: nothing changes on the way.
    assert (arrived.inner, arrived.source, arrived.destination) == (inner, source, destination)


@pytest.mark.rows("R-284")
@given(packets, addresses, addresses)
def test_the_outer_header_is_what_scapy_reads(
    inner: bytes, source: IPv4Address, destination: IPv4Address
) -> None:
    outer, read_inner = IP(encapsulate(inner, source, destination)), IP(inner)
    assert (outer.src, outer.dst, outer.proto, outer.ttl) == (str(source), str(destination), 4, 64)
    assert outer.tos == read_inner.tos
    assert ("DF" in outer.flags) == ("DF" in read_inner.flags)
    assert outer.len == len(inner) + 20
    assert outer.ihl == 5
    assert bytes(outer.payload) == inner


@pytest.mark.parametrize("flags", ["MF", 0])
def test_a_fragment_of_an_inner_packet_may_be_fragmented_again(flags: object) -> None:
    outer = IP(encapsulate(packet(flags=flags), CARE_OF, AGENT))
    assert int(outer.flags) == 0


@pytest.mark.rows("R-284")
def test_options_of_the_inner_header_are_not_copied() -> None:
    inner = bytes(IP(src=HOME, dst=PEER, options=[b"\x94\x04\x00\x00"]) / UDP(sport=1, dport=2))
    assert IP(encapsulate(inner, CARE_OF, AGENT)).ihl == 5


@pytest.mark.rows("R-285")
@pytest.mark.parametrize("ttl", [1, 17, 255])
def test_the_inner_ttl_is_left_alone(ttl: int) -> None:
    inner = packet(ttl=ttl)
    assert decapsulate(encapsulate(inner, CARE_OF, AGENT)).inner == inner


NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3


@pytest.mark.parametrize(
    ("inner_mark", "outer_mark", "expected"),
    [
        (NOT_ECT, NOT_ECT, NOT_ECT),
        (NOT_ECT, ECT0, NOT_ECT),
        (NOT_ECT, ECT1, NOT_ECT),
        (NOT_ECT, CE, None),
        (ECT0, NOT_ECT, ECT0),
        (ECT0, ECT0, ECT0),
        (ECT0, ECT1, ECT1),
        (ECT0, CE, CE),
        (ECT1, NOT_ECT, ECT1),
        (ECT1, ECT0, ECT1),
        (ECT1, ECT1, ECT1),
        (ECT1, CE, CE),
        (CE, NOT_ECT, CE),
        (CE, ECT0, CE),
        (CE, ECT1, CE),
        (CE, CE, CE),
    ],
)
def test_congestion_marks_follow_the_table_of_rfc_6040(
    inner_mark: int, outer_mark: int, expected: int | None
) -> None:
    outer = bytearray(encapsulate(packet(tos=0xB8 | inner_mark), CARE_OF, AGENT))
    outer[1] = (outer[1] & 0xFC) | outer_mark
    if expected is None:
        with pytest.raises(WireError, match="congestion"):
            decapsulate(bytes(outer))
        return
    inner = decapsulate(bytes(outer)).inner
    assert inner[1] == 0xB8 | expected


@given(st.binary(max_size=200), st.integers(0, 0xFFFF), st.integers(1, 255))
def test_the_checksum_is_still_right_after_a_congestion_mark(
    payload: bytes, identification: int, ttl: int
) -> None:
    outer = bytearray(encapsulate(packet(payload, tos=ECT0, id=identification, ttl=ttl), CARE_OF, AGENT))
    outer[1] |= CE
    marked = IP(decapsulate(bytes(outer)).inner)
    written = marked.chksum
    del marked.chksum
    assert written == IP(bytes(marked)).chksum


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (b"", Truncated),
        (b"\x60" + bytes(39), UnknownMessage),
        (packet()[:19], Truncated),
        (b"\x44" + packet()[1:], Truncated),
        (b"\x4f" + packet()[1:24], Truncated),
        (packet()[:-1], Truncated),
        (packet() + b"\0", TrailingOctets),
        (packet()[:2] + b"\0\x13" + packet()[4:], Truncated),
    ],
)
def test_what_is_not_one_whole_ipv4_packet_is_refused(octets: bytes, error: type[WireError]) -> None:
    with pytest.raises(error):
        check_ipv4(octets)
    with pytest.raises(error):
        encapsulate(octets, CARE_OF, AGENT)
    with pytest.raises(error):
        decapsulate(octets)


def test_only_ip_in_ip_is_opened() -> None:
    with pytest.raises(UnknownMessage):
        decapsulate(packet())


@pytest.mark.parametrize(("at", "value"), [(6, 0x20), (7, 0x01)])
def test_a_fragment_of_the_outer_packet_is_refused(at: int, value: int) -> None:
    outer = bytearray(encapsulate(packet(), CARE_OF, AGENT))
    outer[at] |= value
    with pytest.raises(Truncated):
        decapsulate(bytes(outer))


def test_too_long_a_packet_is_refused() -> None:
    longest = packet(bytes(0xFFFF - 20 - 28))
    assert len(encapsulate(longest, CARE_OF, AGENT)) == 0xFFFF
    with pytest.raises(WireError, match="too long"):
        encapsulate(packet(bytes(0xFFFF - 20 - 27)), CARE_OF, AGENT)


@given(st.binary(max_size=120))
def test_no_octets_make_it_fail_otherwise(octets: bytes) -> None:
    try:
        arrived = decapsulate(octets)
    except WireError:
        return
    check_ipv4(arrived.inner)
