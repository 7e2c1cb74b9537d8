# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as its clients see it: command line, tray and lab all speak to it through this one class."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from dbus_fast import Message, MessageFlag, MessageType

from homeward.bus.bounded import PatientBus
from homeward.bus.connection import BROKEN, ask_driver, bus_address, leave_bus, open_bus, until_gone
from homeward.bus.errors import BusUnreachable, DaemonAbsent, Failed, service_error
from homeward.bus.messages import ProfileSummary, profile_from_bus, snapshot_from_bus
from homeward.bus.names import (
    BUS_INTERFACE,
    BUS_NAME,
    BUS_PATH,
    DRIVER_INTERFACE,
    DRIVER_NAME,
    ERROR_PREFIX,
    PROPERTIES_INTERFACE,
)
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot

_log: Final = logging.getLogger("bus")

_NOBODY_THERE: Final = frozenset(
    DRIVER_NAME + ".Error." + name
    for name in ("ServiceUnknown", "NameHasNoOwner", "NoReply", "Timeout", "TimedOut", "Disconnected")
)
_START_IT: Final = (
    "Start it with `systemctl start homewardd`, and see `journalctl -u homewardd` if it does not stay."
)
_STATUS_CHANGED: Final = (
    f"type='signal',sender='{BUS_NAME}',path='{BUS_PATH}',interface='{PROPERTIES_INTERFACE}',"
    f"member='PropertiesChanged',arg0='{BUS_INTERFACE}'"
)
_OWNER_CHANGED: Final = (
    f"type='signal',sender='{DRIVER_NAME}',interface='{DRIVER_INTERFACE}',"
    f"member='NameOwnerChanged',arg0='{BUS_NAME}'"
)
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0

Observer = Callable[[StatusSnapshot | None], None]
"""Called with each new snapshot, and with None when the daemon has gone."""


