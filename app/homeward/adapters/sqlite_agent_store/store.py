# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent's memories in one SQLite file, with a write-ahead log beside it.

A commit costs no fsync (synchronous = NORMAL): the log is in the kernel when it returns, and the kernel survives us.
Checkpoints, which do wait for the disk, are made by `flush` over a connection of their own, so that they never hold up
a commit.

A batch becomes one row of the table `journal`: nodes move in no order, and each in its own place would write a whole
page for it. That is done later, when it is quiet (`settle`), and by a commit only when very much waits for it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homeward.adapters.sqlite_agent_store.records import pack, unpack
from homeward.model.agent_memory import Memory
from homeward.model.errors import NotPermitted, Unavailable
from homeward.model.memory_records import MemoryRecord, decode, encode
from homeward.ports.agent_store import Mark

VERSION: Final = 1
"""Of the tables; a file of a later one is refused, one of an earlier one is brought up to this."""

_APPLICATION_ID: Final = 0x48574D49
_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_PAGE: Final = 2048
_CACHE_KIB: Final = 2048
_LARGEST_LOG: Final = 64 << 20
"""When more is in the log although it was just written back, commits wait for the moment that it takes to begin anew.

It is written over then, and not cut off before: that would take ten times as long, and so would making room again."""
_PATIENCE: Final = 5.0  # seconds to wait for another connection of this process

_MOST_UNSETTLED: Final = 24 << 20
"""So many octets may be in the journal, some 200,000 memories; then each commit settles twice as many as it brings."""
_UNSETTLED: Final = 128 << 10
"""So many may stay there for good."""

_WRITE_BACK: Final = "PRAGMA wal_checkpoint(PASSIVE)"
_APPEND: Final = "INSERT INTO journal (records) VALUES (?)"
_SETTLE: Final = (
    "INSERT INTO memory (identity, record) VALUES (?, ?) "
    "ON CONFLICT (identity) DO UPDATE SET record = excluded.record"
)
_FORGET: Final = "DELETE FROM journal WHERE number <= ?"
_JOURNAL: Final = "SELECT number, records FROM journal ORDER BY number"
_JOURNAL_OCTETS: Final = "SELECT coalesce(sum(length(records)), 0) FROM journal"
_MARK: Final = "REPLACE INTO mark (one, boot_id, horizon, floor, ahead) VALUES (1, ?, ?, ?, ?)"
_MARKED: Final = "SELECT boot_id, horizon, floor, ahead FROM mark"


