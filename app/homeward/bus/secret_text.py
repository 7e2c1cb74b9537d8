# SPDX-License-Identifier: GPL-2.0-or-later
"""A secret as scripts and people hand it over: the line of model.secret_line, or base64 digits besides."""

import base64
import binascii
from typing import Final

from homeward.model.errors import ProfileError
from homeward.model.secret import Secret
from homeward.model.secret_line import secret_from_line

FORMS_IN_WORDS: Final = "hex:DIGITS, base64:DIGITS or text:ANYTHING"

_BASE64: Final = "base64:"


def secret_from_text(text: str) -> Secret:
    """The secret behind "hex:…", "base64:…", "text:…" or a bare pass phrase; ProfileError, without any of the text."""
    if not text.startswith(_BASE64):
        return secret_from_line(text)
    try:
        octets = base64.b64decode(text.removeprefix(_BASE64).rstrip("\r\n"), validate=True)
    except (ValueError, binascii.Error):
        octets = b""
    if not octets:
        raise ProfileError("after base64: come base64 digits, with the “=” that fill up the last four")
    return Secret(octets)
