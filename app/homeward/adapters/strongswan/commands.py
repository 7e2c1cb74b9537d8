# SPDX-License-Identifier: GPL-2.0-or-later
"""What charon is told: commands, one after the other, through one worker thread and one connection."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, TypeVar

from homeward.adapters.strongswan import ViciConnection
from homeward.adapters.strongswan.configuration import CHILD, PREFIX, connection_message, secret_message
from homeward.adapters.strongswan.reports import SecurityAssociation, associations
from homeward.model.errors import IkeError, Unavailable
from homeward.model.profile import GatewaySettings
from homeward.model.secret import Secret

log: Final = logging.getLogger("ike")
T = TypeVar("T")

COMMAND_LIMIT: Final = 5.0
"""Seconds that charon may take for an answer to a command."""
_USER_SPACE_ESP: Final = "kernel-libipsec"
FAREWELL: Final = 300
"""Milliseconds that the gateway has to confirm the end of an SA before it is simply forgotten here."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What `configure` was given, kept so that a charon that crashed can be given it again."""

    settings: GatewaySettings
    gateway: IPv4Address
    secret: Secret


class Commands:
    """Each call returns when charon has answered; raises IkeError, NotPermitted, Unavailable."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._worker = ThreadPoolExecutor(1, "charon-commands")
        self._connection: ViciConnection | None = None

    async def load(self, wish: Wish, name: str, *, inner: IPv4Address | None, keep: Iterable[str]) -> None:
        """Give charon the secret and the connection `name`, and take back our earlier ones, but for `keep`."""
        used = frozenset((name, *keep))
        await self._do(lambda connection: _load(connection, wish, name, inner=inner, used=used))

    async def standing(self) -> tuple[SecurityAssociation, ...]:
        """Our SAs, the oldest first."""
        return await self._do(_standing)

    async def rekey(self, name: str) -> None:
        """Have the CHILD_SA rekeyed; the answer is an event."""
        await self._do(lambda connection: connection.request("rekey", {"ike": name, "child": CHILD}))

    async def drop(self, names: Iterable[str]) -> None:
        """End these SAs at once; the gateway is told, and not waited for."""
        await self._do(lambda connection: _end(connection, names, farewell=0))

    async def end_all(self, *names: str) -> None:
        """End every SA of ours, and these in any case; the gateway has FAREWELL to confirm, but cannot prevent it."""
        await self._do(
            lambda connection: _end(connection, (*names, *_names(_standing(connection))), farewell=FAREWELL)
        )

    async def close(self) -> None:
        """End the connection and the worker; nothing is told. A command that comes later begins both anew."""
        if self._connection is not None:
            self._connection.close()
        worker, self._worker = self._worker, ThreadPoolExecutor(1, "charon-commands")
        await asyncio.to_thread(worker.shutdown, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _do(self, order: Callable[[ViciConnection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._run, order)

    def _run(self, order: Callable[[ViciConnection], T]) -> T:
        """In the worker: over the connection that is open or, when charon has been away meanwhile, over a new one."""
        if self._connection is not None:
            try:
                return self._give(self._connection, order)
            except Unavailable as error:
                if isinstance(error.__cause__, TimeoutError):
                    raise  # It is there and hangs: it would hang again.
                log.debug("%s: trying once more", error)
        self._connection = ViciConnection(self._path, timeout=COMMAND_LIMIT)
        return self._give(self._connection, order)

    def _give(self, connection: ViciConnection, order: Callable[[ViciConnection], T]) -> T:
        try:
            return order(connection)
        except Unavailable:
            connection.close()
            self._connection = None
            raise


def _load(
    connection: ViciConnection, wish: Wish, name: str, *, inner: IPv4Address | None, used: frozenset[str]
) -> None:
    connection.request("load-shared", secret_message(wish.settings, wish.secret))
    message = connection_message(
        name, wish.settings, wish.gateway, wished=inner, kernel_esp=_uses_kernel_esp(connection)
    )
    connection.request("load-conn", message)
    for other in connection.request("get-conns").get("conns", []):
        if other.startswith(PREFIX) and other not in used:
            connection.request("unload-conn", {"name": other})


def _uses_kernel_esp(connection: ViciConnection) -> bool:
    """Asked each time: a charon that was started anew may have been started otherwise."""
    return _USER_SPACE_ESP not in connection.request("stats").get("plugins", [])


def _standing(connection: ViciConnection) -> tuple[SecurityAssociation, ...]:
    listed = [each for message in connection.stream("list-sas", "list-sa") for each in associations(message)]
    return tuple(sorted(listed, key=lambda each: each.number))


def _names(standing: Iterable[SecurityAssociation]) -> tuple[str, ...]:
    return tuple(each.name for each in standing)


def _end(connection: ViciConnection, names: Iterable[str], *, farewell: int) -> None:
    for name in dict.fromkeys(names):
        order = {"ike": name, "force": "yes", "timeout": str(farewell), "loglevel": "0"}
        try:
            connection.request("terminate", order)
        except IkeError as error:
            log.debug("%s: %s", name, error.cause)  # Gone already, or forgotten without the gateway's word.
