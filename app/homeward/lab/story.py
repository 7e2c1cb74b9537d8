# SPDX-License-Identifier: GPL-2.0-or-later
"""What a story is: prose and expectation, scene by scene. How it is played is the director's business."""

from dataclasses import dataclass
from typing import Final

from homeward.model.access import AccessMode

LONG_ENOUGH: Final = 4.0
"""Seconds that a scene lasts: the move, the recovery, and as long again of undisturbed traffic to compare with."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One stay in one network, and where the client must find itself there.

    `vpn_moves` says that the VPN of the scene before must move here by MOBIKE, without a word to the home agent.
    """

    network: str
    expect: AccessMode
    prose: str
    vpn_moves: bool = False
    seconds: float = LONG_ENOUGH
    patience: float = 20.0
    """Seconds after which it counts as not reached. Nobody waits so long; a laden machine may."""


@dataclass(frozen=True, slots=True)
class Story:
    """A whole story: its name on the command line, what it is about, its scenes in order."""

    name: str
    about: str
    scenes: tuple[Scene, ...]
