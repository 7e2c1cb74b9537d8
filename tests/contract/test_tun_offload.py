# SPDX-License-Identifier: GPL-2.0-or-later
"""A TUN device with offloads in a real kernel: what is written joined arrives, and how a device changes hands."""

from __future__ import annotations

import os
import socket
import time

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from homeward.adapters.tunnel_device import open_tun, read_packets, write_packet, write_packets
from tests.world.namespaces import Namespace

pytestmark = pytest.mark.root

DEVICE = "hw-offload"
NEAR, FAR = "10.77.0.10", "10.0.1.10"
DATA = bytes(range(256)) * 80
SIZE = 1000


def _next(device: int) -> list[bytes]:
    for _ in range(200):
        try:
            return list(read_packets(device))
        except BlockingIOError:
            time.sleep(0.01)
    raise AssertionError("nothing came")


def test_a_connection_through_a_device_with_offloads() -> None:
    """The far end is ours, by hand: a stream is written joined, and another one is read, in right segments."""
    host = Namespace()
    try:
        with host:
            device = open_tun(DEVICE, offload=True)
            listening = socket.socket()
        host.sysctl(f"ipv6/conf/{DEVICE}/disable_ipv6", "1")
        host.ip(f"address add {NEAR}/32 dev {DEVICE}")
        host.ip(f"link set {DEVICE} up mtu 1400")
        host.ip(f"route add {FAR}/32 dev {DEVICE}")
        listening.settimeout(2)
        listening.bind((NEAR, 7))
        listening.listen()

        def segment(seq: int, ack: int, flags: str, data: bytes = b"") -> bytes:
            tcp = TCP(sport=9, dport=7, seq=seq, ack=ack, flags=flags, window=65535)
            return bytes(IP(src=FAR, dst=NEAR, flags="DF") / tcp / Raw(data))

        write_packet(device, segment(100, 0, "S"))
        (answer,) = _next(device)
        ack = IP(answer)[TCP].seq + 1
        parts = [segment(101 + at, ack, "A", DATA[at : at + SIZE]) for at in range(0, len(DATA), SIZE)]
        written = write_packets(device, [segment(101, ack, "A"), *parts])
        assert (written.packets, written.refused) == (1 + len(parts), 0)
        connection, _ = listening.accept()
        connection.settimeout(2)
        came = b""
        while len(came) < len(DATA):
            came += connection.recv(65536)
        assert came == DATA

        connection.send(DATA)
        back: dict[int, bytes] = {}
        while sum(map(len, back.values())) < 4 * 536:
            for packet in _next(device):
                told, again = IP(packet), IP(packet)
                del again.chksum, again[TCP].chksum
                assert bytes(again) == packet
                assert len(packet) <= 1400
                if TCP in told and (data := bytes(told[TCP].payload)):
                    back[told[TCP].seq - ack] = data
        assert all(DATA[at : at + len(data)] == data for at, data in back.items())
        connection.close()
        listening.close()
        os.close(device)
    finally:
        host.close()


def test_each_opening_says_how_it_is() -> None:
    """With and without, in any order, and the device is the same one: nobody finds what the life before had set."""
    host = Namespace()
    try:
        with host:
            indexes = set()
            for offload in (False, True, False, True):
                device = open_tun(DEVICE, offload=offload)
                indexes.add(socket.if_nametoindex(DEVICE))
                host.sysctl(f"ipv6/conf/{DEVICE}/disable_ipv6", "1")
                host.ip(f"link set {DEVICE} up")
                host.ip(f"address replace {NEAR}/32 dev {DEVICE}")
                host.ip(f"route replace {FAR}/32 dev {DEVICE}")
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"datagram", (FAR, 9))
                (packet,) = _next(device) if offload else [_plain(device)]
                told = IP(packet)
                assert told.dst == FAR
                del told.chksum, told["UDP"].chksum
                assert bytes(told) == packet
                os.close(device)
            assert len(indexes) == 1
    finally:
        host.close()


def _plain(device: int) -> bytes:
    for _ in range(200):
        try:
            return os.read(device, 0xFFFF)
        except BlockingIOError:
            time.sleep(0.01)
    raise AssertionError("nothing came")
