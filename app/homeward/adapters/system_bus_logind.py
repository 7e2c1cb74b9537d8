# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd-logind over D-Bus: who sits at this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from dbus_fast import BusType, DBusFastError, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.unpack import unpack_variants

from homeward.model.errors import Unavailable

_NAME: Final = "org.freedesktop.login1"
_PATH: Final = "/org/freedesktop/login1"
_MANAGER: Final = "org.freedesktop.login1.Manager"
_SESSION: Final = "org.freedesktop.login1.Session"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"

_ACTION: Final = "ask systemd-logind for the active session"
_TIMEOUT: Final = 2.0
_MOST_SESSIONS: Final = 64


class LogindSessions:
    """Asks logind on the given bus ("system" or a D-Bus address), each time anew: users switch."""

    def __init__(self, address: str = "system") -> None:
        self._address = address
        self._bus: MessageBus | None = None
        self._joining = asyncio.Lock()

    async def active_local_users(self) -> frozenset[int]:
        """User ids of the sessions that are active on a seat of this machine and not remote; Unavailable."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                bus = await self._joined()
                (sessions,) = await _call(bus, _PATH, _MANAGER, "ListSessions")
                # (id, user id, user name, seat, path); without a seat it is nobody who sits here.
                seated = [(uid, path) for _id, uid, _name, seat, path in sessions if seat][:_MOST_SESSIONS]
                details = await asyncio.gather(*(_details(bus, path) for _uid, path in seated))
        except _Refusal as error:
            # ServiceUnknown as much as everything else: nobody there can say who sits at the machine.
            raise Unavailable(_ACTION, str(error)) from error
        except (OSError, EOFError, DBusFastError, TimeoutError) as error:
            await self.close()
            raise Unavailable(_ACTION, str(error) or "no answer") from error
        except (TypeError, ValueError) as error:
            raise Unavailable(_ACTION, f"its answer is not understood ({error})") from error
        return frozenset(
            uid for (uid, _path), session in zip(seated, details, strict=True) if _is_local(session)
        )

    async def close(self) -> None:
        """Leave the bus."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.disconnect()
            try:
                async with asyncio.timeout(1):
                    await bus.wait_for_disconnect()
            except (OSError, EOFError, DBusFastError, TimeoutError):
                pass  # gone either way

    async def _joined(self) -> MessageBus:
        async with self._joining:
            if self._bus is None or not self._bus.connected:
                # A connection of its own: the one that owns the daemon's name listens to nobody but the bus.
                if self._address in ("system", "session"):
                    bus = MessageBus(
                        bus_type=BusType.SYSTEM if self._address == "system" else BusType.SESSION
                    )
                else:
                    bus = MessageBus(bus_address=self._address)
                await bus.connect()
                self._bus = bus
            return self._bus


def _is_local(session: Mapping[str, Any]) -> bool:
    """Class is "user" for people ("user-early" and the like included), "greeter" for the log-in screen."""
    return (
        session.get("Active") is True
        and session.get("Remote") is False
        and str(session.get("Class", "")).startswith("user")
    )


async def _details(bus: MessageBus, path: str) -> Mapping[str, Any]:
    """A session's properties; none for a session that has ended meanwhile."""
    try:
        (properties,) = await _call(bus, path, _PROPERTIES, "GetAll", _SESSION)
    except _Refusal:
        return {}
    details: Mapping[str, Any] = unpack_variants(properties)
    return details


class _Refusal(DBusFastError):
    """The bus or logind answered with an error."""


async def _call(bus: MessageBus, path: str, interface: str, member: str, *arguments: str) -> list[Any]:
    reply = await bus.call(
        Message(
            destination=_NAME,
            path=path,
            interface=interface,
            member=member,
            signature="s" * len(arguments),
            body=list(arguments),
        )
    )
    if reply.message_type is MessageType.ERROR:
        raise _Refusal(f"{reply.error_name}: {reply.body[0] if reply.body else ''}")
    return list(reply.body)
