# SPDX-License-Identifier: GPL-2.0-or-later
"""A login1 on a private bus whose sessions a test changes: only what homewardd asks of it."""

from dataclasses import dataclass
from typing import Annotated, Final

from dbus_fast import NameFlag, PropertyAccess, RequestNameReply
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusSignature, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from homeward.bus.connection import leave_bus, open_bus

_NAME: Final = "org.freedesktop.login1"
_PATH: Final = "/org/freedesktop/login1"

_Rows = Annotated[list[tuple[str, int, str, str, str]], DBusSignature("a(susso)")]


@dataclass(frozen=True, slots=True)
class Seated:
    """One session; `seat` is empty for one that has none, as over SSH."""

    uid: int
    seat: str = "seat0"
    active: bool = True
    remote: bool = False
    kind: str = "user"


class _Session(ServiceInterface):
    def __init__(self, seated: Seated) -> None:
        super().__init__("org.freedesktop.login1.Session")
        self._seated = seated

    @dbus_property(access=PropertyAccess.READ, name="Active")
    def active(self) -> DBusBool:
        return self._seated.active

    @dbus_property(access=PropertyAccess.READ, name="Remote")
    def remote(self) -> DBusBool:
        return self._seated.remote

    @dbus_property(access=PropertyAccess.READ, name="Class")
    def kind(self) -> DBusStr:
        return self._seated.kind


class PlayedLogind(ServiceInterface):
    """The manager object, on one bus from start() to stop()."""

    def __init__(self, address: str) -> None:
        super().__init__("org.freedesktop.login1.Manager")
        self._address = address
        self._bus: MessageBus | None = None
        self._sessions: list[tuple[str, Seated]] = []

    async def start(self, *sessions: Seated) -> None:
        self._bus = await open_bus(self._address, MessageBus)
        self._bus.export(_PATH, self)
        self.seat(*sessions)
        assert await self._bus.request_name(_NAME, NameFlag.DO_NOT_QUEUE) is RequestNameReply.PRIMARY_OWNER

    async def stop(self) -> None:
        if self._bus is not None:
            bus, self._bus = self._bus, None
            await leave_bus(bus)

    def seat(self, *sessions: Seated) -> None:
        """These are the sessions from now on."""
        assert self._bus is not None
        for path, _seated in self._sessions:
            self._bus.unexport(path)
        self._sessions = [
            (f"{_PATH}/session/_{number}", seated) for number, seated in enumerate(sessions, start=1)
        ]
        for path, seated in self._sessions:
            self._bus.export(path, _Session(seated))

    @dbus_method(name="ListSessions")
    def list_sessions(self) -> _Rows:
        return [
            (path.rpartition("_")[2], seated.uid, str(seated.uid), seated.seat, path)
            for path, seated in self._sessions
        ]
