# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux kernel of one's own for a test: User-Mode Linux over a throw-away view of the host's files.

The kernel is an ordinary process and needs no privilege; in it the command is root, with ESP, WireGuard, tunnels and
network emulation, whatever the host's kernel has. Nothing but the folders that are named reaches the host.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from devtools import kernel

ROOT: Final = Path(__file__).resolve().parents[2]
HOW_TO_GET_ONE: Final = (
    f"no kernel for User-Mode Linux: `./dev kernel` builds one, or {kernel.VARIABLE} names it"
)

_INIT: Final = Path(__file__).with_name("guest_init.sh")
_KEEPER: Final = Path(__file__).with_name("keeper.py")
_POLL: Final = 0.02
_GRACE: Final = 5.0
"""Seconds that a kernel may take to stop after its command has ended."""
_TAIL: Final = 4000


class NoKernel(Exception):
    """There is no kernel to be started; the message says how to get one."""


class GuestFailed(Exception):
    """The kernel did not come up, died, or took longer than it was given; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a kernel is started with.

    `shared` are folders of the host that the command may write to, under the same path; they must exist. `environment`
    is added to a plain one. `seconds` are real ones, also with the virtual clock. `megabytes` hold all that is changed
    in the guest as well as its programs.

    With `virtual_clock`, computing takes no time and waiting costs none: `sleep 3600` returns at once, and the same
    story gives the same milliseconds on every run. A program that waits by looking at the clock hangs there.
    """

    shared: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = ROOT
    seconds: float = 120.0
    megabytes: int = 1024
    virtual_clock: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the command did. `seconds` is how long it took with starting and stopping the kernel."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def find_kernel() -> Path:
    """The kernel to start, or NoKernel."""
    found = kernel.find(os.environ)
    if found is None:
        raise NoKernel(HOW_TO_GET_ONE)
    return found


def run(argv: Sequence[str], settings: Settings | None = None) -> Outcome:
    """Boot, run a command as root, and give back what it did. Raises NoKernel, GuestFailed."""
    with Guest(argv, settings or Settings()) as guest:
        return guest.wait()


class Guest:
    """One kernel that runs one command, from `with` on; leaving the block ends it, whatever it is doing."""

    def __init__(self, argv: Sequence[str], settings: Settings) -> None:
        self._argv = tuple(argv)
        self._settings = settings
        self._kernel = find_kernel()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def __enter__(self) -> Guest:
        self._channel = Path(tempfile.mkdtemp(prefix="homeward-kernel-"))
        self._started = time.monotonic()
        try:
            self._write_orders()
            self._process = self._start()
        except BaseException:
            shutil.rmtree(self._channel)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        shutil.rmtree(self._channel)

    @property
    def running(self) -> bool:
        """Whether the command may still say something."""
        assert self._process is not None
        return self._process.poll() is None and not (self._channel / "status").exists()

    def said(self) -> str:
        """What the command has written so far: standard output, then standard error."""
        return self._read("stdout") + self._read("stderr")

    def wait(self) -> Outcome:
        """Wait for the command's end; GuestFailed when the kernel ends before it, or the time is over."""
        while self.running:
            self.check_time()
            time.sleep(_POLL)
        try:
            status = int(self._read("status"))
        except ValueError:
            raise GuestFailed(self._why("ended before its command")) from None
        seconds = time.monotonic() - self._started
        return Outcome(status, self._read("stdout"), self._read("stderr"), seconds)

    def check_time(self) -> None:
        """GuestFailed when the time is over."""
        if time.monotonic() - self._started > self._settings.seconds:
            doing = "its command" if (self._channel / "up").exists() else "coming up"
            raise GuestFailed(self._why(f"was still busy with {doing} after {self._settings.seconds:g} s"))

    # --- starting ----------------------------------------------------------------------------------------------------

    def _write_orders(self) -> None:
        set_up = [f"export {name}={shlex.quote(value)}" for name, value in self._settings.environment.items()]
        set_up.append(f"cd {shlex.quote(str(self._settings.directory))}")
        orders = "\n".join([*set_up, f"exec {shlex.join(self._argv)}"])
        (self._channel / "command").write_text(orders + "\n")
        shared = (self._channel, *self._settings.shared)
        (self._channel / "shared").write_text("".join(f"{folder.absolute()}\n" for folder in shared))

    def _start(self) -> subprocess.Popen[bytes]:
        words = [
            f"mem={self._settings.megabytes}M",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            f"init={_INIT}",
            f"CHANNEL={self._channel}",
            # Else the kernel makes a folder with a control socket in the user's home.
            f"uml_dir={self._channel}/",
            "con=null",
            "con0=null,fd:1",
            "console=tty0",
            *(["time-travel=inf-cpu"] if self._settings.virtual_clock else []),
        ]
        with (self._channel / "kernel.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", _KEEPER, self._kernel, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # Ctrl-C on the terminal is for us: we end the kernel then.
                start_new_session=True,
            )

    # --- ending ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """End the kernel, and with it every process inside."""
        process = self._process
        if process is None:
            return
        if (self._channel / "status").exists():
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                pass
        process.terminate()
        process.wait()

    # --- what there is to read ---------------------------------------------------------------------------------------

    def _read(self, name: str) -> str:
        try:
            return (self._channel / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _why(self, what: str) -> str:
        log = self._read("kernel.log") if not (self._channel / "up").exists() else ""
        said = (log + self.said()).strip()
        return f"{self._kernel} {what}. The end of what it said:\n{said[-_TAIL:]}"
