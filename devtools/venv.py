# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual environment in build/venv: exactly what requirements.lock says, and this checkout on top."""

import hashlib
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from devtools import console
from devtools.machine import CACHE, LOGS, ROOT, VENV, Caller

STAMP = VENV / ".homeward-stamp"
_SYSTEM_PYTHON = "/usr/bin/python3"
_ATTEMPTS = 3


def wished(lock: Path = ROOT / "requirements.lock", project: Path = ROOT / "pyproject.toml") -> str:
    """The checksum of everything that the environment depends on: a change of it asks for a new set-up."""
    described = tomllib.loads(project.read_text(encoding="utf-8"))
    parts = {key: described[key] for key in ("build-system", "project")}
    digest = hashlib.sha256(lock.read_bytes())
    digest.update(json.dumps(parts, sort_keys=True).encode())
    digest.update(f"{sys.version} {ROOT}".encode())
    return digest.hexdigest()


def is_current() -> bool:
    return STAMP.exists() and STAMP.read_text(encoding="ascii").strip() == wished()


def ensure(who: Caller) -> None:
    """Bring build/venv in line with the lock; at once when it is already. An environment in use stays usable."""
    if is_current():
        return
    if not _has_our_python():
        _step(who, "Creating build/venv", [_SYSTEM_PYTHON, "-m", "venv", "--clear", str(VENV)], "venv")
    install = [
        "install",
        "--require-hashes",
        "--only-binary=:all:",
        "--timeout=60",
        "--retries=5",
        "--progress-bar=off",
    ]
    _step(who, "Installing Python packages", _pip(*install, "--requirement=requirements.lock"), "pip")
    # Not with --require-hashes: it is this directory. Not isolated: the build backend is in the lock.
    checkout = _pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    _step(who, "Installing this checkout", checkout, "pip-checkout")
    STAMP.write_text(wished() + "\n", encoding="ascii")
    if who.drops_privilege:
        os.chown(STAMP, who.uid, who.gid)


def program(name: str) -> str:
    return str(VENV / "bin" / name)


def _has_our_python() -> bool:
    """Whether the environment is of the Python that runs us (a release upgrade changes that) and has pip."""
    try:
        command = [program("python"), "-c", "import pip, sys; print(sys.version)"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == sys.version.strip()


def _pip(*arguments: str) -> list[str]:
    return [program("python"), "-m", "pip", "--no-input", f"--cache-dir={CACHE / 'pip'}", *arguments]


def _step(who: Caller, title: str, argv: Sequence[str], log: str) -> None:
    """One step as the user, tried again a few times where a registry may have had a bad moment."""
    env = who.user_environment() | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    attempts = _ATTEMPTS if log == "pip" else 1
    for attempt in range(1, attempts + 1):
        try:
            console.watch(title, argv, log=LOGS / f"{log}.log", env=env, become=who.as_user)
        except console.Failed as failure:
            if attempt == attempts:
                raise console.Failed(
                    f"{failure}\nIf the network is at fault, just run the command again."
                ) from None
            console.say(f"   once more, attempt {attempt + 1} of {attempts}")
            time.sleep(5 * attempt)
        else:
            return
