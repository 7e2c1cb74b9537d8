# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles: TOML files that root put into one directory, read strictly.

A profile names the key that decides what is trusted, so who may write it decides that too: a file, or a directory,
that anybody but root can write to is refused.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from homeward.daemon.profile_contradictions import contradictions
from homeward.daemon.profile_reader import PLACE_OF, read_tables
from homeward.daemon.profile_table import Fault, Table
from homeward.model.errors import ProfileError
from homeward.model.profile import ASSIGNED, Profile

VERSION: Final = 1
PROFILE_SUFFIX: Final = ".toml"
ROOT_ONLY: Final = frozenset({0})

_LARGEST_FILE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ProfileFault:
    """A file that cannot be used, and why; `name` is the file's name without its suffix."""

    name: str
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles of a directory: those that can be used, by name, and what is wrong with the others."""

    usable: Mapping[str, Profile] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[ProfileFault, ...] = ()


def load_profiles(directory: Path, *, writers: frozenset[int] = ROOT_ONLY) -> Profiles:
    """Read every *.toml of the directory; one bad file spoils no other. `writers`: user ids that may own the files."""
    usable: dict[str, Profile] = {}
    files: dict[str, str] = {}
    faults: list[ProfileFault] = []
    try:
        _check_writers(os.stat(directory), str(directory), writers)
        paths = sorted(path for path in directory.iterdir() if path.suffix == PROFILE_SUFFIX)
    except (OSError, ProfileError) as error:
        text = str(error) if isinstance(error, ProfileError) else _unreadable(directory, error)
        return Profiles(faults=(ProfileFault("", str(directory), text),))
    for path in paths:
        try:
            profile = read_profile(path, writers=writers)
            if profile.name in usable:
                raise ProfileError(
                    f"{path}: name: found “{profile.name}”, which {files[profile.name]} has already; "
                    "allowed is a name that no other profile has"
                )
        except ProfileError as error:
            faults.append(ProfileFault(path.stem, str(path), str(error)))
        else:
            usable[profile.name] = profile
            files[profile.name] = str(path)
    return Profiles(usable, files, tuple(faults))


def read_profile(path: Path, *, writers: frozenset[int] | None = ROOT_ONLY) -> Profile:
    """Read one profile; ProfileError with file, key, what was found and what is allowed, one line for each fault.

    `writers` None skips the question of who may change the file, for drafts.
    """
    try:
        # O_NONBLOCK: opening a named pipe must not hang a root process.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ProfileError(_unreadable(path, error)) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ProfileError(f"{path}: this is no regular file; a profile is a TOML text file")
        if writers is not None:
            _check_writers(status, str(path), writers)
        octets = file.read(_LARGEST_FILE + 1)
    if len(octets) > _LARGEST_FILE:
        raise ProfileError(f"{path}: larger than {_LARGEST_FILE} octets; a profile is a short TOML text file")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not UTF-8 text at octet {error.start}; save it as UTF-8") from None
    return parse_profile(text, str(path))


def parse_profile(text: str, source: str) -> Profile:
    """The profile that this TOML text describes; ProfileError names `source` in each line."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{source}: not valid TOML: {error}") from None
    except RecursionError:
        raise ProfileError(f"{source}: not valid TOML: nested too deeply") from None
    faults: list[Fault] = []
    top = Table(values, "", faults, elsewhere=PLACE_OF)
    if top.whole("version", VERSION, VERSION) != VERSION and "version" in values:
        raise ProfileError(f"{source}: {faults[0]} (this homeward reads profiles of version {VERSION})")
    profile = read_tables(top)
    if not faults:
        faults.extend(contradictions(profile))
    if faults:
        raise ProfileError("\n".join(f"{source}: {fault}" for fault in faults))
    return profile


def known_home_address(profile: Profile) -> IPv4Address | None:
    """The home address that the profile names; None where the home agent assigns one (R-274)."""
    address = profile.home_agent.home_address
    return None if address == ASSIGNED else address


def _check_writers(status: os.stat_result, path: str, writers: frozenset[int]) -> None:
    if status.st_uid not in writers:
        raise ProfileError(
            f"{path}: owned by user id {status.st_uid}, who could change what is trusted; "
            f"allowed is root as owner (`chown root:root {path}`)"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ProfileError(
            f"{path}: others than its owner may write to it (mode {stat.S_IMODE(status.st_mode):04o}), "
            f"and so change what is trusted; take that away with `chmod go-w {path}`"
        )


def _unreadable(path: Path, error: OSError) -> str:
    advice = "create it, owned by root" if isinstance(error, FileNotFoundError) else "check its permissions"
    return f"{path}: cannot be read ({error.strerror}); {advice}"
