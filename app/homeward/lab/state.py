# SPDX-License-Identifier: GPL-2.0-or-later
"""Where one lab keeps itself on disk, and how it recognises its own processes, however it was left.

A lab is a folder. Each host writes down who it is (process number, start time, boot) before it does anything
else, and every process of the lab carries the folder's name in its environment, so that `down` finds what a
killed `up` did not record.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from homeward.lab.errors import LabError, UsageError

MARKER: Final = "HOMEWARD_LAB"
"""Name of the environment variable that every process of a lab carries; its value is the lab's folder."""

_KEPT_VARIABLES: Final = ("TERM", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE")
_LONGEST_SOCKET_PATH = 107
_LONGEST_BELOW = len("/hosts/correspondent/run/dbus/system_bus_socket")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    start: int
    """Field 22 of /proc/PID/stat: clock ticks after boot."""
    boot: str

    def alive(self) -> bool:
        """Whether this very process is there and not a zombie."""
        if self.boot != _boot_id():
            return False
        seen = process_start(self.pid)
        return seen is not None and seen == self.start


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_start(pid: int) -> int | None:
    """The start time of a living process; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def checkout() -> Path | None:
    """The checkout that this package runs from, if it does not run from an installed copy."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() else None


def default_base() -> Path:
    """The folder that holds the labs: build/lab of the checkout, else the user's or the machine's runtime folder."""
    root = checkout()
    if root is not None:
        return root / "build" / "lab"
    return Path(os.environ.get("XDG_RUNTIME_DIR", "/run")) / "homeward-lab"


def invoking_user() -> tuple[int, int]:
    """User and group for whom root runs this: sudo's or pkexec's caller, else root itself."""
    for user, group in (("SUDO_UID", "SUDO_GID"), ("PKEXEC_UID", "")):
        if os.environ.get(user, "").isdigit():
            uid = int(os.environ[user])
            return uid, int(os.environ.get(group, "") or uid)
    return os.getuid(), os.getgid()


class LabState:
    """One lab's folder. The name distinguishes labs that run at the same time."""

    def __init__(self, name: str, base: Path | None = None) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", name):
            raise UsageError(f"{name!r} is no name for a lab: letters, digits, . _ - and at most 31 of them")
        self.name = name
        self.root = (base or default_base()).absolute() / name

    # --- places ---

    def host(self, name: str) -> Path:
        """The folder of one host: pid, control, run/, log/."""
        return self.root / "hosts" / name

    def run(self, name: str) -> Path:
        """What the host sees as /run."""
        return self.host(name) / "run"

    def log(self, host: str, service: str) -> Path:
        """The output of one service."""
        return self.host(host) / "log" / f"{service}.log"

    @property
    def keys(self) -> Path:
        """This lab's secrets, readable for root only."""
        return self.root / "keys"

    def short(self) -> Path:
        """The lab's folder by a name so short that Unix sockets below it can be reached by their path (108 octets).

        Where the folder's own path is too long, this is a symbolic link in a folder of our own under /tmp,
        which `down` removes.
        """
        if len(os.fsencode(self.root)) + _LONGEST_BELOW <= _LONGEST_SOCKET_PATH:
            return self.root
        note = self.root / "short"
        if note.exists():
            link = Path(note.read_text())
            if link.is_symlink() and Path(os.readlink(link)) == self.root:
                return link
        folder = Path(tempfile.mkdtemp(prefix="hw-"))
        note.write_text(str(folder / "l"))
        folder.chmod(0o711)
        (folder / "l").symlink_to(self.root)
        return folder / "l"

    def _remove_short(self) -> None:
        note = self.root / "short"
        if note.exists():
            link = Path(note.read_text())
            if link.is_symlink() and Path(os.readlink(link)) == self.root:
                link.unlink()
                link.parent.rmdir()
            note.unlink()

    # --- processes ---

    def identity(self, host: str) -> Identity | None:
        """Who the host's first process is, if it ever was; it may be dead by now."""
        try:
            return Identity(**json.loads((self.host(host) / "pid").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def alive(self, host: str) -> bool:
        """Whether the host runs."""
        identity = self.identity(host)
        return identity is not None and identity.alive()

    def environment(self) -> dict[str, str]:
        """What a process of this lab gets as its environment: the marker and our package's place.

        Nothing of the caller's session: it would lead to buses and proxies outside.
        """
        kept = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
        return {
            **kept,
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "PYTHONUNBUFFERED": "1",
            MARKER: str(self.root),
        }

    def processes(self) -> list[int]:
        """Every process that carries this lab's marker, those in the hosts included, ourselves excluded."""
        numbers = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
        return [pid for pid in numbers if pid != os.getpid() and self._is_marked(pid)]

    @property
    def lock(self) -> Path:
        """The file that says that somebody builds or destroys this lab; one who was killed leaves it behind."""
        return self.root.parent / f".{self.name}.lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands that build or destroy this lab waiting."""
        path = self.lock
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with path.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # The one before us may have deleted the file that we waited for.
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    try:
                        yield
                    finally:
                        path.unlink(missing_ok=True)
                    return

    def kill_all(self) -> int:
        """End every process of the lab and wait until they are gone; says how many were ended by us directly."""
        identities = [self.identity(path.name) for path in self._host_folders()]
        killed = kill_and_wait([(each.pid, each.alive) for each in identities if each is not None])
        for _ in range(20):
            strays = self.processes()
            if not strays:
                return killed
            killed += kill_and_wait([(pid, partial(self._is_marked, pid)) for pid in strays])
        raise LabError(f"these processes of the lab do not end: {self.processes()}")

    def _is_marked(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return f"{MARKER}={self.root}".encode() in environment.split(b"\0")

    def _host_folders(self) -> list[Path]:
        folder = self.root / "hosts"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def remove(self) -> None:
        """Delete the lab's folder, secrets first."""
        if self.root.exists():
            shutil.rmtree(self.keys, ignore_errors=True)
            self._remove_short()
            shutil.rmtree(self.root)


def kill_and_wait(targets: list[tuple[int, Callable[[], bool]]], *, seconds: float = 10.0) -> int:
    """SIGKILL processes and wait for their end. Each comes with the question whether it still is the one meant.

    The question is asked once a descriptor is held that cannot come to mean another process. Says how many were
    killed.
    """
    descriptors = []
    try:
        for pid, still_meant in targets:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                descriptors.append(descriptor)
                if still_meant():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                else:
                    os.close(descriptors.pop())
        for descriptor in descriptors:
            if not select.select([descriptor], [], [], seconds)[0]:
                raise LabError("a process of the lab does not end, though it was killed")
            _wait_until_buried(descriptor)
        return len(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _wait_until_buried(descriptor: int, seconds: float = 2.0) -> None:
    """Give the machine's init time to bury the dead, with whom their last namespace goes; some inits never do."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            signal.pidfd_send_signal(descriptor, 0)
        except ProcessLookupError:
            return
        time.sleep(0.005)
