# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward-agent`: a home or foreign agent in the foreground, and the commands of its operator (agentd/cli/).

Exit status: 0 done, 1 cannot be done, 2 wrong usage or a wrong configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from homeward.adapters import core_dumps
from homeward.agentd.cli.arguments import RUN, parser
from homeward.agentd.cli.outcome import FAILED, exit_status, say
from homeward.model.errors import HomewardError

_WITH_KEYS: Final = (RUN, "key", "backup", "restore")
"""Commands that have keys in their memory, which must not end up in a core dump."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status, and never a traceback from a command."""
    options = parser().parse_args(arguments)
    command = options.command or ("check" if options.check else RUN)
    try:
        return _run(command, options)
    except HomewardError as error:
        say(str(error))
        return exit_status(error)
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain once more while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        say(f"{error.filename or command}: {error.strerror or error}")
        return FAILED


def _run(command: str, options: argparse.Namespace) -> int:
    if command in _WITH_KEYS:
        core_dumps.switch_off()
    # Imported by whoever needs it: the agent's own process imports netlink, `status` need not wait for that.
    match command:
        case "run":
            from homeward.agentd.cli.serving import run

            return run(options.config)
        case "check":
            from homeward.agentd.cli.checking import check

            return check(options.config, as_json=getattr(options, "json", False))
        case "example":
            from homeward.agentd.cli.showing import example

            return example(options.role)
        case "status" | "bindings" | "visitors" | "metrics":
            from homeward.agentd.cli.showing import show

            return show(command, options.config, as_json=getattr(options, "json", False))
        case "key":
            from homeward.agentd.cli.keys import change_keys

            return change_keys(options)
        case "revoke" | "drain" | "reload":
            from homeward.agentd.cli.changing import give_order

            return give_order(command, options)
        case "backup" | "restore":
            from homeward.agentd.cli.keeping import keep

            return keep(command, options)
        case _:
            from homeward.agentd.cli.probing import probe_from_outside

            return probe_from_outside(options)


if __name__ == "__main__":
    sys.exit(main())