def _first_tables(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE memory (identity TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE journal (number INTEGER PRIMARY KEY, records BLOB NOT NULL)")
    connection.execute(
        "CREATE TABLE mark (one INTEGER PRIMARY KEY CHECK (one = 1), boot_id TEXT NOT NULL,"
        " horizon REAL NOT NULL, floor REAL NOT NULL, ahead REAL NOT NULL)"
    )


_STEPS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (_first_tables,)
"""Step n brings a file of version n to version n + 1, within one transaction with all that follow."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a look at a store shows. `log_octets` is what waits to be written back."""

    version: int
    records: int
    octets: int
    log_octets: int


class SqliteAgentStore:
    """The store in one file; its directory is made, for its owner alone, where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None
        self._writer: sqlite3.Connection | None = None
        self._flusher: sqlite3.Connection | None = None
        self._unsettled = 0

    def open(self) -> Mark | None:
        """What the last life marked. Unavailable for a file that another process uses, or that cannot be understood."""
        with _explained(f"open the store {self._path}", self._path):
            self._lock = _hold(self._path)
            self._writer = _connect(self._path)
            _set_up(self._writer, self._path)
            self._flusher = _connect(self._path)
            (self._unsettled,) = self._writer.execute(_JOURNAL_OCTETS).fetchone()
            found = self._writer.execute(_MARKED).fetchone()
        return None if found is None else Mark(*found)

    def memories(self) -> Iterator[Memory]:
        """All that is kept. Unavailable when any of it is not as it was written."""
        assert self._writer is not None
        with _explained(f"read the store {self._path}", self._path):
            journalled = _journalled(self._writer)
            for identity, record in self._writer.execute("SELECT identity, record FROM memory"):
                if identity not in journalled:
                    yield decode(identity, record)
            for identity, record in journalled.items():
                yield decode(identity, record)

    def save(self, memories: Collection[Memory | MemoryRecord]) -> None:
        """Keep these. Unavailable, and then none is kept, when the disk is full or refuses."""
        records = [
            each if isinstance(each, MemoryRecord) else (each.identity, encode(each)) for each in memories
        ]
        if not records:
            return
        batch = pack(records)
        with self._transaction() as writer:
            writer.execute(_APPEND, (batch,))
        self._unsettled += len(batch)
        if self._unsettled > _MOST_UNSETTLED:
            self.settle(2 * len(records))

    def settle(self, count: int) -> bool:
        """Put what is longest in the journal where it belongs; whether enough is left to go on. Unavailable."""
        done, octets, last = 0, 0, None
        with self._transaction() as writer:
            for number, records in writer.execute(_JOURNAL):
                batch = list(unpack(records))
                writer.executemany(_SETTLE, batch)
                done, octets, last = done + len(batch), octets + len(records), number
                if done >= count:
                    break
            writer.execute(_FORGET, (last,))
        self._unsettled -= octets
        return self._unsettled > _UNSETTLED

    def mark(self, mark: Mark) -> None:
        """Keep this mark. Unavailable as `save`."""
        with self._transaction() as writer:
            writer.execute(_MARK, (mark.boot_id, mark.horizon, mark.floor, mark.ahead))

    def flush(self) -> None:
        """Force the log to disk and write it back as far as no one reads it. Unavailable when the disk refuses."""
        assert self._flusher is not None
        with _explained(f"write back the store {self._path}", self._path):
            _, pages, _ = self._flusher.execute(_WRITE_BACK).fetchone()
            if pages * _PAGE > _LARGEST_LOG:
                self._flusher.execute(_WRITE_BACK).fetchone()  # so that little is left while commits wait
                self._flusher.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def back_up(self, to: Path) -> None:
        """Copy what is saved into the file, which is made for its owner alone. Unavailable."""
        with _explained(f"copy the store {self._path} to {to}", to), closing(_connect(self._path)) as source:
            os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE))
            with closing(_connect(to)) as copy:
                source.backup(copy)
                # One file that is whole by itself, and that nobody takes for the latest state.
                copy.execute("PRAGMA journal_mode = DELETE")
                copy.execute("UPDATE mark SET boot_id = ''")
                copy.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Let go of the file; the log is written back where that can be done."""
        for connection in (self._flusher, self._writer):
            if connection is not None:
                try:
                    connection.close()
                except sqlite3.Error:
                    pass  # what is saved is in the log
        self._flusher = self._writer = None
        if self._lock is not None:  # last: closing it drops SQLite's own locks on the file as well
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        writer = self._writer
        assert writer is not None
        with _explained(f"write the store {self._path}", self._path):
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:  # SQLite rolls back by itself when the disk is full
                    writer.execute("ROLLBACK")
                raise


def check(path: Path) -> StoreFacts:
    """Read a store through, also a backup or one in use, and change nothing. Unavailable when it cannot be used."""
    with _explained(f"read the store {path}", path):
        _require_private(path)
        with closing(_connect(path, "ro")) as reader:
            _require_ours(reader, path)
            found = dict(reader.execute("SELECT identity, record FROM memory").fetchall()) | _journalled(
                reader
            )
            for identity, record in found.items():
                decode(identity, record)
            reader.execute(_MARKED).fetchone()
            version = _number(reader, "user_version")
        return StoreFacts(version, len(found), _size(path), _size(_log_of(path)))


def make_safe(path: Path, *, horizon: float) -> None:
    """Have whoever starts from this file refuse all time stamps up to `horizon` (Unix seconds): it is not the latest.

    Unavailable when a running agent holds it, or it cannot be used.
    """
    store = SqliteAgentStore(path)
    try:
        before = store.open() or Mark("", 0.0, 0.0, 0.0)
        store.mark(Mark("", max(before.horizon, horizon), max(before.floor, horizon), before.ahead))
        store.flush()
    finally:
        store.close()


def _hold(path: Path) -> int:
    """Make the file where there is none, and keep every other agent away from it, for as long as this is open."""
    path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        _require_private(path)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _Unusable("another home agent is using it; give each agent a store of its own") from None
    except BaseException:
        os.close(held)
        raise
    return held


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size == 0:
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    _require_ours(connection, path)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise _Unusable("its file system has no shared memory for SQLite; put it on a local disk")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    version = _number(connection, "user_version")
    if version < VERSION:
        connection.execute("BEGIN IMMEDIATE")
        for step in _STEPS[version:]:
            step(connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    if _number(connection, "application_id") != _APPLICATION_ID:
        raise _Unusable(
            f"it is a database of some other program; name another file, or move it away ({path})"
        )
    version = _number(connection, "user_version")
    if version > VERSION:
        raise _Unusable(
            f"it is of version {version} and this homeward-agent knows version {VERSION}; install the later"
            " homeward-agent again, or restore a backup of the earlier one"
        )
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(str(found).replace("\n", " "))


def _require_private(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise _Unusable("it is not a regular file")
    if found.st_uid != os.geteuid():
        raise _Unusable(f"it belongs to user {found.st_uid}, it must belong to user {os.geteuid()}")
    if found.st_mode & 0o077:
        raise _Unusable(f"others may get at it; `chmod 600 {path}` helps")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _journalled(connection: sqlite3.Connection) -> dict[str, bytes]:
    """What is not settled yet: of each identity what was saved last. ValueError."""
    found: dict[str, bytes] = {}
    for _, records in connection.execute(_JOURNAL):
        found.update(unpack(records))
    return found


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _Unusable(Exception):
    """The file cannot be used; the text says why and what helps."""


@contextmanager
def _explained(action: str, path: Path) -> Iterator[None]:
    """What went wrong in words for the administrator, with what to do."""
    try:
        yield
    except _Unusable as error:
        raise Unavailable(action, str(error)) from None
    except (sqlite3.DatabaseError, ValueError) as error:
        if _is_passing(error):
            raise Unavailable(action, str(error)) from error
        raise Unavailable(
            action,
            f"it is damaged: {error}. Restore a backup (`homeward-agent restore FILE`), or move it away"
            f" (`mv {path} {path}.bad`, and the files {path.name}-wal and {path.name}-shm with it) and start again no"
            " sooner than timestamp_tolerance later: bindings are lost then, and every node has to register again",
        ) from error
    except PermissionError as error:
        raise NotPermitted(action, error.errno or 0) from error
    except OSError as error:
        raise Unavailable(action, error.errno or str(error)) from error


def _is_passing(error: Exception) -> bool:
    """Whether it is the disk's or another process's fault, not the file's."""
    return isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    )
