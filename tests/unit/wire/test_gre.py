# SPDX-License-Identifier: GPL-2.0-or-later
"""GRE (RFC 2784) and minimal encapsulation (RFC 2004) as pure functions, with scapy as the oracle."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import GRE
from scapy.packet import Raw, bind_layers

from homeward.model.errors import BadChecksum, TrailingOctets, Truncated, UnknownMessage, WireError
from homeward.wire import gre
from homeward.wire.internet_checksum import put
from tests.unit.wire.test_ip_in_ip import addresses, packet, packets

CARE_OF = IPv4Address("198.51.100.7")
AGENT = IPv4Address("10.0.0.2")
PAIR = {"source": CARE_OF, "destination": AGENT}

bind_layers(GRE, IP, proto=0x0800)


def outer(payload: bytes, **header: object) -> bytes:
    return bytes(IP(src=str(CARE_OF), dst=str(AGENT), proto=47, **header) / Raw(payload))


@pytest.mark.rows("R-291")
@settings(max_examples=50)
@given(packets, addresses, addresses)
def test_what_goes_in_comes_out_again(inner: bytes, source: IPv4Address, destination: IPv4Address) -> None:
    for with_checksum in (False, True):
        arrived = gre.decapsulate(gre.encapsulate(inner, source, destination, with_checksum=with_checksum))
        assert (arrived.inner, arrived.source, arrived.destination) == (inner, source, destination)


@pytest.mark.rows("R-284", "R-291")
@settings(max_examples=50)
@given(packets, addresses, addresses)
def test_the_headers_are_what_scapy_reads(
    inner: bytes, source: IPv4Address, destination: IPv4Address
) -> None:
    for with_checksum in (False, True):
        octets = gre.encapsulate(inner, source, destination, with_checksum=with_checksum)
        read, read_inner = IP(octets), IP(inner)
        assert (read.src, read.dst, read.proto, read.ttl) == (str(source), str(destination), 47, 64)
        assert (read.tos, read.len, "DF" in read.flags) == (
            read_inner.tos,
            len(octets),
            "DF" in read_inner.flags,
        )
        header = read[GRE]
        assert (header.chksum_present, header.version, header.proto) == (with_checksum, 0, 0x0800)
        assert bytes(header.payload) == inner
        if with_checksum:
            rebuilt = GRE(chksum_present=1, proto=0x0800) / Raw(inner)
            assert bytes(rebuilt) == bytes(read.payload)


def test_overhead() -> None:
    assert len(gre.encapsulate(packet(), **PAIR)) == len(packet()) + gre.OVERHEAD
    assert len(gre.encapsulate(packet(), with_checksum=True, **PAIR)) == len(packet()) + gre.OVERHEAD + 4


@pytest.mark.rows("R-291")
@pytest.mark.parametrize("bit", range(1, 6))
def test_fields_of_rfc_1701_are_dropped(bit: int) -> None:
    flags = (0x8000 >> bit).to_bytes(2, "big")
    with pytest.raises(UnknownMessage, match="1701"):
        gre.unwrap(flags + b"\x08\x00" + packet())


@pytest.mark.rows("R-291")
@pytest.mark.parametrize("bit", range(6, 13))
def test_other_reserved_bits_are_ignored(bit: int) -> None:
    flags = (0x8000 >> bit).to_bytes(2, "big")
    assert gre.unwrap(flags + b"\x08\x00" + packet()) == packet()


@pytest.mark.rows("R-291")
@pytest.mark.parametrize("version", range(1, 8))
def test_other_versions_are_dropped(version: int) -> None:
    with pytest.raises(UnknownMessage, match="version"):
        gre.unwrap(bytes([0, version, 8, 0]) + packet())


@pytest.mark.parametrize("protocol", [0x0801, 0x86DD, 0x6558, 0])
def test_other_protocols_are_dropped(protocol: int) -> None:
    with pytest.raises(UnknownMessage, match="not IPv4"):
        gre.unwrap(b"\0\0" + protocol.to_bytes(2, "big") + packet())


@pytest.mark.rows("R-291")
def test_the_checksum_is_verified_where_there_is_one() -> None:
    octets = gre.wrap(packet(), with_checksum=True)
    assert gre.unwrap(octets) == packet()
    for at in (4, 5, 8, len(octets) - 1):
        changed = bytearray(octets)
        changed[at] ^= 0x10
        with pytest.raises(BadChecksum):
            gre.unwrap(bytes(changed))
    # Its reserved half is ignored, but counts in the sum.
    assert gre.unwrap(put(octets[:6] + b"\xbe\xef" + octets[8:], 4)) == packet()


@pytest.mark.parametrize(
    ("error", "octets"),
    [
        (Truncated, b""),
        (Truncated, b"\0\0\x08"),
        (Truncated, b"\x80\0\x08\0\0\0"),
        (Truncated, b"\0\0\x08\0"),
        (Truncated, b"\0\0\x08\0" + packet()[:-1]),
        (TrailingOctets, b"\0\0\x08\0" + packet() + b"\0"),
        (UnknownMessage, b"\0\0\x08\0" + b"\x60" + bytes(39)),
    ],
)
def test_refused(error: type[WireError], octets: bytes) -> None:
    with pytest.raises(WireError) as caught:
        gre.unwrap(octets)
    assert caught.type is error
    with pytest.raises(WireError):
        gre.decapsulate(outer(octets))


def test_what_is_not_gre_or_a_fragment_of_it() -> None:
    with pytest.raises(UnknownMessage, match="17 is not GRE"):
        gre.decapsulate(bytes(IP() / UDP()))
    with pytest.raises(Truncated, match="fragment of GRE"):
        gre.decapsulate(outer(gre.wrap(packet()), flags="MF"))


def test_too_long() -> None:
    whole = packet(bytes(65_535 - 28 - 23))
    with pytest.raises(WireError, match="too long"):
        gre.encapsulate(whole, **PAIR)
    assert len(gre.encapsulate(packet(bytes(65_535 - 28 - 24)), **PAIR)) == 65_535


def test_congestion_marks() -> None:
    aware = gre.wrap(packet(tos=2))
    assert gre.decapsulate(outer(aware, tos=3)).inner[1] == 3
    with pytest.raises(WireError, match="congestion"):
        gre.decapsulate(outer(gre.wrap(packet()), tos=3))
