# SPDX-License-Identifier: GPL-2.0-or-later
"""Tray and window together, on a desktop without a tray (Qt's offscreen platform has none)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QApplication, QLabel

from homeward.gui import presenter as presenters
from homeward.gui.presenter import Presenter
from homeward.gui.tray import Tray
from homeward.gui.view_model import Action, ActionView
from homeward.gui.window import DetailsWindow
from tests.gui.scripted import ScriptedDaemon, disconnected, trusted
from tests.gui.session import until
from tests.gui.test_secret_agent import Drawer

pytestmark = pytest.mark.gui


class Face(QObject):
    """A session whose panel comes and goes as the test says."""

    asked = Signal()
    panel_changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.panel = False
        self.registered = True

    def panel_present(self) -> bool:
        return self.panel

    def icon_registered(self) -> bool:
        return self.registered


class CountingTray(Tray):
    """A tray that counts how often its icon was made."""

    def __init__(self) -> None:
        super().__init__()
        self.created: list[bool] = []

    def create(self, *, panel: bool) -> None:
        self.created.append(panel)
        super().create(panel=panel)


class Scene:
    """One presenter, and Qt's events handled while a test waits."""

    def __init__(self, presenter: Presenter, face: Face, tray: CountingTray) -> None:
        self.presenter, self.face, self.tray = presenter, face, tray

    @property
    def window(self) -> DetailsWindow:
        return self.presenter._window

    @property
    def texts(self) -> str:
        return "\n".join(label.text() for label in self.window.findChildren(QLabel) if not label.isHidden())

    async def until(self, condition, what: str, seconds: float = 5) -> None:  # type: ignore[no-untyped-def]
        def look() -> bool:
            QApplication.processEvents()
            return bool(condition())

        await until(look, what, seconds)


@pytest.fixture
async def scene(qapp, bus, monkeypatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(presenters, "PANEL_PATIENCE", 50)
    monkeypatch.setattr(presenters, "_SECOND_LOOK", 20)
    face, tray = Face(), CountingTray()
    made = Presenter(bus, face=face, tray=tray, keyring=Drawer())  # type: ignore[arg-type]
    yield Scene(made, face, tray)
    await made.stop()


async def test_where_no_tray_appears_the_window_takes_its_place_and_says_why(scene):
    await scene.presenter.start(window=False)
    assert not scene.window.isVisible()
    await scene.until(scene.window.isVisible, "the window")
    assert "AppIndicator" in scene.texts


async def test_where_a_panel_is_there_no_window_opens_by_itself(scene):
    scene.face.panel = True
    await scene.presenter.start(window=False)
    await asyncio.sleep(0.1)
    QApplication.processEvents()
    assert not scene.window.isVisible()
    assert scene.tray.created == [True]


async def test_a_panel_that_comes_later_ends_the_substitution(scene):
    await scene.presenter.start(window=False)
    await scene.until(scene.window.isVisible, "the window")
    scene.face.panel = True
    scene.face.panel_changed.emit(True)
    assert "AppIndicator" not in scene.texts
    assert scene.tray.created == [False, True]


async def test_a_panel_that_was_not_listening_yet_gets_the_icon_once_more(scene):
    scene.face.panel, scene.face.registered = True, False
    await scene.presenter.start(window=False)
    scene.face.panel_changed.emit(True)
    await scene.until(lambda: len(scene.tray.created) == 3, "the second look")


async def test_a_panel_that_ends_for_good_brings_the_window(scene):
    scene.face.panel = True
    await scene.presenter.start(window=False)
    scene.face.panel = False
    scene.face.panel_changed.emit(False)
    await scene.until(scene.window.isVisible, "the window")


async def test_the_window_can_be_asked_for_at_once_and_by_a_second_start(scene):
    scene.face.panel = True
    await scene.presenter.start(window=True)
    assert scene.window.isVisible()
    scene.window.close()
    scene.face.asked.emit()
    assert scene.window.isVisible()


async def test_the_seconds_run_only_while_the_window_is_open_and_something_counts(scene, bus):
    async with ScriptedDaemon(bus) as daemon:
        daemon.show(disconnected())
        scene.face.panel = True
        await scene.presenter.start(window=True)
        await scene.until(lambda: "Disconnected" in scene.texts, "the status")
        assert not scene.presenter._second.isActive()
        daemon.show(trusted())
        await scene.until(scene.presenter._second.isActive, "the clock to run")
        scene.window.close()
        assert not scene.presenter._second.isActive()
        scene.window.come_forward()
        assert scene.presenter._second.isActive()


async def test_the_binding_is_seen_counting_down(scene, bus):
    async with ScriptedDaemon(bus) as daemon:
        daemon.show(trusted())
        scene.face.panel = True
        await scene.presenter.start(window=True)
        await scene.until(lambda: "left of 30:00" in scene.texts, "the binding")
        before = scene.texts
        await scene.until(lambda: scene.texts != before, "the next second", 3)


async def test_quit_and_details_stay_in_the_tray(scene):
    scene.face.panel = True
    quits: list[None] = []
    scene.presenter.on_quit = lambda: quits.append(None)
    await scene.presenter.start(window=False)
    scene.tray.chosen.emit(ActionView(Action.DETAILS, "Details…", enabled=True))
    assert scene.window.isVisible()
    scene.tray.chosen.emit(ActionView(Action.QUIT, "Quit", enabled=True))
    assert quits == [None]
