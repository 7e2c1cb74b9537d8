# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-tray as a process, seen by a panel and by a daemon over real buses."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from dbus_fast.aio import MessageBus

from homeward.bus.connection import ask_driver, leave_bus
from homeward.gui.secret_agent import user_name
from homeward.model.status import SecretNeeded
from tests.gui.keyrings import gnome_keyring, lock
from tests.gui.panel import IconGoneError, Panel
from tests.gui.scripted import ScriptedDaemon, blocked, outside, trusted, waiting
from tests.gui.session import SOURCE, TrayProcess, need, until

pytestmark = pytest.mark.gui

NEEDED = SecretNeeded("office-key", "the home agent's key", owner=user_name(), fingerprint="scrypt:00:11")


@dataclass
class Desk:
    """Everything of one test."""

    daemon: ScriptedDaemon
    panel: Panel
    tray: TrayProcess
    pid: int


@pytest.fixture
async def desk(tmp_path: Path, screen: dict[str, str], session: str, bus: str) -> AsyncIterator[Desk]:
    async with ScriptedDaemon(bus) as daemon, Panel(session) as panel:
        with TrayProcess(tmp_path, screen=screen, session=session, bus=bus) as tray:
            process = tray.start()
            await until(lambda: panel.registered, "the icon")
            await until(panel_shows(panel, "Homeward: Disconnected"), "the first status")
            yield Desk(daemon, panel, tray, process.pid)
            assert process.poll() in {None, 0}, tray.log()
            assert "Traceback" not in tray.faults()


def panel_shows(panel: Panel, words: str):  # type: ignore[no-untyped-def]
    async def look() -> bool:
        try:
            return words in await panel.tooltip()
        except IconGoneError:
            return False

    return look


def menu_shows(panel: Panel, words: str):  # type: ignore[no-untyped-def]
    async def look() -> bool:
        return words in " ".join(label.strip() for label in await panel.labels())

    return look


def menu_lacks(panel: Panel, words: str):  # type: ignore[no-untyped-def]
    async def look() -> bool:
        return not any(words in label for label in await panel.labels())

    return look


async def test_title_icon_tooltip_and_menu_can_be_read_over_the_bus(desk):
    desk.daemon.show(trusted())
    await until(panel_shows(desk.panel, "Homeward: Trusted network, direct; on eth0"), "tooltip")
    icon = await desk.panel.icon()
    assert icon["Title"] == "Homeward"
    assert icon["Status"] == "Active"
    assert set(icon["IconPixmap"]) >= {16, 22, 32, 64}
    labels = await desk.panel.labels()
    joined = " ".join(label.strip() for label in labels)
    assert "Mode: Trusted network, direct (c), on eth0" in labels
    assert (
        "Trusted: home agent 10.0.0.2 answered in 11 ms, signed with key 0x100 (HMAC-SHA-256),"
        " network listed as trusted" in joined
    )
    assert "Home address: 10.77.0.10" in labels
    assert "Care-of address: 10.1.1.57" in labels
    assert re.search(r"Binding: (30:00|29:\d\d) left of 30:00", joined)
    assert "VPN: down" in labels
    assert labels[-5:] == ["Connect", "Reconnect", "Disconnect", "Details…", "Quit (the connection stays)"]


async def test_each_state_sends_another_picture(desk):
    seen = {(await desk.panel.icon())["IconPixmap"][32]}
    for show, words in ((trusted, "direct"), (outside, "protected by the VPN"), (blocked, "Traffic is held")):
        desk.daemon.show(show())
        await until(panel_shows(desk.panel, words), words)
        seen.add((await desk.panel.icon())["IconPixmap"][32])
    assert len(seen) == 4


async def test_reconnect_disconnect_and_connect_reach_the_daemon(desk):
    await desk.panel.click("Connect")
    await until(lambda: ("connect", "office") in desk.daemon.calls, "connect")
    desk.daemon.show(outside())
    await until(menu_shows(desk.panel, "(mc)"), "menu")
    await desk.panel.click("Reconnect")
    await until(lambda: ("reconnect", "") in desk.daemon.calls, "reconnect")
    await desk.panel.click("Disconnect")
    await until(lambda: ("disconnect", "") in desk.daemon.calls, "disconnect")


async def test_entries_that_make_no_sense_are_off(desk):
    enabled = {entry.label: entry.enabled for entry in await desk.panel.menu()}
    assert enabled["Connect"]
    assert not enabled["Reconnect"]
    assert not enabled["Disconnect"]


