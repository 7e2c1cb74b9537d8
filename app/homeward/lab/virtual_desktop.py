# SPDX-License-Identifier: GPL-2.0-or-later
"""A desktop where there is none: screen, session bus, panel, keyring and the tray, all thrown away afterwards.

Everything runs as one ordinary user, in a folder of its own, and ends with this process even if that is killed.
"""

import argparse
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import homeward
from homeward.lab.errors import LabError
from homeward.lab.x11 import PointerUnavailable, authority, click

PROGRAMS: Final = (
    "Xvfb",
    "dbus-daemon",
    "dbus-send",
    "xfce4-panel",
    "gnome-keyring-daemon",
    "import",
    "setpriv",
)
_PATIENCE: Final = 20.0
"""Seconds that each part may take to come up on a busy machine."""
_DRAWING: Final = 1.5
"""Seconds for windows and menus to be drawn."""
_FAREWELL: Final = 3.0
_PANEL_HEIGHT: Final = 30
_TRAY: Final = "org.homeward.Tray"
_WATCHER: Final = "org.kde.StatusNotifierWatcher"

_PANEL: Final = """<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="dark-mode" type="bool" value="{dark}"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="length" type="uint" value="100"/>
      <property name="size" type="uint" value="{height}"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="plugin-ids" type="array"><value type="int" value="1"/><value type="int" value="2"/></property>
    </property>
  </property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="separator">
      <property name="expand" type="bool" value="true"/>
      <property name="style" type="uint" value="0"/>
    </property>
    <property name="plugin-2" type="string" value="systray">
      <property name="square-icons" type="bool" value="true"/>
    </property>
  </property>
</channel>
"""


def missing_programs() -> tuple[str, ...]:
    """What is not installed of all that a virtual desktop needs."""
    return tuple(program for program in PROGRAMS if shutil.which(program) is None)


