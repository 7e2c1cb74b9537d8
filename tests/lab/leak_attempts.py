# SPDX-License-Identifier: GPL-2.0-or-later
"""What applications, some of them root's, do to get past the tunnel: bound to the link, to its address, or below IP.

Each attempt carries its name, so that it is recognised wherever it comes out.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from homeward.lab.topology import (
    AGENT_ADDRESS,
    CABLE,
    CORRESPONDENT_ADDRESS,
    GATEWAY_ADDRESS,
    HOME_ADDRESS,
    LAPTOP,
    hardware_address,
)
from tests.lab.laptop import Laptop, network_of
from tests.lab.wiretap import HELD, Allowed, Tap, leaks

_OUTSIDE = "203.0.113.1"
"""Somewhere in the Internet."""
_MARKER = re.compile(rb"homeward-leak:([a-z0-9-]+);")
_TCP_PORT = 5999
_ALL_NODES = "ff02::1"
_SOMEBODY = "02:00:00:00:ff:01"
_BIND_TO_DEVICE = socket.SO_BINDTODEVICE

Attempt = Callable[[IPv4Address, bytes], None]


def _named(name: str) -> bytes:
    return b"homeward-leak:" + name.encode() + b";"


def recognised(frames: Iterable[bytes]) -> set[str]:
    """The names of the attempts that came out in these frames."""
    found = set()
    for frame in frames:
        found |= {name.decode() for name in _MARKER.findall(frame)}
        packet = Ether(frame)
        if packet.haslayer("TCP") and packet["TCP"].dport == _TCP_PORT:
            found.add("tcp-bound-to-the-address")
        if ARP in packet and packet[ARP].pdst == str(HOME_ADDRESS):
            found.add("arp-for-the-home-address")
    return found


# --- by ordinary sockets ---------------------------------------------------------------------------------------------


def _udp(
    to: str, port: int, payload: bytes, *, bound: IPv4Address | None = None, device: bool = False
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if device:
            sender.setsockopt(socket.SOL_SOCKET, _BIND_TO_DEVICE, CABLE.encode())
        if bound is not None:
            sender.bind((str(bound), 0))
        sender.sendto(payload, (to, port))


def _tcp(address: IPv4Address, _payload: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sender:
        sender.bind((str(address), 0))
        sender.connect_ex((str(CORRESPONDENT_ADDRESS), _TCP_PORT))


def _multicast(address: IPv4Address, payload: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, address.packed)
        sender.sendto(payload, ("224.0.0.251", 5353))


def _ping(address: IPv4Address, payload: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender:
        sender.bind((str(address), 0))
        sender.sendto(bytes(ICMP(id=1) / Raw(payload)), (str(CORRESPONDENT_ADDRESS), 0))


def _ipv6(_address: IPv4Address, payload: bytes) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(payload, (_ALL_NODES, 5353, 0, socket.if_nametoindex(CABLE)))


def _raw_ip(packet: Callable[[IPv4Address, bytes], Packet]) -> Attempt:
    def send(address: IPv4Address, payload: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            sender.setsockopt(socket.SOL_SOCKET, _BIND_TO_DEVICE, CABLE.encode())
            whole = packet(address, payload)
            sender.sendto(bytes(whole), (whole.dst, 0))

    return send


# --- below IP --------------------------------------------------------------------------------------------------------


def _frame(packet: Callable[[IPv4Address, bytes], Packet]) -> Attempt:
    def send(address: IPv4Address, payload: bytes) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((CABLE, 0))
            sender.send(
                bytes(Ether(src=hardware_address(LAPTOP, CABLE), dst=_SOMEBODY) / packet(address, payload))
            )

    return send


def _to_correspondent(address: IPv4Address, payload: bytes) -> Packet:
    return IP(src=str(address), dst=str(CORRESPONDENT_ADDRESS)) / UDP(sport=9, dport=9) / Raw(payload)


def _in_a_tunnel(address: IPv4Address, payload: bytes) -> Packet:
    inner = IP(src=str(HOME_ADDRESS), dst=str(CORRESPONDENT_ADDRESS)) / UDP(sport=9, dport=9) / Raw(payload)
    return IP(src=str(address), dst=str(AGENT_ADDRESS)) / inner


ATTEMPTS: dict[str, Attempt] = {
    "bound-to-the-address": lambda at, data: _udp(str(CORRESPONDENT_ADDRESS), 9, data, bound=at),
    "bound-to-the-link": lambda _, data: _udp(str(CORRESPONDENT_ADDRESS), 9, data, device=True),
    "to-the-internet": lambda _, data: _udp(_OUTSIDE, 9, data),
    "to-the-internet-by-the-link": lambda at, data: _udp(_OUTSIDE, 9, data, bound=at, device=True),
    "broadcast": lambda _, data: _udp("255.255.255.255", 9, data, device=True),
    "multicast": _multicast,
    "tcp-bound-to-the-address": _tcp,
    "ping": _ping,
    "ipv6": _ipv6,
    "like-a-registration": lambda at, data: _udp(str(AGENT_ADDRESS), 434, data, bound=at),
    "like-ike": lambda at, data: _udp(str(GATEWAY_ADDRESS), 500, data, bound=at),
    "like-esp": lambda at, data: _udp(str(GATEWAY_ADDRESS), 4500, data, bound=at),
    "like-dns": lambda at, data: _udp(_OUTSIDE, 53, data, bound=at),
    "raw-ip": _raw_ip(_to_correspondent),
    "raw-tunnel": _raw_ip(_in_a_tunnel),
    "frame": _frame(_to_correspondent),
    "frame-with-a-tunnel": _frame(_in_a_tunnel),
    "frame-with-a-vlan": _frame(lambda at, data: Dot1Q(vlan=1) / _to_correspondent(at, data)),
    "frame-with-ipv6": _frame(lambda _, data: IPv6(dst=_ALL_NODES) / UDP(dport=9) / Raw(data)),
    "frame-of-no-known-kind": _frame(lambda _, data: Raw(struct.pack("!H", 1500) + data)),
    "arp-for-the-home-address": _frame(lambda at, _: ARP(psrc=str(at), pdst=str(HOME_ADDRESS))),
}


def nothing_gets_out(
    laptop: Laptop,
    tap: Tap,
    address: IPv4Address,
    *,
    allowed: Allowed = HELD,
    meanwhile: Callable[[], object] = lambda: time.sleep(0.2),
) -> None:
    """Make every attempt. None comes out of the cable, nor does anything else that this state does not allow."""
    tap.heard()
    try_to_leak(laptop, address)
    meanwhile()
    frames = tap.heard()
    assert recognised(frames) == set()
    assert leaks(frames, allowed) == []


def try_to_leak(laptop: Laptop, address: IPv4Address) -> None:
    """Every attempt, from the laptop, whose address on its access link this is; what is refused is refused."""
    with network_of(laptop.host):
        for name, attempt in ATTEMPTS.items():
            try:
                attempt(address, _named(name))
            except OSError:
                continue
