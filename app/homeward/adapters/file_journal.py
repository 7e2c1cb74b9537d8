# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal as a JSON file that a crash leaves either as it was or as it should be."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path
from typing import Any, Final

from homeward.model.errors import Unavailable
from homeward.model.journal import IdentificationState, Journal

_VERSION: Final = 1
_LARGEST: Final = 1024 * 1024
_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


class FileJournals:
    """One journal in one file; save() may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saving = threading.Lock()

    def load(self) -> Journal:
        """The last saved journal, an empty one when there is none; Unavailable when it cannot be read or understood."""
        action = f"read the journal {self._path}"
        try:
            with open(self._path, "rb") as file:
                octets = file.read(_LARGEST + 1)
        except FileNotFoundError:
            return Journal()
        except OSError as error:
            raise Unavailable(action, error.errno or str(error)) from error
        try:
            return _journal_from(octets)
        except (ValueError, RecursionError) as error:
            raise Unavailable(
                action,
                f"{error}. Move it away (`mv {self._path} {self._path}.bad`) and start again: what is lost is which "
                "profile was connected, the home agent tells the rest",
            ) from error

    def save(self, journal: Journal) -> None:
        """Replace the journal on disk; returns when it would survive a power cut. Unavailable if that fails."""
        octets = json.dumps(_plain(journal), indent=1, allow_nan=False).encode() + b"\n"
        with self._saving:
            try:
                self._path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
                _replace(self._path, octets)
            except OSError as error:
                raise Unavailable(f"write the journal {self._path}", error.errno or str(error)) from error


def _replace(path: Path, octets: bytes) -> None:
    """Write beside the file, force to disk, rename over it, and force the rename to disk."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)  # of a life that ended here
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _plain(journal: Journal) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "wanted": journal.wanted,
        "identifications": [
            {"spi": state.spi, "home_agent": state.home_agent, "last": state.last, "offset": state.offset}
            for state in journal.identifications
        ],
    }


def _journal_from(octets: bytes) -> Journal:
    """Strict: half a journal could make the client use an Identification twice. ValueError."""
    if len(octets) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST} octets")
    plain = json.loads(octets)
    if not isinstance(plain, dict):
        raise ValueError("it holds no JSON object")
    version = plain.get("version")
    if version != _VERSION:
        raise ValueError(f"it is of version {version!r}, and this homewardd reads version {_VERSION}")
    wanted = plain.get("wanted")
    if wanted is not None and not isinstance(wanted, str):
        raise ValueError("“wanted” is no text")
    rows = plain.get("identifications")
    if not isinstance(rows, list):
        raise ValueError("“identifications” is no list")
    return Journal(wanted, tuple(_identification(row) for row in rows))


def _identification(row: Any) -> IdentificationState:
    fields = row if isinstance(row, dict) else {}
    spi, last, offset = (fields.get(key) for key in ("spi", "last", "offset"))
    home_agent = fields.get("home_agent")
    if (
        type(spi) is int
        and 0 <= spi < 1 << 32
        and type(last) is int
        and 0 <= last < 1 << 64
        and isinstance(offset, int | float)
        and not isinstance(offset, bool)
        and math.isfinite(offset)
        and isinstance(home_agent, str)
    ):
        return IdentificationState(spi, home_agent, last, float(offset))
    raise ValueError("an entry of “identifications” is not understood")
