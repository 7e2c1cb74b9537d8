# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows what the bridge sees: one view for tray and window, drawn anew on each change and while somebody looks."""

from collections.abc import Callable
from typing import Final

from PySide6.QtCore import QObject, Qt, QTimer
from PySide6.QtWidgets import QSystemTrayIcon

from homeward.gui.bridge import Bridge, boot_time
from homeward.gui.secret_agent import Answer, Keyring, Question, SecretAgent, user_name
from homeward.gui.secret_dialog import SecretDialog
from homeward.gui.session_face import SessionFace
from homeward.gui.tray import Tray
from homeward.gui.view_model import Action, ActionView, Seen, Service, tray_view
from homeward.gui.window import DetailsWindow
from homeward.model.health import HealthItem

PANEL_PATIENCE: Final = 10_000
"""Milliseconds to wait for a panel at log-in before the window takes its place."""
_SECOND_LOOK: Final = 1_500
"""Milliseconds after which a new panel is sure to take icons: it may own its name before it listens."""

_NO_TRAY: Final = (
    "This desktop shows no tray, so this window takes its place (on GNOME, the AppIndicator extension brings the tray"
    " back). Close it as you like: starting Homeward again brings it back, and the connection does not depend on it."
)


class Presenter(QObject):
    """Owns tray and window; passes the user's wishes on."""

    def __init__(self, address: str | None, *, face: SessionFace, tray: Tray, keyring: Keyring) -> None:
        super().__init__()
        self._face = face
        self._tray = tray
        self._window = DetailsWindow()
        self._bridge = Bridge(address, self._changed)
        self._agent = SecretAgent(keyring, self._bridge.offer_secret, screen=self, now=boot_time)
        self._dialog: SecretDialog | None = None
        self._looking: set[QObject] = set()
        self._user = user_name()
        self.on_quit: Callable[[], None] = lambda: None
        self._second = QTimer(self)
        self._second.setInterval(1000)
        self._second.setTimerType(Qt.TimerType.CoarseTimer)
        self._second.timeout.connect(self._draw)
        for source in (tray, self._window):
            source.chosen.connect(self._chosen)
            source.looking.connect(lambda looking, source=source: self._looked(source, looking))
        face.asked.connect(self.show_window)
        face.panel_changed.connect(self._panel_changed)

    async def start(self, *, window: bool) -> None:
        """Show the tray, and the window if asked; a window takes the tray's place where none appears."""
        self._draw()
        self._tray.create(panel=self._face.panel_present())
        if window:
            self.show_window()
        QTimer.singleShot(PANEL_PATIENCE, self, self._without_tray)
        await self._bridge.start()

    async def stop(self) -> None:
        """Leave; the daemon and the connection go on."""
        self._second.stop()
        await self._agent.stop()
        await self._bridge.stop()
        self._tray.remove()
        self._window.hide()

    def show_window(self) -> None:
        """Bring the details window to the front."""
        self._window.come_forward()

    # --- what the secret agent needs (secret_agent.Screen) ---

    async def ask(self, question: Question) -> Answer | None:
        """Ask the user for a secret."""
        self._dialog = SecretDialog(question)
        try:
            return await self._dialog.answer()
        finally:
            self._dialog = None

    def note(self, item: HealthItem) -> None:
        """Show a finding of the secret agent."""
        self._bridge.note(item)

    def settle(self, code: str) -> None:
        """Show it no more."""
        self._bridge.settle(code)

    # --- inside ---

    def _changed(self, seen: Seen) -> None:
        named = seen.snapshot.secrets_needed if seen.service is Service.RUNNING and seen.snapshot else ()
        self._agent.needed(named)
        self._draw()

    def _draw(self) -> None:
        view = tray_view(self._bridge.seen, boot_time(), user=self._user)
        self._tray.show_view(view)
        self._window.show_view(view)
        if view.counts and self._looking:
            if not self._second.isActive():
                self._second.start()
        else:
            self._second.stop()

    def _looked(self, source: QObject, looking: bool) -> None:
        """Seconds are counted only while somebody can see them."""
        if looking:
            self._looking.add(source)
            self._bridge.refresh()
        else:
            self._looking.discard(source)
        self._draw()

    def _chosen(self, entry: ActionView) -> None:
        match entry.action:
            case Action.DETAILS:
                self.show_window()
            case Action.QUIT:
                self.on_quit()
            case Action.GIVE_SECRET:
                self._agent.again()
                if self._dialog is not None:
                    self._dialog.raise_()
                    self._dialog.activateWindow()
            case Action.CONNECT | Action.RECONNECT | Action.DISCONNECT:
                self._bridge.run(entry.action, entry.profile)

    def _panel_changed(self, present: bool) -> None:
        # Recreating is what helps: an icon made without a panel looks for the other, older kind of tray for ever.
        if present:
            self._window.show_hint("")
            self._tray.create(panel=True)
            QTimer.singleShot(_SECOND_LOOK, self, self._look_again)
        else:
            QTimer.singleShot(PANEL_PATIENCE, self, self._without_tray)

    def _look_again(self) -> None:
        if self._face.panel_present() and not self._face.icon_registered():
            self._tray.create(panel=True)

    def _without_tray(self) -> None:
        if not self._face.panel_present() and not QSystemTrayIcon.isSystemTrayAvailable():
            self._window.show_hint(_NO_TRAY)
            self.show_window()
