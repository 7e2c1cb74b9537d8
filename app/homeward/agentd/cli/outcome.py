# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command ends, and how it says so."""

from __future__ import annotations

import sys
from typing import Final

from homeward.model.errors import HomewardError, ProfileError

PROGRAM: Final = "homeward-agent"
OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2


class UsageError(HomewardError):
    """The command line is wrong."""


class CommandFailed(HomewardError):
    """It cannot be done; the text says why, and what to do next."""


def exit_status(error: HomewardError) -> int:
    """2 for wrong usage or a wrong configuration, 1 for anything else."""
    return WRONG_USAGE if isinstance(error, UsageError | ProfileError) else FAILED


def say(text: str) -> None:
    """A line for people beside the result, on standard error."""
    print(f"{PROGRAM}: {text}", file=sys.stderr)
