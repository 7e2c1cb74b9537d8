# SPDX-License-Identifier: GPL-2.0-or-later
"""A WireGuard device's keys and peer, over generic netlink: `wg` is one more package, and slow to start.

Numbers and layouts are Linux's: include/uapi/linux/wireguard.h, genetlink.h.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address
from typing import Final

PORT: Final = 51820
FWMARK: Final = 51820
"""The mark on a device's own packets, as wg-quick chooses it."""

_GENERIC_NETLINK = 16
_ACKNOWLEDGED_REQUEST = 0x0005
_ERROR, _CONTROLLER = 2, 16
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_SET_DEVICE = 1
_DEVICE_NAME, _PRIVATE_KEY, _LISTEN_PORT, _FWMARK, _PEERS = 2, 3, 6, 7, 8
_PUBLIC_KEY, _ENDPOINT, _ALLOWED_ADDRESSES = 1, 4, 9
_FAMILY, _ADDRESS, _PREFIX = 1, 2, 3
_NESTED = 0x8000


def set_wireguard(device: str, private: bytes, other_public: bytes, far: IPv4Address) -> None:
    """Give a device of this namespace its key and one peer, behind which everything is. Raises OSError."""
    endpoint = struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", PORT, far.packed)
    everything = (
        _attribute(_FAMILY, struct.pack("=H", socket.AF_INET))
        + _attribute(_ADDRESS, bytes(4))
        + _attribute(_PREFIX, b"\0")
    )
    peer = (
        _attribute(_PUBLIC_KEY, other_public)
        + _attribute(_ENDPOINT, endpoint)
        + _attribute(_ALLOWED_ADDRESSES | _NESTED, _attribute(_NESTED, everything))
    )
    wish = (
        _attribute(_DEVICE_NAME, device.encode() + b"\0")
        + _attribute(_PRIVATE_KEY, private)
        + _attribute(_LISTEN_PORT, struct.pack("=H", PORT))
        + _attribute(_FWMARK, struct.pack("=I", FWMARK))
        + _attribute(_PEERS | _NESTED, _attribute(_NESTED, peer))
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _GENERIC_NETLINK) as netlink:
        netlink.bind((0, 0))
        _ask(netlink, _wireguard_family(netlink), _SET_DEVICE, wish)


def _wireguard_family(netlink: socket.socket) -> int:
    answer = _ask(netlink, _CONTROLLER, _GET_FAMILY, _attribute(_FAMILY_NAME, b"wireguard\0"))
    at = 20
    while at < len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == _FAMILY_ID:
            return int(struct.unpack_from("=H", answer, at + 4)[0])
        at += length + 3 & ~3
    raise AssertionError("the kernel does not say the family's number")


def _ask(netlink: socket.socket, kind: int, command: int, attributes: bytes) -> bytes:
    """Send one request and wait for its acknowledgement; what was answered before it."""
    body = struct.pack("=BBH", command, 1, 0) + attributes
    netlink.send(struct.pack("=IHHII", 16 + len(body), kind, _ACKNOWLEDGED_REQUEST, 1, 0) + body)
    answer = b""
    while True:
        received = netlink.recv(1 << 16)
        if struct.unpack_from("=H", received, 4)[0] != _ERROR:
            answer = received
            continue
        (code,) = struct.unpack_from("=i", received, 16)
        if code:
            raise OSError(-code, f"netlink command {command}")
        return answer


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
