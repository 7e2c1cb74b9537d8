# SPDX-License-Identifier: GPL-2.0-or-later
"""A tiny logind for the lab's laptop: one seat with one active session, which belongs to the user who runs the lab.

Run as a program (`python -m homeward.lab.login1 UID NAME`) on the laptop's own system bus. It implements the part of
org.freedesktop.login1 by which a service finds out who sits at the machine, and which tells of sleep and waking up; a
lab has no seat of its own, and the machine's real logind is none of its business.
"""

import asyncio
import sys
from typing import Annotated, Final

from dbus_fast import BusType, PropertyAccess
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusObjectPath, DBusSignature, DBusStr, DBusUInt32
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal

NAME: Final = "org.freedesktop.login1"
MANAGER: Final = "/org/freedesktop/login1"
SESSION: Final = MANAGER + "/session/_31"
SEAT: Final = MANAGER + "/seat/seat0"
_SESSION_ID: Final = "1"

Sessions = Annotated[list[tuple[str, int, str, str, str]], DBusSignature("a(susso)")]
Reference = Annotated[tuple[str, str], DBusSignature("(so)")]
UserReference = Annotated[tuple[int, str], DBusSignature("(uo)")]


class Manager(ServiceInterface):
    """The entry point: which sessions there are."""

    def __init__(self, uid: int, name: str) -> None:
        super().__init__(NAME + ".Manager")
        self._uid, self._name = uid, name

    @dbus_method()
    def ListSessions(self) -> Sessions:  # noqa: N802 - D-Bus names
        return [[_SESSION_ID, self._uid, self._name, "seat0", SESSION]]  # type: ignore[list-item]

    @dbus_method()
    def GetSession(self, session: DBusStr) -> DBusObjectPath:  # noqa: N802
        return SESSION

    @dbus_method()
    def GetSeat(self, seat: DBusStr) -> DBusObjectPath:  # noqa: N802
        return SEAT

    @dbus_signal()
    def PrepareForSleep(self, start: DBusBool) -> DBusBool:  # noqa: N802
        return start


class Session(ServiceInterface):
    """The one session: local and active."""

    def __init__(self, uid: int, name: str) -> None:
        super().__init__(NAME + ".Session")
        self._uid, self._name = uid, name

    @dbus_property(access=PropertyAccess.READ)
    def Id(self) -> DBusStr:  # noqa: N802
        return _SESSION_ID

    @dbus_property(access=PropertyAccess.READ)
    def User(self) -> UserReference:  # noqa: N802
        return [self._uid, f"{MANAGER}/user/_{self._uid}"]  # type: ignore[return-value]

    @dbus_property(access=PropertyAccess.READ)
    def Name(self) -> DBusStr:  # noqa: N802
        return self._name

    @dbus_property(access=PropertyAccess.READ)
    def Seat(self) -> Reference:  # noqa: N802
        return ["seat0", SEAT]  # type: ignore[return-value]

    @dbus_property(access=PropertyAccess.READ)
    def Active(self) -> DBusBool:  # noqa: N802
        return True

    @dbus_property(access=PropertyAccess.READ)
    def Remote(self) -> DBusBool:  # noqa: N802
        return False

    @dbus_property(access=PropertyAccess.READ)
    def State(self) -> DBusStr:  # noqa: N802
        return "active"

    @dbus_property(access=PropertyAccess.READ)
    def Class(self) -> DBusStr:  # noqa: N802
        return "user"

    @dbus_property(access=PropertyAccess.READ)
    def Type(self) -> DBusStr:  # noqa: N802
        return "x11"

    @dbus_property(access=PropertyAccess.READ)
    def VTNr(self) -> DBusUInt32:  # noqa: N802
        return 7


class Seat(ServiceInterface):
    """The one seat and who has it."""

    def __init__(self) -> None:
        super().__init__(NAME + ".Seat")

    @dbus_property(access=PropertyAccess.READ)
    def Id(self) -> DBusStr:  # noqa: N802
        return "seat0"

    @dbus_property(access=PropertyAccess.READ)
    def ActiveSession(self) -> Reference:  # noqa: N802
        return [_SESSION_ID, SESSION]  # type: ignore[return-value]


async def serve(uid: int, name: str) -> None:
    """Serve until the bus goes away."""
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    bus.export(MANAGER, Manager(uid, name))
    bus.export(SESSION, Session(uid, name))
    bus.export(SEAT, Seat())
    await bus.request_name(NAME)
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
