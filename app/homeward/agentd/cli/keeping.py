# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-agent backup and restore."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final

from homeward.adapters import sqlite_agent_store
from homeward.agentd import archive, restoring
from homeward.agentd.archive import CONFIGURATION, NODES, STORE, Kept
from homeward.agentd.cli.outcome import OK, CommandFailed, say
from homeward.agentd.cli.running import control_of
from homeward.agentd.configuration import load
from homeward.agentd.control_client import AgentAbsent, ask
from homeward.agentd.places import state_folder
from homeward.agentd.settings import AgentSettings
from homeward.model.errors import HomewardError, ProfileError

_TOLERANCE: Final = 7.0


def keep(command: str, options: argparse.Namespace) -> int:
    """Either of them; the exit status."""
    if command == "backup":
        return _back_up(options.config, options.file)
    record = state_folder() / restoring.RECORD
    _require_stopped(options.config)
    if options.undo:
        for path in restoring.take_back(record):
            print(f"{path}: is as it was")
        return OK
    return _restore(options.config, options.file, record, with_gone=options.with_gone_keys)


def _back_up(config: Path, place: Path) -> int:
    settings = load(config)
    files, left_out = archive.named_files(config, owner=os.geteuid())
    store = settings.store if isinstance(settings, AgentSettings) else None
    if store is not None:
        copy = _copy_of_store(config, store)
        files += [] if copy is None else [Kept(store, 0o600, STORE, copy)]
    try:
        archive.write(place, files)
    except FileExistsError:
        raise CommandFailed(f"{place} is there already; nothing was written. Name a new file") from None
    held = ", ".join(str(each.path) for each in files)
    print(f"{place}: {held}. It holds every key in clear: keep it as you would keep those")
    for name in left_out:
        say(
            f"{name} is not in it: it is a credential of systemd, back up the file that LoadCredential= names"
        )
    if store is not None and all(each.what != STORE for each in files):
        say(f"there is no store {store} yet, and so none in it")
    return OK


def _copy_of_store(config: Path, store: Path) -> bytes | None:
    """From the agent where one runs, else from the file itself."""
    with tempfile.TemporaryDirectory(
        prefix=".backup-", dir=store.parent if store.parent.is_dir() else None
    ) as folder:
        copy = Path(folder) / "store"
        try:
            ask(control_of(config), "backup", file=str(copy))
        except AgentAbsent:
            if not store.exists():
                return None
            kept = sqlite_agent_store.SqliteAgentStore(store)
            try:
                kept.open()
                kept.back_up(copy)
            finally:
                kept.close()
        return copy.read_bytes()


def _restore(config: Path, place: Path, record: Path, *, with_gone: bool) -> int:
    files, made = archive.read(place)
    config_in_it = next((each.path for each in files if each.what == CONFIGURATION), None)
    if config_in_it is None:
        raise archive.BadBackup(f"{place}: has no configuration in it")
    if config_in_it != config.absolute():
        raise CommandFailed(
            f"{place} is of the agent of {config_in_it}, not of {config}: say --config {config_in_it}"
        )
    gone: list[str] = []
    if not with_gone:
        files, gone = _without_gone(files)
    horizon = time.time() + _tolerance(files)
    files = [_made_safe(each, horizon) if each.what == STORE else each for each in files]
    aside = restoring.put(files, record)
    try:
        load(config_in_it)
    except HomewardError as error:
        restoring.take_back(record)
        raise CommandFailed(
            f"nothing was changed, for what the backup holds cannot be used: {error}"
        ) from error
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made))
    print(f"restored from {place}, made {when}: {', '.join(str(each.path) for each in files)}")
    for path in aside:
        print(f"put aside: {path}{restoring.ASIDE}")
    if gone:
        say(f"left out, for they were revoked since: {', '.join(gone)}. --with-gone-keys brings them back")
    say(
        "`homeward-agent restore --undo` takes it back; start the agent with `systemctl start homeward-agent`"
    )
    return OK


def _without_gone(files: list[Kept]) -> tuple[list[Kept], list[str]]:
    found, gone = [], []
    for each in files:
        if each.what == NODES and each.path.exists():
            changed, named = restoring.without_gone_keys(each, each.path.read_bytes())
            gone += named
            found.append(changed)
        else:
            found.append(each)
    return found, gone


def _tolerance(files: list[Kept]) -> float:
    """Seconds that an accepted time stamp may have been ahead of the clock, as the configuration in the backup says."""
    for each in files:
        if each.what == CONFIGURATION:
            try:
                return float(tomllib.loads(each.octets.decode()).get("timestamp_tolerance", _TOLERANCE))
            except (ValueError, TypeError):
                break
    return _TOLERANCE


def _made_safe(store: Kept, horizon: float) -> Kept:
    """Requests that were accepted after the backup was made must not be accepted again."""
    with tempfile.TemporaryDirectory(prefix="homeward-restore-") as folder:
        copy = Path(folder) / "store"
        descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(store.octets)
        sqlite_agent_store.make_safe(copy, horizon=horizon)
        sqlite_agent_store.check(copy)
        return Kept(store.path, 0o600, STORE, copy.read_bytes())


def _require_stopped(config: Path) -> None:
    try:
        ask(control_of(config), "status")
    except (AgentAbsent, ProfileError):
        return
    raise CommandFailed("an agent runs here: `systemctl stop homeward-agent` first, then restore")
