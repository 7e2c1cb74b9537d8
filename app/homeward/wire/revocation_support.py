# SPDX-License-Identifier: GPL-2.0-or-later
"""The Revocation Support extension 137 of registration messages (RFC 3543 3.2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from homeward.model.revocation import RevocationSupport
from homeward.wire.cursor import Cursor
from homeward.wire.decoded import only
from homeward.wire.extensions import Extension, ExtensionType, encode

_SUPPORT: Final = struct.Struct("!HI")
_INFORM: Final = 0x8000


def encode_support(support: RevocationSupport | None) -> bytes:
    """The extension, or nothing."""
    if support is None:
        return b""
    body = _SUPPORT.pack(_INFORM * support.inform, support.timestamp)
    return encode(Extension(ExtensionType.REVOCATION_SUPPORT, body))


def read_support(extensions: Sequence[Extension]) -> RevocationSupport | None:
    """What these extensions say of revocation; Truncated, or BadExtension for two. It may be longer."""
    extension = only(extensions, ExtensionType.REVOCATION_SUPPORT)
    if extension is None:
        return None
    body = Cursor(extension.body)
    flags = body.number(2, "flags of Revocation Support")
    timestamp = body.number(4, "timestamp of Revocation Support")
    return RevocationSupport(timestamp, inform=bool(flags & _INFORM))