class VirtualDesktop:
    """The tray of the daemon on `bus`, on a screen that nobody sees, as `user` (the current one if None).

    `folder` takes its files and logs; it must be short enough for a socket's path and not exist yet, or be empty.
    `secrets_kept` (reference -> line, as model.secret_line reads it) are put into the keyring before the tray starts.
    A context manager; start() raises LabError with the end of the log of what failed.
    """

    def __init__(
        self,
        bus: str,
        folder: Path,
        *,
        user: str | None = None,
        secrets_kept: Mapping[str, str] | None = None,
        dark: bool = False,
        size: tuple[int, int] = (1180, 620),
    ) -> None:
        self._bus = bus
        self._folder = folder
        self._user = pwd.getpwnam(user) if user is not None else pwd.getpwuid(os.getuid())
        self._secrets = dict(secrets_kept or {})
        self._dark = dark
        self._size = size
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._environment: dict[str, str] = {}
        self._display = ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bring everything up, the tray last; returns when the panel shows the icon."""
        if missing := missing_programs():
            raise LabError(
                f"no virtual desktop without {', '.join(missing)}: install them, or play without the GUI"
            )
        self._make_folder()
        self._start_screen()
        self._start_session_bus()
        self._start_keyring()
        self._start_panel()
        for reference, line in self._secrets.items():
            self._keep(reference, line)
        self.start_tray()

    def start_tray(self) -> None:
        """Start the tray; start() does that already, this is for a tray that has ended."""
        place = f"620x520+24+{_PANEL_HEIGHT + 24}"  # nobody manages windows here
        command = [
            sys.executable,
            "-m",
            "homeward.gui.main",
            "--bus",
            self._bus,
            "--",
            "-qwindowgeometry",
            place,
        ]
        tray = self._spawn("tray", command)
        self._wait("the tray's icon in the panel", lambda: "/" in self._items(), tray)

    def show(self, what: str) -> None:
        """Bring the tray's "window" to the screen, or its "menu" with a click on the icon. LabError."""
        if what == "menu":
            try:
                self._click_icon()
            except PointerUnavailable as error:
                raise LabError(f"no click on the virtual screen: {error}") from None
        else:
            self._send(_TRAY, "/org/homeward/Tray", f"{_TRAY}.Show")

    def picture(self, path: Path, *, settle: float = 0.7) -> None:
        """The whole screen as a PNG file, after `settle` seconds for the panel to draw."""
        time.sleep(settle)
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = self._run(["import", "-silent", "-window", "root", "png:-"])
        path.write_bytes(shot)

    def portrait(self, path: Path) -> None:
        """A picture with the window and the open menu on it."""
        self.show("window")
        time.sleep(_DRAWING)  # a window that opens late would close the menu
        self.show("menu")
        self.picture(path, settle=_DRAWING)

    def stop(self) -> None:
        """End what was started here, newest first, and nothing else."""
        for name, process in reversed(self._processes):
            _end(process, patient=name != "panel")
        self._processes.clear()

    # --- the parts ---

    def _make_folder(self) -> None:
        home, runtime = self._folder / "home", self._folder / "run"
        settings = home / ".config" / "xfce4" / "xfconf" / "xfce-perchannel-xml"
        for folder in (home, runtime, settings, self._folder / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        runtime.chmod(0o700)
        panel = _PANEL.format(dark=str(self._dark).lower(), height=_PANEL_HEIGHT)
        (settings / "xfce4-panel.xml").write_text(panel, encoding="utf-8")
        if os.geteuid() == 0:
            for path in (self._folder, *self._folder.rglob("*")):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "PYTHONPATH": str(Path(homeward.__file__).resolve().parent.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
            "USER": self._user.pw_name,
            "LOGNAME": self._user.pw_name,
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_DATA_HOME": str(home / ".local" / "share"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "XDG_CURRENT_DESKTOP": "XFCE",
            "NO_AT_BRIDGE": "1",
            "GTK_THEME": "Adwaita:dark" if self._dark else "Adwaita",
            "QT_QPA_PLATFORM": "xcb",
            "QT_QPA_PLATFORMTHEME": "gtk3",
        }

    def _start_screen(self) -> None:
        cookie = self._folder / "run" / "cookie"
        cookie.write_bytes(authority(secrets.token_bytes(16)))
        cookie.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(cookie, self._user.pw_uid, self._user.pw_gid)
        width, height = self._size
        command = ["Xvfb", "-displayfd", "1", "-auth", str(cookie), "-screen", "0", f"{width}x{height}x24"]
        screen = self._spawn("screen", [*command, "-nolisten", "tcp", "-noreset"], talks=True)
        self._display = ":" + self._first_line("the virtual screen", screen)
        self._environment |= {"DISPLAY": self._display, "XAUTHORITY": str(cookie)}
        if shutil.which("display"):  # a calm background; without it the screen is black
            colour = "#24323f" if self._dark else "#7a95a8"
            self._run(
                ["display", "-window", "root", "-size", f"{width}x{height}", f"xc:{colour}"], must=False
            )

    def _start_session_bus(self) -> None:
        address = f"unix:path={self._folder / 'run' / 'bus'}"
        daemon = self._spawn(
            "bus",
            [
                "dbus-daemon",
                "--session",
                "--nofork",
                "--nopidfile",
                "--print-address=1",
                f"--address={address}",
            ],
            talks=True,
        )
        self._environment["DBUS_SESSION_BUS_ADDRESS"] = self._first_line("the session bus", daemon)

    def _start_keyring(self) -> None:
        command = ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"]
        keyring = self._spawn("keyring", command, reads=True)
        assert keyring.stdin is not None
        keyring.stdin.write(secrets.token_hex(16).encode())  # nobody needs this password ever again
        keyring.stdin.close()
        self._wait("the keyring", lambda: self._has_owner("org.freedesktop.secrets"), keyring)

    def _start_panel(self) -> None:
        panel = self._spawn("panel", ["xfce4-panel", "--disable-wm-check"])
        self._wait("the panel", lambda: self._has_owner(_WATCHER), panel)

    def _keep(self, reference: str, line: str) -> None:
        self._run(
            [sys.executable, "-m", "homeward.gui.main", "--keep-secret", reference],
            given=f"{line}\n".encode(),
        )

    # --- helpers ---

    def _click_icon(self) -> None:
        """The only icon stands at the right end of the panel."""
        width, _ = self._size
        click(
            self._display,
            x=width - _PANEL_HEIGHT // 2,
            y=_PANEL_HEIGHT // 2,
            button=3,
            authority=self._environment["XAUTHORITY"],
        )

    def _items(self) -> str:
        """The panel's icons as dbus-send prints them; the tray's is the only one on this screen."""
        question = (f"string:{_WATCHER}", "string:RegisteredStatusNotifierItems")
        return self._send(
            _WATCHER, "/StatusNotifierWatcher", "org.freedesktop.DBus.Properties.Get", *question
        )

    def _has_owner(self, name: str) -> bool:
        driver = "org.freedesktop.DBus"
        answer = self._send(driver, "/org/freedesktop/DBus", f"{driver}.NameHasOwner", f"string:{name}")
        return "boolean true" in answer

    def _send(self, to: str, path: str, method: str, *arguments: str) -> str:
        command = [
            "dbus-send",
            "--session",
            "--print-reply",
            "--reply-timeout=3000",
            f"--dest={to}",
            path,
            method,
        ]
        return self._run([*command, *arguments], must=False).decode("utf-8", "replace")

    def _as_user(self, command: Sequence[str]) -> list[str]:
        """The command as the user; it ends when this process ends, however that happens."""
        switch: list[str] = []
        if os.geteuid() == 0 and self._user.pw_uid != 0:
            switch = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--init-groups"]
        return ["setpriv", "--pdeathsig", "TERM", *switch, *command]

    def _spawn(
        self, name: str, command: Sequence[str], *, talks: bool = False, reads: bool = False
    ) -> subprocess.Popen[bytes]:
        with self._log(name) as log:
            process = subprocess.Popen(
                self._as_user(command),
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._processes.append((name, process))
        return process

    def _log(self, name: str) -> IO[bytes]:
        return (self._folder / "logs" / f"{name}.log").open("ab")

    def _run(self, command: Sequence[str], *, given: bytes = b"", must: bool = True) -> bytes:
        done = subprocess.run(
            self._as_user(command),
            input=given,
            capture_output=True,
            env=self._environment,
            cwd=self._folder,
            timeout=_PATIENCE,
            check=False,
        )
        if must and done.returncode != 0:
            raise LabError(
                f"{command[0]} failed on the virtual desktop: {done.stderr.decode('utf-8', 'replace').strip()}"
            )
        return done.stdout

    def _first_line(self, what: str, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        heard = bytearray()

        def complete() -> bool:
            heard.extend(process.stdout.read() or b"" if process.stdout else b"")
            return b"\n" in heard

        self._wait(what, complete, process)
        return heard.split(b"\n")[0].decode().strip()

    def _wait(self, what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                name = next(name for name, known in self._processes if known is process)
                log = (self._folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                raise LabError(f"{what} did not come up on the virtual desktop. {log[-600:].strip()}")
            time.sleep(0.05)


def _end(process: subprocess.Popen[bytes], *, patient: bool) -> None:
    """End a process and what it started in its own session: TERM, then KILL."""
    for number, patience in ((signal.SIGTERM, _FAREWELL if patient else 0.5), (signal.SIGKILL, _FAREWELL)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Take one picture of the tray of a running daemon; for trying by hand."""
    parser = argparse.ArgumentParser(prog="python -m homeward.lab.virtual_desktop", description=main.__doc__)
    parser.add_argument("--bus", required=True, metavar="ADDRESS")
    parser.add_argument("--folder", required=True, type=Path, metavar="DIR", help="a new, short-named folder")
    parser.add_argument("--picture", required=True, type=Path, metavar="FILE.png")
    parser.add_argument("--user")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args(arguments)
    try:
        with VirtualDesktop(options.bus, options.folder, user=options.user, dark=options.dark) as desktop:
            desktop.portrait(options.picture)
    except LabError as error:
        print(f"virtual desktop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
