# SPDX-License-Identifier: GPL-2.0-or-later
"""A key on the agent's disk: one line in a file that only its owner can read, or a credential of systemd."""

from __future__ import annotations

import base64
import os
import stat
import string
from pathlib import Path
from typing import Final

from homeward.model.errors import ProfileError
from homeward.model.secret import Secret

CREDENTIAL: Final = "credential:"
"""Before a name instead of a path: a file that systemd hands to the service (LoadCredential=)."""

_LONGEST_LINE: Final = 4096
_UNIT_CREDENTIALS: Final = "/run/credentials/homeward-agent.service"
_HEX_DIGITS: Final = frozenset(string.hexdigits)


def place_of(text: str, folder: Path) -> Path:
    """The file that a configuration names: relative to its own folder, or a credential. ProfileError."""
    if not text.startswith(CREDENTIAL):
        return folder / text
    name = text.removeprefix(CREDENTIAL)
    if not name or "/" in name or name in (".", ".."):
        raise ProfileError(f"{text!r}: after {CREDENTIAL!r} comes the name that LoadCredential= gives it")
    # systemd names the folder to the service; for commands from a shell it is where the running service has it.
    given = os.environ.get("CREDENTIALS_DIRECTORY", _UNIT_CREDENTIALS)
    if not os.path.isdir(given):
        raise ProfileError(
            f"{text!r}: there are no systemd credentials here. The service gets them by LoadCredential={name}:FILE "
            "in its unit; a command from a shell sees them while the service runs"
        )
    return Path(given) / name


def is_credential(place: Path) -> bool:
    """Whether a file is in systemd's hands, and so can only be read."""
    given = os.environ.get("CREDENTIALS_DIRECTORY", _UNIT_CREDENTIALS)
    return place.parent == Path(given)


def read_key(path: Path, *, owner: int = 0) -> Secret:
    """The key in a file of one line: hexadecimal digits (also behind `hex:`), else base64 (also behind `base64:`).

    ProfileError, which never quotes the line, also when the file is not `owner`'s, or open to anybody else.
    """
    octets = read_private(path, what="key file", longest=_LONGEST_LINE + 1, owner=owner)
    try:
        return Secret(key_octets(octets.removesuffix(b"\n").decode("ascii")))
    except ValueError:
        # No cause: its text could quote a part of the key.
        raise ProfileError(
            f"key file {path}: must hold one line, the key in hexadecimal digits or in base64"
        ) from None


def read_private(path: Path, *, what: str, longest: int, owner: int = 0) -> bytes:
    """At most `longest` octets of a regular file that is `owner`'s and closed to everybody else. ProfileError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ProfileError(f"{what} {path}: cannot be opened: {error.strerror}") from error
    try:
        _require_private(os.fstat(descriptor), f"{what} {path}", owner)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(longest)
    except OSError as error:
        raise ProfileError(f"{what} {path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def key_octets(text: str) -> bytes:
    """The key that a line or a word stands for; ValueError, whose text must go nowhere: it may quote the key."""
    if len(text) > _LONGEST_LINE:
        raise ValueError
    if text.startswith("hex:"):
        return bytes.fromhex(text[4:])
    if text.startswith("base64:"):
        return base64.b64decode(text[7:], validate=True)
    # Sixteen octets in base64 with nothing but hexadecimal digits happen once in 10^13 keys.
    if _HEX_DIGITS.issuperset(text):
        return bytes.fromhex(text)
    return base64.b64decode(text, validate=True)


def _require_private(found: os.stat_result, which: str, owner: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ProfileError(f"{which}: is not a regular file")
    if found.st_uid != owner:
        whose = "root" if owner == 0 else f"user {owner}"
        raise ProfileError(f"{which}: belongs to user {found.st_uid}, it must belong to {whose}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise ProfileError(f"{which}: has mode {mode:04o}, others may get at it; chmod 600 helps")
