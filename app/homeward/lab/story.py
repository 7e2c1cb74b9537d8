# SPDX-License-Identifier: GPL-2.0-or-later
"""What a story is: prose and expectation, scene by scene. How it is played is the director's business."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from homeward.lab.incidents import Incident, SetClock
from homeward.model.access import AccessMode
from homeward.model.profile import Timers

LONG_ENOUGH: Final = 4.0
"""Seconds that a scene lasts: the move, the recovery, and as long again of undisturbed traffic to compare with."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One stay in one network, or what becomes of it, and where the client must find itself there.

    `vpn_moves` says that the VPN of the scene before must move here by MOBIKE, without a word to the home agent.
    `opening` happens first; in the network of the scene before it is all that happens, and the cable stays where it is.
    `meanwhile` happens when the client has found itself.
    """

    network: str
    expect: AccessMode
    prose: str
    vpn_moves: bool = False
    seconds: float = LONG_ENOUGH
    patience: float = 20.0
    """Seconds after which it counts as not reached. Nobody waits so long; a laden machine may."""
    opening: tuple[Incident, ...] = ()
    meanwhile: tuple[Incident, ...] = ()
    title: str = ""
    """What the scene is called in the timeline, where the network's name does not say it."""

    @property
    def name(self) -> str:
        """Its name in the timeline."""
        return self.title or self.network


@dataclass(frozen=True, slots=True)
class Setting:
    """What a story needs to be different in the laptop's profile: lines for two tables, and timers in seconds."""

    home_agent: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    timers: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def monitor(self) -> float:
        """T_MONITOR: for how long a proof of trust is good."""
        return self.timers.get("monitor", Timers().monitor)


@dataclass(frozen=True, slots=True)
class Story:
    """A whole story: its name on the command line, what it is about, its scenes in order."""

    name: str
    about: str
    scenes: tuple[Scene, ...]
    setting: Setting = Setting()
    operated: bool = False
    """Whether it begins with a bare home agent's host and a laptop that nobody has connected: an operator's story.

    The laptop is plugged into the first scene's network beforehand.
    """

    @property
    def networks(self) -> tuple[str, ...]:
        """The access networks that it comes through, each once, in their order."""
        return tuple(dict.fromkeys(scene.network for scene in self.scenes))

    @property
    def moves_clock(self) -> bool:
        """Whether the laptop's clock is ever wrong in it."""
        return any(isinstance(each, SetClock) for scene in self.scenes for each in scene.opening)
