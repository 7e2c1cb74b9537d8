# SPDX-License-Identifier: GPL-2.0-or-later
"""The IKEv2 engine: a charon of our own, a process that outlives us, configured and watched over vici.

This module is the only one that knows the vici library; `engine.StrongSwanEngine` is what the daemon uses.
docs/decisions/0010 says what vici tells and what it does not.
"""

import socket
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from vici import Session
from vici.exception import CommandException, DeserializationException, SessionException
from vici.protocol import Message, Packet, Transport

from homeward.model.errors import IkeError, NotPermitted, Unavailable

CHARON: Final = "/usr/lib/ipsec/charon"
"""The program that serves the vici socket, where Debian puts it; used only to say what is missing."""

Section = dict[str, Any]
"""A vici message: text, lists of text, and sections in sections."""


class ViciConnection:
    """One connection to charon, for one thread at a time; only `close` may be called from any thread.

    A failure to connect, or a connection that breaks, raises Unavailable or NotPermitted; a command that charon
    refuses raises IkeError. After Unavailable the connection is of no further use.
    """

    def __init__(self, path: str, *, timeout: float | None = None) -> None:
        """Connect; `timeout` in seconds bounds every wait for an answer."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise _no_connection(path, error) from error
        self._session = Session(self._socket)
        self._early: deque[tuple[str, Section]] = deque()

    def request(self, command: str, message: Mapping[str, Any] | None = None) -> Section:
        """Give a command and return charon's answer."""
        try:
            return _text(self._session.request(command, message or {}))
        except CommandException as error:
            raise IkeError(command, str(error).removeprefix("Command failed: ")) from error
        except _BROKEN as error:
            raise _broken(command, error) from error

    def stream(self, command: str, event: str, message: Mapping[str, Any] | None = None) -> Iterator[Section]:
        """Give a command and yield what charon sends as `event` while it works on it."""
        try:
            for section in self._session.streamed_request(command, event, message or {}):
                yield _text(section)
        except CommandException as error:
            raise IkeError(command, str(error).removeprefix("Command failed: ")) from error
        except _BROKEN as error:
            raise _broken(command, error) from error

    def subscribe(self, *names: str) -> None:
        """Ask for events; none is lost from here on, unlike with the library's own `listen`."""
        transport: Transport = self._session.transport
        try:
            for name in names:
                transport.send(Packet.register_event(name))
                while (answer := Packet.parse(transport.receive())).response_type == Packet.EVENT:
                    self._early.append(_event(answer))
                if answer.response_type != Packet.EVENT_CONFIRM:
                    raise IkeError("watch the IKE service", f"it has no event {name}")
        except _BROKEN as error:
            raise _broken("watch the IKE service", error) from error

    def events(self) -> Iterator[tuple[str, Section]]:
        """The events subscribed to, as they come, until the connection breaks."""
        while self._early:
            yield self._early.popleft()
        while True:
            try:
                packet = Packet.parse(self._session.transport.receive())
                if packet.response_type == Packet.EVENT:
                    yield _event(packet)
            except _BROKEN as error:
                raise _broken("watch the IKE service", error) from error

    def wait_for_ever(self) -> None:
        """From now on no wait is bounded, as for events."""
        self._socket.settimeout(None)

    def close(self) -> None:
        """End it; a thread that waits in it gets Unavailable."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # Not connected any more.
        self._socket.close()


_BROKEN: Final = (OSError, SessionException, DeserializationException, struct.error, UnicodeDecodeError)


def _no_connection(path: str, error: OSError) -> Unavailable | NotPermitted:
    action = f"reach the IKE service at {path}"
    match error:
        case PermissionError():
            return NotPermitted(action, "this process lacks the right; it must run as root")
        case FileNotFoundError() if not Path(CHARON).exists():
            return Unavailable(action, f"strongSwan's charon is not installed ({CHARON})")
        case FileNotFoundError():
            return Unavailable(action, "charon is not running")
        case ConnectionRefusedError():
            return Unavailable(action, "charon has died and left its socket behind")
        case BlockingIOError() | TimeoutError():  # so many wait already that no more fit
            return Unavailable(action, "charon does not answer")
        case _:
            return Unavailable(action, error.errno or str(error))


def _broken(action: str, error: Exception) -> Unavailable:
    if isinstance(error, TimeoutError):
        return Unavailable(action, "charon does not answer")
    return Unavailable(action, "charon closed the connection")


def _event(packet: Any) -> tuple[str, Section]:
    return packet.event_type.decode(), _text(Message.deserialize(packet.payload))


def _text(section: Mapping[str, Any]) -> Section:
    return {key: _value(value) for key, value in section.items()}


def _value(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case list():
            return [_value(item) for item in value]
        case _:
            return _text(value)
