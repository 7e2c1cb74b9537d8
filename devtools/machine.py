# SPDX-License-Identifier: GPL-2.0-or-later
"""This checkout and this machine: where things are, who called us, and how to act as root or as that user."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools.console import Failed, wait_patiently

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
VENV = BUILD / "venv"
LOGS = BUILD / "logs"
CACHE = BUILD / "cache"

_SESSION = (
    "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "XDG_CURRENT_DESKTOP", "DBUS_SESSION_BUS_ADDRESS",
)  # fmt: skip
"""What the tray needs to find the user's desktop, and what sudo takes away."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The person who called `./dev`: files that are made belong to them, and the tray runs as them.

    `uid` and `gid` are the invoking user's, also under sudo. `is_root` says whether this process may do root's work.
    """

    uid: int
    gid: int
    is_root: bool

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def drops_privilege(self) -> bool:
        """True where we are root only because a user said `sudo ./dev`."""
        return self.is_root and self.uid != 0

    def can_become_root(self) -> bool:
        return self.is_root or shutil.which("sudo") is not None

    def as_root(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """The command that runs `argv` as root with `env` added; sudo keeps no environment, so `env` carries it."""
        carried = [f"{key}={value}" for key, value in (env or {}).items()]
        command = ["/usr/bin/env", *carried, *argv] if carried else list(argv)
        if self.is_root:
            return command
        if not self.can_become_root():
            raise Failed("This needs root, and there is no sudo here: run the same command as root.")
        return ["sudo", *command]

    def as_user(self) -> dict[str, object]:
        """Arguments for Popen that make the child the invoking user, not root."""
        if not self.drops_privilege:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": os.getgrouplist(self.name, self.gid)}

    def user_environment(self) -> dict[str, str]:
        """The environment of children that run as the user."""
        env = dict(os.environ)
        if self.drops_privilege:
            env |= {"HOME": pwd.getpwuid(self.uid).pw_dir, "USER": self.name, "LOGNAME": self.name}
        return env

    def session(self) -> dict[str, str]:
        """The variables by which a program finds the user's desktop, as far as they are set here."""
        return {key: os.environ[key] for key in _SESSION if key in os.environ}


def caller() -> Caller:
    if os.geteuid() != 0:
        return Caller(uid=os.getuid(), gid=os.getgid(), is_root=False)
    uid, gid = os.environ.get("SUDO_UID", "0"), os.environ.get("SUDO_GID", "0")
    known = uid.isdecimal() and gid.isdecimal()
    return Caller(uid=int(uid) if known else 0, gid=int(gid) if known else 0, is_root=True)


def settings() -> dict[str, str]:
    """Variables that keep what Python and the tools write below build/."""
    return {
        "PYTHONPYCACHEPREFIX": str(CACHE / "pycache"),
        # Containers often forbid it. With a folder of its own, where nothing is compiled beforehand, each process would
        # then compile all that it imports, Python's own library too: a second for each of the hundreds that tests run.
        "PYTHONDONTWRITEBYTECODE": "",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(CACHE / "hypothesis"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def make_build_folder(who: Caller) -> None:
    for folder in (BUILD, LOGS, CACHE):
        folder.mkdir(exist_ok=True)
        if who.drops_privilege:
            os.chown(folder, who.uid, who.gid)


def give_back(who: Caller, *folders: Path) -> None:
    """Hand what root made in the checkout to the user who called us."""
    present = [str(folder) for folder in folders if folder.exists()]
    if present and who.uid != 0:
        subprocess.run(who.as_root(["chown", "-R", f"{who.uid}:{who.gid}", *present]), check=True)


def run(argv: Sequence[str], *, env: Mapping[str, str], become: Mapping[str, object] | None = None) -> int:
    """Run a command whose output is for the person to see; its exit status."""
    process = subprocess.Popen(list(argv), cwd=ROOT, env=dict(env), **(become or {}))  # type: ignore[call-overload]
    return wait_patiently(process, lambda: None, every=3600)


def debian_release() -> int:
    """Debian's major version; 12 where the machine does not say."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 12
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    version = fields.get("VERSION_ID", "").strip('"').split(".")[0]
    return int(version) if version.isdecimal() and fields.get("ID", "").strip('"') == "debian" else 12
