# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface org.homeward.Daemon1 as D-Bus sees it: names, signatures, bounds, errors; it decides nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeVar

from dbus_fast import DBusError, ErrorType, PropertyAccess, Variant
from dbus_fast.annotations import DBusBytes, DBusDict, DBusSignature, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from homeward.bus.callers import Callers, reply_expected
from homeward.bus.control import Caller, Control
from homeward.bus.errors import Failed, ServiceError
from homeward.bus.messages import carriable, profile_to_bus, snapshot_to_bus
from homeward.bus.names import BUS_INTERFACE, MAXIMUM_NAME_CHARACTERS, MAXIMUM_SECRET_OCTETS
from homeward.model.errors import HomewardError
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot

__all__ = ["Caller", "Control", "DaemonInterface"]

log: Final = logging.getLogger("bus")

_Rows = Annotated[list[dict[str, Variant]], DBusSignature("aa{sv}")]
T = TypeVar("T")

_SHORTEST_PAUSE: Final = 0.02
"""Between two PropertiesChanged signals, in seconds: a watcher sees the newest picture, not each brush stroke."""


class DaemonInterface(ServiceInterface):
    """One connection's view of the daemon."""

    def __init__(self, control: Control, callers: Callers, *, version: str) -> None:
        super().__init__(BUS_INTERFACE)
        self._control = control
        self._callers = callers
        self._version = version
        self._told: StatusSnapshot | None = None
        self._told_as: dict[str, Variant] = {}
        self._last_signal = 0.0
        self._due: asyncio.TimerHandle | None = None

    # --- properties and reading: for every local user, without secrets ---

    @dbus_property(access=PropertyAccess.READ, name="Status")
    def status(self) -> DBusDict:
        return self._status()

    @dbus_property(access=PropertyAccess.READ, name="Version")
    def version(self) -> DBusStr:
        return self._version

    @dbus_method(name="GetStatus")
    async def get_status(self) -> DBusDict:
        return self._status()

    @dbus_method(name="ListProfiles")
    async def list_profiles(self) -> _Rows:
        async def work() -> list[dict[str, Variant]]:
            return [profile_to_bus(summary) for summary in await self._control.profiles()]

        return await self._answer("list the profiles", work, [])

    # --- acting: the daemon behind decides whether this caller may ---

    @dbus_method(name="Connect")
    async def connect(self, profile: DBusStr) -> None:
        async def work() -> None:
            _require_name("profile", profile)
            await self._control.connect(profile, await self._callers.current())

        await self._answer("connect", work, None)

    @dbus_method(name="Disconnect")
    async def disconnect(self) -> None:
        async def work() -> None:
            await self._control.disconnect(await self._callers.current())

        await self._answer("disconnect", work, None)

    @dbus_method(name="Reconnect")
    async def reconnect(self) -> None:
        async def work() -> None:
            await self._control.reconnect(await self._callers.current())

        await self._answer("reconnect", work, None)

    @dbus_method(name="OfferSecret")
    async def offer_secret(self, reference: DBusStr, secret: DBusBytes) -> None:
        async def work() -> None:
            _require_name("secret", reference)
            if not 0 < len(secret) <= MAXIMUM_SECRET_OCTETS:
                raise _BadArgument(f"a secret has 1 to {MAXIMUM_SECRET_OCTETS} octets")
            await self._control.offer_secret(reference, Secret(secret), await self._callers.current())

        await self._answer("take a secret", work, None)

    # --- telling ---

    def publish(self) -> None:
        """The snapshot changed: say so now, or when the pause after the last signal is over."""
        if self._due is not None:
            return
        loop = asyncio.get_running_loop()
        self._due = loop.call_at(max(loop.time(), self._last_signal + _SHORTEST_PAUSE), self._signal)

    def close(self) -> None:
        """Say nothing more."""
        if self._due is not None:
            self._due.cancel()

    def _signal(self) -> None:
        self._due = None
        self._last_signal = asyncio.get_running_loop().time()
        self.emit_properties_changed({"Status": self._status()})

    def _status(self) -> dict[str, Variant]:
        """Turned into D-Bus once per snapshot, however many ask."""
        snapshot = self._control.snapshot()
        if snapshot is not self._told:
            self._told, self._told_as = snapshot, snapshot_to_bus(snapshot)
        return self._told_as

    async def _answer(self, action: str, work: Callable[[], Awaitable[T]], nothing: T) -> T:
        """The result of `work`, or what went wrong as a D-Bus error; `nothing` where nobody waits for an answer.

        dbus-fast would log a traceback for each error that nobody waits for, and so let any user fill the journal.
        """
        try:
            return await work()
        except _BadArgument as error:
            failure = DBusError(ErrorType.INVALID_ARGS, str(error))
        except ServiceError as error:
            failure = DBusError(error.wire_name, carriable(str(error)))
        except HomewardError as error:
            failure = DBusError(Failed.wire_name, carriable(f"homewardd could not {action}: {error}"))
        except Exception:
            log.exception("could not %s", action)
            failure = DBusError(
                Failed.wire_name, f"homewardd could not {action}: see `journalctl -u homewardd`"
            )
        if reply_expected():
            raise failure
        return nothing


class _BadArgument(Exception):
    """An argument out of bounds."""


def _require_name(what: str, text: str) -> None:
    if not 0 < len(text) <= MAXIMUM_NAME_CHARACTERS or not text.isprintable():
        raise _BadArgument(f"the name of a {what} has 1 to {MAXIMUM_NAME_CHARACTERS} printable characters")
