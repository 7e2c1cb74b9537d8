# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket: orders from commands to a running agent, as JSON objects, one a line, over a Unix stream.

    {"order": "status"}
    {"ok": true, "role": "home", …}
    {"order": "revoke", "address": "10.77.0.10"}
    {"ok": false, "error": "there is no binding of that address"}

A long answer is several lines, each with "ok"; all but the last have "more": true. Only root, and the user that the
agent runs as, gets an answer. Whoever is slow, talks at length or comes in crowds is cut off; the agent's own work
waits for nobody here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from homeward.agentd.log import entry
from homeward.model.errors import AdapterError, HomewardError, LinkError, NotPermitted, ProfileError

log: Final = logging.getLogger("control")

LONGEST_ORDER: Final = 16 * 1024
"""Octets in a line."""
MOST_CLIENTS: Final = 16
SECONDS_TO_SPEAK: Final = 10.0
"""A client that sends no whole line for so long, or takes no answer, is let go."""

Answer: TypeAlias = Mapping[str, object]
Answers: TypeAlias = Iterable[Answer]

_BACKLOG: Final = 64
_CREDENTIALS: Final = struct.Struct("3i")
_FOLDER_MODE: Final = 0o755


class OrderRefused(HomewardError):
    """The agent does not do that; the text says why, and what to do instead."""


class Orders(Protocol):
    """Who obeys."""

    async def obey(self, order: str, fields: Mapping[str, Any]) -> Answers:
        """One or more answers. OrderRefused, ProfileError, AdapterError: the order was not carried out."""
        ...


class ControlSocket:
    """Listens at `place`, a path, and passes on what allowed users say."""

    def __init__(self, place: Path, orders: Orders) -> None:
        self._place = place
        self._orders = orders
        self._socket: socket.socket | None = None
        self._clients: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to listen, in place of a former life's socket. Raises LinkError, NotPermitted."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            self._make_room()
            made.bind(str(self._place))
            made.listen(_BACKLOG)
        except OSError as error:
            made.close()
            refused = NotPermitted if isinstance(error, PermissionError) else LinkError
            raise refused(f"opening the control socket {self._place}", error.errno or 0) from error
        except BaseException:
            made.close()
            raise
        finally:
            os.umask(before)
        self._socket = made
        asyncio.get_running_loop().add_reader(made, self._accept)

    @property
    def clients(self) -> int:
        """How many are being served."""
        return len(self._clients)

    def stop(self) -> None:
        """Listen no more, and let everybody go."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        for client in self._clients:
            client.cancel()
        with suppress(OSError):
            self._place.unlink()

    def _make_room(self) -> None:
        folder = self._place.parent
        if not folder.is_dir():
            before = os.umask(0o022)
            try:
                folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            finally:
                os.umask(before)
        if not self._place.is_socket():
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self._place))
            except OSError:
                self._place.unlink()  # nobody listens there any more
                return
        raise LinkError(
            f"opening the control socket {self._place}",
            "another agent answers there; give this one a `control`",
        )

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            made, _ = self._socket.accept()
        except OSError:
            return
        if len(self._clients) >= MOST_CLIENTS or not _may_order(made):
            log.warning(entry("control-refused", clients=len(self._clients), user=_user(made)))
            made.close()
            return
        made.setblocking(False)
        client = asyncio.get_running_loop().create_task(self._serve(made))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, made: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=made, limit=LONGEST_ORDER)
        try:
            while True:
                async with asyncio.timeout(SECONDS_TO_SPEAK):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    return
                async for answer in self._answers(line):
                    writer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
                    async with asyncio.timeout(SECONDS_TO_SPEAK):
                        await writer.drain()
        except ValueError:  # readline: the line is too long
            writer.write(b'{"ok":false,"error":"that order is too long"}\n')
        except (OSError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _answers(self, line: bytes) -> AsyncIterator[Answer]:
        try:
            order, fields = _spoken(line)
            answers = iter(await self._orders.obey(order, fields))
            answer = next(answers)
            for following in answers:
                yield {"ok": True, **answer, "more": True}
                answer = following
                await asyncio.sleep(0)  # packets and requests first
            yield {"ok": True, **answer}
        except (OrderRefused, ProfileError, AdapterError) as error:
            yield {"ok": False, "error": str(error)}
        except OSError as error:
            yield {"ok": False, "error": error.strerror or str(error)}
        except Exception:
            log.exception(entry("order-failed", order=line[:80].decode(errors="replace")))
            yield {"ok": False, "error": "this should not have happened; the agent's log has more"}


def _spoken(line: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        spoken = json.loads(line)
    except (ValueError, RecursionError):
        spoken = None
    if not isinstance(spoken, dict) or not isinstance(spoken.get("order"), str):
        raise OrderRefused('an order is a line with a JSON object such as {"order": "status"}')
    return spoken.pop("order"), spoken


def _may_order(made: socket.socket) -> bool:
    return _user(made) in (0, os.geteuid())


def _user(made: socket.socket) -> int:
    """The user of the other side, from the kernel."""
    credentials = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(credentials)[1]
    return user


def text_in(fields: Mapping[str, Any], key: str) -> str:
    """A text that an order needs. OrderRefused."""
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise OrderRefused(f"the order needs a text {key!r}")
    return value


def flag_in(fields: Mapping[str, Any], key: str) -> bool:
    """A yes or no that an order may say; no where it does not. OrderRefused."""
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise OrderRefused(f"{key!r} is true or false")
    return value
