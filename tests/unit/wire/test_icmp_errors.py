# SPDX-License-Identifier: GPL-2.0-or-later
"""The error for a packet that is too long for the tunnel, read by scapy and checked against RFC 1071's own example."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, IPerror
from scapy.packet import Raw

from homeward.model.errors import Truncated
from homeward.wire.icmp_errors import checksum, fragmentation_needed

ROUTER = IPv4Address("10.0.0.2")


def segment(octets: int) -> bytes:
    return bytes(
        IP(src="10.77.0.10", dst="10.0.0.10", flags="DF")
        / TCP(sport=5, dport=80, seq=77)
        / Raw(bytes(octets))
    )


@given(st.integers(0, 1460), st.integers(68, 1500))
def test_it_is_what_a_router_says(octets: int, mtu: int) -> None:
    said = IP(fragmentation_needed(segment(octets), mtu, ROUTER))
    assert (said.src, said.dst, said.ttl, said.len) == (str(ROUTER), "10.77.0.10", 64, len(bytes(said)))
    assert (said[ICMP].type, said[ICMP].code, said[ICMP].nexthopmtu) == (3, 4, mtu)
    assert (said[IPerror].dst, said[ICMP].payload.payload.seq) == ("10.0.0.10", 77)
    rebuilt = said.copy()
    del rebuilt.chksum, rebuilt[ICMP].chksum
    assert bytes(IP(bytes(rebuilt)))[:28] == bytes(said)[:28]


def test_it_quotes_no_more_than_fits_into_576_octets() -> None:
    assert len(fragmentation_needed(segment(1400), 1400, ROUTER)) == 576


def test_it_answers_nothing_but_ipv4() -> None:
    with pytest.raises(Truncated):
        fragmentation_needed(b"\x45", 1400, ROUTER)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (bytes.fromhex("0001f203f4f5f6f7"), 0xFFFF ^ 0xDDF2),  # RFC 1071 section 3
        (b"", 0xFFFF),
        (b"\xff\xff", 0),
        (b"\x12", 0xFFFF ^ 0x1200),
    ],
)
def test_the_checksum_of_rfc_1071(octets: bytes, expected: int) -> None:
    assert checksum(octets) == expected
