# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's place on the bus: its name and its object, kept up through a bus that restarts or gets stuck."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from dbus_fast import ErrorType, Message, NameFlag, RequestNameReply
from dbus_fast.errors import DBusError

from homeward.bus.bounded import BoundedBus
from homeward.bus.callers import Callers
from homeward.bus.connection import BROKEN, ask_driver, leave_bus, open_bus, until_gone
from homeward.bus.control import Control
from homeward.bus.errors import BusUnreachable
from homeward.bus.names import BUS_NAME, BUS_PATH
from homeward.bus.service import DaemonInterface
from homeward.model.errors import AdapterError, NotPermitted, Unavailable

log: Final = logging.getLogger("bus")

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
_MESSAGES_PER_CHECK: Final = 256
_LONGEST_SILENCE: Final = 10.0


class BusServer:
    """Serves `control` on one bus from start() to stop().

    The bus counts what clients have not read yet against the sender, and stops reading from a sender with too much of
    it: clients that never read could silence the daemon. So after some traffic the bus itself is asked for a sign of
    life, and a connection without one is replaced; nothing wakes up while nobody calls.
    """

    def __init__(
        self, control: Control, address: str, *, version: str, longest_silence: float = _LONGEST_SILENCE
    ) -> None:
        self._control = control
        self._address = address
        self._version = version
        self._longest_silence = longest_silence
        self._bus: BoundedBus | None = None
        self._interface: DaemonInterface | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._traffic = 0

    async def start(self) -> None:
        """Join the bus and take the name. BusUnreachable; NotPermitted, Unavailable if the name cannot be had."""
        await self._join(NameFlag.DO_NOT_QUEUE | NameFlag.ALLOW_REPLACEMENT)
        self._keeper = asyncio.create_task(self._keep_joined())

    async def stop(self) -> None:
        """Leave the bus."""
        for task in (self._keeper, self._check):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._leave()

    def publish(self) -> None:
        """The control's snapshot has changed: tell everybody who watches."""
        if self._interface is not None:
            self._interface.publish()
            self._count()

    async def _join(self, flags: NameFlag) -> None:
        bus = await open_bus(self._address, BoundedBus)
        callers = Callers(lambda name: _user_id(bus, name))
        interface = DaemonInterface(self._control, callers, version=self._version)

        def admit(message: Message) -> Message | bool | None:
            self._count()
            return callers.admit(message)

        bus.add_message_handler(admit)
        bus.export(BUS_PATH, interface)
        try:
            await _take_name(bus, flags)
        except AdapterError:
            await leave_bus(bus)
            raise
        self._bus, self._interface = bus, interface

    async def _leave(self) -> None:
        bus, self._bus = self._bus, None
        interface, self._interface = self._interface, None
        if interface is not None:
            interface.close()
        if bus is not None:
            await leave_bus(bus)

    async def _keep_joined(self) -> None:
        while True:
            assert self._bus is not None
            try:
                await until_gone(self._bus)
            except BROKEN as error:
                log.warning("the bus %s went away: %s", self._address, error)
            await self._leave()
            await self._rejoin()

    async def _rejoin(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            try:
                # A bus that does not read from the old connection has not seen it close either: it keeps its name.
                await self._join(
                    NameFlag.DO_NOT_QUEUE | NameFlag.ALLOW_REPLACEMENT | NameFlag.REPLACE_EXISTING
                )
            except (*BROKEN, AdapterError, BusUnreachable) as error:
                log.debug("not on the bus yet: %s", error)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                log.warning("back on the bus %s", self._address)
                return

    def _count(self) -> None:
        self._traffic += 1
        if self._traffic >= _MESSAGES_PER_CHECK and (self._check is None or self._check.done()):
            self._traffic = 0
            self._check = asyncio.create_task(self._check_life())

    async def _check_life(self) -> None:
        bus = self._bus
        if bus is None:
            return
        try:
            async with asyncio.timeout(self._longest_silence):
                await ask_driver(bus, "GetId")
        except TimeoutError:
            log.error("the bus has not read from us for %g s: connecting anew", self._longest_silence)
            bus.disconnect()
        except (*BROKEN, LookupError):
            pass  # _keep_joined sees a broken connection, and an error is a sign of life too


async def _user_id(bus: BoundedBus, name: str) -> int:
    try:
        return int(await ask_driver(bus, "GetConnectionUnixUser", name))
    except BROKEN as error:
        raise LookupError(str(error)) from error


async def _take_name(bus: BoundedBus, flags: NameFlag) -> None:
    action = f"take the name {BUS_NAME} on the bus"
    try:
        reply = await bus.request_name(BUS_NAME, flags)
    except DBusError as error:
        if error.type == ErrorType.ACCESS_DENIED.value:
            raise NotPermitted(
                action,
                f"{error.text}. Run as root, and install org.homeward.Daemon.conf in /usr/share/dbus-1/system.d",
            ) from error
        raise Unavailable(action, error.text) from error
    if reply not in (RequestNameReply.PRIMARY_OWNER, RequestNameReply.ALREADY_OWNER):
        raise Unavailable(
            action,
            "another homewardd has it; stop that one first (`systemctl stop homewardd`), or use its bus",
        )
