# SPDX-License-Identifier: GPL-2.0-or-later
"""The Revocation Support extension 137 of registration messages (RFC 3543 3.2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from homeward.model.errors import Truncated
from homeward.model.revocation import RevocationSupport
from homeward.wire.decoded import only
from homeward.wire.extensions import Extension, ExtensionType

_SUPPORT: Final = struct.Struct("!HI")
_EXTENSION: Final = struct.Struct("!BBHI")
_INFORM: Final = 0x8000


def encode_support(support: RevocationSupport | None) -> bytes:
    """The extension, or nothing."""
    if support is None:
        return b""
    flags = _INFORM if support.inform else 0
    return _EXTENSION.pack(ExtensionType.REVOCATION_SUPPORT, _SUPPORT.size, flags, support.timestamp)


def read_support(extensions: Sequence[Extension]) -> RevocationSupport | None:
    """What these extensions say of revocation; Truncated, or BadExtension for two. It may be longer."""
    extension = only(extensions, ExtensionType.REVOCATION_SUPPORT)
    if extension is None:
        return None
    if len(extension.body) < _SUPPORT.size:
        raise Truncated(
            f"Revocation Support at octet {extension.offset} has {len(extension.body)} octets of data"
        )
    flags, timestamp = _SUPPORT.unpack_from(extension.body)
    return RevocationSupport(timestamp, inform=bool(flags & _INFORM))
