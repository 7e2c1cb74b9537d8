# SPDX-License-Identifier: GPL-2.0-or-later
"""What `homeward profile` runs: checks a profile, makes a fingerprint. Needs neither root nor a running daemon.

Exit status: 0 right, 2 wrong usage or a wrong profile, 1 anything else.
"""

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import Final

from homeward.bus.fingerprint import SALT_OCTETS, fingerprint
from homeward.bus.secret_text import FORMS_IN_WORDS, secret_from_text
from homeward.daemon.settings import known_home_address, read_profile
from homeward.model.errors import ProfileError
from homeward.model.profile import ForeignAgentUse
from homeward.model.registration import MINIMUM_KEY_OCTETS
from homeward.model.secret import Secret

_LONGEST_LINE: Final = 16 * 1024


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="homeward profile", description="Check profiles and make fingerprints."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="say whether a profile can be used, and if not why")
    check.add_argument("file", type=Path, metavar="FILE")
    make = commands.add_parser("fingerprint", help="print the fingerprint of a secret, for a profile")
    make.add_argument(
        "--secret-fd",
        type=int,
        metavar="N",
        help=f"read the secret from this file descriptor: one line, {FORMS_IN_WORDS}; without it, ask",
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            return _check(options.file)
        return _fingerprint(options.secret_fd)
    except ProfileError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"homeward profile: {error.strerror or error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print("\nhomeward profile: given up; nothing was changed", file=sys.stderr)
        return 1


def _check(file: Path) -> int:
    profile = read_profile(file, writers=None)
    gateway = profile.gateway.host if profile.gateway else "none: outside there will be no connection"
    print(f"{file}: right. Profile “{profile.name}” of {profile.owner}")
    agent = profile.home_agent
    home_address = f"assigned to {agent.nai}" if known_home_address(profile) is None else agent.home_address
    print(f"  home address    {home_address} at home agent {agent.address}")
    print(f"  home link       {agent.home_network or 'none: always away'}")
    print(f"  VPN gateway     {gateway}")
    keys = ", ".join(str(one.agent or "their server") for one in profile.foreign_agents)
    print(f"  foreign agents  {_USES[profile.use_foreign_agents]}{f'; keys for {keys}' if keys else ''}")
    try:
        read_profile(file)
    except ProfileError as error:
        print(f"Before homewardd takes it:\n{error}")
    return 0


_USES: Final = {
    ForeignAgentUse.NEVER: "never",
    ForeignAgentUse.WHEN_REQUIRED: "only where one demands it",
    ForeignAgentUse.PREFER: "wherever one offers itself",
}


def _fingerprint(descriptor: int | None) -> int:
    secret = _asked_for() if descriptor is None else _read(descriptor)
    if len(secret) < MINIMUM_KEY_OCTETS:
        print(
            f"Note: this secret has {len(secret)} octets. A home agent's key needs {MINIMUM_KEY_OCTETS} or more, "
            "random ones (`openssl rand -hex 32`); a gateway's key should have as many.",
            file=sys.stderr,
        )
    print(fingerprint(secret, os.urandom(SALT_OCTETS)))
    return 0


def _read(descriptor: int) -> Secret:
    with os.fdopen(descriptor, encoding="utf-8", closefd=False) as file:
        try:
            line = file.readline(_LONGEST_LINE)
        except UnicodeDecodeError:
            raise ProfileError(f"the secret is not Unicode text; write it as {FORMS_IN_WORDS}") from None
    return secret_from_text(line)


def _asked_for() -> Secret:
    if not sys.stdin.isatty():
        raise ProfileError("there is no terminal to ask on; give the secret with --secret-fd 0")
    first = getpass.getpass(f"Secret (as it is, or {FORMS_IN_WORDS}): ")
    if first != getpass.getpass("Once more: "):
        raise ProfileError("the two are not the same; try again")
    return secret_from_text(first)


if __name__ == "__main__":
    sys.exit(main())
