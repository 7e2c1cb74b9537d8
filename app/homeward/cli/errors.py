# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of the command line, and the exit status of every error."""

from typing import Final

from homeward.bus.errors import BadProfile, NoSuchProfile
from homeward.model.errors import HomewardError, ProfileError

OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2


class UsageError(HomewardError):
    """The command line, or what it hands over, is wrong."""


class NotInTime(HomewardError):
    """What --wait waited for has not come."""


def exit_status(error: HomewardError) -> int:
    """2 for wrong usage or a wrong profile, 1 for anything else."""
    wrong = (UsageError, ProfileError, BadProfile, NoSuchProfile)
    return WRONG_USAGE if isinstance(error, wrong) else FAILED
