# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets on their way from a person or a script to the daemon; never from the command line, which others can read."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable
from typing import Final

from homeward.bus.secret_text import FORMS_IN_WORDS, secret_from_text
from homeward.cli.errors import UsageError
from homeward.cli.picture import printable
from homeward.model.errors import ProfileError
from homeward.model.secret import Secret
from homeward.model.status import SecretNeeded

_LARGEST: Final = 64 * 1024


def read_secrets(descriptor: int) -> dict[str, Secret]:
    """Lines "reference=value" until the end of file; UsageError, which never repeats a value."""
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            octets = file.read(_LARGEST + 1)
        text = octets.decode("utf-8")
    except OSError as error:
        raise UsageError(f"--secrets-fd {descriptor}: {error.strerror}; open it for reading first") from None
    except UnicodeDecodeError:
        raise UsageError(f"--secrets-fd {descriptor}: this is no UTF-8 text") from None
    if len(octets) > _LARGEST:
        raise UsageError(
            f"--secrets-fd {descriptor}: more than {_LARGEST} octets; give only the secrets needed"
        )
    secrets: dict[str, Secret] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        reference, equals, value = line.partition("=")
        if not equals or not reference.strip():
            raise UsageError(
                f"--secrets-fd: line {number} is not of the form reference=value ({FORMS_IN_WORDS})"
            )
        try:
            secrets[reference.strip()] = secret_from_text(value)
        except ProfileError as error:
            raise UsageError(f"--secrets-fd: line {number}: {error}") from None
    return secrets


def ask_secrets(needed: Iterable[SecretNeeded]) -> dict[str, Secret]:
    """Ask on the terminal, which does not echo; ProfileError, EOFError when the person gives up."""
    return {
        secret.reference: secret_from_text(
            getpass.getpass(
                f"{printable(secret.purpose)}\n“{printable(secret.reference)}” ({FORMS_IN_WORDS}): "
            )
        )
        for secret in needed
    }
