# SPDX-License-Identifier: GPL-2.0-or-later
"""The Message String extension 145: words of an agent for people, made safe to be shown (RFC 4917)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from homeward.model.shown_text import shown_text
from homeward.wire.extensions import Extension, ExtensionType, encode


class Author(IntEnum):
    """The sub-type: whose words they are."""

    HOME_AGENT = 1
    FOREIGN_AGENT = 2


def encode_text(text: str | None, *, by: Author) -> bytes:
    """The extension, or nothing."""
    if text is None:
        return b""
    return encode(Extension(ExtensionType.MESSAGE_STRING, text.encode("utf-8"), sub_type=by))


def read_text(extensions: Sequence[Extension], *, by: Author) -> str | None:
    """The first text of that author in these extensions; None where there is none, or nothing of it can be shown."""
    for one in extensions:
        if one.number == ExtensionType.MESSAGE_STRING and one.sub_type == by:
            return shown_text(one.body)
    return None
