# SPDX-License-Identifier: GPL-2.0-or-later
"""Private buses of type system with the project's own policy files, and a second user on them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine
from importlib.resources import files
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SECOND_USER = "nobody"


class PrivateBus:
    """A dbus-daemon of our own; `limits` are names and values of its configuration.

    Run by root it is exactly the lab's bus; run by anybody else the same with that user in root's place.
    """

    def __init__(self, limits: dict[str, int] | None = None) -> None:
        # Not pytest's tmp_path: other users must get to the socket.
        self._folder = Path(tempfile.mkdtemp(prefix="homeward-bus-"))
        self._folder.chmod(0o755)
        self.address = f"unix:path={self._folder}/bus"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._configure(limits or {})

    def _configure(self, limits: dict[str, int]) -> None:
        me = pwd.getpwuid(os.geteuid()).pw_name
        extra = "".join(f'<limit name="{name}">{value}</limit>' for name, value in limits.items())
        for name in ("private-bus.conf", "org.homeward.Daemon.conf"):
            text = files("homeward.data").joinpath("dbus", name).read_text(encoding="utf-8")
            text = text.replace('<policy user="root">', f'<policy user="{me}">')
            if name == "private-bus.conf":
                text = text.replace("</busconfig>", extra + "</busconfig>")
            (self._folder / name).write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start it, again after stop()."""
        path = self._folder / "bus"
        path.unlink(missing_ok=True)
        self._daemon = subprocess.Popen(
            [
                "dbus-daemon",
                f"--config-file={self._folder}/private-bus.conf",
                f"--address={self.address}",
                "--nofork",
                "--nopidfile",
            ],
            stderr=subprocess.DEVNULL,  # it complains that it may not raise its limit of open files
        )
        deadline = time.monotonic() + 10
        while not _answers(path):
            assert self._daemon.poll() is None, "dbus-daemon ended at once"
            assert time.monotonic() < deadline, "dbus-daemon does not listen"
            time.sleep(0.01)

    def stop(self) -> None:
        """End it as a crash would."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGKILL)
            self._daemon.wait()
            self._daemon = None

    def pause(self) -> None:
        """It neither reads nor writes until resume()."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it and take its folder away."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _answers(path: Path) -> bool:
    """Whether somebody listens: the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class OtherUser:
    """Runs a coroutine as another user, in a forked process that has given up root for good."""

    def __init__(self, name: str = SECOND_USER) -> None:
        self.name = name
        self.uid = pwd.getpwnam(name).pw_uid
        self._running: list[multiprocessing.context.ForkProcess] = []

    def start(self, work: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Connection:
        """Begin; what `work` returns arrives on the connection, an exception as its repr."""
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=_as_user, args=(self.uid, theirs, work, arguments)
        )
        process.start()
        theirs.close()
        self._running.append(process)
        return ours

    async def run(self, work: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        """Run it to its end, without stopping this process's event loop."""
        connection = self.start(work, *arguments)
        try:
            return await asyncio.to_thread(_receive, connection)
        finally:
            connection.close()

    def stop(self) -> None:
        """End whatever still runs."""
        for process in self._running:
            process.kill()
            process.join()
            process.close()


def _receive(connection: Connection) -> Any:
    assert connection.poll(40), "the other user's process says nothing"
    return connection.recv()


def _as_user(
    uid: int, answers: Connection, work: Callable[..., Coroutine[Any, Any, Any]], arguments: Any
) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    try:
        answer = asyncio.run(work(*arguments))
    except Exception as error:
        answer = repr(error)
    answers.send(answer)
    answers.close()
