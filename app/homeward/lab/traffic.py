# SPDX-License-Identifier: GPL-2.0-or-later
"""The applications of the lab: connections and datagrams that want to live through every move.

Run as a program of its own inside a host (`python -I -S traffic.py ROLE …`), standard library only:

    tcp-server --bind ADDRESS --out FILE
    tcp-client --bind ADDRESS --peer ADDRESS --out FILE [--rate BITS]     one connection up, one down
    udp        --bind ADDRESS --peer ADDRESS --out FILE                   a numbered datagram every 5 ms, both ways

A TCP role writes JSON lines: progress every 0.2 s, `{"t","up","down"}` in bytes, and at the end, after SIGTERM
to the client, `{"final":…}` with bytes, SHA-256 and error per connection. The UDP role writes FILE (received:
number, time sent, time received, as three big-endian doubles) and FILE.sent (number, time sent, errno or 0).
Times are CLOCK_MONOTONIC, which all hosts share.
"""

import argparse
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from types import FrameType
from typing import IO, Any

TCP_PORT, UDP_PORT = 5001, 5002
INTERVAL = 0.005
RECORD = struct.Struct("!ddd")
_TICK = 0.01
_REPORT = 0.2


class Stopping:
    """Set by SIGTERM."""

    now = False


def _stop(number: int, frame: FrameType | None) -> None:
    Stopping.now = True


class Sender:
    """Sends random octets at a steady rate and hashes what the socket took."""

    def __init__(self, connection: socket.socket, rate: float) -> None:
        self.connection, self.rate = connection, rate
        self.count, self.digest = 0, hashlib.sha256()
        self.error: str | None = None
        self.done = False
        self.budget, self.last = 0.0, time.monotonic()

    def tick(self) -> None:
        """Send as much as is due."""
        now = time.monotonic()
        self.budget = min(self.budget + (now - self.last) * self.rate / 8, self.rate / 8)
        self.last = now
        while self.budget >= 1000 and not self.done:
            chunk = os.urandom(1000)
            try:
                taken = self.connection.send(chunk)
            except BlockingIOError:
                return
            except OSError as error:
                self.fail(error)
                return
            self.digest.update(chunk[:taken])
            self.count += taken
            self.budget -= taken

    def finish(self) -> None:
        """Say that nothing more comes; what was taken is still delivered."""
        if not self.done:
            self.done = True
            try:
                self.connection.shutdown(socket.SHUT_WR)
            except OSError as error:
                self.fail(error)

    def fail(self, error: OSError) -> None:
        """The connection is broken; nothing more is sent."""
        self.error, self.done = f"{type(error).__name__}: {error}", True


