# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's log: one event a line, as `event key=value …`, on standard error; under systemd with journal fields.

journalctl -u homeward-agent HOMEWARD_EVENT=binding-made HOMEWARD_NODE=laptop
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from typing import Final

JOURNAL: Final = "/run/systemd/journal/socket"

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/,+-]+")
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class Entry(str):
    """A line of the log that still knows what it was made of."""

    __slots__ = ("event", "fields")

    event: str
    fields: Mapping[str, str]


def entry(event: str, **fields: object) -> Entry:
    """One line; fields that are None are left out, and no value can end the line or pass for another field."""
    texts = {key: _text(value) for key, value in fields.items() if value is not None}
    made = Entry(" ".join([event, *(f"{key}={_quoted(text)}" for key, text in texts.items())]))
    made.event, made.fields = event, texts
    return made


def start_logging(level: int = logging.INFO) -> None:
    """Send every logger's lines to standard error, or to systemd's journal where that is what standard error is."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    if _stderr_is_journal():
        try:
            handler = JournalHandler(JOURNAL, handler)
        except OSError:
            pass  # then as lines, which systemd takes as well
    logging.basicConfig(level=level, handlers=[handler], force=True)


class JournalHandler(logging.Handler):
    """The journal's own protocol: one datagram, one entry, each field of the line a field there. OSError."""

    def __init__(self, place: str, otherwise: logging.Handler) -> None:
        super().__init__()
        self._otherwise = otherwise
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        self._socket.connect(place)

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, or hand it to the other handler when the journal does not take it."""
        try:
            self._socket.send(journal_datagram(record))
        except OSError:  # too long for a datagram, or the journal is busy or away
            self._otherwise.handle(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Be gone."""
        self._socket.close()
        super().close()


def journal_datagram(record: logging.LogRecord) -> bytes:
    """A record in the journal's native format; the fields of an entry are HOMEWARD_EVENT and HOMEWARD_<NAME>."""
    priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
    message = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        message += "\n" + logging.Formatter().formatException(record.exc_info)
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "homeward-agent",
        "HOMEWARD_LOGGER": record.name,
    }
    if isinstance(record.msg, Entry):
        fields["HOMEWARD_EVENT"] = record.msg.event
        fields |= {f"HOMEWARD_{key.upper()}": text for key, text in record.msg.fields.items()}
    return b"".join(_journal_field(name, text) for name, text in fields.items())


def _journal_field(name: str, text: str) -> bytes:
    octets = text.encode("utf-8", errors="replace")
    if b"\n" not in octets:
        return name.encode() + b"=" + octets + b"\n"
    return name.encode() + b"\n" + len(octets).to_bytes(8, "little") + octets + b"\n"


def _stderr_is_journal() -> bool:
    """JOURNAL_STREAM names device and inode of the stream that systemd gave; it is inherited by others too."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class _LineFormatter(logging.Formatter):
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self.converter = time.gmtime
