# SPDX-License-Identifier: GPL-2.0-or-later
"""Window, menu and dialog without a screen."""

import asyncio
from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QLabel, QLineEdit, QPushButton, QTreeWidget

from homeward.gui.secret_agent import Question
from homeward.gui.secret_dialog import SecretDialog
from homeward.gui.tray import Tray
from homeward.gui.view_model import Action, Seen, Service, TrayView, tray_view
from homeward.gui.window import DetailsWindow
from homeward.model.health import HealthItem, Severity
from homeward.model.status import Blocked, SecretNeeded, StatusSnapshot
from tests.gui.scripted import blocked, disconnected, outside, trusted

pytestmark = pytest.mark.gui
NOW = 10_000.0
NEEDED = SecretNeeded("office-key", "the home agent's key", owner="alice", fingerprint="scrypt:00:11")


def view(snapshot: StatusSnapshot, *, now: float = NOW, profiles: tuple[str, ...] = ("office",)) -> TrayView:
    return tray_view(Seen(service=Service.RUNNING, snapshot=snapshot, profiles=profiles), now)


def texts(window: DetailsWindow) -> list[str]:
    return [label.text() for label in window.findChildren(QLabel) if label.isVisibleTo(window)]


@pytest.fixture
def window(qtbot):
    made = DetailsWindow()
    qtbot.addWidget(made)
    return made


def test_the_window_shows_every_line_and_the_title(window):
    shown = view(outside(NOW))
    window.show_view(shown)
    assert shown.title in texts(window)
    for line in shown.lines:
        assert line.label in texts(window)
        assert line.value in texts(window)


def test_the_window_shows_roams_newest_first(window):
    window.show_view(view(outside(NOW)))
    table = window.findChild(QTreeWidget)
    rows = [
        [table.topLevelItem(row).text(column) for column in range(3)]
        for row in range(table.topLevelItemCount())
    ]
    assert [row[:2] for row in rows] == [
        ["Roam 3 on wlan0", "214 ms"], ["Roam 2 on eth0", "31 ms"], ["Roam 1 on eth0", "12 ms"],
    ]  # fmt: skip


def test_the_window_shows_what_is_wrong_and_what_to_do(window):
    window.show_view(view(blocked(NOW)))
    assert "Warning" in texts(window)
    assert any("sign-in page" in text for text in texts(window))
    window.show_view(view(trusted(NOW)))
    assert not any("sign-in page" in text for text in texts(window))


def test_words_from_outside_never_become_markup(window):
    evil = "<b>bold</b><img src=x>"
    item = HealthItem("code", Severity.ALARM, evil, evil, NOW)
    window.show_view(view(replace(blocked(NOW), blocked=Blocked(evil, fence_holds=True), health=(item,))))
    shown = [label for label in window.findChildren(QLabel) if "<b>" in label.text()]
    assert len(shown) >= 3
    assert all(label.textFormat() is Qt.TextFormat.PlainText for label in shown)


def test_the_windows_buttons_choose(window, qtbot):
    window.show_view(view(trusted(NOW)))
    window.show()
    (button,) = [button for button in window.findChildren(QPushButton) if button.text() == "Reconnect"]
    with qtbot.waitSignal(window.chosen) as chosen:
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert chosen.args[0].action is Action.RECONNECT


def test_buttons_that_make_no_sense_are_off(window):
    window.show_view(view(disconnected()))
    enabled = {button.text(): button.isEnabled() for button in window.findChildren(QPushButton)}
    assert enabled == {"Connect": True, "Reconnect": False, "Disconnect": False}


def test_closing_the_window_hides_it_and_says_so(window, qtbot):
    looks: list[bool] = []
    window.looking.connect(looks.append)
    window.show_view(view(disconnected()))
    window.show()
    window.close()
    assert not window.isVisible()
    assert looks == [True, False]
    window.come_forward()
    assert window.isVisible()


def test_a_second_later_only_the_number_changes(window):
    window.show_view(view(trusted(NOW)))
    labels = window.findChildren(QLabel)
    window.show_view(view(trusted(NOW), now=NOW + 1))
    assert window.findChildren(QLabel) == labels
    assert "29:59 left of 30:00" in texts(window)


def test_the_hint_for_desktops_without_a_tray_can_come_and_go(window):
    window.show_hint("No tray here.")
    assert "No tray here." in texts(window)
    window.show_hint("")
    assert "No tray here." not in texts(window)


def test_nothing_is_cut_off_at_the_usual_size(window, qtbot):
    window.show_view(view(blocked(NOW)))
    window.show()
    qtbot.waitExposed(window)
    for label in window.findChildren(QLabel):
        if label.isVisible() and label.text():
            assert label.height() >= label.heightForWidth(label.width()), label.text()


