# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of homeward-agent."""

from __future__ import annotations

import argparse
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any, Final

from homeward import __version__
from homeward.agentd.cli.outcome import PROGRAM
from homeward.agentd.places import CONFIGURATION
from homeward.model.registration import AuthenticationAlgorithm

RUN: Final = "run"

_EPILOG: Final = """\
exit status: 0 done, 1 cannot be done or something is wrong, 2 wrong usage or a wrong configuration.

examples:
  homeward-agent example home >/etc/homeward/agent.toml      a commented configuration to begin with
  homeward-agent check                                       is everything there that it needs?
  homeward-agent key add laptop --home-address 10.77.0.10 --out laptop.secret
  homeward-agent status
  homeward-agent key revoke laptop                           it was stolen: binding, keys and session are gone
See homeward-agent(8), and docs/agents.md for an operator's day.
"""


class _Parser(argparse.ArgumentParser):
    """Keeps the lines of its texts as they are written, its commands' too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=argparse.RawDescriptionHelpFormatter)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    made = _Parser(
        prog=PROGRAM,
        description="A home or foreign agent of Homeward (RFC 5944, RFC 5265), and its operator's commands. "
        "Without a command it runs in the foreground.",
        epilog=_EPILOG,
    )
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    made.add_argument(
        "--config",
        type=Path,
        default=CONFIGURATION,
        metavar="FILE",
        help=f"the agent's configuration, in TOML (default {CONFIGURATION})",
    )
    made.add_argument(
        "--check", action="store_true", help=argparse.SUPPRESS
    )  # as it was before there were commands
    commands = made.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _service(commands)
    _looks(commands)
    _keys(commands)
    _changes(commands)
    _keeping(commands)
    _probe(commands)
    return made


_Commands = argparse._SubParsersAction  # the type has no public name


def _command(
    commands: _Commands[_Parser], name: str, text: str, *, more: str = "", json: bool = False
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.\n{more}".strip())
    made.add_argument(
        "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="the configuration"
    )
    if json:
        made.add_argument(
            "--json", action="store_true", help="print JSON; fields are added to it, none changes"
        )
    return made


def _service(commands: _Commands[_Parser]) -> None:
    _command(
        commands,
        RUN,
        "run the agent in the foreground",
        more="Until SIGTERM or SIGINT. SIGHUP reads the configuration again, SIGUSR1 logs what the agent knows,\n"
        "SIGUSR2 ends it and leaves what the kernel does for its bindings standing for the next life.",
    )
    _command(
        commands,
        "check",
        "say whether configuration, keys, interfaces, addresses and store are right, and what to do if not",
        json=True,
    )
    made = _command(commands, "example", "print a commented configuration to begin with")
    made.add_argument("role", nargs="?", choices=("home", "foreign"), default="home")


def _looks(commands: _Commands[_Parser]) -> None:
    _command(commands, "status", "show how the running agent does", json=True)
    _command(commands, "bindings", "list the home agent's bindings", json=True)
    _command(commands, "visitors", "list the foreign agent's visitors", json=True)
    _command(commands, "metrics", "print the running agent's figures in the text format of Prometheus")


def _keys(commands: _Commands[_Parser]) -> None:
    key = commands.add_parser(
        "key", help="add, retire, revoke and list keys of mobile nodes", description=_KEY_TEXT
    )
    verbs = key.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")
    made = _command(verbs, "add", "make a key for a node, new or known", more=_ADD_TEXT)
    made.add_argument("name", metavar="NAME")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--home-address", type=_address, metavar="A", help="of a new node")
    where.add_argument(
        "--home-addresses", metavar="PREFIX", help="of a new node that gets one of these; needs --nai"
    )
    made.add_argument(
        "--nai", metavar="NAI", help="of a new node: by this name it may ask for its home address"
    )
    made.add_argument("--spi", type=_spi, metavar="N", help="256 to 4294967295 (default: the next free one)")
    made.add_argument(
        "--algorithm",
        choices=[each.value for each in AuthenticationAlgorithm],
        default=AuthenticationAlgorithm.HMAC_SHA256.value,
        metavar="NAME",
        help="hmac-sha256 (the default), or hmac-md5 for other people's clients",
    )
    hand = made.add_mutually_exclusive_group(required=True)
    hand.add_argument(
        "--out", type=Path, metavar="FILE", help="write the client's copy there, for root alone"
    )
    hand.add_argument("--show", action="store_true", help="show it, on a terminal only")
    made = _command(verbs, "retire", "accept no new registration under a key", more=_RETIRE_TEXT)
    made.add_argument("name", metavar="NAME")
    made.add_argument("--spi", type=_spi, required=True, metavar="N")
    made.add_argument("--force", action="store_true", help="also where it is the node's only key")
    made = _command(verbs, "revoke", "forget a node, or one of its keys, at once", more=_REVOKE_TEXT)
    made.add_argument("name", metavar="NAME")
    made.add_argument("--spi", type=_spi, metavar="N", help="only this key")
    _command(verbs, "list", "list nodes and the numbers of their keys", json=True)


def _changes(commands: _Commands[_Parser]) -> None:
    made = _command(
        commands, "revoke", "end the binding of a home address now; its node may come back (RFC 3543)"
    )
    made.add_argument("address", type=_address, metavar="HOME_ADDRESS")
    made = _command(
        commands,
        "drain",
        "make no new bindings, before maintenance",
        more="Bindings that stand are renewed and moved. New nodes are told that there is no room (code 130).",
    )
    which = made.add_mutually_exclusive_group()
    which.add_argument("--undo", action="store_true", help="make new bindings again")
    which.add_argument("--revoke", action="store_true", help="and end all that stand")
    _command(
        commands,
        "reload",
        "have the running agent read its configuration again",
        more="All of it is checked before anything changes; what is refused changes nothing.",
    )


def _keeping(commands: _Commands[_Parser]) -> None:
    made = _command(
        commands,
        "backup",
        "write configuration, keys and bindings into one file",
        more="A tar file for root alone: it holds every key. Running agents go on meanwhile.",
    )
    made.add_argument("file", type=Path, metavar="FILE")
    made = _command(commands, "restore", "put back what a backup holds", more=_RESTORE_TEXT)
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("file", type=Path, nargs="?", metavar="FILE")
    which.add_argument("--undo", action="store_true", help="put back what the last restore put aside")
    made.add_argument(
        "--with-gone-keys",
        action="store_true",
        help="also keys that are in the backup and were revoked since",
    )


def _probe(commands: _Commands[_Parser]) -> None:
    made = _command(
        commands, "probe", "from OUTSIDE: prove that nobody there reaches a home agent", more=_PROBE_TEXT
    )
    made.add_argument("address", type=_address, metavar="ADDRESS", help="the home agent's")
    made.add_argument(
        "--home-address", type=_address, metavar="A", help="ask for this one (default 192.0.2.1, nobody's)"
    )
    made.add_argument("--seconds", type=_seconds, default=3.0, metavar="S", help="to wait for an answer (3)")
    made.add_argument("--json", action="store_true", help="print JSON")


_KEY_TEXT: Final = (
    "Keys of the nodes in the configuration's nodes_file. The running agent takes each change over at once."
)
_ADD_TEXT: Final = """\
A node that has a key gets a second one beside it: give that to its user, and retire the first when it
registers under the new one. The key goes into the nodes file and to --out or --show, and nowhere else.
What belongs into the client's profile is printed; it is no secret."""
_RETIRE_TEXT: Final = """\
A binding that rests on the key stays until it ends. Refuses the only key of a node without --force."""
_REVOKE_TEXT: Final = """\
For a laptop that was stolen: its binding ends, its foreign agent is told, its keys are gone, in one
command. The nodes file is edited also when no agent runs here."""
_RESTORE_TEXT: Final = """\
No agent may run here. What is in the way is put aside, and --undo brings it back. Requests that might have
been accepted since the backup are refused, so that nobody can play them again; for some seconds that
delays clients, which ask again by themselves."""
_PROBE_TEXT: Final = """\
Sends well-formed Registration Requests without any secret to UDP port 434 of ADDRESS, and an IP-in-IP packet
where it may (as root). Exit status 0: nothing answered, 1: something did, which a firewall must stop.
Silence from outside proves that neither an answer nor a refusal gets out here and now. It does not prove that the
agent runs, nor that another network outside is stopped as well, nor what the firewall does with other ports."""


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 address") from None


def _spi(text: str) -> int:
    try:
        spi = int(text, 0)
    except ValueError:
        spi = -1
    if not 256 <= spi <= 0xFFFFFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 256 to 4294967295, such as 0x100")
    return spi


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 60")
    return seconds
