# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user of a laptop gets: the key, as `homeward connect --secrets-fd` takes it, and what its profile says."""

from __future__ import annotations

import os
import re
import secrets
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from homeward.agents.policy import Node
from homeward.bus.fingerprint import SALT_OCTETS, fingerprint
from homeward.model.profile import ReplayStyle
from homeward.model.secret import Secret

KEY_OCTETS: Final = 32

_OTHER_LETTERS: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_NAME: Final = 48


def new_key() -> Secret:
    """A key from the kernel's source of chance."""
    return Secret(secrets.token_bytes(KEY_OCTETS))


def secret_line(node: Node) -> str:
    """The key under the name that `profile_table` gives it."""
    return f"{_reference(node)}=hex:{node.association.key.reveal().hex()}\n"


def profile_table(node: Node, agent: IPv4Address) -> str:
    """The table [home_agent] of the profile; the fingerprint in it gives nothing away of a key that was drawn."""
    association = node.association
    proof = fingerprint(association.key, os.urandom(SALT_OCTETS))
    lines = [
        "[home_agent]",
        f'address = "{agent}"',
        f'home_address = "{node.home_address if node.home_address is not None else "assigned"}"',
        f"spi = {int(association.spi):#x}",
        f'algorithm = "{association.algorithm.value}"',
        f'key = {{ secret = "{_reference(node)}", fingerprint = "{proof}" }}',
    ]
    if node.nai is not None:
        lines.append(f'nai = "{_toml(node.nai)}"')
    if node.replay is not ReplayStyle.TIMESTAMPS:
        lines.append(f'replay = "{node.replay.value}"')
    return "\n".join(lines) + "\n"


def write_secret(place: Path, node: Node) -> None:
    """A new file for root alone; FileExistsError rather than to overwrite what may be somebody's only copy."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secret_line(node))
        file.flush()
        os.fsync(descriptor)


def _reference(node: Node) -> str:
    """What a profile may call a secret: few characters, and not many of them."""
    return f"{_OTHER_LETTERS.sub('-', node.name)[:_LONGEST_NAME]}-{int(node.association.spi):#x}"


def _toml(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
