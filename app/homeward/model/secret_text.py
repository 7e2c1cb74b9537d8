# SPDX-License-Identifier: GPL-2.0-or-later
"""How people write a secret down: as text, or as octets in hexadecimal or base64 digits."""

import base64
import binascii
from typing import Final

from homeward.model.errors import HomewardError
from homeward.model.secret import Secret

FORMS_IN_WORDS: Final = "hex:DIGITS, base64:DIGITS or text:ANYTHING"


class SecretFormatError(HomewardError):
    """Not a secret in any of the forms; the text never repeats what was written."""


def secret_from_text(text: str, *, bare: bool = False) -> Secret:
    """The secret behind "hex:…", "base64:…" or "text:…" (as UTF-8); `bare` also takes other text as it stands.

    SecretFormatError for anything else and for an empty secret.
    """
    form, colon, digits = text.partition(":")
    try:
        match form if colon else "":
            case "hex":
                octets = bytes.fromhex(digits)
            case "base64":
                octets = base64.b64decode(digits, validate=True)
            case "text":
                octets = digits.encode("utf-8")
            case _ if bare:
                octets = text.encode("utf-8")
            case _:
                raise SecretFormatError(f"a secret is written as {FORMS_IN_WORDS}")
    except (ValueError, binascii.Error):
        # `from None`: the original error may quote what was written.
        raise SecretFormatError(
            f"the digits after “{form}:” are not {form}, or the text is not Unicode"
        ) from None
    if not octets:
        raise SecretFormatError(f"the secret is empty; it is written as {FORMS_IN_WORDS}")
    return Secret(octets)
