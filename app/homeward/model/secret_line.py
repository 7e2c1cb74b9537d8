# SPDX-License-Identifier: GPL-2.0-or-later
"""A secret as one line of text: how it is typed, piped and kept in a keyring.

`hex:` and hexadecimal digits for octets, `text:` and the characters (UTF-8) for a pass phrase. A line without either is
a pass phrase. One line because a keyring entry of several lines corrupts a GNOME keyring without a password.
"""

from typing import Final

from homeward.model.errors import ProfileError
from homeward.model.secret import Secret

_HEX: Final = "hex:"
_TEXT: Final = "text:"


def secret_from_line(line: str) -> Secret:
    """The secret that the line stands for; ProfileError, without any of the line in it, if there is none."""
    line = line.removesuffix("\n").removesuffix("\r")
    if line.startswith(_HEX):
        return Secret(_octets(line.removeprefix(_HEX)))
    text = line.removeprefix(_TEXT)
    if not text:
        raise ProfileError("the secret is empty")
    if not text.isprintable():
        raise ProfileError(
            "the secret must be one line of printable characters; octets are written hex:0011…"
        )
    return Secret(text.encode())


def _octets(digits: str) -> bytes:
    try:
        octets = bytes.fromhex(digits)
    except ValueError:
        octets = b""
    if not octets:
        raise ProfileError("after hex: come hexadecimal digits, two for each octet")
    return octets
