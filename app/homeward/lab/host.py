# SPDX-License-Identifier: GPL-2.0-or-later
"""One running host of a lab, as the lab's own code handles it: run a command in it, start and stop its services."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from homeward.lab.errors import LabError
from homeward.lab.state import LabState

_SOCKET_SECONDS = 30.0


def program(file: str) -> tuple[str, ...]:
    """The command line of one of the lab's small programs, which need the standard library only and start quickly."""
    return (sys.executable, "-I", "-S", str(Path(__file__).with_name(file)))


class Host:
    """A host that stands. Every call raises LabError when the host is gone."""

    def __init__(self, state: LabState, name: str) -> None:
        self.state = state
        self.name = name

    @property
    def pid(self) -> int:
        """The host's first process, seen from outside."""
        identity = self.state.identity(self.name)
        if identity is None or not identity.alive():
            raise LabError(f"{self.name} is not running: homeward-lab --name {self.state.name} up")
        return identity.pid

    # --- commands ---

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside this host, in its root folder."""
        spaces = ("--net", "--mount", "--uts", "--pid", "--wd")
        return ["nsenter", f"--target={self.pid}", *spaces, "--", *argv]

    def run(
        self, *argv: str, text: str = "", check: bool = True, seconds: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and keep its output; LabError tells both when it fails and `check` is set."""
        return self._finish(self.enter(argv), argv, text=text, check=check, seconds=seconds)

    def ip(self, *lines: str) -> None:
        """Apply a batch of `ip` commands in the host's network, all or up to the first that fails."""
        if lines:
            argv = ["nsenter", f"--target={self.pid}", "--net", "--", "ip", "-batch", "-"]
            self._finish(argv, ("ip", "-batch"), text="\n".join(lines) + "\n", check=True, seconds=30.0)

    def _finish(
        self, argv: Sequence[str], shown: Sequence[str], *, text: str, check: bool, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            argv,
            input=text,
            text=True,
            capture_output=True,
            check=False,
            timeout=seconds,
            env=self.state.environment(),
        )
        if check and result.returncode:
            said = (result.stderr + result.stdout).strip()
            raise LabError(f"{self.name}: {' '.join(shown)} failed ({result.returncode}): {said}")
        return result

    # --- services ---

    def start(
        self,
        name: str,
        *argv: str,
        environment: Mapping[str, str] | None = None,
        notify: bool = False,
        revive_after: float | None = None,
    ) -> int:
        """Start a program that stays; its output goes to log/NAME.log. Returns its process number inside.

        `notify`: it says by itself when it is ready (sd_notify(3)). `revive_after`: seconds after which it is started
        again when it fails; None: never.
        """
        request = {"do": "start", "name": name, "argv": argv, "environment": environment or {}}
        answer = self._ask(request | {"notify": notify, "revive_after": revive_after})
        return int(answer["pid"])

    def process_of(self, name: str) -> int:
        """The process number inside of a service that was started; KeyError."""
        return int(self._ask({"do": "services"})[name]["pid"])

    def is_ready(self, name: str) -> bool:
        """Whether a service that is asked to has said that it is ready, and runs."""
        return bool(self._ask({"do": "services"}).get(name, {}).get("ready"))

    def stop(self, name: str, number: int = signal.SIGTERM, *, grace: float = 3.0) -> int | None:
        """End a service and wait for it; its exit status (negative: the signal), None when it never ran."""
        status: int | None = self._ask({"do": "stop", "name": name, "number": int(number), "grace": grace})[
            "status"
        ]
        return status

    def services(self) -> dict[str, int | None]:
        """The services by name with their exit status, None while they run."""
        return {name: each["status"] for name, each in self._ask({"do": "services"}).items()}

    def signal(self, number: int, *names: str) -> None:
        """Send a signal to services that run, and do not wait for anything; LabError when one does not run."""
        running = self._ask({"do": "services"})
        processes = [each["pid"] for name in names if (each := running.get(name)) and each["status"] is None]
        if len(processes) != len(names):
            raise LabError(f"{self.name}: not all of these run: {' '.join(names)}")
        self.run("kill", f"-{int(number)}", *map(str, processes))

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        folder = os.open(self.state.host(self.name), os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(_SOCKET_SECONDS)
                # By the folder's descriptor: the path itself may be longer than a socket's address.
                client.connect(f"/proc/self/fd/{folder}/control")
                client.sendall(json.dumps(request).encode() + b"\n")
                with client.makefile() as reply:
                    answer: dict[str, Any] = json.loads(reply.readline() or "{}")
        except OSError as error:
            raise LabError(f"{self.name} does not answer: {error.strerror or error}") from error
        finally:
            os.close(folder)
        if "error" in answer:
            raise LabError(f"{self.name}: {answer['error']}")
        return answer
