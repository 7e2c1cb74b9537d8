# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong in the lab, with words for the person who runs it."""


class LabError(Exception):
    """The lab could not do what it was asked for; the text says what to do about it. Exit status 1."""


class UsageError(LabError):
    """Asked for something that does not exist or makes no sense. Exit status 2."""
