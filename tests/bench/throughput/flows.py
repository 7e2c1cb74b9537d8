# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends and takes as much as goes, TCP or small datagrams, at the bench's word.

Run as a program in a host (`python -I -S flows.py`), standard library only. One order a line on standard input, one
answer a line on standard output, both JSON. So nothing has to be started while something is measured.
"""

import ctypes
import json
import os
import socket
import struct
import sys
import time
from typing import Any

PORT = 5201
DATAGRAM = 64
"""Octets of data in each datagram."""
_PART = 1 << 20
_BATCH = 64
_PATIENCE = 5.0  # seconds for the first sign of the other side
_SILENCE = 0.4  # seconds without a datagram after which no more will come
_WAIT_FOR_ONE = 0x10000  # MSG_WAITFORONE
_BUFFER_FORCED = 33  # SO_RCVBUFFORCE

_libc = ctypes.CDLL(None, use_errno=True)


class _Part(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("parts", ctypes.POINTER(_Part)),
        ("number_of_parts", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_long),  # an int, and what fills it up
        ("length", ctypes.c_ulong),
    )


def _messages(octets: int) -> tuple[Any, list[Any]]:
    """A batch of messages of so many octets each, and what they are made of, which must live as long."""
    data = ctypes.create_string_buffer(octets)
    part = _Part(ctypes.addressof(data), octets)
    batch = (_Message * _BATCH)()
    for message in batch:
        message.parts, message.number_of_parts = ctypes.pointer(part), 1
    return batch, [data, part]


class Flows:
    """What one host does: it listens first, and takes when told; or it sends."""

    def __init__(self) -> None:
        self._opened: socket.socket | None = None

    def listen(self, kind: str, address: str) -> dict[str, Any]:
        """From now on what comes is kept for `take`."""
        if self._opened is not None:
            self._opened.close()
        if kind == "tcp":
            self._opened = socket.create_server((address, PORT))
            self._opened.settimeout(_PATIENCE)
        else:
            self._opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._opened.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCED, 8 * _PART)
            self._opened.bind((address, PORT))
        return {}

    def take(self, kind: str) -> dict[str, Any]:
        """Take all that comes; `amount` is octets of TCP, or datagrams, in `seconds`."""
        assert self._opened is not None
        opened, self._opened = self._opened, None
        with opened:
            return _take_octets(opened) if kind == "tcp" else _take_datagrams(opened)

    def send(self, kind: str, address: str, to: str, seconds: float) -> dict[str, Any]:
        """Send for so long, as fast as the kernel takes it."""
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        with opened:
            opened.bind((address, 0))
            opened.settimeout(_PATIENCE)
            opened.connect((to, PORT))
            return _send_octets(opened, seconds) if kind == "tcp" else _send_datagrams(opened, seconds)


def _send_octets(opened: socket.socket, seconds: float) -> dict[str, Any]:
    data, amount = memoryview(bytes(_PART)), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        amount += opened.send(data)
    return {"amount": amount}


def _take_octets(listening: socket.socket) -> dict[str, Any]:
    connection, _ = listening.accept()
    with connection:
        connection.settimeout(_PATIENCE)
        began, buffer, amount = time.monotonic(), bytearray(_PART), 0
        while part := connection.recv_into(buffer):
            amount += part
    return {"amount": amount, "seconds": time.monotonic() - began}


def _send_datagrams(opened: socket.socket, seconds: float) -> dict[str, Any]:
    batch, _alive = _messages(DATAGRAM)
    opened.setblocking(True)
    number, amount = opened.fileno(), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        amount += max(0, _libc.sendmmsg(number, batch, _BATCH, 0))
    return {"amount": amount}


def _take_datagrams(opened: socket.socket) -> dict[str, Any]:
    batch, _alive = _messages(DATAGRAM)
    number, amount = opened.fileno(), 0
    first = last = 0.0
    _give_up_after(opened, _PATIENCE)
    while (taken := _libc.recvmmsg(number, batch, _BATCH, _WAIT_FOR_ONE, None)) > 0:
        last = time.monotonic()
        if not first:
            first = last
            _give_up_after(opened, _SILENCE)
        else:
            amount += taken
    return {"amount": amount, "seconds": last - first}


def _give_up_after(opened: socket.socket, seconds: float) -> None:
    whole = int(seconds)
    limit = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def main() -> None:
    """Until standard input ends."""
    flows = Flows()
    for line in sys.stdin:
        words = json.loads(line)
        try:
            answer = getattr(flows, words.pop("order"))(**words)
        except OSError as error:
            answer = {"error": os.strerror(error.errno) if error.errno else str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
