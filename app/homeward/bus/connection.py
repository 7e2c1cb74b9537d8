# SPDX-License-Identifier: GPL-2.0-or-later
"""Joining and leaving a bus, and asking the bus itself, for both ends."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final, TypeVar

from dbus_fast import BusType, DBusFastError, Message, MessageFlag, MessageType
from dbus_fast.aio import MessageBus

from homeward.bus.errors import BusUnreachable
from homeward.bus.names import ADDRESS_VARIABLE, DRIVER_INTERFACE, DRIVER_NAME, DRIVER_PATH

BROKEN: Final = (OSError, EOFError, DBusFastError)
"""What dbus-fast raises when a connection breaks."""

_HANDSHAKE: Final = 10.0
_FAREWELL: Final = 1.0

Bus = TypeVar("Bus", bound=MessageBus)


def bus_address(wanted: str | None) -> str:
    """Which bus: the one asked for, else the environment's (HOMEWARD_BUS), else the system bus."""
    return wanted or os.environ.get(ADDRESS_VARIABLE) or "system"


async def open_bus(address: str, kind: type[Bus]) -> Bus:
    """Connect to "system", "session" or a D-Bus address such as unix:path=/run/bus; BusUnreachable."""
    where: dict[str, Any]
    match address:
        case "system":
            where = {"bus_type": BusType.SYSTEM}
        case "session":
            where = {"bus_type": BusType.SESSION}
        case _:
            where = {"bus_address": address}
    try:
        bus = kind(auth_timeout=_HANDSHAKE, **where)
        await bus.connect()
    except (*BROKEN, KeyError) as error:
        raise BusUnreachable(
            f"the bus {address} cannot be reached: {error}. Check that dbus is running, or name another bus "
            f"with --bus or {ADDRESS_VARIABLE}."
        ) from error
    return bus


async def leave_bus(bus: MessageBus) -> None:
    """Close the connection and wait until it is closed, so that no socket is left to the garbage collector."""
    bus.disconnect()
    try:
        async with asyncio.timeout(_FAREWELL):
            await bus.wait_for_disconnect()
    except (*BROKEN, TimeoutError):
        pass  # it is as gone as it can be


async def until_gone(bus: MessageBus) -> None:
    """Return when the connection is closed, whoever closed it; raises what it broke of (BROKEN).

    Shielded, because dbus-fast hands everybody the same future: cancelling one wait would cancel all.
    """
    await asyncio.shield(bus.wait_for_disconnect())


async def ask_driver(bus: MessageBus, member: str, *arguments: str) -> Any:
    """Call a method of the bus itself that takes strings; its first result, or None if it has none.

    LookupError if the bus answers with an error, OSError and others of BROKEN if the connection breaks.
    """
    reply = await bus.call(
        Message(
            destination=DRIVER_NAME,
            path=DRIVER_PATH,
            interface=DRIVER_INTERFACE,
            member=member,
            signature="s" * len(arguments),
            body=list(arguments),
            flags=MessageFlag.NO_AUTOSTART,
        )
    )
    if reply.message_type is MessageType.ERROR:
        raise LookupError(f"{reply.error_name}: {reply.body[0] if reply.body else ''}")
    return reply.body[0] if reply.body else None
