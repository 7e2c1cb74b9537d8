# SPDX-License-Identifier: GPL-2.0-or-later
"""A bus, a screen and a tray process for one test each."""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parent.parent.parent / "app"
_COMPILED = ("PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE")
"""Where compiled modules are kept: as for the tests themselves, or each start would compile the tray anew."""

_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <policy context="default"><allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


def need(*programs: str) -> None:
    """Skip the test, saying what is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def ended(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def first_line(process: subprocess.Popen[bytes], seconds: float = 10) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline().decode().strip() if ready else ""


class PrivateBus:
    """A dbus-daemon of our own, which activates nothing."""

    def __init__(self, folder: Path) -> None:
        need("dbus-daemon")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> str:
        self._folder.mkdir()
        config = self._folder / "bus.conf"
        config.write_text(_CONFIG.format(socket=self._folder / "socket"))
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address=1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        address = first_line(self._process)
        assert address, "the private bus did not come up"
        return address

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        ended(self._process)


class Screen:
    """An Xvfb of our own."""

    def __init__(self, folder: Path) -> None:
        need("Xvfb")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> dict[str, str]:
        self._process = subprocess.Popen(
            ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        number = first_line(self._process)
        assert number, "the virtual screen did not come up"
        return {"DISPLAY": f":{number}"}

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        ended(self._process)


class TrayProcess:
    """homeward-tray as a process of its own."""

    def __init__(self, folder: Path, *, screen: dict[str, str], session: str | None, bus: str) -> None:
        self._log = folder / "tray.log"
        self._bus = bus
        self._folder = folder
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(SOURCE),
            **{name: os.environ[name] for name in _COMPILED if name in os.environ},
            "PYTHONWARNINGS": "error::ResourceWarning",
            "QT_QPA_PLATFORM": "xcb",
            "NO_AT_BRIDGE": "1",
            **screen,
        }
        if session is not None:
            self._environment["DBUS_SESSION_BUS_ADDRESS"] = session
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "homeward.gui.main", "--bus", self._bus, *arguments],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def faults(self) -> str:
        """The log, but for what the collector says of a connection that keyring leaves to it when a keyring is locked.

        keyring 25's get_preferred_collection() raises without closing what it opened; where the collector happens to
        run, Python prints a traceback of whatever code that was.
        """
        return re.sub(
            r"Exception ignored in: .*?\nResourceWarning: unclosed <socket\.socket[^\n]*\n",
            "",
            self.log(),
            flags=re.DOTALL,
        )

    def __enter__(self) -> TrayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            ended(process)


async def until(condition: Callable[[], Any], what: str, seconds: float = 15) -> Any:
    """Wait for a condition, looking often; its first true value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for: {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def closing_bus(bus: Any):  # type: ignore[no-untyped-def]
    """A dbus-fast connection that is closed at the end and leaves no socket behind."""
    from homeward.bus.connection import leave_bus

    try:
        yield bus
    finally:
        await leave_bus(bus)
