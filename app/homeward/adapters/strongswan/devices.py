# SPDX-License-Identifier: GPL-2.0-or-later
"""Which network device carries an address, by the C library's getifaddrs: no netlink library is needed for that."""

import ctypes
import os
import socket
from ctypes import POINTER, byref, c_char_p, c_uint, c_void_p
from ipaddress import IPv4Address
from typing import ClassVar

from homeward.model.errors import LinkError


class _InterfaceAddress(ctypes.Structure):
    """struct ifaddrs, getifaddrs(3)."""


_InterfaceAddress._fields_ = [
    ("next", POINTER(_InterfaceAddress)),
    ("name", c_char_p),
    ("flags", c_uint),
    ("address", c_void_p),
    ("netmask", c_void_p),
    ("broadcast", c_void_p),
    ("data", c_void_p),
]


class _SocketAddress(ctypes.Structure):
    """struct sockaddr_in as far as it matters here."""

    _fields_: ClassVar = [
        ("family", ctypes.c_ushort),
        ("port", ctypes.c_ushort),
        ("octets", ctypes.c_ubyte * 4),
    ]


_libc = ctypes.CDLL(None, use_errno=True)


def device_with_address(address: IPv4Address) -> str | None:
    """The name of the device that has this very address, None when no device has it. Raises LinkError."""
    first = POINTER(_InterfaceAddress)()
    if _libc.getifaddrs(byref(first)) != 0:
        number = ctypes.get_errno()
        raise LinkError(f"read the addresses of this machine ({os.strerror(number)})", number)
    try:
        entry = first
        while entry:
            interface = entry.contents
            if interface.address:
                found = _SocketAddress.from_address(interface.address)
                if found.family == socket.AF_INET and bytes(found.octets) == address.packed:
                    return os.fsdecode(interface.name)
            entry = interface.next
        return None
    finally:
        _libc.freeifaddrs(first)
