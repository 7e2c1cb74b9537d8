# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-lab: a whole enterprise network in namespaces on one machine, for looking at and for playing stories in."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from homeward.lab import load_command
from homeward.lab.access import Cable
from homeward.lab.build import ALL_HOSTS, Builder, laptop_addresses
from homeward.lab.errors import LabError, UsageError
from homeward.lab.host import Host
from homeward.lab.play import default_out, play
from homeward.lab.state import LabState, default_base
from homeward.lab.stories import STORIES
from homeward.lab.topology import ACCESS_NETWORKS

_OK, _FAILED, _USAGE = 0, 1, 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="homeward-lab", description=__doc__)
    parser.add_argument("--name", default="lab", help="which lab, when several run at once (default: lab)")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help=f"where labs keep themselves ({default_base()})"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="build the lab; it stays until `down`")
    commands.add_parser("down", help="take the lab down, in whatever condition it is")
    commands.add_parser("status", help="which hosts run, what runs in them, where the laptop is plugged in")
    commands.add_parser("list", help="the labs, hosts, networks and stories that there are")
    playing = commands.add_parser("play", help="play a story: up, the story, down; or in a lab that is up")
    playing.add_argument("story", metavar="STORY", help=" | ".join(STORIES))
    playing.add_argument("--out", type=Path, metavar="DIR", help="where timeline, captures and logs go")
    playing.add_argument(
        "--tray", action="store_true", help="show the tray, on a virtual screen where there is none"
    )
    playing.add_argument(
        "--real-clock",
        action="store_true",
        help="set the machine's own clock where the story sets the laptop's; only in a kernel of one's own",
    )
    plug = commands.add_parser("plug", help="move the laptop's cable into an access network")
    plug.add_argument("network", metavar="NETWORK", help=" | ".join(ACCESS_NETWORKS))
    commands.add_parser("unplug", help="pull the laptop's cable")
    load_command.add_parser(commands)
    execute = commands.add_parser("exec", help="run a command in a host")
    execute.add_argument("host", metavar="HOST", help=" | ".join(ALL_HOSTS))
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit status 0, 2 for wrong usage, 1 for anything else that went wrong."""
    options = _parser().parse_args(arguments)
    try:
        return _dispatch(options, LabState(options.name, options.state))
    except UsageError as error:
        print(f"homeward-lab: {error}", file=sys.stderr)
        return _USAGE
    except LabError as error:
        print(f"homeward-lab: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return 130


def _dispatch(options: argparse.Namespace, state: LabState) -> int:
    match options.command:
        case "up":
            built = Builder(state, lambda line: print(f"  {line}", flush=True)).up()
            print(f"lab {state.name} is up" if built else f"lab {state.name} was up already")
        case "down":
            ended = Builder(state).down()
            print(f"lab {state.name} is down" if ended else f"lab {state.name} was not up")
        case "status":
            return _status(state)
        case "list":
            _list(options.state or default_base())
        case "play":
            return _play(state, options)
        case "plug":
            move = Cable(state).plug(options.network)
            print(f"plugged into {move.network}")
        case "unplug":
            Cable(state).unplug()
            print("unplugged")
        case "load":
            return load_command.run(options)
        case "exec":
            return _execute(state, options.host, options.argv)
    return _OK


def _play(state: LabState, options: argparse.Namespace) -> int:
    name = options.story
    if name not in STORIES:
        raise UsageError(f"no story {name!r}: {', '.join(STORIES)}")
    out = options.out or default_out(name)
    passed = play(STORIES[name], state, out, tray=options.tray, real_clock=options.real_clock)
    return _OK if passed else _FAILED


def _status(state: LabState) -> int:
    if not state.root.exists():
        print(f"lab {state.name} is not up")
        return _FAILED
    for name in ALL_HOSTS:
        if state.alive(name):
            host = Host(state, name)
            running = [each for each, status in host.services().items() if status is None]
            print(f"{name:14} {host.pid:>8}  {' '.join(running)}")
        else:
            print(f"{name:14} {'dead':>8}")
    if Builder(state).stands():
        network = Cable(state).plugged_into()
        print(f"laptop is plugged into {network or 'nothing'} {' '.join(laptop_addresses(state))}")
        return _OK
    print(f"pieces are missing: homeward-lab --name {state.name} up builds it anew")
    return _FAILED


def _list(base: Path) -> None:
    labs = sorted(each.name for each in base.iterdir() if each.is_dir()) if base.is_dir() else []
    print(f"labs:     {' '.join(labs) or 'none'}   (in {base})")
    print(f"hosts:    {' '.join(ALL_HOSTS)}")
    print(f"networks: {' '.join(ACCESS_NETWORKS)}")
    print(f"stories:  {' '.join(STORIES)}")


def _execute(state: LabState, host: str, argv: Sequence[str]) -> int:
    if host not in ALL_HOSTS:
        raise UsageError(f"no host {host!r}: {', '.join(ALL_HOSTS)}")
    if not argv:
        raise UsageError("exec needs a command: homeward-lab exec HOST CMD [ARGUMENT …]")
    command = Host(state, host).enter(argv)
    os.execvpe(command[0], command, state.environment())


if __name__ == "__main__":
    sys.exit(main())
