# SPDX-License-Identifier: GPL-2.0-or-later
"""The tray in a real panel on a virtual screen, photographed: build/gui/*.png are for somebody to look at."""

import asyncio
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from homeward.gui.secret_agent import user_name
from homeward.lab.errors import LabError
from homeward.lab.virtual_desktop import VirtualDesktop, missing_programs
from homeward.model.status import SecretNeeded
from tests.gui.scripted import ScriptedDaemon, blocked, outside, trusted, waiting
from tests.gui.session import PrivateBus, until

pytestmark = [pytest.mark.gui, pytest.mark.timeout(120)]

PICTURES = Path(__file__).resolve().parent.parent.parent / "build" / "gui"
LINE = "hex:000102030405060708090a0b0c0d0e0f"


@pytest.fixture(autouse=True)
def everything_installed() -> None:
    if missing := missing_programs():
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets, and which other users may enter."""
    made = Path(tempfile.mkdtemp(prefix="hw-desk-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@dataclass
class Picture:
    """An RGB picture, eight bits each."""

    width: int
    height: int
    rows: list[bytes]

    def at(self, x: int, y: int) -> tuple[int, int, int]:
        red, green, blue = self.rows[y][3 * x : 3 * x + 3]
        return red, green, blue

    def count(self, like: tuple[int, int, int], *, box: tuple[int, int, int, int], off: int = 24) -> int:
        """Pixels in left, top, right, bottom that are within `off` of a colour."""
        left, top, right, bottom = box
        return sum(
            all(abs(a - b) <= off for a, b in zip(self.at(x, y), like, strict=True))
            for y in range(top, bottom)
            for x in range(left, right)
        )


def load(path: Path) -> Picture:
    """The picture as pixels, by ImageMagick, which took it."""
    assert path.read_bytes().startswith(b"\x89PNG")
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    raw = subprocess.run(
        ["convert", str(path), "-depth", "8", "rgb:-"], capture_output=True, check=True
    ).stdout
    assert len(raw) == 3 * width * height
    return Picture(width, height, [raw[3 * width * row : 3 * width * (row + 1)] for row in range(height)])


def corner(picture: Picture) -> tuple[int, int, int, int]:
    """Where the icon stands: the right end of the panel."""
    return (picture.width - 30, 0, picture.width, 30)


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes whose environment or arguments name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                whole = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in whole:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.slow  # the lab's grand tour has such a desktop too; what is on it, test_tray and test_icons ask faster
@pytest.mark.parametrize("dark", [pytest.param(False, id="light"), pytest.param(True, id="dark")])
async def test_icon_menu_and_window_are_on_the_screen(folder, dark):
    name = "dark" if dark else "light"
    with PrivateBus(folder / "daemon") as address:
        async with ScriptedDaemon(address) as daemon:
            daemon.show(trusted())
            desktop = VirtualDesktop(address, folder / "d", dark=dark)
            try:
                await asyncio.to_thread(desktop.start)
                for state, show in (("trusted", trusted), ("outside", outside), ("blocked", blocked)):
                    daemon.show(show())
                    path = PICTURES / f"icon-{state}-{name}.png"
                    await asyncio.to_thread(desktop.picture, path)
                    picture = load(path)
                    colour = {
                        "trusted": (0x26, 0x99, 0x4D),
                        "outside": (0x35, 0x84, 0xE4),
                        "blocked": (0xE0, 0x35, 0x3D),
                    }
                    assert picture.count(colour[state], box=corner(picture)) > 80, state
                daemon.show(outside())
                await asyncio.to_thread(desktop.portrait, PICTURES / f"tray-{name}.png")
                both = load(PICTURES / f"tray-{name}.png")
                background = both.at(20, both.height - 10)
                menu_area, window_area = (both.width - 300, 60, both.width - 60, 300), (60, 80, 500, 400)
                for area in (menu_area, window_area):
                    pixels = (area[2] - area[0]) * (area[3] - area[1])
                    assert both.count(background, box=area, off=6) < pixels / 20, (
                        "nothing covers the background"
                    )
                light = sum(both.at(both.width - 8, 200)) > 3 * 128
                assert light is not dark, "the menu does not follow the theme"
            finally:
                await asyncio.to_thread(desktop.stop)
    await until(lambda: not processes_of(folder), "the end of all that was started", 5)


@pytest.mark.slow
async def test_secrets_for_the_desktop_reach_the_daemon_through_its_keyring(folder):
    need = SecretNeeded("office-key", "the home agent's key", owner=user_name(), fingerprint="scrypt:00:11")
    with PrivateBus(folder / "daemon") as address:
        async with ScriptedDaemon(address) as daemon:
            daemon.wanted["office-key"] = bytes(range(16))
            daemon.show(waiting(need))
            desktop = VirtualDesktop(address, folder / "d", secrets_kept={"office-key": LINE})
            try:
                await asyncio.to_thread(desktop.start)
                await until(lambda: daemon.offered == {"office-key": bytes(range(16))}, "the secret")
            finally:
                await asyncio.to_thread(desktop.stop)
    kept = [
        path
        for path in (folder / "d").rglob("*")
        if path.is_file() and LINE[4:].encode() in path.read_bytes()
    ]
    assert kept == []


@pytest.mark.slow
@pytest.mark.root
async def test_as_root_the_desktop_is_an_ordinary_users(folder):
    with PrivateBus(folder / "daemon") as address:
        async with ScriptedDaemon(address) as daemon:
            daemon.show(trusted())
            desktop = VirtualDesktop(address, folder / "d", user="nobody")
            try:
                await asyncio.to_thread(desktop.start)
                owners = {
                    name: os.stat(f"/proc/{process.pid}").st_uid for name, process in desktop._processes
                }
                assert set(owners) == {"screen", "bus", "keyring", "panel", "tray"}
                assert set(owners.values()) == {65534}
                await asyncio.to_thread(desktop.picture, PICTURES / "icon-nobody.png")
                picture = load(PICTURES / "icon-nobody.png")
                assert picture.count((0x26, 0x99, 0x4D), box=corner(picture)) > 80
            finally:
                await asyncio.to_thread(desktop.stop)
    await until(lambda: not processes_of(folder), "the end of all that was started", 5)


async def test_a_tray_that_does_not_come_up_is_told_and_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    desktop = VirtualDesktop("unix:path=/nowhere", folder / "d")
    with pytest.raises(LabError, match="the tray's icon in the panel did not come up"):
        await asyncio.to_thread(desktop.__enter__)
    await until(lambda: not processes_of(folder), "the end of all that was started", 5)


def test_missing_programs_are_named(folder, monkeypatch):
    monkeypatch.setattr("homeward.lab.virtual_desktop.PROGRAMS", ("sh", "no-such-panel"))
    with pytest.raises(LabError, match="no-such-panel"):
        VirtualDesktop("unix:path=/nowhere", folder / "d").start()
