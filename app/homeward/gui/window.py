# SPDX-License-Identifier: GPL-2.0-or-later
"""The details window: the tray's lines, the last roams, what needs attention. It serves alone where no tray is."""

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QCloseEvent, QFont, QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFormLayout,
    QFrame,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLayout,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from homeward.gui.pixmaps import application_icon, state_icon
from homeward.gui.view_model import Action, ActionView, HealthRow, RoamRow, StatusLine, TrayView
from homeward.model.health import Severity

_ICON_SIZE = 48
_BUTTONS = frozenset({Action.CONNECT, Action.RECONNECT, Action.DISCONNECT, Action.GIVE_SECRET})
_MARKS = {Severity.INFO: "Note", Severity.WARNING: "Warning", Severity.ALARM: "Alarm"}


class DetailsWindow(QWidget):
    """Shows a TrayView. Closing hides it.

    Signals: `chosen(ActionView)`; `looking(bool)` when it appears and disappears.
    """

    chosen = Signal(object)
    looking = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.setWindowTitle("Homeward")
        self.setWindowIcon(application_icon())
        self._view: TrayView | None = None
        self._icon = QLabel()
        self._icon.setFixedSize(QSize(_ICON_SIZE, _ICON_SIZE))
        self._title = _label()
        self._title.setFont(_larger(self._title.font()))
        self._hint = _label()
        self._hint.hide()
        self._lines = _Lines()
        self._health = _Health()
        self._roams = _Roams()
        self._buttons = QHBoxLayout()
        self._button_views: tuple[ActionView, ...] = ()
        self._build()
        self.resize(660, 560)

    def show_view(self, view: TrayView) -> None:
        """Show this from now on."""
        before, self._view = self._view, view
        if before is None or (before.icon, before.badge) != (view.icon, view.badge):
            self._icon.setPixmap(
                state_icon(view.icon, badge=view.badge).pixmap(
                    QSize(_ICON_SIZE, _ICON_SIZE), self.devicePixelRatioF()
                )
            )
        self._icon.setAccessibleName(view.title)
        self._title.setText(view.title)
        self._lines.show_lines(view.lines)
        if before is None or before.health != view.health:
            self._health.show_rows(view.health)
        if before is None or before.roams != view.roams:
            self._roams.show_rows(view.roams)
        self._show_buttons(tuple(action for action in view.actions if action.action in _BUTTONS))

    def show_hint(self, text: str) -> None:
        """A sentence under the title, none if empty."""
        self._hint.setText(text)
        self._hint.setVisible(bool(text))

    def come_forward(self) -> None:
        """Show the window and raise it above the others."""
        self.setWindowState(self.windowState() & ~Qt.WindowState.WindowMinimized)
        self.show()
        self.raise_()
        self.activateWindow()

    # --- inside ---

    def _build(self) -> None:
        head = QHBoxLayout()
        head.addWidget(self._icon)
        head.addSpacing(8)
        words = QVBoxLayout()
        words.addWidget(self._title)
        words.addWidget(self._hint)
        head.addLayout(words, stretch=1)
        inner = QVBoxLayout()
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self._lines)
        inner.addWidget(self._health)
        inner.addWidget(self._roams)
        inner.addStretch(1)
        body = _Body()
        body.setLayout(inner)
        scroll = QScrollArea()
        scroll.setWidget(body)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        outer = QVBoxLayout(self)
        outer.addLayout(head)
        outer.addSpacing(4)
        outer.addWidget(scroll, stretch=1)
        outer.addLayout(self._buttons)

    def _show_buttons(self, views: tuple[ActionView, ...]) -> None:
        if views == self._button_views:
            return
        self._button_views = views
        while (item := self._buttons.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        self._buttons.addStretch(1)
        for view in views:
            button = QPushButton(view.label.replace("&", "&&"))
            button.setEnabled(view.enabled)
            button.setToolTip(view.tip)
            button.clicked.connect(lambda _checked=False, view=view: self.chosen.emit(view))
            self._buttons.addWidget(button)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self.looking.emit(True)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        super().hideEvent(event)
        self.looking.emit(False)

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        super().changeEvent(event)
        if event.type() is QEvent.Type.WindowStateChange:
            self.looking.emit(self.isVisible() and not self.isMinimized())

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        event.ignore()
        self.hide()


class _Body(QWidget):
    """What scrolls. It asks for the height that it needs at its present width, not at its narrowest."""

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        narrow = super().minimumSizeHint()
        return QSize(narrow.width(), self.heightForWidth(max(self.width(), narrow.width())))


class _Lines(QWidget):
    """Label and value, one under the other."""

    def __init__(self) -> None:
        super().__init__()
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._labels: tuple[str, ...] = ()
        self._values: list[QLabel] = []

    def show_lines(self, lines: tuple[StatusLine, ...]) -> None:
        labels = tuple(line.label for line in lines)
        if labels != self._labels:
            self._labels = labels
            self._rebuild(labels)
        for value, line in zip(self._values, lines, strict=True):
            if value.text() != line.value:
                value.setText(line.value)

    def _rebuild(self, labels: tuple[str, ...]) -> None:
        while self._form.rowCount():
            self._form.removeRow(0)
        self._values = []
        for text in labels:
            name = _label(text)
            name.setWordWrap(False)
            name.setFont(_bold(name.font()))
            value = _label()
            value.setTextInteractionFlags(
                Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
            )
            value.setAccessibleName(text)
            self._form.addRow(name, value)
            self._values.append(value)


class _Health(QGroupBox):
    """What is wrong and what to do about it."""

    def __init__(self) -> None:
        super().__init__("Needs attention")
        self._grid = QGridLayout(self)
        self._grid.setColumnStretch(1, 1)
        self.hide()

    def show_rows(self, rows: tuple[HealthRow, ...]) -> None:
        _empty(self._grid)
        for number, row in enumerate(rows):
            mark = _label(_MARKS[row.severity])
            mark.setFont(_bold(mark.font()))
            self._grid.addWidget(mark, 2 * number, 0, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(_label(row.text), 2 * number, 1)
            if row.advice:
                self._grid.addWidget(_label(row.advice), 2 * number + 1, 1)
        self.setVisible(bool(rows))


class _Roams(QGroupBox):
    """The last roams with their milliseconds, newest first."""

    def __init__(self) -> None:
        super().__init__("Last roams")
        self._table = QTreeWidget()
        self._table.setColumnCount(3)
        self._table.setHeaderLabels(["Roam", "Interruption", "Steps after the new link"])
        self._table.setRootIsDecorated(False)
        self._table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self._table.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._table.setWordWrap(True)
        self._table.header().setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self._table.header().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self._table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        QVBoxLayout(self).addWidget(self._table)
        self.hide()

    def show_rows(self, rows: tuple[RoamRow, ...]) -> None:
        self._table.clear()
        for row in rows:
            item = QTreeWidgetItem([row.title, row.total, row.steps])
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setToolTip(2, row.steps)
            self._table.addTopLevelItem(item)
        self._fit()
        self.setVisible(bool(rows))

    def _fit(self) -> None:
        """As high as its rows: the window scrolls, not the table in it."""
        rows = sum(self._table.sizeHintForRow(row) for row in range(self._table.topLevelItemCount()))
        self._table.setFixedHeight(
            self._table.header().sizeHint().height() + rows + 2 * self._table.frameWidth() + 2
        )


def _label(text: str = "") -> QLabel:
    """Plain text, always: words from the network must not become markup."""
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    return label


def _larger(font: QFont) -> QFont:
    font.setPointSizeF(font.pointSizeF() * 1.4)
    font.setBold(True)
    return font


def _bold(font: QFont) -> QFont:
    font.setBold(True)
    return font


def _empty(layout: QLayout) -> None:
    while (item := layout.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.deleteLater()
