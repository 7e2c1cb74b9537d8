# SPDX-License-Identifier: GPL-2.0-or-later
"""The program `homeward`. Exit status: 0 done, 2 wrong usage or a wrong profile, 1 anything else.

What takes time to import (the bus) is imported by the commands that need it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import Final

from homeward import __version__
from homeward.cli.errors import FAILED, UsageError, exit_status
from homeward.cli.rooms import ROOMS, enter
from homeward.model.errors import HomewardError

_EPILOG: Final = (
    "exit status: 0 done, 2 wrong usage or a wrong profile, 1 anything else. "
    "The daemon's bus is that of --bus, else of the variable HOMEWARD_BUS, else the system bus."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, and never a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] in ROOMS:
            # Everything after the room's name belongs to its program, --help too.
            enter(words[0], words[1:])
        return _run(_parser().parse_args(words))
    except HomewardError as error:
        print(f"homeward: {error}", file=sys.stderr)
        return exit_status(error)
    except KeyboardInterrupt:
        return FAILED
    except EOFError:
        print("\nhomeward: no secret was given; nothing was handed over", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain once more while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        print(
            f"homeward: this should not have happened: {type(error).__name__}: {error}\n"
            "It is a fault in homeward itself; `homeward report` gathers what its makers need to know.",
            file=sys.stderr,
        )
        return FAILED


def _run(options: argparse.Namespace) -> int:
    from homeward.cli import commands

    match options.command:
        case "status":
            return commands.show_status(options.bus, as_json=options.json)
        case "profiles":
            return commands.show_profiles(options.bus, as_json=options.json)
        case "watch":
            return commands.watch(options.bus, as_json=options.json, seconds=options.wait)
        case "disconnect":
            return commands.disconnect(options.bus, as_json=options.json)
        case "reconnect":
            return commands.reconnect(options.bus, as_json=options.json, seconds=options.wait)
        case "connect":
            return _connect(options)
        case room:
            raise UsageError(f"`homeward {room}` is a program of its own: put nothing between the two words")


def _connect(options: argparse.Namespace) -> int:
    from homeward.cli import commands
    from homeward.cli.secrets_in import read_secrets

    return commands.connect(
        options.bus,
        options.profile,
        secrets={} if options.secrets_fd is None else read_secrets(options.secrets_fd),
        as_json=options.json,
        seconds=options.wait,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="homeward",
        description="Keep your address and your connections wherever you are.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"homeward {__version__}")
    _common(parser, default=None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help_text, description=help_text, epilog=_EPILOG)
        _common(made, default=argparse.SUPPRESS)
        return made

    command("status", "show where we are, and why")
    made = command("connect", "connect with a profile")
    made.add_argument("profile", nargs="?", metavar="PROFILE", help="may be left out when there is only one")
    made.add_argument(
        "--secrets-fd",
        type=int,
        metavar="N",
        help="read secrets from this file descriptor: lines NAME=VALUE, value hex:…, base64:… or text:…",
    )
    _wait(made, "wait so long until the home address can be used; fail if it cannot by then")
    command("disconnect", "disconnect, and leave the network as it was found")
    _wait(
        command("reconnect", "find out anew where we are, and rebuild the VPN"),
        "wait so long for the new verdict",
    )
    command("profiles", "list the profiles")
    _wait(command("watch", "show each change until interrupted"), "stop after so long")
    for name, room in ROOMS.items():
        commands.add_parser(name, help=room.help, add_help=False)
    return parser


def _common(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Options that may stand before the command or after it."""
    parser.add_argument("--json", action="store_true", default=default or False, help="print JSON")
    parser.add_argument(
        "--bus", metavar="ADDRESS", default=default, help="the daemon's bus: system, or an address"
    )


def _wait(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument("--wait", type=_seconds, metavar="SECONDS", help=help_text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"“{text}” is not a number of seconds from 0 to 86400")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
