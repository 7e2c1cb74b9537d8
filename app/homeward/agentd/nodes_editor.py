# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to the nodes file: one line at a time, comments and order kept, all at once or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homeward.agentd.key_file import is_credential, read_private
from homeward.agentd.nodes_file import RETIRED, check_nodes
from homeward.agents.policy import Node
from homeward.model.errors import ProfileError
from homeward.model.profile import ReplayStyle
from homeward.model.registration import MobilitySecurityAssociation

_LARGEST: Final = 64 * 1024 * 1024
_WORD: Final = re.compile(r"\S+")
REVOKED: Final = re.compile(r"#\s*revoked \S+: (\S+) SPI (0x[0-9a-fA-F]{1,8}|[0-9]{1,10})$")
"""The note that a revoked key leaves: whose it was, and its number."""
_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file as it stands there, and its words in front of a comment."""

    text: str
    words: tuple[str, ...]

    @property
    def end(self) -> int:
        """Where its words end and white space or a comment begins."""
        return list(_WORD.finditer(self.text))[len(self.words) - 1].end()

    def is_of(self, name: str, spi: int | None = None) -> bool:
        return len(self.words) > 4 and self.words[0] == name and spi in (None, int(self.words[2], 0))


class NodesEditor:
    """The file as it was read, and what is to be written. Get one from `editing`."""

    def __init__(self, path: Path, octets: bytes) -> None:
        self.path = path
        self.before = octets
        self._lines = [_line(text) for text in octets.decode().removesuffix("\n").split("\n")]
        if not octets:
            self._lines = []

    def add(self, node: Node) -> None:
        """A line for another key: below the last one of the same node, else at the end."""
        made = _line(line_of(node))
        last = max((at for at, line in enumerate(self._lines) if line.is_of(node.name)), default=None)
        self._lines.insert(len(self._lines) if last is None else last + 1, made)

    def retire(self, name: str, spi: int) -> bool:
        """Mark that key; False where it is not here."""
        for at, line in enumerate(self._lines):
            if not line.is_of(name, spi):
                continue
            if RETIRED not in line.words[5:]:
                end = line.end
                self._lines[at] = _line(f"{line.text[:end]} {RETIRED}{line.text[end:]}")
            return True
        return False

    def remove(self, name: str, spi: int | None) -> int:
        """Take out that key, or all of the node; how many. A comment without the key says that it was there."""
        gone = [line for line in self._lines if line.is_of(name, spi)]
        first = next((line for line in self._lines if line.is_of(name)), None)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for line in gone:
            at = self._lines.index(line)
            self._lines[at] = _line(f"# revoked {when}: {name} SPI {int(line.words[2], 0):#x}")
        if first in gone:
            self._promote(name, first)
        return len(gone)

    def highest_spi(self, name: str) -> int | None:
        """Of its keys, those that were revoked included; None where there never was one."""
        noted = [REVOKED.match(line.text.strip()) for line in self._lines if line.text.startswith("#")]
        found = [int(each[2], 0) for each in noted if each is not None and each[1] == name]
        found += [int(line.words[2], 0) for line in self._lines if line.is_of(name)]
        return max(found, default=None)

    def write(self) -> None:
        """Replace the file. OSError; then it is as it was."""
        text = "".join(f"{line.text}\n" for line in self._lines)
        check_nodes(text.encode(), f"nodes file {self.path}")  # a fault of ours must not reach the agent
        replace(self.path, text.encode())

    def put_back(self) -> None:
        """The file as it was when it was read. OSError."""
        replace(self.path, self.before)

    def _promote(self, name: str, first: _Line) -> None:
        """What a line says by '-' stood in the one above it, which is gone."""
        for at, line in enumerate(self._lines):
            if line.is_of(name):
                if line.words[1] == "-":
                    shared = [word for word in first.words[5:] if word.startswith(("nai=", "replay="))]
                    words = [
                        name,
                        first.words[1],
                        *line.words[2:],
                        *(each for each in shared if each not in line.words),
                    ]
                    self._lines[at] = _line(" ".join(words) + line.text[line.end :])
                return


@contextmanager
def editing(path: Path, *, owner: int = 0) -> Iterator[NodesEditor]:
    """The file, with nobody else editing it meanwhile. ProfileError where it may not be edited, or is wrong."""
    if is_credential(path):
        raise ProfileError(
            f"nodes file {path}: is a credential of systemd, which cannot be written; edit the file that "
            "LoadCredential= names, and restart the service"
        )
    # The folder is locked, since the file itself is replaced.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        octets = read_private(path, what="nodes file", longest=_LARGEST, owner=owner)
        check_nodes(octets, f"nodes file {path}")
        yield NodesEditor(path, octets)
    finally:
        os.close(folder)


def line_of(node: Node) -> str:
    """The line of a node; it holds the key."""
    where = node.home_address if node.home_address is not None else node.home_addresses
    association: MobilitySecurityAssociation = node.association
    words = [
        node.name,
        str(where),
        f"{int(association.spi):#x}",
        association.algorithm.value,
        f"hex:{association.key.reveal().hex()}",
    ]
    if node.nai is not None:
        words.append(f"nai={node.nai}")
    if node.replay is not ReplayStyle.TIMESTAMPS:
        words.append(f"replay={node.replay.value}")
    if node.retired:
        words.append(RETIRED)
    return " ".join(words)


def replace(path: Path, octets: bytes, *, mode: int = _MODE) -> None:
    """Write beside the file, force it to disk and put it in the file's place. OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # of a life that ended here
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _line(text: str) -> _Line:
    words = text.split()
    end = next((at for at, word in enumerate(words) if word[0] == "#"), len(words))
    return _Line(text, tuple(words[:end]))
