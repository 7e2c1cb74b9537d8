# SPDX-License-Identifier: GPL-2.0-or-later
"""A panel without pixels: a StatusNotifierWatcher that reads icon, tooltip and menu by D-Bus, and clicks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from homeward.bus.connection import leave_bus
from tests.gui.session import until

_WATCHER = "org.kde.StatusNotifierWatcher"
_ITEM = "org.kde.StatusNotifierItem"
_MENU = "com.canonical.dbusmenu"
_PROPERTIES = "org.freedesktop.DBus.Properties"


class IconGoneError(Exception):
    """The icon asked for does not exist any more."""


@dataclass
class Entry:
    """One entry of the menu."""

    identity: int
    label: str
    enabled: bool


def as_drawn(label: str) -> str:
    """A label as a panel draws it: _ marks the key of an entry, and __ is an underscore."""
    return re.sub("_(_?)", r"\1", label)


class Panel:
    """Owns the watcher's name from `async with` on; several may follow one another on the same bus."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._bus: MessageBus | None = None
        self.registered: list[str] = []
        """Unique names of the connections that registered an icon, in order."""
        self.changes: list[str] = []
        """Members of the signals that icons and menus sent."""

    async def __aenter__(self) -> Panel:
        self._bus = await MessageBus(bus_address=self._address).connect()
        self._bus.add_message_handler(self._handle)
        for interface in (_ITEM, _MENU):
            await self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", [
                f"type='signal',interface='{interface}'"
            ])  # fmt: skip
        await self._bus.request_name(_WATCHER)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._bus is not None
        await leave_bus(self._bus)

    def _handle(self, message: Message) -> Message | bool | None:
        if message.message_type is MessageType.SIGNAL and message.interface in {_ITEM, _MENU}:
            self.changes.append(message.member or "")
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if message.interface == _WATCHER and message.member == "RegisterStatusNotifierItem":
            self.registered.append(message.sender or "")
            return Message.new_method_return(message)
        if message.interface == _PROPERTIES and message.member in {"Get", "GetAll"}:
            values = {
                "RegisteredStatusNotifierItems": Variant(
                    "as", [f"{name}/StatusNotifierItem" for name in self.registered]
                ),
                "IsStatusNotifierHostRegistered": Variant("b", True),
                "ProtocolVersion": Variant("i", 0),
            }
            if message.member == "Get":
                return Message.new_method_return(message, "v", [values[message.body[1]]])
            return Message.new_method_return(message, "a{sv}", [values])
        return None

    async def call(
        self,
        to: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
    ) -> list[Any]:
        assert self._bus is not None
        reply = await self._bus.call(
            Message(
                destination=to,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=body or [],
            )
        )
        assert reply is not None
        if reply.error_name == "org.freedesktop.DBus.Error.ServiceUnknown":
            raise IconGoneError(to)  # replaced by another one at this moment
        assert reply.message_type is MessageType.METHOD_RETURN, f"{member}: {reply.error_name} {reply.body}"
        return list(reply.body)

    async def alive(self) -> list[str]:
        """Those of the registered icons that still exist."""
        living = []
        for name in self.registered:
            driver = "org.freedesktop.DBus"
            (owned,) = await self.call(driver, "/org/freedesktop/DBus", driver, "NameHasOwner", "s", [name])
            if owned:
                living.append(name)
        return living

    async def icon(self) -> dict[str, Any]:
        """The properties of the newest icon; pixmaps as {width: octets}."""
        (values,) = await self.call(
            self.registered[-1], "/StatusNotifierItem", _PROPERTIES, "GetAll", "s", [_ITEM]
        )
        shown = {key: value.value for key, value in values.items()}
        shown["IconPixmap"] = {width: octets for width, _, octets in shown["IconPixmap"]}
        return shown

    async def tooltip(self) -> str:
        return str((await self.icon())["ToolTip"][2])

    async def menu(self) -> list[Entry]:
        """The visible entries, without separators."""
        path = (await self.icon())["Menu"]
        _, root = await self.call(self.registered[-1], path, _MENU, "GetLayout", "iias", [0, -1, []])
        entries = []
        for child in root[2]:
            identity, properties, _ = child.value
            values = {key: value.value for key, value in properties.items()}
            if values.get("visible", True) and values.get("type") != "separator":
                entries.append(
                    Entry(identity, as_drawn(values.get("label", "")), values.get("enabled", True))
                )
        return entries

    async def labels(self) -> list[str]:
        return [entry.label for entry in await self.menu()]

    async def event(self, label: str | None, kind: str) -> None:
        """Send an event ("clicked", "opened", "closed") to the entry with this label, or to the menu itself."""
        path = (await self.icon())["Menu"]
        identity = 0
        if label is not None:
            (identity,) = [entry.identity for entry in await self.menu() if entry.label == label]
        body = [identity, kind, Variant("i", 0), 0]
        await self.call(self.registered[-1], path, _MENU, "Event", "isvu", body)

    async def click(self, label: str) -> None:
        """Click an entry as soon as it is there and on, as a person would."""

        async def ready() -> bool:
            return any(entry.label == label and entry.enabled for entry in await self.menu())

        await until(ready, f"an entry {label} that is on")
        await self.event(label, "clicked")

    async def about_to_show(self) -> None:
        path = (await self.icon())["Menu"]
        await self.call(self.registered[-1], path, _MENU, "AboutToShow", "i", [0])
