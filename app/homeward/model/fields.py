# SPDX-License-Identifier: GPL-2.0-or-later
"""What a value must fulfil to fit its field in a message."""

from __future__ import annotations

from homeward.model.errors import LocalProtocolError


def require_field(name: str, value: int, *, bits: int) -> None:
    """LocalProtocolError unless this is an unsigned number of no more bits."""
    if not 0 <= value < 1 << bits:
        raise LocalProtocolError(f"{name} {value} does not fit {bits} bits")


def require_octets(name: str, value: bytes, *, most: int) -> None:
    """LocalProtocolError unless there is at least one octet, and no more than that."""
    if not 1 <= len(value) <= most:
        raise LocalProtocolError(f"{name} has {len(value)} octets, 1 to {most} are possible")
