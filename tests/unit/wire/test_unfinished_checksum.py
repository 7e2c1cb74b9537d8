# SPDX-License-Identifier: GPL-2.0-or-later
"""Checksums that nobody finished, as a kernel's own tunnel hands them to a process."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw

from homeward.model.nat_traversal import TunnelData, TunnelKind
from homeward.wire import udp_tunnel
from homeward.wire.internet_checksum import checksum
from homeward.wire.ip_in_ip import decapsulate, encapsulate
from homeward.wire.unfinished_checksum import finished

AT = {"TCP": 36, "UDP": 26}


def packet(kind: type[Packet], data: bytes) -> bytes:
    return bytes(IP(src="10.0.0.10", dst="10.77.0.10") / kind(sport=9, dport=9) / Raw(data))


def unfinished(octets: bytes, kind: str) -> bytes:
    pseudo = octets[12:20] + struct.pack("!BBH", 0, octets[9], len(octets) - 20)
    partial = (~checksum(pseudo) & 0xFFFF).to_bytes(2, "big")
    return octets[: AT[kind]] + partial + octets[AT[kind] + 2 :]


@given(st.sampled_from([TCP, UDP]), st.binary(max_size=99))
def test_what_is_unfinished_is_finished_and_what_is_finished_stays(kind: type[Packet], data: bytes) -> None:
    whole = packet(kind, data)
    assert finished(unfinished(whole, kind.__name__)) == whole
    assert finished(whole) == whole


@given(st.sampled_from([TCP, UDP]), st.binary(min_size=1, max_size=99), st.integers(1, 255))
def test_damage_is_not_made_good(kind: type[Packet], data: bytes, change: int) -> None:
    whole = packet(kind, data)
    damaged = whole[:-1] + bytes([whole[-1] ^ change])
    assert finished(damaged) == damaged


def test_a_sum_of_zero_is_said_as_all_ones_in_udp() -> None:
    """Zero would say that there is no sum at all."""
    blank = unfinished(packet(UDP, bytes(2)), "UDP")
    missing = checksum(blank[20:])
    whole = blank[:-2] + missing.to_bytes(2, "big")
    assert checksum(whole[20:]) == 0
    assert finished(whole) == whole[:26] + b"\xff\xff" + whole[28:]


@pytest.mark.parametrize(("at", "value"), [(6, 0x20), (7, 1), (9, 1)])
def test_fragments_and_other_protocols_are_left_alone(at: int, value: int) -> None:
    octets = bytearray(unfinished(packet(TCP, b"segment"), "TCP"))
    octets[at] = value
    assert finished(bytes(octets)) == bytes(octets)


def test_one_that_is_too_short_is_left_alone() -> None:
    octets = bytes(IP(src="10.0.0.10", dst="10.77.0.10", proto=17) / Raw(bytes(7)))
    assert finished(octets) == octets


def test_every_tunnel_that_a_kernel_may_send_is_opened_with_it() -> None:
    whole = packet(TCP, b"segment")
    inner = unfinished(whole, "TCP")
    ends = IPv4Address("10.0.0.2"), IPv4Address("10.1.1.10")
    assert decapsulate(encapsulate(inner, *ends)).inner == whole
    for kind in (TunnelKind.IP_IN_IP, TunnelKind.GRE):
        assert udp_tunnel.unwrap(udp_tunnel.wrap(inner, kind), kind) == whole
    assert udp_tunnel.decode_tunnel_data(udp_tunnel.wrap(inner)) == TunnelData(TunnelKind.IP_IN_IP, inner)
