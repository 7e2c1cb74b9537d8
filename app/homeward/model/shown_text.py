# SPDX-License-Identifier: GPL-2.0-or-later
"""Text that somebody else wrote and people may be shown (RFC 4917): one line, of printing characters only."""

from __future__ import annotations

from typing import Final

from homeward.model.errors import LocalProtocolError

LONGEST: Final = 254
"""Octets in UTF-8 that fit a Message String extension beside its sub-type."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def shown_text(octets: bytes) -> str | None:
    """These octets as text that can go to a log or a screen, or None where nothing is left to be shown.

    Whatever is not UTF-8, and whatever does not print (controls, escapes, changes of direction), becomes a replacement
    character; white space becomes a space. What then is longer than LONGEST is cut.
    """
    decoded = octets.decode("utf-8", errors="replace")
    characters = (" " if one.isspace() else one if one.isprintable() else _REPLACEMENT for one in decoded)
    text = "".join(characters).strip()
    cut = text.encode("utf-8")[:LONGEST].decode("utf-8", errors="ignore").strip()
    return cut or None


def require_shown_text(text: str) -> None:
    """LocalProtocolError for a text that ``shown_text`` would have changed."""
    try:
        unchanged = shown_text(text.encode("utf-8")) == text
    except UnicodeEncodeError:
        unchanged = False
    if not unchanged:
        raise LocalProtocolError("a message for people is one line of printing text that fits its extension")
