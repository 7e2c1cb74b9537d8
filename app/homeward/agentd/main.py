# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward-agent`: a home or foreign agent in the foreground, until SIGTERM or SIGINT; SIGUSR1 logs what it knows.

Exit status 2 for wrong usage or a wrong file, 1 when the agent cannot work, 0 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from homeward.adapters import core_dumps
from homeward.agentd import foreign_settings, toml_values
from homeward.agentd import settings as home_settings
from homeward.agentd.driver import AgentDriver
from homeward.agentd.foreign_driver import ForeignDriver
from homeward.agentd.foreign_settings import ForeignSettings
from homeward.agentd.log import entry, start_logging
from homeward.agentd.settings import AgentSettings
from homeward.model.errors import AdapterError, NotPermitted, ProfileError

PROGRAM: Final = "homeward-agent"
CONFIGURATION: Final = Path("/etc/homeward/agent.toml")

log: Final = logging.getLogger("mip")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    options = _parser().parse_args(arguments)
    if not options.check:
        core_dumps.switch_off()  # before the keys are read
    try:
        settings = _load(options.config)
    except ProfileError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(f"{options.config}: {_summary(settings)}, nothing wrong")
        return 0
    start_logging()
    try:
        return asyncio.run(_run(settings))
    except (AdapterError, OSError) as error:
        role = foreign_settings.ROLE if isinstance(settings, ForeignSettings) else home_settings.ROLE
        log.error(entry("cannot-work", cause=error, advice=_advice(error, role)))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="A home or foreign agent of Homeward (RFC 5944, RFC 5265)."
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=CONFIGURATION,
        metavar="FILE",
        help=f"the configuration, in TOML (default {CONFIGURATION})",
    )
    parser.add_argument("--check", action="store_true", help="only say whether the configuration is right")
    return parser


def _load(path: Path) -> AgentSettings | ForeignSettings:
    """What the file says, for whichever role it is. Raises ProfileError."""
    table = toml_values.read_table(path)
    known = home_settings.ROLE, foreign_settings.ROLE
    role = table.get("role", home_settings.ROLE)
    if role == home_settings.ROLE:
        return home_settings.load(path)
    if role != foreign_settings.ROLE:
        raise ProfileError(f"{path}: role {role!r} is not known{toml_values.nearest(str(role), known)}")
    try:
        return foreign_settings.settings_of(table, path.parent)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def _summary(settings: AgentSettings | ForeignSettings) -> str:
    if isinstance(settings, ForeignSettings):
        return f"{len(settings.policy.links)} access link(s)"
    return f"{len(settings.policy.nodes)} node(s)"


async def _run(settings: AgentSettings | ForeignSettings) -> int:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    driver: AgentDriver | ForeignDriver
    driver = ForeignDriver(settings) if isinstance(settings, ForeignSettings) else AgentDriver(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    loop.add_signal_handler(signal.SIGUSR1, driver.dump)
    return 0 if await driver.run(end) else 1


def _advice(error: AdapterError | OSError, role: str) -> str:
    if isinstance(error, NotPermitted | PermissionError):
        return "run it as root, in a network namespace whose settings it may change"
    if "EADDRINUSE" in str(error) or "EBUSY" in str(error):
        return f"is another {role} agent running here?"
    return "see that the interfaces and addresses of the configuration are there"


if __name__ == "__main__":
    sys.exit(main())
