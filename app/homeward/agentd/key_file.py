# SPDX-License-Identifier: GPL-2.0-or-later
"""A key on the agent's disk: one line in a file that only its owner can read."""

from __future__ import annotations

import base64
import os
import stat
import string
from pathlib import Path
from typing import Final

from homeward.model.errors import ProfileError
from homeward.model.secret import Secret

_LONGEST_LINE: Final = 4096


def read_key(path: Path, *, owner: int = 0) -> Secret:
    """The key in a file of one line: hexadecimal digits (also behind `hex:`), else base64 (also behind `base64:`).

    ProfileError, which never quotes the line, also when the file is not `owner`'s, or open to anybody else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ProfileError(f"key file {path}: cannot be opened: {error.strerror}") from error
    try:
        _require_private(os.fstat(descriptor), path, owner)
        line = os.read(descriptor, _LONGEST_LINE + 1).removesuffix(b"\n")
    finally:
        os.close(descriptor)
    try:
        return Secret(_octets(line.decode("ascii")))
    except ValueError:
        # No cause: its text could quote a part of the key.
        raise ProfileError(
            f"key file {path}: must hold one line, the key in hexadecimal digits or in base64"
        ) from None


def _require_private(found: os.stat_result, path: Path, owner: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ProfileError(f"key file {path}: is not a regular file")
    if found.st_uid != owner:
        whose = "root" if owner == 0 else f"user {owner}"
        raise ProfileError(f"key file {path}: belongs to user {found.st_uid}, it must belong to {whose}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise ProfileError(f"key file {path}: has mode {mode:04o}, others may get at it; chmod 600 helps")


def _octets(line: str) -> bytes:
    if len(line) > _LONGEST_LINE:
        raise ValueError
    if line.startswith("hex:"):
        return bytes.fromhex(line.removeprefix("hex:"))
    if line.startswith("base64:"):
        return base64.b64decode(line.removeprefix("base64:"), validate=True)
    # Sixteen octets in base64 with nothing but hexadecimal digits happen once in 10^13 keys.
    if set(line) <= set(string.hexdigits):
        return bytes.fromhex(line)
    return base64.b64decode(line, validate=True)
