# SPDX-License-Identifier: GPL-2.0-or-later
"""Orders that change what the running agent does: revoke, drain, reload."""

from __future__ import annotations

import argparse

from homeward.agentd.cli.outcome import OK, CommandFailed
from homeward.agentd.cli.running import control_of
from homeward.agentd.control import OrderRefused
from homeward.agentd.control_client import ask


def give_order(command: str, options: argparse.Namespace) -> int:
    """One of them; the exit status. OrderRefused where the agent does not want to."""
    place = control_of(options.config)
    match command:
        case "revoke":
            ask(place, "revoke", address=str(options.address))
            print(f"{options.address}: its binding has ended")
        case "drain":
            answer = ask(place, "drain", on=not options.undo, revoke=options.revoke)
            if options.undo:
                print(f"new bindings are made again; {answer['bindings']} stand")
            else:
                ended = f", {answer['ended']} were ended" if options.revoke else ""
                print(
                    f"no new binding is made; {answer['bindings']} stand{ended}. `drain --undo` takes it back"
                )
        case _:
            try:
                answer = ask(place, "reload")
            except OrderRefused as error:
                raise CommandFailed(f"nothing was changed: {error}") from error
            if "nodes" in answer:
                keys = f"{answer['keys']} key(s), {answer['keys_before']} before"
                print(
                    f"taken over: {answer['nodes']} node(s) with {keys}; {answer['bindings']} binding(s) stand"
                )
            else:
                print(f"taken over; {answer['visitors']} visitor(s) stay")
    return OK
