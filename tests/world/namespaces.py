# SPDX-License-Identifier: GPL-2.0-or-later
"""Throw-away network namespaces for tests: without names, gone with the last file descriptor.

The calling thread itself steps into a namespace, so that adapters under test open their sockets there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_SET_INTERFACE_FLAGS = 0x8914
_UP = 0x1
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Namespace:
    """One network namespace; `with namespace:` runs what is inside it there."""

    def __init__(self) -> None:
        self._outside: list[int] = []
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.unshare(_CLONE_NEWNET))
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            loopback_up()
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET))
            os.close(home)

    @property
    def path(self) -> str:
        """A file that names this namespace, for `ip link ... netns`."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def __enter__(self) -> Namespace:
        self._outside.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        _check(_libc.setns(self._fd, _CLONE_NEWNET))
        return self

    def __exit__(self, *exception: object) -> None:
        outside = self._outside.pop()
        _check(_libc.setns(outside, _CLONE_NEWNET))
        os.close(outside)

    def close(self) -> None:
        os.close(self._fd)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a command in the namespace that this thread is in at the moment; its output. A failure is an error."""
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def command(self, *words: str) -> list[str]:
        """The words of a command that runs in this namespace, whichever one its starter is in."""
        return ["nsenter", f"--net={self.path}", "--", *words]

    def ip(self, arguments: str) -> str:
        """Run `ip` in this namespace."""
        with self:
            return self.run("ip", *arguments.split())

    def batch(self, *lines: str) -> None:
        """Run several `ip` commands as one process, in this namespace."""
        with self:
            self.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Read, or write, a value under /proc/sys/net/ in this namespace."""
        with self:
            file = Path("/proc/sys/net") / name
            if value is not None:
                file.write_text(value)
            return file.read_text().strip()


@contextmanager
def entered(path: str) -> Iterator[None]:
    """Run what is inside in the namespace that this file names."""
    home, there = (os.open(each, os.O_RDONLY | os.O_CLOEXEC) for each in ("/proc/thread-self/ns/net", path))
    try:
        _check(_libc.setns(there, _CLONE_NEWNET))
        yield
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(there)
        os.close(home)


def loopback_up() -> None:
    """Switch `lo` on in the namespace that this thread is in; without a process, for hundreds are made."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_INTERFACE_FLAGS, struct.pack("16sh22x", b"lo", _UP))


def cable(one: Namespace, name: str, other: Namespace, other_name: str) -> None:
    """A veth pair between two namespaces, both ends up."""
    one.batch(f"link add {name} type veth peer name {other_name} netns {other.path}", f"link set {name} up")
    other.ip(f"link set {other_name} up")


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    """That many namespaces, taken down at the end."""
    made = [Namespace() for _ in range(count)]
    try:
        yield made
    finally:
        for namespace in made:
            namespace.close()
