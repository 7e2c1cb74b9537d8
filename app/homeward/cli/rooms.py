# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of the other rooms that `homeward` starts in its own place: the command line imports none of them."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from homeward.model.errors import HomewardError


@dataclass(frozen=True, slots=True)
class Room:
    """A program, the module that it starts, what it is for, and how to get it."""

    program: str
    module: str
    help: str
    install: str


ROOMS: Final = {
    "profile": Room(
        "homeward-profile",
        "homeward.daemon.profile_tool",
        "check a profile, or make the fingerprint of a secret",
        "install the package homeward",
    ),
    "lab": Room(
        "homeward-lab",
        "homeward.lab.main",
        "an enterprise network on this machine, to try roaming in",
        "install the package homeward-lab",
    ),
}


class NotInstalled(HomewardError):
    """The program of that room is not on this machine."""


def enter(name: str, arguments: Sequence[str]) -> NoReturn:
    """Become that program, which inherits arguments, terminal and file descriptors; NotInstalled."""
    command = command_of(ROOMS[name])
    if command is None:
        room = ROOMS[name]
        raise NotInstalled(f"`homeward {name}` is not installed (no program {room.program}); {room.install}")
    sys.stdout.flush()
    try:
        os.execvp(command[0], [*command, *arguments])
    except OSError as error:
        raise NotInstalled(f"{command[0]} cannot be started: {error.strerror}") from error


def command_of(room: Room) -> list[str] | None:
    """How to start it: the program beside our own, one on the search path, or the module; None if there is none."""
    # Imported here, because `homeward status` has no use for them and starts a tenth faster without.
    import importlib.util
    import shutil

    beside = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), room.program)
    if os.access(beside, os.X_OK):
        return [beside]
    found = shutil.which(room.program)
    if found is not None:
        return [found]
    try:
        spec = importlib.util.find_spec(room.module)
    except ModuleNotFoundError:
        spec = None
    # -P: never a module from the working directory, which may be somebody else's.
    return None if spec is None else [sys.executable, "-P", "-m", room.module]
