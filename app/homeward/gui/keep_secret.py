# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward-tray --keep-secret REFERENCE`: put a secret into the keyring without the tray, from a prompt or a pipe."""

import asyncio
import getpass
import sys

from homeward.bus.secret_text import secret_from_text
from homeward.gui.secret_agent import KEYRING_SERVICE, NoSecret, SecretServiceKeyring
from homeward.model.errors import ProfileError


def keep_secret(reference: str) -> int:
    """Read one line and keep it under `reference`; the exit status. The line is never an argument: those are public."""
    line = (
        getpass.getpass(f"Secret “{reference}”: ")
        if sys.stdin.isatty()
        else sys.stdin.readline().rstrip("\r\n")
    )
    try:
        secret_from_text(line).wipe()
        asyncio.run(SecretServiceKeyring().store(reference, line))
    except (NoSecret, ProfileError) as error:
        print(f"homeward-tray: “{reference}” was not kept: {error}", file=sys.stderr)
        return 1
    print(f"“{reference}” is in the keyring (service “{KEYRING_SERVICE}”)")
    return 0
