# SPDX-License-Identifier: GPL-2.0-or-later
"""The icon in the panel with its tooltip and menu: shows a TrayView, and says which entry was chosen."""

from typing import Final

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QSystemTrayIcon

from homeward.gui.pixmaps import Style, application_icon, state_icon
from homeward.gui.view_model import Action, ActionView, TrayView

MENU_PATIENCE: Final = 120_000
"""Milliseconds after which a menu counts as closed: not every panel says when it closed one."""

_ACTION_GAP: Final = frozenset({Action.DETAILS})
"""Actions with a separator above them."""


class Tray(QObject):
    """The tray icon. Entries are changed in place, so that an open menu does not jump.

    Signals: `chosen(ActionView)`; `looking(bool)` when the menu opens and closes.
    """

    chosen = Signal(object)
    looking = Signal(bool)

    def __init__(self, *, style: Style = Style.COLOUR) -> None:
        super().__init__()
        self._style = style
        self._view: TrayView | None = None
        self._menu = QMenu()
        self._menu.setToolTipsVisible(True)
        self._menu.aboutToShow.connect(self._opened)
        self._menu.aboutToHide.connect(self._closed)
        self._status: list[QAction] = []
        self._below_status = self._menu.addSeparator()
        self._actions: list[QAction] = []
        self._shown_actions: tuple[ActionView, ...] = ()
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(MENU_PATIENCE)
        self._patience.timeout.connect(self._closed)
        self._icon: QSystemTrayIcon | None = None
        self._underscore = "_"

    def create(self, *, panel: bool) -> None:
        """Make the icon, anew if there was one: Qt decides once, at creation, which kind of tray it talks to.

        `panel` says whether a panel draws the menu from our description of it, or Qt does by itself.
        """
        self.remove()
        self._underscore = "__" if panel else "_"
        self._icon = QSystemTrayIcon(application_icon(), self)
        self._icon.setContextMenu(self._menu)
        self._icon.activated.connect(self._activated)
        if self._view is not None:
            self._show_icon(self._view)
            self._show_lines(self._view)
            self._label_actions()
        self._icon.show()

    def remove(self) -> None:
        """Take the icon out of the panel."""
        if self._icon is not None:
            self._icon.hide()
            self._icon.deleteLater()
            self._icon = None

    def show_view(self, view: TrayView) -> None:
        """Show this from now on; what did not change is not sent to the panel again."""
        before, self._view = self._view, view
        if before is None or (before.icon, before.badge, before.tooltip) != (
            view.icon,
            view.badge,
            view.tooltip,
        ):
            self._show_icon(view)
        self._show_lines(view)
        if view.actions != self._shown_actions:
            self._show_actions(view.actions)

    # --- inside ---

    def _show_icon(self, view: TrayView) -> None:
        if self._icon is not None:
            self._icon.setIcon(state_icon(view.icon, badge=view.badge, style=self._style))
            self._icon.setToolTip(view.tooltip)

    def _show_lines(self, view: TrayView) -> None:
        texts = [text for line in view.lines for text in line.menu_texts]
        while len(self._status) < len(texts):
            entry = QAction(self._menu)
            # Enabled on purpose: greyed text is hard to read, and a click leads to the same lines in the window.
            entry.triggered.connect(self._status_chosen)
            self._menu.insertAction(self._below_status, entry)
            self._status.append(entry)
        for index, entry in enumerate(self._status):
            self._change(entry, text=texts[index] if index < len(texts) else "", visible=index < len(texts))

    def _show_actions(self, actions: tuple[ActionView, ...]) -> None:
        same_kinds = [(a.action, a.profile) for a in actions] == [
            (a.action, a.profile) for a in self._shown_actions
        ]
        self._shown_actions = actions
        if not same_kinds:
            self._rebuild_actions(actions)
        self._label_actions()

    def _label_actions(self) -> None:
        for entry, view in zip(self._actions, self._shown_actions, strict=True):
            self._change(entry, text=view.label, visible=True)
            entry.setEnabled(view.enabled)
            entry.setToolTip(view.tip)

    def _rebuild_actions(self, actions: tuple[ActionView, ...]) -> None:
        keep = {*self._status, self._below_status}
        for entry in self._menu.actions():
            if entry not in keep:
                self._menu.removeAction(entry)
                entry.deleteLater()
        self._actions = []
        for index, view in enumerate(actions):
            if view.action in _ACTION_GAP:
                self._menu.addSeparator()
            entry = QAction(self._menu)
            entry.triggered.connect(
                lambda _checked=False, index=index: self.chosen.emit(self._shown_actions[index])
            )
            self._menu.addAction(entry)
            self._actions.append(entry)

    def _status_chosen(self) -> None:
        self._choose(Action.DETAILS)

    def _activated(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        if reason in {QSystemTrayIcon.ActivationReason.Trigger, QSystemTrayIcon.ActivationReason.DoubleClick}:
            self._choose(Action.DETAILS)

    def _choose(self, action: Action) -> None:
        for view in self._shown_actions:
            if view.action is action:
                self.chosen.emit(view)
                return

    def _opened(self) -> None:
        self._patience.start()
        self.looking.emit(True)

    def _closed(self) -> None:
        self._patience.stop()
        self.looking.emit(False)

    def _change(self, entry: QAction, *, text: str, visible: bool) -> None:
        """Set only what differs: each change travels to the panel.

        & marks a shortcut in Qt, and _ in the menus that panels draw; neither may vanish from a name.
        """
        shown = text.replace("&", "&&").replace("_", self._underscore)
        if entry.text() != shown:
            entry.setText(shown)
        if entry.isVisible() is not visible:
            entry.setVisible(visible)
