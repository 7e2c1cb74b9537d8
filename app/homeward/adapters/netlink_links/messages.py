# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink as octets: the few requests that the links need, and what comes back or by itself.

Written by hand because a hand-over waits for it: this takes some hundredths of the milliseconds that a general library
takes. Numbers and layouts are Linux's: include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, neighbour.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

NEW_LINK: Final = 16
DELETED_LINK: Final = 17
NEW_ADDRESS: Final = 20
DELETED_ADDRESS: Final = 21
NEW_ROUTE: Final = 24
DELETED_ROUTE: Final = 25
NEW_NEIGHBOUR: Final = 28
DELETED_NEIGHBOUR: Final = 29
MAIN_TABLE: Final = 254

_GET_LINK = 18
_GET_ADDRESS = 22
_GET_ROUTE = 26
_GET_NEIGHBOUR = 30
_REQUEST = 0x1
_DUMP = 0x300
_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_EXTENSION_MASK, _NO_STATISTICS = 29, 8  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
_NEIGHBOUR_ADDRESS = 1  # NDA_DST
_SOL_NETLINK, _STRICT_CHECK = 270, 12
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40  # link, neigh, ipv4-ifaddr, ipv4-route
_MOST = 1 << 16

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=B3xiHBB")

ROUTE_OCTETS: Final = _ROUTE.size
LINK_OCTETS: Final = _LINK.size
ADDRESS_OCTETS: Final = _ADDRESS.size
NEIGHBOUR_OCTETS: Final = _NEIGHBOUR.size


def messages(octets: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages of one datagram: kind, flags, body. Ends before one that is cut off."""
    at = 0
    while at + _HEADER.size <= len(octets):
        length, kind, flags, _, _ = _HEADER.unpack_from(octets, at)
        if length < _HEADER.size or at + length > len(octets):
            return
        yield kind, flags, octets[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(octets: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes from an offset on, by their kind, of several of one kind the last; ends before one that is cut."""
    found = {}
    while at + 4 <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, at)
        if length < 4 or at + length > len(octets):
            break
        found[kind & 0x3FFF] = octets[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def number(octets: bytes | None) -> int | None:
    """An attribute's value of one, two or four octets; None for any other, or none."""
    return int.from_bytes(octets, _ORDER) if octets is not None and len(octets) in (1, 2, 4) else None


def text(octets: bytes | None) -> str | None:
    """An attribute's value that is a string ending in a zero."""
    return None if octets is None else octets.partition(b"\0")[0].decode(errors="surrogateescape")


_ORDER: Final = "little" if struct.pack("=H", 1)[0] else "big"


def open_wake_up() -> socket.socket:
    """A socket to which the kernel tells every change of links, IPv4 addresses and routes, and neighbours."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    opened.bind((0, _GROUPS))
    return opened


class Questions:
    """A socket on which the kernel is asked. It answers in the very call, so that nothing is waited for.

    All questions raise OSError: with EINTR when the table changed while it was read, with the kernel's own number else.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            # Only the table that is asked for; a kernel before 4.20 tells all, and whoever asks must look.
            self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        except OSError:
            pass
        self._number = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def links(self) -> list[bytes]:
        """The bodies of all links' messages."""
        return self._ask(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0) + _WITHOUT_STATISTICS, dump=True)

    def link(self, index: int) -> bytes | None:
        """The body of one link's message; None when there is no such link."""
        return self._one(_GET_LINK, _LINK.pack(0, 0, index, 0, 0) + _WITHOUT_STATISTICS)

    def addresses(self) -> list[bytes]:
        """The bodies of all IPv4 addresses' messages."""
        return self._ask(_GET_ADDRESS, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0), dump=True)

    def routes(self) -> list[bytes]:
        """The bodies of the messages of IPv4 routes, of the main table at least."""
        return self._ask(_GET_ROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, MAIN_TABLE, 0, 0, 0, 0), dump=True)

    def neighbour(self, index: int, address: IPv4Address) -> bytes | None:
        """The body of one neighbour's message; None when nobody has spoken with it yet."""
        wanted = _NEIGHBOUR.pack(socket.AF_INET, index, 0, 0, 0)
        return self._one(_GET_NEIGHBOUR, wanted + _attribute(_NEIGHBOUR_ADDRESS, address.packed))

    def _one(self, kind: int, body: bytes) -> bytes | None:
        try:
            return next(iter(self._ask(kind, body, dump=False)), None)
        except InterruptedError:
            raise
        except OSError:
            return None

    def _ask(self, kind: int, body: bytes, *, dump: bool) -> list[bytes]:
        self._number = (self._number + 1) & 0xFFFFFFFF
        flags = _REQUEST | (_DUMP if dump else 0)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._number, 0) + body)
        found: list[bytes] = []
        interrupted = False
        while True:
            octets = self._socket.recv(_MOST)
            if _HEADER.unpack_from(octets)[3] != self._number:
                continue  # of a question that was given up
            for answered, marks, content in messages(octets):
                interrupted |= bool(marks & _INTERRUPTED)
                if answered == _ERROR or (answered == _DONE and len(content) >= 4):
                    (code,) = struct.unpack_from("=i", content)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                if answered in (_ERROR, _DONE):
                    if interrupted:
                        raise InterruptedError("the table changed while it was read")
                    return found
                found.append(content)
            if not dump:
                return found


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


_WITHOUT_STATISTICS: Final = _attribute(_EXTENSION_MASK, struct.pack("=I", _NO_STATISTICS))
