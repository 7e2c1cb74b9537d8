# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the user for one secret, in a window that shows what it is for and why it is asked."""

import asyncio

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from homeward.gui.pixmaps import application_icon
from homeward.gui.secret_agent import Answer, Question


class SecretDialog(QDialog):
    """One question. What is typed is never shown and is cleared when the window closes."""

    def __init__(self, question: Question, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Homeward needs a secret")
        self.setWindowIcon(application_icon())
        self._line = QLineEdit()
        self._line.setEchoMode(QLineEdit.EchoMode.Password)
        self._line.setAccessibleName("Secret")
        self._line.setPlaceholderText("pass phrase, or hex:0011… for octets")
        self._line.setInputMethodHints(
            Qt.InputMethodHint.ImhSensitiveData
            | Qt.InputMethodHint.ImhNoPredictiveText
            | Qt.InputMethodHint.ImhHiddenText
        )
        self._keep = QCheckBox("Keep it in my keyring")
        self._keep.setVisible(question.may_keep)
        self._buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self._buttons.accepted.connect(self.accept)
        self._buttons.rejected.connect(self.reject)
        self._line.textChanged.connect(self._changed)
        self._build(question)
        self._changed()

    async def answer(self) -> Answer | None:
        """Show the question and wait; None if the user closed it. Cancelling closes it."""
        closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def close(result: int) -> None:
            if not closed.done():
                closed.set_result(result)

        self.finished.connect(close)
        self.show()
        self.raise_()
        self.activateWindow()
        try:
            accepted = await closed == QDialog.DialogCode.Accepted
            return Answer(self._line.text(), keep=self._keep.isChecked()) if accepted else None
        finally:
            self._line.clear()
            self.hide()
            self.deleteLater()

    def _build(self, question: Question) -> None:
        needed = question.needed
        purpose = f" ({needed.purpose})" if needed.purpose else ""
        form = QFormLayout()
        form.addRow("Secret:", _text(f"{needed.reference}{purpose}"))
        form.addRow("Value:", self._line)
        form.addRow("", self._keep)
        layout = QVBoxLayout(self)
        layout.addWidget(_text(f"The Homeward service waits for a secret of yours, because {question.why}."))
        layout.addLayout(form)
        layout.addWidget(self._buttons)
        self.setMinimumWidth(480)

    def _changed(self) -> None:
        self._buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(bool(self._line.text()))


def _text(text: str) -> QLabel:
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    return label
