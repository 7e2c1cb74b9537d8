# SPDX-License-Identifier: GPL-2.0-or-later
"""Minimal encapsulation (RFC 2004), against a scapy class of its own."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from scapy.fields import BitField, ByteField, ConditionalField, IPField, XShortField
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert
from scapy.packet import Packet, Raw, bind_layers

from homeward.model.errors import BadChecksum, Truncated, UnknownMessage, WireError
from homeward.wire.internet_checksum import checksum
from homeward.wire.ip_in_ip import check_ipv4
from homeward.wire.minimal_encapsulation import OVERHEAD, decapsulate, encapsulate
from tests.unit.wire.test_ip_in_ip import addresses, packet, packets

CARE_OF = IPv4Address("198.51.100.7")
AGENT = IPv4Address("10.0.0.2")
HOME = IPv4Address("10.77.0.10")


class MinimalForwarding(Packet):
    """RFC 2004 section 3, as scapy would have it if it had it."""

    name = "minimal forwarding header"
    fields_desc = [  # noqa: RUF012 - scapy's way
        ByteField("proto", 0),
        BitField("s", 0, 1),
        BitField("reserved", 0, 7),
        XShortField("chksum", None),
        IPField("dst", "0.0.0.0"),
        ConditionalField(IPField("src", "0.0.0.0"), lambda read: read.s == 1),
    ]


bind_layers(IP, MinimalForwarding, proto=55)


@settings(max_examples=50)
@given(packets, addresses, addresses)
def test_what_goes_in_comes_out_again(inner: bytes, source: IPv4Address, destination: IPv4Address) -> None:
    arrived = decapsulate(encapsulate(inner, source, destination))
    assert (arrived.inner, arrived.source, arrived.destination) == (inner, source, destination)


@settings(max_examples=50)
@given(packets, addresses, addresses)
def test_the_headers_are_what_scapy_reads(
    inner: bytes, source: IPv4Address, destination: IPv4Address
) -> None:
    octets = encapsulate(inner, source, destination)
    check_ipv4(octets)
    read, was = IP(octets), IP(inner)
    assert (read.src, read.dst, read.proto) == (str(source), str(destination), 55)
    # TTL, type of service, identification and Don't Fragment are the packet's own.
    assert (read.ttl, read.tos, read.id, read.flags) == (was.ttl, was.tos, was.id, was.flags)
    assert checksum(octets[:20]) == 0
    forwarding = read[MinimalForwarding]
    assert (forwarding.proto, forwarding.dst, forwarding.reserved) == (was.proto, was.dst, 0)
    assert forwarding.s == (source != IPv4Address(was.src))
    if forwarding.s:
        assert forwarding.src == was.src
    size = 12 if forwarding.s else 8
    assert checksum(octets[20 : 20 + size]) == 0
    assert bytes(forwarding.payload) == inner[20:]


def test_the_senders_own_packets_need_eight_octets_others_twelve() -> None:
    assert len(encapsulate(packet(), HOME, AGENT)) == len(packet()) + 8
    assert len(encapsulate(packet(), CARE_OF, AGENT)) == len(packet()) + OVERHEAD
    assert decapsulate(encapsulate(packet(), HOME, AGENT)).inner == packet()


def test_options_stay_in_the_header() -> None:
    inner = bytes(
        IP(src=str(HOME), dst="10.0.0.10", options=[IPOption_Router_Alert()])
        / UDP(sport=1, dport=2)
        / Raw(b"x")
    )
    octets = encapsulate(inner, CARE_OF, AGENT)
    assert octets[20:24] == inner[20:24]
    assert octets[24] == 17
    assert decapsulate(octets).inner == inner


@pytest.mark.rows("R-285")
def test_the_ttl_that_the_tunnel_took_stays_taken() -> None:
    octets = bytearray(encapsulate(packet(ttl=64), CARE_OF, AGENT))
    octets[8] = 61
    restored = decapsulate(bytes(octets)).inner
    assert restored == packet(ttl=61)


@pytest.mark.rows("R-290")
@pytest.mark.parametrize("header", [{"flags": "MF"}, {"frag": 1}, {"frag": 8191}])
def test_a_fragment_is_never_encapsulated(header: dict[str, object]) -> None:
    with pytest.raises(WireError, match="fragment"):
        encapsulate(packet(**header), CARE_OF, AGENT)


def test_a_fragment_of_an_encapsulated_packet_is_not_opened() -> None:
    octets = bytearray(encapsulate(packet(), CARE_OF, AGENT))
    octets[6] |= 0x20
    with pytest.raises(Truncated, match="fragment of minimal"):
        decapsulate(bytes(octets))


def test_the_forwarding_headers_checksum() -> None:
    octets = encapsulate(packet(), CARE_OF, AGENT)
    for at in range(20, 32):
        changed = bytearray(octets)
        changed[at] ^= 0x01
        with pytest.raises(BadChecksum):
            decapsulate(bytes(changed))


def test_reserved_bits_are_ignored() -> None:
    octets = bytearray(encapsulate(packet(), CARE_OF, AGENT))
    octets[21] |= 0x7F
    octets[22:24] = b"\0\0"
    octets[22:24] = checksum(bytes(octets[20:32])).to_bytes(2, "big")
    assert decapsulate(bytes(octets)).inner == packet()


@pytest.mark.parametrize("kept", [0, 4, 7, 8, 11])
def test_a_forwarding_header_that_is_cut(kept: int) -> None:
    octets = encapsulate(packet(), CARE_OF, AGENT)[: 20 + kept]
    cut = octets[:2] + len(octets).to_bytes(2, "big") + octets[4:]
    with pytest.raises(Truncated):
        decapsulate(cut)


def test_refused() -> None:
    with pytest.raises(UnknownMessage, match="not minimal"):
        decapsulate(packet())
    with pytest.raises(WireError):
        encapsulate(b"", CARE_OF, AGENT)
    with pytest.raises(WireError, match="too long"):
        encapsulate(packet(bytes(65_535 - 28 - 11)), CARE_OF, AGENT)
    assert len(encapsulate(packet(bytes(65_535 - 28 - 12)), CARE_OF, AGENT)) == 65_535