async def test_words_keep_their_underscores_and_ampersands_in_the_menu(desk):
    desk.daemon.show(blocked())
    await until(menu_shows(desk.panel, "IKE_SA_INIT"), "menu")


@pytest.mark.slow
async def test_seconds_are_counted_only_while_the_menu_is_open(desk):
    desk.daemon.show(trusted())
    await until(menu_shows(desk.panel, "Binding"), "menu")
    await asyncio.sleep(0.3)
    desk.panel.changes.clear()
    await asyncio.sleep(1.6)
    assert desk.panel.changes == [], "the tray talks to the panel though nothing happened"
    await desk.panel.event(None, "opened")
    await desk.panel.about_to_show()
    first = [label for label in await desk.panel.labels() if label.startswith("Binding")]
    await until(binding_differs(desk.panel, first), "the next second", 4)
    await desk.panel.event(None, "closed")
    await asyncio.sleep(0.2)
    desk.panel.changes.clear()
    await asyncio.sleep(1.6)
    assert desk.panel.changes == [], "the tray goes on counting though the menu is closed"


def binding_differs(panel: Panel, before: list[str]):  # type: ignore[no-untyped-def]
    async def look() -> bool:
        return [label for label in await panel.labels() if label.startswith("Binding")] != before

    return look


def wake_ups(pid: int) -> int:
    """How often the process's threads have gone to sleep so far."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        total += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read_text(), re.MULTILINE)[1])  # type: ignore[index]
    return total


@pytest.mark.slow
async def test_nobody_wakes_up_while_nothing_happens(desk):
    desk.daemon.show(trusted())
    await until(menu_shows(desk.panel, "Binding"), "menu")
    await asyncio.sleep(1.0)
    before = wake_ups(desk.pid)
    await asyncio.sleep(3.0)
    assert wake_ups(desk.pid) - before <= 3


async def test_a_daemon_that_goes_is_shown_and_one_that_comes_back_too(tmp_path, screen, session, bus):
    async with Panel(session) as panel:
        with TrayProcess(tmp_path, screen=screen, session=session, bus=bus) as tray:
            tray.start()
            await until(lambda: panel.registered, "the icon")
            await until(panel_shows(panel, "The Homeward service is not running"), "absence")
            assert any("systemctl start homewardd" in label for label in await panel.labels())
            async with ScriptedDaemon(bus) as daemon:
                daemon.show(trusted())
                await until(panel_shows(panel, "Trusted network"), "the daemon")
            await until(panel_shows(panel, "The Homeward service is not running"), "absence")
            async with ScriptedDaemon(bus, version="99.0") as daemon:
                daemon.show(trusted())
                await until(panel_shows(panel, "The service is version 99.0"), "the other version")


async def test_a_panel_that_comes_late_gets_the_icon(tmp_path, screen, session, bus):
    async with ScriptedDaemon(bus) as daemon:
        daemon.show(outside())
        with TrayProcess(tmp_path, screen=screen, session=session, bus=bus) as tray:
            tray.start()
            await until(lambda: tray_is_up(session), "the tray's name")
            await asyncio.sleep(0.5)
            async with Panel(session) as panel:
                await until(lambda: panel.registered, "the icon")
                await until(panel_shows(panel, "protected by the VPN"), "its status")
                assert (await panel.icon())["IconPixmap"]
                assert "Reconnect" in await panel.labels()


async def tray_is_up(session: str) -> bool:
    bus = await MessageBus(bus_address=session).connect()
    try:
        return bool(await ask_driver(bus, "NameHasOwner", "org.homeward.Tray"))
    finally:
        await leave_bus(bus)


@pytest.mark.slow
async def test_a_panel_that_restarts_gets_one_icon_again(tmp_path, screen, session, bus):
    async with ScriptedDaemon(bus) as daemon:
        daemon.show(trusted())
        with TrayProcess(tmp_path, screen=screen, session=session, bus=bus) as tray:
            tray.start()
            await until(lambda: tray_is_up(session), "the tray's name")
            for _ in range(3):
                async with Panel(session) as panel:
                    await until(lambda panel=panel: panel.registered, "the icon")
                    await until(panel_shows(panel, "Trusted network"), "its status")
                    await asyncio.sleep(2.0)  # past the second look
                    assert len(await panel.alive()) == 1
                    before = len(daemon.calls)
                    await panel.click("Reconnect")
                    await until(lambda count=before: len(daemon.calls) > count, "the click")


async def test_a_second_start_shows_the_first_ones_window(desk, screen):
    assert not window_is_there(screen)
    second = desk.tray.start()
    await until(lambda: second.poll() is not None, "the second instance to end")
    assert second.returncode == 0, desk.tray.log()
    await until(lambda: window_is_there(screen), "the window")
    assert len(await desk.panel.alive()) == 1


def window_is_there(screen: dict[str, str]) -> bool:
    """Whether the screen, black without windows, shows anything."""
    need("import")
    picture = subprocess.run(
        ["import", "-silent", "-window", "root", "-depth", "8", "rgb:-"],
        env={**os.environ, **screen},
        capture_output=True,
        check=True,
        timeout=20,
    ).stdout
    return any(picture)


async def test_quit_ends_the_tray_and_leaves_the_connection(desk):
    desk.daemon.show(trusted())
    await until(menu_shows(desk.panel, "Quit (the connection stays)"), "menu")
    await desk.panel.click("Quit (the connection stays)")
    (process,) = desk.tray._processes
    await until(lambda: process.poll() is not None, "the end")
    assert process.returncode == 0
    assert desk.daemon.calls == []


async def test_sigterm_ends_it_in_order(desk):
    (process,) = desk.tray._processes
    process.send_signal(signal.SIGTERM)
    await until(lambda: process.poll() is not None, "the end")
    assert process.returncode == 0


async def test_a_missing_secret_without_a_keyring_shows_in_the_menu(desk):
    desk.daemon.show(
        waiting(SecretNeeded("office-key", "the home agent's key", owner=user_name(), fingerprint="x"))
    )
    await until(panel_shows(desk.panel, "No password store answers"), "the reason")
    labels = await desk.panel.labels()
    assert "Give the secret…" in labels
    assert any("office-key" in label for label in labels)


async def test_the_keyrings_secret_reaches_the_daemon(desk, session, tmp_path):
    with gnome_keyring(session, tmp_path):
        keep(session, "office-key", "hex:" + "ab" * 16)
        desk.daemon.wanted["office-key"] = b"\xab" * 16
        desk.daemon.show(waiting(NEEDED))
        await until(lambda: desk.daemon.offered == {"office-key": b"\xab" * 16}, "the secret")
        await until(menu_lacks(desk.panel, "Needed:"), "the need to go")


async def test_a_wrong_secret_in_the_keyring_is_told(desk, session, tmp_path):
    with gnome_keyring(session, tmp_path):
        keep(session, "office-key", "text:an old one")
        desk.daemon.wanted["office-key"] = b"\xab" * 16
        desk.daemon.show(waiting(NEEDED))
        await until(panel_shows(desk.panel, "was not accepted"), "the reason")
        assert desk.daemon.calls == [("offer_secret", "office-key")], "offered more than once"


async def test_a_locked_keyring_is_told(desk, session, tmp_path):
    with gnome_keyring(session, tmp_path):
        keep(session, "office-key", "hex:" + "ab" * 16)
        lock(session)
        desk.daemon.show(waiting(NEEDED))
        await until(panel_shows(desk.panel, "The keyring is locked"), "the reason")
        assert desk.daemon.calls == []


async def test_another_users_secret_is_not_offered(desk, session, tmp_path):
    with gnome_keyring(session, tmp_path):
        keep(session, "office-key", "hex:" + "ab" * 16)
        desk.daemon.show(waiting(replace(NEEDED, owner="somebody-else")))
        await until(menu_shows(desk.panel, "owner somebody-else"), "the status")
        await asyncio.sleep(0.5)
        assert desk.daemon.calls == []
        assert "Give the secret…" not in await desk.panel.labels()


def keep(session: str, reference: str, line: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "homeward.gui.main", "--keep-secret", reference],
        input=line,
        text=True,
        env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": session, "PYTHONPATH": str(SOURCE)},
        check=True,
        capture_output=True,
        timeout=30,
    )


async def test_without_a_session_bus_it_runs_and_says_so_in_its_window(tmp_path, screen, bus):
    async with ScriptedDaemon(bus):
        with TrayProcess(tmp_path, screen=screen, session=None, bus=bus) as tray:
            process = tray.start("--window")
            await until(lambda: window_is_there(screen), "the window")
            assert process.poll() is None
        assert "Traceback" not in tray.faults()


def test_the_command_line_explains_itself(screen):
    done = subprocess.run(
        [sys.executable, "-m", "homeward.gui.main", "--help"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Quitting it leaves the connection standing" in " ".join(done.stdout.split())
