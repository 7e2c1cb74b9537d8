# SPDX-License-Identifier: GPL-2.0-or-later
"""The elements of the fence's sets, exchanged by netlink without nft's library.

The library reads the whole firewall before it changes anything. A hand-over waits for this, and knows what it wants:
one transaction, no question. Numbers and layouts are Linux's: include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from homeward.adapters.nftables.fence.rules import LINGER, Elements, Ends
from homeward.model.errors import NotPermitted, PlanError
from homeward.model.names import FENCE_TABLE

_NETFILTER = 12
_SUBSYSTEM = 10
_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_BEGIN, _END
_NEW_ELEMENTS, _DELETE_ELEMENTS = 12, 14
_REQUEST, _ACKNOWLEDGE, _CREATE = 0x1, 0x4, 0x400
_ERROR = 2
_INET, _NETDEV = 1, 5
_TABLE, _SET, _ELEMENTS, _ELEMENT, _KEY, _TIMEOUT, _VALUE = 1, 2, 3, 1, 1, 4, 1
_NESTED = 0x8000

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")
_ENDS: Final = struct.Struct("=16s4s4sB3x")


class SetElements:
    """A socket by which the sets are changed. `port` is what the kernel calls it in its news. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _NETFILTER
        )
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def exchange(self, held: Elements, *, second_line: bool) -> None:
        """Have the sets hold exactly this, in one transaction; `second_line` says that there is a netdev table.

        Raises PlanError, as when table or set are gone, and NotPermitted.
        """
        changes = [
            *_filled(_INET, "arriving", held.arriving),
            *_filled(_INET, "leaving", held.leaving),
            *_filled(_INET, "lingering", held.lingering, seconds=LINGER),
            *(_filled(_NETDEV, "leaving", held.leaving) if second_line else ()),
        ]
        self._forget_answers()
        whole = [_message(_BEGIN, _REQUEST, 0, 0, _SUBSYSTEM)]
        for number, (kind, flags, family, body) in enumerate(changes, start=1):
            whole.append(_message(_SUBSYSTEM << 8 | kind, flags, number, family, 0, body))
        whole.append(_message(_END, _REQUEST, len(changes) + 1, 0, _SUBSYSTEM))
        action = "exchanging what the fence lets through"
        try:
            self._socket.send(b"".join(whole))
            outcomes = self._answers()
        except OSError as error:
            raise PlanError(action, error.errno or str(error)) from error
        for code in filter(None, outcomes):
            raise (NotPermitted if code == errno.EPERM else PlanError)(action, os.strerror(code))
        if len(outcomes) != len(changes):
            raise PlanError(action, "the kernel gave no answer")

    def _forget_answers(self) -> None:
        try:
            while True:
                self._socket.recv(1 << 16)
        except BlockingIOError:
            return

    def _answers(self) -> list[int]:
        """The errors of all changes, 0 for done. The kernel has given them before the request returns."""
        found: list[int] = []
        while True:
            try:
                octets = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            at = 0
            while at + _HEADER.size + 4 <= len(octets):
                length, kind, *_ = _HEADER.unpack_from(octets, at)
                if kind == _ERROR:
                    found.append(-struct.unpack_from("=i", octets, at + _HEADER.size)[0])
                at += max((length + 3) & ~3, _HEADER.size)


def _filled(
    family: int, name: str, held: Sequence[Ends], *, seconds: int | None = None
) -> list[tuple[int, int, int, bytes]]:
    """Emptying a set and putting these elements in: kind, flags, family, body of each request."""
    place = _attribute(_TABLE, FENCE_TABLE.encode() + b"\0") + _attribute(_SET, name.encode() + b"\0")
    requests = [(_DELETE_ELEMENTS, _REQUEST | _ACKNOWLEDGE, family, place)]
    if held:
        items = b"".join(_attribute(_ELEMENT | _NESTED, _element(each, seconds)) for each in held)
        body = place + _attribute(_ELEMENTS | _NESTED, items)
        requests.append((_NEW_ELEMENTS, _REQUEST | _ACKNOWLEDGE | _CREATE, family, body))
    return requests


def _element(ends: Ends, seconds: int | None) -> bytes:
    """An element of type ifname . ipv4_addr . ipv4_addr . inet_proto, each field padded to four octets."""
    key = _ENDS.pack(ends.device.encode(), ends.source.packed, ends.destination.packed, ends.protocol)
    element = _attribute(_KEY | _NESTED, _attribute(_VALUE, key))
    if seconds is not None:
        element += _attribute(_TIMEOUT, struct.pack(">Q", seconds * 1000))
    return element


def _message(kind: int, flags: int, number: int, family: int, resource: int, body: bytes = b"") -> bytes:
    length = _HEADER.size + _FAMILY.size + len(body)
    return _HEADER.pack(length, kind, flags, number, 0) + _FAMILY.pack(family, 0, resource) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
