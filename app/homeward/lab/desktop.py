# SPDX-License-Identifier: GPL-2.0-or-later
"""The tray beside a story: on the desktop of the user who runs the lab, or on a screen that nobody sees."""

import contextlib
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from homeward.lab import services
from homeward.lab.errors import LabError
from homeward.lab.state import LabState, invoking_user
from homeward.lab.topology import LAPTOP
from homeward.lab.virtual_desktop import VirtualDesktop

SCREENSHOT: Final = "screenshot.png"
_DISPLAYS: Final = ("WAYLAND_DISPLAY", "DISPLAY")
_SESSION: Final = (
    *_DISPLAYS, "XAUTHORITY", "XDG_RUNTIME_DIR", "XDG_CURRENT_DESKTOP", "DBUS_SESSION_BUS_ADDRESS",
)  # fmt: skip


class Tray(Protocol):
    """The tray, wherever it is shown."""

    def picture(self, path: Path) -> bool:
        """Take a picture of it; False where there is none to be had."""


class _OnTheDesktop:
    def picture(self, path: Path) -> bool:
        """A person's own screen is not photographed."""
        return False


class _OnAVirtualScreen:
    def __init__(self, desktop: VirtualDesktop) -> None:
        self._desktop = desktop

    def picture(self, path: Path) -> bool:
        self._desktop.portrait(path)
        return True


@contextlib.contextmanager
def tray_of(state: LabState) -> Iterator[Tray]:
    """The tray of the lab's laptop until the end of the block; LabError when it does not come up."""
    bus = f"unix:path={state.short()}/hosts/{LAPTOP}/run/{services.SYSTEM_BUS}"
    if any(name in os.environ for name in _DISPLAYS):
        with _tray_process(state, bus):
            yield _OnTheDesktop()
    else:
        with tempfile.TemporaryDirectory(prefix="hw-desk-") as folder:
            os.chmod(folder, 0o755)  # noqa: S103 - the user's own folder lies below it
            with VirtualDesktop(bus, Path(folder) / "d", user=services.user_name()) as desktop:
                yield _OnAVirtualScreen(desktop)


@contextlib.contextmanager
def _tray_process(state: LabState, bus: str) -> Iterator[None]:
    """The tray as the user, in the user's session; it carries the lab's marker, so that `down` ends it as well."""
    uid, gid = invoking_user()
    user = pwd.getpwuid(uid)
    session = {name: os.environ[name] for name in _SESSION if name in os.environ}
    environment = {
        **state.environment(),
        **session,
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "homeward.gui.main", "--bus", bus],
            env=environment,
            cwd="/",
            user=uid,
            group=gid,
            extra_groups=os.getgrouplist(user.pw_name, gid),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
                log.seek(0)
                raise LabError(
                    f"the tray does not start: {log.read().decode(errors='replace').strip()[-500:]}"
                )
            yield
        finally:
            process.terminate()
            try:
                process.wait(3.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
