# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward-lab load`: what it is told, and what it says."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from pathlib import Path
from typing import Final, TypeVar

from homeward.lab.errors import LabError, UsageError
from homeward.lab.load import Load, Plan, as_json, write_nodes

_ABOUT: Final = """\
Load for a home agent, from any machine: N mobile nodes that move with every registration. Once:

    homeward-lab load --write-nodes nodes --count-nodes 1000      # also into the agent's nodes_file
    ip route add local 10.200.0.0/16 dev lo                       # here: care-of addresses
    ip route add 10.200.0.0/16 via THIS-MACHINE                   # on the agent's side

10.200.0.0/16 must be in the agent's trusted_prefixes. Then:

    homeward-lab load --agent 10.0.0.2 --nodes nodes --care-of 10.200.0.0/16 --rate 5000

The nodes file holds keys, so it is readable by its owner only. Nothing is sent but to --agent. Exit status 1 when
nothing was accepted, or an answer was forged.
"""

_Value = TypeVar("_Value")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's own options."""
    parser = commands.add_parser(
        "load",
        help="registrations for a home agent: how many a second, how soon, how many lost",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    making = parser.add_argument_group("nodes for the agent")
    making.add_argument("--write-nodes", type=Path, metavar="FILE", help="make such a file, with new keys")
    making.add_argument("--count-nodes", type=_above(int, 0), default=1000, metavar="N", help="default: 1000")
    making.add_argument(
        "--home",
        type=_network,
        default=IPv4Network("10.64.0.0/14"),
        metavar="PREFIX",
        help="where their home addresses are (default: 10.64.0.0/14)",
    )
    running = parser.add_argument_group("load")
    running.add_argument("--agent", type=_address, metavar="ADDRESS", help="the home agent; none, no load")
    running.add_argument("--nodes", type=Path, metavar="FILE", help="the nodes, as --write-nodes made them")
    running.add_argument(
        "--care-of", type=_network, metavar="PREFIX", help="care-of addresses, which are this machine's own"
    )
    running.add_argument(
        "--rate",
        type=_above(float, 0),
        metavar="R",
        help="registrations a second (default: as fast as possible)",
    )
    running.add_argument(
        "--in-flight",
        type=_above(int, 0),
        default=128,
        metavar="N",
        help="without --rate: requests under way at a time (default: 128)",
    )
    running.add_argument("--seconds", type=_above(float, 0), default=10.0, metavar="S", help="default: 10")
    running.add_argument("--count", type=_above(int, 0), metavar="N", help="end when so many are accepted")
    running.add_argument(
        "--lifetime", type=_above(int, 0), default=1800, metavar="S", help="asked for (default: 1800)"
    )
    running.add_argument("--core", type=int, metavar="N", help="stay on this processor")
    running.add_argument("--json", action="store_true", help="one line of JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """The exit status. UsageError, LabError."""
    if options.write_nodes is None and options.agent is None:
        raise UsageError("load needs --agent ADDRESS, or --write-nodes FILE; see homeward-lab load --help")
    if options.write_nodes is not None:
        write_nodes(options.write_nodes, options.count_nodes, options.home)
        print(f"wrote {options.count_nodes} nodes into {options.write_nodes}")
    if options.agent is None:
        return 0
    nodes = options.nodes or options.write_nodes
    if nodes is None or options.care_of is None:
        raise UsageError("load needs --nodes FILE and --care-of PREFIX besides --agent")
    if options.core is not None:
        try:
            os.sched_setaffinity(0, {options.core})
        except OSError as error:
            raise LabError(f"staying on processor {options.core}: {error.strerror}") from error
    outcome = Load(
        Plan(
            options.agent,
            nodes,
            care_of=options.care_of,
            rate=options.rate,
            in_flight=options.in_flight,
            seconds=options.seconds,
            count=options.count,
            lifetime=min(options.lifetime, 0xFFFF),
        )
    ).run()
    if options.json:
        print(as_json(outcome))
    else:
        print("\n".join(outcome.lines()))
    return 0 if outcome.accepted and not outcome.forged else 1


def _above(kind: Callable[[str], _Value], least: float) -> Callable[[str], _Value]:
    def read(word: str) -> _Value:
        value = kind(word)
        if not float(word) > least:
            raise argparse.ArgumentTypeError(f"must be above {least:g}")
        return value

    return read


def _address(word: str) -> IPv4Address:
    try:
        return IPv4Address(word)
    except AddressValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _network(word: str) -> IPv4Network:
    try:
        return IPv4Network(word)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
