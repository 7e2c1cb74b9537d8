# SPDX-License-Identifier: GPL-2.0-or-later
"""Putting a backup back: what is in the way goes aside and can come back; what was revoked since does not."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from homeward.agentd.archive import Kept
from homeward.agentd.key_file import key_octets
from homeward.agentd.nodes_editor import REVOKED
from homeward.agentd.nodes_editor import replace as replace_file
from homeward.agentd.nodes_file import RETIRED
from homeward.model.errors import HomewardError

ASIDE: Final = ".before-restore"
RECORD: Final = "last-restore.json"
"""In the state folder: what the last restore touched."""

_BESIDE_STORE: Final = ("-wal", "-shm")


class NothingToUndo(HomewardError):
    """There was no restore, or it was taken back already."""


def put(files: list[Kept], record: Path) -> list[Path]:
    """Put each file in its place; what was put aside. After an OSError everything is as it was."""
    record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stale in _recorded(record):
        _aside(stale).unlink(missing_ok=True)
    touched = [each.path for each in files]
    touched += [_beside(each.path, end) for each in files if each.what == "store" for end in _BESIDE_STORE]
    # Written first: whatever happens after this, it can be undone.
    replace_file(record, json.dumps([str(path) for path in touched]).encode())
    try:
        aside = [path for path in touched if _set_aside(path)]
        for each in files:
            each.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_file(each.path, each.octets, mode=each.mode)
    except OSError:
        take_back(record)
        raise
    return aside


def take_back(record: Path) -> list[Path]:
    """Undo the last restore; what came back. NothingToUndo, OSError."""
    touched = _recorded(record)
    if not touched:
        raise NothingToUndo("there is no restore to undo")
    back = []
    for path in touched:
        path.unlink(missing_ok=True)
        if _aside(path).exists():
            os.rename(_aside(path), path)
            back.append(path)
    record.unlink(missing_ok=True)
    return back


def without_gone_keys(kept: Kept, present: bytes) -> tuple[Kept, list[str]]:
    """A nodes file out of a backup, without what the present one says was revoked; and the names of that.

    Where the present one has a key retired, it stays so, and its notes about revocations are taken over.
    """
    notes, gone = [], set()
    current: dict[tuple[str, int], list[str]] = {}
    for line in present.decode(errors="replace").split("\n"):
        noted = REVOKED.match(line.strip())
        key = _key(noted[1], noted[2]) if noted else None
        if key is not None:
            notes.append(line.strip())
            gone.add(key)
        words = line.split()
        if len(words) > 4 and words[0][0] != "#" and (key := _key(words[0], words[2])) is not None:
            current[key] = words
    lines, named = [], []
    for line in kept.octets.decode(errors="replace").removesuffix("\n").split("\n"):
        words = line.split()
        key = _key(words[0], words[2]) if len(words) > 4 and words[0][0] != "#" else None
        now = None if key is None else current.get(key)
        if key in gone and not (now is not None and _same_key(now[4], words[4])):
            named.append(f"{words[0]} SPI {words[2]}")
            continue
        if now is not None and RETIRED in now[5:] and RETIRED not in words[5:]:
            line = f"{' '.join(words)} {RETIRED}"
        lines.append(line)
    lines += [note for note in notes if note not in lines]
    return replace(kept, octets="".join(f"{line}\n" for line in lines).encode()), named


def _key(name: str, spi: str) -> tuple[str, int] | None:
    try:
        return name, int(spi, 0)
    except ValueError:
        return None


def _same_key(one: str, other: str) -> bool:
    try:
        return key_octets(one) == key_octets(other)
    except ValueError:
        return False


def _recorded(record: Path) -> list[Path]:
    try:
        return [Path(each) for each in json.loads(record.read_bytes())]
    except (FileNotFoundError, ValueError):
        return []


def _set_aside(path: Path) -> bool:
    with suppress(FileNotFoundError):
        os.rename(path, _aside(path))
        return True
    return False


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ASIDE)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)
