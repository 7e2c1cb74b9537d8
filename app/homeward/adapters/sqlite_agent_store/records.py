# SPDX-License-Identifier: GPL-2.0-or-later
"""A batch of records, one behind the other, each behind its identity: a row of the journal."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

_SIZES: Final = struct.Struct("!HH")


def pack(records: Iterable[tuple[str, bytes]]) -> bytes:
    """Many records with their identities, one behind the other."""
    parts: list[bytes] = []
    for identity, record in records:
        name = identity.encode()
        parts += (_SIZES.pack(len(name), len(record)), name, record)
    return b"".join(parts)


def unpack(octets: object) -> Iterator[tuple[str, bytes]]:
    """What `pack` made into one. ValueError for anything else."""
    if not isinstance(octets, bytes):
        raise ValueError("a batch of records is no batch")
    at = 0
    while at < len(octets):
        if at + _SIZES.size > len(octets):
            raise ValueError("a batch of records ends too soon")
        name, record = _SIZES.unpack_from(octets, at)
        middle = at + _SIZES.size + name
        at = middle + record
        if at > len(octets):
            raise ValueError("a batch of records ends too soon")
        yield octets[middle - name : middle].decode(), octets[middle:at]
