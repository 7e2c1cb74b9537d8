# SPDX-License-Identifier: GPL-2.0-or-later
"""Netlink asked and answered on the spot: a hand-over waits for this, so it is not asynchronous (some 20 µs each).

Numbers and layouts are Linux's: include/uapi/linux/{netlink,rtnetlink}.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Final

from homeward.model.errors import NotPermitted, PlanError

CREATE: Final = 0x400
EXCLUSIVE: Final = 0x200
REPLACE: Final = 0x100
DUMP: Final = 0x300
NESTED: Final = 0x8000

HEADER: Final = struct.Struct("=IHHII")
_REQUEST, _ACKNOWLEDGE = 0x001, 0x004
_ERROR, _DONE = 2, 3
_LONGEST: Final = 1 << 16


class Netlink:
    """A socket for requests. Methods raise PlanError and NotPermitted."""

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]
        """What the kernel calls this socket in the news of what it asked for."""
        self._number = 0

    def close(self) -> None:
        """Give the socket back; what was asked for stays."""
        self._socket.close()

    def ask(self, action: str, kind: int, body: bytes, *, flags: int = 0) -> list[bytes]:
        """Have something done; the bodies of the answers, none where there is nothing to be told."""
        self._number += 1
        length = HEADER.size + len(body)
        head = HEADER.pack(length, kind, _REQUEST | _ACKNOWLEDGE | flags, self._number, 0)
        found: list[bytes] = []
        try:
            self._socket.send(head + body)
            while True:
                for said, number, answer in messages(self._socket.recv(_LONGEST)):
                    if number != self._number:
                        continue
                    if said in (_ERROR, _DONE):
                        _refuse(action, answer)
                        return found
                    found.append(answer)
        except OSError as error:
            raise PlanError(action, error.errno or str(error)) from error

    def ask_quietly(self, action: str, kind: int, body: bytes) -> list[bytes]:
        """The same about what may be gone already, or may never have been there."""
        try:
            return self.ask(action, kind, body)
        except PlanError as error:
            if error.cause not in (errno.ENOENT, errno.ENODEV, errno.EINVAL, errno.ESRCH, errno.EOPNOTSUPP):
                raise
            return []


def _refuse(action: str, answer: bytes) -> None:
    code = -struct.unpack_from("=i", answer)[0] if len(answer) >= 4 else 0
    if code > 0:
        raise (NotPermitted if code == errno.EPERM else PlanError)(action, code)


def messages(octets: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, number and body of each message in a datagram of netlink's."""
    at = 0
    while at + HEADER.size <= len(octets):
        length, kind, _, number, _ = HEADER.unpack_from(octets, at)
        if length < HEADER.size:
            return
        yield kind, number, octets[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute of a request."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute that is a name."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def attributes(octets: bytes) -> dict[int, bytes]:
    """The attributes of an answer by kind, nested ones as octets."""
    found = {}
    at = 0
    while at + 4 <= len(octets):
        length, kind = struct.unpack_from("=HH", octets, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = octets[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
