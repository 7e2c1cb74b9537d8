# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that wait for charon so that the event loop need not: one for its events, one for each try to connect."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from homeward.adapters.strongswan import Section, ViciConnection
from homeward.adapters.strongswan.configuration import CHILD
from homeward.model.errors import AdapterError, IkeError

log: Final = logging.getLogger("ike")

EVENTS: Final = ("ike-updown", "ike-update", "child-updown", "child-rekey")
GREETING_LIMIT: Final = 2.0
"""Seconds that a charon may take to say that it is there; one that hangs must not hold up the daemon."""
FIRST_PAUSE: Final = 0.05
PAUSE_GROWTH: Final = 1.6
LONGEST_PAUSE: Final = 2.0
"""Seconds between two looks for an engine that is not there."""


@dataclass(frozen=True, slots=True)
class Found:
    """Charon answers, and its events are being listened to; `version` in its own words."""

    version: str


@dataclass(frozen=True, slots=True)
class Gone:
    """Charon cannot be found, or has just been lost."""

    cause: str


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of charon's."""

    event: str
    message: Section


@dataclass(frozen=True, slots=True)
class Ended:
    """A try to connect is over. `refusal` is None when it succeeded; `lines` is what charon logged about it."""

    name: str
    lines: tuple[str, ...]
    refusal: str | None


News = Found | Gone | Happened | Ended
Tell = Callable[[News], None]
"""Hands news over to the event loop; called from these threads."""


def in_words(error: AdapterError) -> str:
    """What is wrong with charon, without what was tried: the reader has not tried anything."""
    return error.cause if isinstance(error.cause, str) else str(error)


class EngineWatch:
    """Finds charon, listens to it, and after a loss finds it again, for ever."""

    def __init__(self, path: str, tell: Tell) -> None:
        self._path = path
        self._tell = tell
        self._stopping = threading.Event()
        self._connection: ViciConnection | None = None
        self._thread = threading.Thread(target=self._run, name="charon-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits at most a second for it."""
        self._stopping.set()
        if self._connection is not None:
            self._connection.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        told = ""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                self._listen()
            except AdapterError as error:
                cause = in_words(error)
                if self._connection is not None:  # It was there a moment ago.
                    told, pause = "", FIRST_PAUSE
                    self._connection.close()
                    self._connection = None
                if self._stopping.is_set():
                    return
                if cause != told:
                    self._tell(Gone(cause))
                    told = cause
            self._stopping.wait(pause)
            pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)

    def _listen(self) -> None:
        connection = ViciConnection(self._path, timeout=GREETING_LIMIT)
        try:
            connection.subscribe(*EVENTS)
            answer = connection.request("version")
            connection.wait_for_ever()
        except AdapterError:
            connection.close()
            raise
        self._connection = connection
        if self._stopping.is_set():
            return
        self._tell(Found(f"{answer.get('daemon', 'charon')} {answer.get('version', '?')}"))
        for event, message in connection.events():
            self._tell(Happened(event, message))


class Attempt:
    """One order to connect, on a connection of its own: vici answers it only when it has come to an end."""

    def __init__(self, path: str, name: str, tell: Tell) -> None:
        self.name = name
        self.mobike = False
        self.up = False
        """Whether charon has called it established; the event with the addresses may come before or after."""
        self._path = path
        self._tell = tell
        self._connection: ViciConnection | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def abandon(self) -> None:
        """Stop waiting for the outcome; charon goes on."""
        self._abandoned.set()
        if self._connection is not None:
            self._connection.close()

    def _run(self) -> None:
        lines: list[str] = []
        order = {"ike": self.name, "child": CHILD, "timeout": "0", "loglevel": "1"}
        refusal: str | None = None
        try:
            self._connection = ViciConnection(self._path)
            if self._abandoned.is_set():
                return
            for entry in self._connection.stream("initiate", "control-log", order):
                lines.append(entry.get("msg", ""))
                log.debug("%s: %s", self.name, lines[-1])
        except IkeError as error:
            refusal = str(error.cause)
        except AdapterError as error:
            log.debug("%s: %s", self.name, error)
            return  # The engine is gone: the watch tells.
        finally:
            if self._connection is not None:
                self._connection.close()
        self._tell(Ended(self.name, tuple(lines), refusal))
