# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev kernel`: the User-Mode Linux kernel of tests/kernel, built once from the distribution's own kernel source.

Debian's package `user-mode-linux` will not do: its nftables refuses the families that the fence needs, and it has no
WireGuard. The result is kept outside the checkout, below a name that changes when `tests/kernel/uml.config` does.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from devtools import console
from devtools.machine import LOGS, ROOT, Caller

FRAGMENT = ROOT / "tests" / "kernel" / "uml.config"
VARIABLE = "HOMEWARD_UML_KERNEL"
"""Names a kernel that is ready; then none is looked for or built."""

_SOURCE_PACKAGE = "linux-source"
_MINUTES = 7
_MEGABYTES = 2500
"""Space for the unpacked source and the objects; all but 10 MB of it is given back at the end."""


def place(environment: Mapping[str, str], fragment: Path = FRAGMENT) -> Path:
    """Where the kernel that is built from this fragment is kept, whether or not it is there."""
    cache = environment.get("XDG_CACHE_HOME", "")
    # A relative path is to be ignored (XDG Base Directory Specification).
    base = Path(cache) if cache.startswith("/") else Path(environment["HOME"]) / ".cache"
    checksum = hashlib.sha256(fragment.read_bytes()).hexdigest()[:16]
    return base / "homeward" / "uml" / checksum / "linux"


def find(environment: Mapping[str, str]) -> Path | None:
    """The kernel to use: the one that HOMEWARD_UML_KERNEL names, else the one that was built."""
    named = environment.get(VARIABLE)
    kernel = Path(named) if named else place(environment)
    return kernel if os.access(kernel, os.X_OK) else None


def setting(who: Caller) -> dict[str, str]:
    """The variable by which the tests find the kernel, where there is one: root's home is not the user's."""
    kernel = find(who.user_environment())
    return {} if kernel is None else {VARIABLE: str(kernel)}


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev kernel", allow_abbrev=False)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="compilers at a time")
    parser.add_argument("--yes", action="store_true", help="install what is missing without asking")
    return parser.parse_args(arguments)


def build(who: Caller, *, jobs: int) -> None:
    """Build the kernel, unless another build of the same one comes first."""
    env = who.user_environment()
    if named := env.get(VARIABLE):
        raise console.Failed(f"{VARIABLE} names {named}, which cannot be executed.")
    _Build(place(env), who, env).run(max(1, jobs))


class _Build:
    """One build, as the user, in a folder beside the kernel's place."""

    def __init__(self, kernel: Path, who: Caller, env: dict[str, str]) -> None:
        self._kernel = kernel
        self._folder = kernel.parent / "build"
        self._tree = self._folder / "linux"
        self._who = who
        self._env = env

    def run(self, jobs: int) -> None:
        console.heading("kernel for tests/kernel")
        _make_folders(self._kernel.parent, self._who)
        with _alone(self._kernel.parent):
            if self._kernel.exists():
                return  # somebody else has built it while we waited
            self._require_space()
            console.say(f"   about {_MINUTES} minutes on two processors, once")
            self._unpack()
            self._configure()
            self._step("Compiling", "kernel-make", self._make(f"-j{jobs}", "linux"))
            stripped = self._folder / "linux.stripped"
            self._step("Stripping", "kernel-strip", ["strip", "-o", str(stripped), str(self._tree / "linux")])
            stripped.replace(self._kernel)
            shutil.rmtree(self._folder)

    def _require_space(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)  # of a build that was broken off
        free = shutil.disk_usage(self._kernel.parent).free // 1_000_000
        if free < _MEGABYTES:
            raise console.Failed(
                f"{self._kernel.parent} has {free} MB left; building a kernel takes {_MEGABYTES} MB. "
                "XDG_CACHE_HOME chooses another place."
            )

    def _unpack(self) -> None:
        _make_folders(self._tree, self._who)
        package = _source_package()
        self._step("Downloading the source", "kernel-download", ["apt-get", "download", package])
        (archive,) = self._folder.glob(f"{package}_*.deb")
        self._step("Unpacking the package", "kernel-package", ["dpkg", "-x", archive.name, "package"])
        (source,) = (self._folder / "package" / "usr" / "src").glob("linux-source-*.tar.*")
        unpack = ["tar", "--extract", f"--file={source}", f"--directory={self._tree}", "--strip-components=1"]
        self._step("Unpacking the source", "kernel-unpack", unpack)

    def _configure(self) -> None:
        self._step("Configuring", "kernel-defconfig", self._make("defconfig"))
        merge = ["scripts/kconfig/merge_config.sh", "-m", ".config", str(FRAGMENT)]
        self._step("Adding our options", "kernel-merge", merge, inside=self._tree)
        self._step("Completing the options", "kernel-olddefconfig", self._make("olddefconfig"))
        refused = not_held(FRAGMENT.read_text("utf-8"), (self._tree / ".config").read_text("utf-8"))
        if refused:
            raise console.Failed(
                f"The kernel source does not take these lines of {FRAGMENT}: {', '.join(refused)}"
            )

    def _make(self, *arguments: str) -> list[str]:
        return ["make", f"--directory={self._tree}", "ARCH=um", *arguments]

    def _step(self, title: str, log: str, argv: list[str], *, inside: Path | None = None) -> None:
        # env --chdir, because Popen's `cwd` would be entered before the user is taken on.
        argv = ["env", f"--chdir={inside or self._folder}", *argv]
        console.watch(title, argv, log=LOGS / f"{log}.log", env=self._env, become=self._who.as_user)


def not_held(fragment: str, config: str) -> list[str]:
    """The options of a fragment that the finished configuration does not have as wished."""
    present = set(config.splitlines())
    refused = []
    for line in fragment.splitlines():
        unset = re.fullmatch(r"# (CONFIG_\w+) is not set", line)
        if unset is not None:
            held = not any(each.startswith(f"{unset[1]}=") for each in present)
        else:
            held = line.startswith("#") or not line.strip() or line in present
        if not held:
            refused.append(line)
    return refused


def _source_package() -> str:
    """The package with the source itself: `linux-source` only depends on it."""
    asked = subprocess.run(
        ["apt-cache", "depends", _SOURCE_PACKAGE], capture_output=True, text=True, check=False, env=_plain()
    )
    found = re.search(rf"Depends: ({_SOURCE_PACKAGE}-\S+)", asked.stdout)
    if found is None:
        raise console.Failed(
            f"apt does not know the package {_SOURCE_PACKAGE}: run `apt-get update` as root first."
        )
    return found[1]


def _plain() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _make_folders(folder: Path, who: Caller) -> None:
    """Make a folder and those above it, all that are new the user's."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if who.drops_privilege:
        for each in new:
            os.chown(each, who.uid, who.gid)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for another build of the same kernel."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say("   waiting for another build of the same kernel")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