def entries(tray: Tray) -> list[str]:
    return [entry.text() for entry in tray._menu.actions() if entry.isVisible() and not entry.isSeparator()]


def test_the_menu_is_changed_in_place(qtbot):
    tray = Tray()
    tray.show_view(view(trusted(NOW)))
    before = tray._menu.actions()
    tray.show_view(view(trusted(NOW), now=NOW + 1))
    assert tray._menu.actions() == before
    assert "Binding: 29:59 left of 30:00" in entries(tray)


def test_lines_that_are_gone_leave_no_gap(qtbot):
    tray = Tray()
    tray.show_view(view(blocked(NOW)))
    tray.show_view(view(disconnected()))
    assert entries(tray) == [
        "Mode: Disconnected", "Profile: office", "Home address: 10.77.0.10",
        "Connect", "Reconnect", "Disconnect", "Details…", "Quit",
    ]  # fmt: skip


def test_every_profile_has_an_entry_that_names_it(qtbot):
    tray = Tray()
    tray.show_view(view(replace(disconnected(), profile=""), profiles=("R&D", "office")))
    assert entries(tray)[2:4] == ["Connect R&&D", "Connect office"]
    (entry,) = [entry for entry in tray._menu.actions() if entry.text() == "Connect office"]
    with qtbot.waitSignal(tray.chosen) as chosen:
        entry.trigger()
    assert (chosen.args[0].action, chosen.args[0].profile) == (Action.CONNECT, "office")


def test_a_status_line_leads_to_the_details(qtbot):
    tray = Tray()
    tray.show_view(view(trusted(NOW)))
    with qtbot.waitSignal(tray.chosen) as chosen:
        tray._menu.actions()[0].trigger()
    assert chosen.args[0].action is Action.DETAILS


def test_a_panel_that_never_says_that_the_menu_closed_does_not_keep_us_counting(qtbot, monkeypatch):
    monkeypatch.setattr("homeward.gui.tray.MENU_PATIENCE", 20)
    tray = Tray()
    tray.show_view(view(trusted(NOW)))
    with qtbot.waitSignal(tray.looking, check_params_cb=lambda looking: not looking, timeout=2000):
        tray._menu.aboutToShow.emit()


# --- the dialog ---


@pytest.fixture
def dialog(qtbot):
    made = SecretDialog(Question(NEEDED, "the keyring is locked", may_keep=True))
    qtbot.addWidget(made)
    return made


def test_the_dialog_says_for_what_and_why(dialog):
    shown = " ".join(label.text() for label in dialog.findChildren(QLabel))
    for words in ("office-key", "the home agent's key", "because the keyring is locked"):
        assert words in shown


def test_what_is_typed_is_not_shown(dialog):
    assert dialog.findChild(QLineEdit).echoMode() is QLineEdit.EchoMode.Password


def test_nothing_typed_cannot_be_sent(dialog):
    (accept,) = [
        button for button in dialog.findChildren(QPushButton) if button.isDefault() or "OK" in button.text()
    ]
    assert not accept.isEnabled()
    dialog.findChild(QLineEdit).setText("x")
    assert accept.isEnabled()


def test_keeping_is_not_offered_where_nothing_could_keep_it(qtbot):
    made = SecretDialog(Question(NEEDED, "no password store answers", may_keep=False))
    qtbot.addWidget(made)
    assert made.findChild(QCheckBox).isHidden()


async def test_the_answer_is_what_was_typed_and_nothing_stays_in_the_dialog(dialog):
    asked = asyncio.ensure_future(dialog.answer())
    await asyncio.sleep(0)
    dialog.findChild(QLineEdit).setText("text:open sesame")
    dialog.findChild(QCheckBox).setChecked(True)
    dialog.accept()
    answer = await asked
    assert answer is not None
    assert (answer.line, answer.keep) == ("text:open sesame", True)
    assert dialog.findChild(QLineEdit).text() == ""


async def test_keeping_must_be_asked_for(dialog):
    asked = asyncio.ensure_future(dialog.answer())
    await asyncio.sleep(0)
    dialog.findChild(QLineEdit).setText("x")
    dialog.accept()
    answer = await asked
    assert answer is not None
    assert not answer.keep


async def test_a_closed_dialog_is_no_answer(dialog):
    asked = asyncio.ensure_future(dialog.answer())
    await asyncio.sleep(0)
    dialog.findChild(QLineEdit).setText("half of it")
    dialog.reject()
    assert await asked is None
    assert dialog.findChild(QLineEdit).text() == ""


async def test_a_need_that_went_closes_the_dialog(dialog):
    asked = asyncio.ensure_future(dialog.answer())
    await asyncio.sleep(0)
    assert dialog.isVisible()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert not dialog.isVisible()
