# SPDX-License-Identifier: GPL-2.0-or-later
"""A backup: one tar file, for root alone, with the configuration, every key, and a copy of the store.

manifest.json    {"format": 1, "made": UNIX_TIME, "version": …, "files": {MEMBER: {"path", "mode", "what"}}}
files/0 …        configuration, nodes file, key files, as they were
store            the store as it was at one moment
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from homeward import __version__
from homeward.agentd import toml_values
from homeward.agentd.key_file import CREDENTIAL, place_of
from homeward.model.errors import HomewardError

FORMAT: Final = 1
STORE: Final = "store"
CONFIGURATION: Final = "configuration"
NODES: Final = "nodes"
KEY: Final = "key"

_MANIFEST: Final = "manifest.json"
_LARGEST: Final = 1 << 30


class BadBackup(HomewardError):
    """The file is no backup of ours, or not all of one."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One file in a backup: where it belongs, with which mode, and what it is."""

    path: Path
    mode: int
    what: str
    octets: bytes


def named_files(config: Path, *, owner: int) -> tuple[list[Kept], list[str]]:
    """The configuration and every file that it names, and what it names that only systemd can hand over. OSError."""
    table = toml_values.read_table(config, owner=owner)
    found = [_kept(config.absolute(), CONFIGURATION)]
    left_out: list[str] = []
    names = [(NODES, table["nodes_file"])] if "nodes_file" in table else []
    for tables in table.values():
        if isinstance(tables, list):
            names += [
                (KEY, entry["key_file"])
                for entry in tables
                if isinstance(entry, dict) and "key_file" in entry
            ]
    for what, name in names:
        if str(name).startswith(CREDENTIAL):
            left_out.append(str(name))
            continue
        path = place_of(str(name), config.absolute().parent)
        if all(each.path != path for each in found):
            found.append(_kept(path, what))
    return found, left_out


def write(place: Path, files: list[Kept]) -> None:
    """Write them into a new file. FileExistsError rather than to overwrite an older backup; OSError."""
    members = {f"files/{number}" if each.what != STORE else STORE: each for number, each in enumerate(files)}
    described = {
        name: {"path": str(each.path), "mode": each.mode, "what": each.what} for name, each in members.items()
    }
    manifest = {"format": FORMAT, "made": round(time.time()), "version": __version__, "files": described}
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                _put(tar, _MANIFEST, json.dumps(manifest, indent=1).encode())
                for name, each in members.items():
                    _put(tar, name, each.octets)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        place.unlink(missing_ok=True)
        raise


def read(place: Path) -> tuple[list[Kept], float]:
    """What a backup holds, and when it was made (Unix time). BadBackup, OSError."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(file.fileno())
        if state.st_uid not in (0, os.geteuid()) or state.st_mode & 0o022:
            raise BadBackup(f"{place}: somebody else may have written it; it would decide who is trusted")
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                manifest = json.loads(_take(tar, _MANIFEST))
                if manifest["format"] != FORMAT:
                    raise BadBackup(
                        f"{place}: is of format {manifest['format']}, this program reads {FORMAT}"
                    )
                return [_member(tar, *item) for item in manifest["files"].items()], float(manifest["made"])
        except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise BadBackup(
                f"{place}: is no backup of homeward-agent, or not all of one ({error})"
            ) from error


def _member(tar: tarfile.TarFile, name: str, described: dict[str, Any]) -> Kept:
    path, mode, what = Path(described["path"]), int(described["mode"]), str(described["what"])
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} is no place for a file")
    return Kept(path, mode & 0o755, what, _take(tar, name))


def _kept(path: Path, what: str) -> Kept:
    with path.open("rb") as file:
        return Kept(path, os.fstat(file.fileno()).st_mode & 0o777, what, file.read())


def _put(tar: tarfile.TarFile, name: str, octets: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(octets), 0o600, int(time.time())
    tar.addfile(member, io.BytesIO(octets))


def _take(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.getmember(name)
    file = tar.extractfile(member) if member.isreg() and member.size <= _LARGEST else None
    if file is None:
        raise ValueError(f"{name} is no file")
    octets = file.read()
    if len(octets) != member.size:
        raise ValueError(f"{name} is cut off")
    return octets
