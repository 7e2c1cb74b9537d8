# SPDX-License-Identifier: GPL-2.0-or-later
"""A numbered datagram each millisecond to a peer, and a note of each one that comes, until SIGTERM.

Run as a program in a host of the lab (`python -I -S counter.py ADDRESS PEER FILE`), standard library only. FILE gets a
record for each datagram received: number, when it was sent, when it came, three big-endian doubles, CLOCK_MONOTONIC. A
datagram that the kernel refuses counts as sent.
"""

import select
import signal
import socket
import struct
import sys
import time
from types import FrameType

INTERVAL = 0.001
RECORD = struct.Struct("!ddd")
_PORT = 5003
_DATAGRAM = struct.Struct("!Qd")


class _End(Exception):
    """SIGTERM came."""


def _end(number: int, frame: FrameType | None) -> None:
    raise _End


def _exchange(link: socket.socket, peer: str, records: list[bytes]) -> None:
    number, due = 0, time.monotonic()
    while True:
        wait = due - time.monotonic()
        if select.select([link], [], [], max(0.0, wait))[0]:
            _take(link, records)
        now = time.monotonic()
        if now < due:
            continue
        due = max(due + INTERVAL, now)
        number += 1
        try:
            link.sendto(_DATAGRAM.pack(number, now), (peer, _PORT))
        except OSError:
            pass


def _take(link: socket.socket, records: list[bytes]) -> None:
    while True:
        try:
            number, sent = _DATAGRAM.unpack(link.recv(64))
        except (OSError, struct.error):
            return
        records.append(RECORD.pack(number, sent, time.monotonic()))


def main(address: str, peer: str, file: str) -> None:
    """Until SIGTERM."""
    records: list[bytes] = []
    signal.signal(signal.SIGTERM, _end)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind((address, _PORT))
        link.setblocking(False)
        try:
            _exchange(link, peer, records)
        except _End:
            pass
    with open(file, "wb") as out:
        out.write(b"".join(records))


if __name__ == "__main__":
    main(*sys.argv[1:])
