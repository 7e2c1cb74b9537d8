# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP in whole IPv4 packets, held against scapy's idea of both."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, UDP

from homeward.model.errors import BadChecksum, Truncated, UnknownMessage, WireError
from homeward.wire.datagram import UdpDatagram, read_udp_packet
from homeward.wire.link_frames import ipv4, udp

SOURCE, DESTINATION = IPv4Address("10.1.3.1"), IPv4Address("10.77.0.10")


def datagram(payload: bytes = b"payload") -> UdpDatagram:
    return UdpDatagram(payload, SOURCE, 434, DESTINATION, 40000, 64)


def udp_packet(one: UdpDatagram) -> bytes:
    ends = (one.source, one.source_port), (one.destination, one.destination_port)
    return udp(*ends, one.payload, ttl=one.ttl)


@pytest.mark.parametrize("payload", [b"", b"x", b"payload", bytes(1400)])
def test_we_read_what_we_write(payload: bytes) -> None:
    assert read_udp_packet(udp_packet(datagram(payload))) == datagram(payload)


def test_we_read_what_scapy_writes() -> None:
    packet = bytes(
        IP(src=str(SOURCE), dst=str(DESTINATION), ttl=64) / UDP(sport=434, dport=40000) / b"payload"
    )
    assert read_udp_packet(packet) == datagram()
    without = bytes(
        IP(src=str(SOURCE), dst=str(DESTINATION), ttl=64) / UDP(sport=434, dport=40000, chksum=0) / b"payload"
    )
    assert read_udp_packet(without) == datagram(), "no checksum is a right one"


@pytest.mark.rows("R-207")
@pytest.mark.parametrize("at", [0, 8, 12, 20, 22, 26, 30])
def test_a_damaged_packet_is_no_datagram(at: int) -> None:
    packet = bytearray(udp_packet(datagram()))
    packet[at] ^= 0x40
    with pytest.raises(WireError):
        read_udp_packet(bytes(packet))


def test_an_unfinished_checksum_can_be_passed_over() -> None:
    packet = bytearray(udp_packet(datagram()))
    packet[26] ^= 0x40
    with pytest.raises(BadChecksum):
        read_udp_packet(bytes(packet))
    assert read_udp_packet(bytes(packet), checksummed=False) == datagram()


def test_what_is_something_else() -> None:
    with pytest.raises(UnknownMessage):
        read_udp_packet(ipv4(SOURCE, DESTINATION, 1, bytes(8), ttl=1))
    with pytest.raises(Truncated):
        read_udp_packet(ipv4(SOURCE, DESTINATION, 17, b"\0\1\0\2\0\x63\0\0", ttl=1))
    with pytest.raises(WireError):
        read_udp_packet(b"")
