# SPDX-License-Identifier: GPL-2.0-or-later
"""A login1 for a private bus that has no systemd: says who sits at the lab's laptop.

    python -m homeward.bus.stand_in_logind --bus unix:path=… --user 1000

Only what homewardd asks: ListSessions and the sessions' properties. On a machine's own system bus it cannot take the
name, because logind has it.
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass
from typing import Annotated, Final

from dbus_fast import NameFlag, PropertyAccess, RequestNameReply
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusSignature, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from homeward.bus.callers import user_name
from homeward.bus.connection import leave_bus, open_bus, until_gone
from homeward.bus.errors import BusUnreachable

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


class StandInLogind(ServiceInterface):
    """The manager object, on one bus from start() to stop()."""

    def __init__(self, address: str) -> None:
        super().__init__("org.freedesktop.login1.Manager")
        self._address = address
        self._bus: MessageBus | None = None
        self._sessions: list[tuple[str, Seated]] = []

    async def start(self, *sessions: Seated) -> None:
        """Take the name; BusUnreachable, also if somebody has it."""
        self._bus = await open_bus(self._address, MessageBus)
        self._bus.export(_PATH, self)
        self.seat(*sessions)
        if await self._bus.request_name(_NAME, NameFlag.DO_NOT_QUEUE) is not RequestNameReply.PRIMARY_OWNER:
            await self.stop()
            raise BusUnreachable(f"there is a logind on the bus {self._address} already; use that one")

    async def stop(self) -> None:
        """Leave the bus."""
        if self._bus is not None:
            bus, self._bus = self._bus, None
            await leave_bus(bus)

    async def until_gone(self) -> None:
        """Return when the bus ends."""
        assert self._bus is not None
        await until_gone(self._bus)

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
            (path.rpartition("_")[2], seated.uid, user_name(seated.uid), seated.seat, path)
            for path, seated in self._sessions
        ]


async def _serve(address: str, users: list[int]) -> None:
    logind = StandInLogind(address)
    await logind.start(*(Seated(uid) for uid in users))
    await logind.until_gone()


def main() -> int:
    """Run until the bus ends or a signal comes."""
    parser = argparse.ArgumentParser(prog="stand_in_logind", description=__doc__)
    parser.add_argument("--bus", required=True, help="address of the private bus")
    parser.add_argument(
        "--user", type=int, action="append", default=[], help="user id that sits at the machine"
    )
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.bus, arguments.user))
    except (BusUnreachable, OSError, EOFError) as error:
        print(f"stand_in_logind: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