class Receiver:
    """Reads to the end and hashes what came."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.count, self.digest = 0, hashlib.sha256()
        self.error: str | None = None
        self.done = False

    def read(self) -> None:
        """Take what has come."""
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.error, self.done = f"{type(error).__name__}: {error}", True
            return
        self.digest.update(data)
        self.count += len(data)
        self.done = not data


def _summary(end: Sender | Receiver) -> dict[str, Any]:
    return {"bytes": end.count, "sha256": end.digest.hexdigest(), "error": end.error, "complete": end.done}


def _report(out: IO[str], ends: dict[str, Sender | Receiver], now: float) -> None:
    counts = {name: end.count for name, end in ends.items()}
    out.write(json.dumps({"t": round(now, 4), **counts}) + "\n")


def _transfer(
    out: IO[str],
    sender: Sender,
    receiver: Receiver,
    *,
    names: tuple[str, str],
    stop_sending: Callable[[], bool],
) -> None:
    """Run one sender and one receiver until both are done; `stop_sending()` ends the sender."""
    ends: dict[str, Sender | Receiver] = {names[0]: sender, names[1]: receiver}
    next_report = 0.0
    while not (sender.done and receiver.done):
        readable, _, _ = select.select([] if receiver.done else [receiver.connection], [], [], _TICK)
        if readable:
            receiver.read()
        if stop_sending():
            sender.finish()
        sender.tick()
        if time.monotonic() >= next_report:
            next_report = time.monotonic() + _REPORT
            _report(out, ends, time.monotonic())
    _await_acknowledgement(sender)
    out.write(json.dumps({"final": {name: _summary(end) for name, end in ends.items()}}) + "\n")


def _await_acknowledgement(sender: Sender) -> None:
    """Stay until the other end has everything: on a connection that nobody owns any more the kernel soon gives up."""
    unacknowledged = struct.Struct("i")
    while sender.error is None:
        answer = fcntl.ioctl(sender.connection, termios.TIOCOUTQ, unacknowledged.pack(0))
        if unacknowledged.unpack(answer) == (0,):
            return
        time.sleep(_TICK)


def tcp_client(options: argparse.Namespace, out: IO[str]) -> None:
    """Open the two connections, send on one, receive on the other, until SIGTERM; then end both in order."""
    connections = []
    for direction in (b"u", b"d"):
        connection = socket.create_connection((options.peer, TCP_PORT), 30, (options.bind, 0))
        connection.sendall(direction)
        connection.setblocking(False)
        connections.append(connection)
    up, down = connections
    asked: list[bool] = []

    def stop_sending() -> bool:
        if Stopping.now and not asked:
            asked.append(True)
            down.shutdown(socket.SHUT_WR)  # the server's word to stop sending
        return Stopping.now

    _transfer(out, Sender(up, options.rate), Receiver(down), names=("up", "down"), stop_sending=stop_sending)


def tcp_server(options: argparse.Namespace, out: IO[str]) -> None:
    """Take the two connections of one client and serve them to their end."""
    listener = socket.create_server((options.bind, TCP_PORT))
    found: dict[bytes, socket.socket] = {}
    while len(found) < 2:
        connection, _ = listener.accept()
        direction = connection.recv(1)
        connection.setblocking(False)
        found[direction] = connection

    def client_said_stop() -> bool:
        try:
            return found[b"d"].recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    sender, receiver = Sender(found[b"d"], options.rate), Receiver(found[b"u"])
    _transfer(out, sender, receiver, names=("down", "up"), stop_sending=client_said_stop)


def udp(options: argparse.Namespace, out: IO[bytes]) -> None:
    """Send a numbered datagram every 5 ms and note every one that comes, until SIGTERM."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.bind((options.bind, UDP_PORT))
    link.setblocking(False)
    number, due = 0, time.monotonic()
    with open(options.out + ".sent", "wb", buffering=4096) as sent:
        while not Stopping.now:
            wait = due - time.monotonic()
            if select.select([link], [], [], max(0.0, wait))[0]:
                _note_received(link, out)
            now = time.monotonic()
            if now < due:
                continue
            due = max(due + INTERVAL, now)
            number += 1
            failed = 0
            try:
                link.sendto(struct.pack("!Qd", number, now), (options.peer, UDP_PORT))
            except OSError as error:
                failed = error.errno or -1
            sent.write(RECORD.pack(number, now, failed))


def _note_received(link: socket.socket, out: IO[bytes]) -> None:
    while True:
        try:
            data = link.recv(64)
        except OSError:
            return
        if len(data) == 16:
            number, sent = struct.unpack("!Qd", data)
            out.write(RECORD.pack(number, sent, time.monotonic()))


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["tcp-server", "tcp-client", "udp"])
    parser.add_argument("--bind", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--out", required=True)
    parser.add_argument("--rate", type=float, default=2e6, help="bits per second")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    if options.role == "udp":
        with open(options.out, "wb", buffering=4096) as out:
            udp(options, out)
    else:
        with open(options.out, "w", buffering=1) as out:
            {"tcp-server": tcp_server, "tcp-client": tcp_client}[options.role](options, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
