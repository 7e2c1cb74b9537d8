# SPDX-License-Identifier: GPL-2.0-or-later
"""The part that systemd has in the field, in a lab's host: it obeys `systemctl` by the unit files that are shipped.

The host's process 1 starts, watches and revives the programs; from the unit it is told how. What is played of a unit is
its life (Type=notify, Restart=on-failure, signals, folders, umask); its sandbox is not.
"""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homeward.lab.errors import LabError
from homeward.lab.host import Host
from homeward.lab.state import checkout

_WANTS: Final = "/etc/systemd/system/multi-user.target.wants"
_PLAYED: Final = ("Type", "Restart")
_FALLBACK_SECONDS: Final = 90.0  # systemd's own, where a unit says nothing


@dataclass(frozen=True, slots=True)
class Unit:
    """A service as its file describes it; folders are names below /var/lib and /run, times seconds."""

    name: str
    start: tuple[str, ...]
    reload: tuple[str, ...]
    revive_after: float | None
    stop_signal: signal.Signals
    restart_signal: signal.Signals
    state: str
    state_mode: str
    runtime: str
    umask: str
    start_seconds: float
    stop_seconds: float


def read_unit(name: str) -> Unit:
    """The service of that name as this checkout ships it; LabError when it ships none, or one that is not played."""
    root = checkout()
    path = (root or Path("/")) / "packaging" / "systemd" / f"{name}.service"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise LabError(f"Unit {name}.service not found.") from None
    return unit_of(name, text)


def unit_of(name: str, text: str) -> Unit:
    """What such a file says. LabError where a life is described that is not played."""
    said: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            said[key.strip()] = value.strip()
    if (said.get("Type"), said.get("Restart")) != ("notify", "on-failure"):
        raise LabError(f"{name}.service: of {' and '.join(_PLAYED)} only notify and on-failure are played")
    stop = signal.Signals[said.get("KillSignal", "SIGTERM")]
    return Unit(
        name=name,
        start=tuple(said["ExecStart"].split()),
        reload=tuple(said.get("ExecReload", "").split()),
        revive_after=float(said.get("RestartSec", "0.1")),
        stop_signal=stop,
        restart_signal=signal.Signals[said.get("RestartKillSignal", stop.name)],
        state=said.get("StateDirectory", ""),
        state_mode=said.get("StateDirectoryMode", "0755"),
        runtime=said.get("RuntimeDirectory", ""),
        umask=said.get("UMask", "0022"),
        start_seconds=float(said.get("TimeoutStartSec", _FALLBACK_SECONDS)),
        stop_seconds=float(said.get("TimeoutStopSec", _FALLBACK_SECONDS)),
    )


class ServiceManager:
    """systemd in one host. `path` is where the host finds programs that a unit names by their usual place."""

    def __init__(self, host: Host, path: str) -> None:
        self._host = host
        self._path = path

    def obey(self, words: Sequence[str]) -> str:
        """One `systemctl` command without its first word; what it says. LabError when it fails."""
        match [word.removesuffix(".service") for word in words]:
            case ["enable", name]:
                self._enable(name)
            case ["enable", "--now", name]:
                self._enable(name)
                self.start(name)
            case ["start", name]:
                self.start(name)
            case ["stop", name]:
                self._stop(read_unit(name), restarts=False)
            case ["restart", name]:
                self._stop(read_unit(name), restarts=True)
                self.start(name)
            case ["reload", name]:
                self._host.run("sh", "-c", self._in_path(read_unit(name).reload))
            case ["kill", option, name] if option.startswith("--signal="):
                number = signal.Signals["SIG" + option.removeprefix("--signal=").removeprefix("SIG")]
                self._host.signal(number, name)
            case ["is-active", name]:
                return "active" if self.runs(name) else "inactive"
            case _:
                raise LabError(f"systemctl {' '.join(words)}: is not played in the lab")
        return ""

    def boot(self) -> None:
        """Start what is enabled."""
        for link in self._host.run("sh", "-c", f"ls {_WANTS} 2>/dev/null || true").stdout.split():
            name = link.removesuffix(".service")
            if self.knows(name):
                self.start(name)

    def knows(self, name: str) -> bool:
        """Whether a service of that name is its own."""
        root = checkout()
        return root is not None and (root / "packaging" / "systemd" / f"{name}.service").exists()

    def runs(self, name: str) -> bool:
        """Whether its process is there."""
        return self._host.services().get(name, 0) is None

    def start(self, name: str) -> None:
        """Start it and wait for its READY=1; nothing if it runs. LabError with what it said."""
        if self.runs(name):
            return
        unit = read_unit(name)
        environment = {}
        for folder, top, mode, variable in (
            (unit.state, "/var/lib", unit.state_mode, "STATE_DIRECTORY"),
            (unit.runtime, "/run", "0755", "RUNTIME_DIRECTORY"),
        ):
            if folder:
                self._host.run("install", "-d", "-m", mode, f"{top}/{folder}")
                environment[variable] = f"{top}/{folder}"
        command = f"umask {unit.umask}; exec {self._in_path(unit.start)}"
        self._host.start(
            name, "sh", "-c", command, environment=environment, notify=True, revive_after=unit.revive_after
        )
        self._wait_until_ready(unit)

    def _wait_until_ready(self, unit: Unit) -> None:
        deadline = time.monotonic() + unit.start_seconds
        while not self._host.is_ready(unit.name):
            if not self.runs(unit.name) or time.monotonic() > deadline:
                log = self._host.state.log(self._host.name, unit.name)
                said = log.read_text(errors="replace")[-600:].strip()
                raise LabError(f"{unit.name} on {self._host.name} does not start. It says:\n{said}")
            time.sleep(0.02)

    def _stop(self, unit: Unit, *, restarts: bool) -> None:
        number = unit.restart_signal if restarts else unit.stop_signal
        status = self._host.stop(unit.name, number, grace=unit.stop_seconds)
        if status:
            raise LabError(f"{unit.name} ended with {status} when it was told to stop by {number.name}")

    def _enable(self, name: str) -> None:
        read_unit(name)
        self._host.run("mkdir", "-p", _WANTS)
        self._host.run("ln", "-sfn", f"/usr/lib/systemd/system/{name}.service", f"{_WANTS}/{name}.service")

    def _in_path(self, argv: Sequence[str]) -> str:
        return f"env PATH={self._path} {' '.join([Path(argv[0]).name, *argv[1:]])}"
