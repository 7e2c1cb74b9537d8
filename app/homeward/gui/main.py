# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward-tray`: Qt and asyncio on one event loop. The only module that knows qasync.

qasync has no hooks for asynchronous generators: whoever iterates over one here wraps it in contextlib.aclosing.
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

import qasync
from PySide6.QtWidgets import QApplication

from homeward import __version__
from homeward.gui.keep_secret import keep_secret
from homeward.gui.pixmaps import Style, application_icon
from homeward.gui.presenter import Presenter
from homeward.gui.secret_agent import SecretServiceKeyring
from homeward.gui.session_face import SessionFace
from homeward.gui.tray import Tray


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tray until Quit, SIGTERM or the end of the session; the exit status."""
    options = _options(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING, format="%(name)s: %(message)s"
    )
    if options.keep_secret is not None:
        return keep_secret(options.keep_secret)
    application = QApplication([sys.argv[0], *options.qt])
    application.setApplicationName("Homeward")
    application.setApplicationVersion(__version__)
    application.setDesktopFileName("org.homeward.Tray")
    application.setWindowIcon(application_icon())
    application.setQuitOnLastWindowClosed(False)
    face = SessionFace()
    if not face.claim():
        return _second_start(face)
    loop = qasync.QEventLoop(application)
    asyncio.set_event_loop(loop)
    with loop:
        loop.run_until_complete(_run(application, face, options))
    return 0


async def _run(application: QApplication, face: SessionFace, options: argparse.Namespace) -> None:
    finished = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, finished.set)
    application.aboutToQuit.connect(finished.set)
    presenter = Presenter(
        options.bus, face=face, tray=Tray(style=Style(options.icons)), keyring=SecretServiceKeyring()
    )
    presenter.on_quit = finished.set
    await presenter.start(window=options.window)
    try:
        await finished.wait()
    finally:
        await presenter.stop()


def _second_start(face: SessionFace) -> int:
    if face.raise_other():
        return 0
    print(
        "homeward-tray: another homeward-tray holds its name in this session and does not answer",
        file=sys.stderr,
    )
    return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="homeward-tray",
        description="Shows where this machine is and why, and hands secrets from your keyring to the Homeward service.",
        epilog="Quitting it leaves the connection standing. A second start shows the first one's window.",
    )
    parser.add_argument(
        "--bus",
        metavar="ADDRESS",
        help='the bus of the service: "system", "session" or a D-Bus address (default: $HOMEWARD_BUS, then system)',
    )
    parser.add_argument("--window", action="store_true", help="open the details window at once")
    parser.add_argument(
        "--icons",
        choices=[style.value for style in Style],
        default=Style.COLOUR.value,
        help="coloured icons, or one tone for a light or a dark panel",
    )
    parser.add_argument(
        "--keep-secret",
        metavar="REFERENCE",
        help="put a secret into the keyring, read as one line from standard input, and exit",
    )
    parser.add_argument("--verbose", action="store_true", help="say more on standard error")
    parser.add_argument("--version", action="version", version=f"homeward-tray {__version__}")
    parser.add_argument(
        "qt", nargs="*", metavar="-- QT-OPTION", help="after --: options for Qt, such as -style fusion"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
