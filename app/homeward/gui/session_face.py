# SPDX-License-Identifier: GPL-2.0-or-later
"""The tray on the session bus: one instance, raised by the next start; and the panel, which may come late or again."""

import os
from typing import Final

from PySide6.QtCore import ClassInfo, QObject, Signal, Slot
from PySide6.QtDBus import QDBusConnection, QDBusMessage, QDBusServiceWatcher

SERVICE: Final = "org.homeward.Tray"
PATH: Final = "/org/homeward/Tray"

_WATCHER: Final = "org.kde.StatusNotifierWatcher"
_WATCHER_PATH: Final = "/StatusNotifierWatcher"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_ANSWER_MS: Final = 3000


@ClassInfo({"D-Bus Interface": SERVICE})  # type: ignore[call-arg]  # PySide6's stub knows no decorator
class _Face(QObject):  # type: ignore[operator]
    """What another instance, or a key binding of the user's, may call."""

    asked = Signal()

    @Slot()
    def Show(self) -> None:  # noqa: N802 - a D-Bus name
        """Bring the details window to the screen."""
        self.asked.emit()


class SessionFace(QObject):
    """Our name on the session bus. Without a session bus everything still works, once per start.

    Signals: `asked()` when somebody wants to see us; `panel_changed(bool)` when a panel comes (True) or goes.
    """

    asked = Signal()
    panel_changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self._bus = QDBusConnection.sessionBus()
        self._face = _Face(self)
        self._face.asked.connect(self.asked)
        self._watcher = QDBusServiceWatcher(
            _WATCHER, self._bus, QDBusServiceWatcher.WatchModeFlag.WatchForOwnerChange, self
        )
        self._watcher.serviceOwnerChanged.connect(self._owner_changed)

    @property
    def connected(self) -> bool:
        """Whether there is a session bus."""
        return self._bus.isConnected()

    def claim(self) -> bool:
        """Become this session's instance; False if there is one already."""
        if not self.connected:
            return True
        # The object first: whoever sees the name may call at once.
        self._bus.registerObject(PATH, self._face, QDBusConnection.RegisterOption.ExportAllSlots)
        return self._bus.registerService(SERVICE)

    def raise_other(self) -> bool:
        """Ask the instance that is there to show itself; False if it does not answer."""
        call = QDBusMessage.createMethodCall(SERVICE, PATH, SERVICE, "Show")
        reply = self._bus.call(call, timeout=_ANSWER_MS)
        return reply.type() is QDBusMessage.MessageType.ReplyMessage

    def panel_present(self) -> bool:
        """Whether a panel speaks StatusNotifierItem now."""
        interface = self._bus.interface()
        return bool(interface is not None and interface.isServiceRegistered(_WATCHER).value())

    def icon_registered(self) -> bool:
        """Whether the panel lists an icon of this process."""
        ask = QDBusMessage.createMethodCall(_WATCHER, _WATCHER_PATH, _PROPERTIES, "Get")
        ask.setArguments([_WATCHER, "RegisteredStatusNotifierItems"])
        reply = self._bus.call(ask, timeout=_ANSWER_MS)
        if reply.type() is not QDBusMessage.MessageType.ReplyMessage:
            return True  # a panel that does not say: leave the icon as it is
        return any(self._is_ours(str(item).partition("/")[0]) for item in reply.arguments()[0])

    def _is_ours(self, name: str) -> bool:
        """Whether a name on the bus, unique or not, is this process: Qt gives the icon a connection of its own."""
        interface = self._bus.interface()
        return bool(interface is not None and interface.servicePid(name).value() == os.getpid())

    def _owner_changed(self, _service: str, _before: str, after: str) -> None:
        self.panel_changed.emit(bool(after))