class DaemonClient:
    """One connection to the daemon, for calls and for watching; not for use from several threads."""

    def __init__(self, address: str | None = None, *, call_timeout: float = 15.0) -> None:
        self._address = bus_address(address)
        self._call_timeout = call_timeout
        self._bus: PatientBus | None = None
        self._observer: Observer | None = None
        self._owner = ""
        self._revision = -1
        self._keeper: asyncio.Task[None] | None = None
        self._refresher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect to the bus; BusUnreachable. Whether the daemon is there shows with the first call."""
        if self._bus is None:
            self._bus = await open_bus(self._address, PatientBus)

    async def close(self) -> None:
        """Stop watching and leave the bus."""
        for task in (self._keeper, self._refresher):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._keeper = self._refresher = self._observer = None
        await self._leave_bus()

    # --- calls: each raises ServiceError (typed), DaemonAbsent or BusUnreachable ---

    async def status(self) -> StatusSnapshot:
        """The daemon's present snapshot."""
        (body,) = await self._call("GetStatus")
        return snapshot_from_bus(body)

    async def profiles(self) -> tuple[ProfileSummary, ...]:
        """All profiles, unusable ones with the reason."""
        (rows,) = await self._call("ListProfiles")
        return tuple(profile_from_bus(row) for row in rows)

    async def connect(self, profile: str) -> None:
        """Connect with this profile; returns when the daemon has taken the order, not when it is done."""
        await self._call("Connect", "s", [profile])

    async def disconnect(self) -> None:
        """Disconnect, and leave the machine as it was found."""
        await self._call("Disconnect")

    async def reconnect(self) -> None:
        """Forget the verdict, probe again and rebuild the VPN."""
        await self._call("Reconnect")

    async def offer_secret(self, reference: str, secret: Secret) -> None:
        """Hand over a secret that a profile names; SecretRefused if it is not taken."""
        await self._call("OfferSecret", "say", [reference, secret.reveal()])

    async def version(self) -> str:
        """The daemon's version."""
        (value,) = await self._call("Get", "ss", [BUS_INTERFACE, "Version"], interface=PROPERTIES_INTERFACE)
        return str(value.value)

    async def _call(
        self,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
        *,
        interface: str = BUS_INTERFACE,
    ) -> list[Any]:
        message = Message(
            destination=BUS_NAME,
            path=BUS_PATH,
            interface=interface,
            member=member,
            signature=signature,
            body=body or [],
            flags=MessageFlag.NO_AUTOSTART,
        )
        reply = await self._exchange(message)
        if reply.message_type is MessageType.METHOD_RETURN:
            return list(reply.body)
        raise _failure(reply)

    async def _exchange(self, message: Message) -> Message:
        if self._bus is None or not self._bus.connected:
            raise BusUnreachable(f"the connection to the bus {self._address} is gone; try again in a moment")
        try:
            async with asyncio.timeout(self._call_timeout):
                return await self._bus.call(message)
        except TimeoutError:
            raise DaemonAbsent(
                f"homewardd has not answered for {self._call_timeout:g} seconds. {_START_IT}"
            ) from None
        except BROKEN as error:
            raise BusUnreachable(
                f"the connection to the bus {self._address} broke: {error}; try again"
            ) from error

    # --- watching ---

    async def watch(self, observer: Observer) -> None:
        """Tell `observer` the present snapshot now, and each new one until close().

        None means that the daemon is not there. A daemon that comes back is found by itself, and so is a bus that
        went away. BusUnreachable if the bus cannot be reached to begin with.
        """
        await self.open()
        self._observer = observer
        await self._subscribe()
        self._keeper = asyncio.create_task(self._keep_connected())

    async def _subscribe(self) -> None:
        assert self._bus is not None
        self._bus.add_message_handler(self._heard)
        for rule in (_STATUS_CHANGED, _OWNER_CHANGED):
            await self._ask("AddMatch", rule)
        try:
            self._owner_is(str(await self._ask("GetNameOwner", BUS_NAME)))
        except LookupError:
            self._owner_is("")
        if self._refresher is not None:
            await asyncio.wait({self._refresher})  # not `await`: a change of owner may cancel it

    async def _ask(self, member: str, argument: str) -> Any:
        assert self._bus is not None
        try:
            async with asyncio.timeout(self._call_timeout):
                return await ask_driver(self._bus, member, argument)
        except (*BROKEN, TimeoutError) as error:
            raise BusUnreachable(f"the bus {self._address} does not answer: {error}; try again") from error

    async def _keep_connected(self) -> None:
        while True:
            assert self._bus is not None
            try:
                await until_gone(self._bus)
            except BROKEN as error:
                _log.info("the bus went away: %s", error)
            self._owner_is("")
            await self._rejoin()

    async def _rejoin(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            await self._leave_bus()
            try:
                await self.open()
                await self._subscribe()
            except (BusUnreachable, DaemonAbsent) as error:
                _log.debug("not back yet: %s", error)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return

    def _heard(self, message: Message) -> None:
        """Signals only. A match rule does not bind who sends straight to us, so the sender is checked here."""
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.sender == DRIVER_NAME and message.member == "NameOwnerChanged":
            if message.body[0] == BUS_NAME:
                self._owner_is(message.body[2])
        elif message.sender == self._owner and message.member == "PropertiesChanged":
            self._properties_changed(message)

    def _properties_changed(self, message: Message) -> None:
        if message.path != BUS_PATH or message.signature != "sa{sv}as" or message.body[0] != BUS_INTERFACE:
            return
        status = message.body[1].get("Status")
        if status is not None and status.signature == "a{sv}":
            self._show(snapshot_from_bus(status.value))

    def _owner_is(self, owner: str) -> None:
        self._owner = owner
        self._revision = -1  # another life of the daemon counts from the beginning
        if self._refresher is not None:
            self._refresher.cancel()
            self._refresher = None
        if owner:
            self._refresher = asyncio.create_task(self._refresh())
        else:
            self._tell(None)

    async def _refresh(self) -> None:
        try:
            self._show(await self.status())
        except (DaemonAbsent, Failed) as error:
            _log.info("no status from the daemon: %s", error)
            self._tell(None)
        except BusUnreachable:
            pass  # _keep_connected sees that too, and says so

    def _show(self, snapshot: StatusSnapshot) -> None:
        """A reply and a signal may cross: the newer revision wins."""
        if snapshot.revision > self._revision:
            self._revision = snapshot.revision
            self._tell(snapshot)

    def _tell(self, snapshot: StatusSnapshot | None) -> None:
        if self._observer is None:
            return
        try:
            self._observer(snapshot)
        except Exception:
            _log.exception("the observer of the status failed")

    async def _leave_bus(self) -> None:
        if self._bus is not None:
            bus, self._bus = self._bus, None
            await leave_bus(bus)


def _failure(reply: Message) -> Exception:
    name = reply.error_name or ""
    text = str(reply.body[0]) if reply.body else ""
    if name in _NOBODY_THERE:
        return DaemonAbsent(f"homewardd is not running on this bus. {_START_IT}")
    if name.startswith(ERROR_PREFIX):
        return service_error(name, text)
    return Failed(f"the daemon answered {name}: {text}")
