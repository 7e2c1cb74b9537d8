# SPDX-License-Identifier: GPL-2.0-or-later
"""What a later life of the daemon must know: what was wanted, and which Identifications are used up."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdentificationState:
    """Replay protection towards one home agent (RFC 5944 section 5.7.1).

    `last` is the highest Identification ever sent, `offset` the seconds to add to our wall clock.
    """

    spi: int
    home_agent: str
    last: int
    offset: float


@dataclass(frozen=True, slots=True)
class Journal:
    """`wanted` is the profile that the user connected and has not disconnected."""

    wanted: str | None = None
    identifications: tuple[IdentificationState, ...] = ()
