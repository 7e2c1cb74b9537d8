# SPDX-License-Identifier: GPL-2.0-or-later
"""The secrets of one lab: drawn when it is built, readable for root only, never on a command line, gone with it."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homeward.lab.state import LabState
from homeward.model.secret import Secret
from homeward.model.secret_line import secret_from_line

MOBILITY_KEY: Final = "lab-mobility-key"
"""What the laptop's profile calls the key that it shares with the home agent."""
PRE_SHARED_KEY: Final = "lab-vpn-key"
"""What the laptop's profile calls the key that it shares with the VPN gateway."""


@dataclass(frozen=True, slots=True)
class LabKeys:
    """Both secrets, as octets."""

    mobility: Secret
    pre_shared: Secret


def draw(state: LabState) -> LabKeys:
    """Draw new secrets and keep them in the lab's folder, each as one line in the form of model.secret_line."""
    state.keys.mkdir(mode=0o700)
    _write(state.keys / MOBILITY_KEY, f"hex:{secrets.token_hex(32)}")
    _write(state.keys / PRE_SHARED_KEY, f"text:{secrets.token_urlsafe(24)}")
    return read(state)


def read(state: LabState) -> LabKeys:
    """The secrets of a lab that stands."""
    return LabKeys(_read(state.keys / MOBILITY_KEY), _read(state.keys / PRE_SHARED_KEY))


def _write(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(line + "\n")


def _read(path: Path) -> Secret:
    return secret_from_line(path.read_text())
