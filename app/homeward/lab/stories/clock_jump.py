# SPDX-License-Identifier: GPL-2.0-or-later
"""A clock that is wrong, and is set while it matters: time stamps guard the registrations against replay."""

from typing import Final

from homeward.lab.incidents import SetClock
from homeward.lab.story import Scene, Setting, Story
from homeward.model.access import AccessMode

_HOUR: Final = 3600.0

CLOCK_JUMP: Final = Story(
    name="clock-jump",
    about=(
        "A laptop whose clock is hours wrong, and is set while it is connected, forward and backward. The home agent "
        "takes requests by their time stamps, and refuses what is not of its own time; its refusal, signed, tells the "
        "time, and the laptop reckons by it. No request ever falls below one that was accepted."
    ),
    setting=Setting(timers={"monitor": 3, "monitor_grace": 1}),
    scenes=(
        Scene(
            "trust1",
            AccessMode.C,
            "The clock is five hours ahead from the start.",
            opening=(SetClock(5 * _HOUR),),
            title="5 h ahead",
        ),
        Scene(
            "trust1",
            AccessMode.C,
            "Somebody sets it three hours forward. The binding stands, and its next renewal learns the time.",
            opening=(SetClock(3 * _HOUR),),
            title="3 h forward",
            seconds=5.0,
        ),
        Scene(
            "trust1",
            AccessMode.C,
            "Somebody sets it ten hours back, behind everything that it ever showed. The next requests stay just above "
            "the last one that was accepted, until that is too old for the home agent, and it tells the time.",
            opening=(SetClock(-10 * _HOUR),),
            title="10 h back",
            seconds=11.0,
        ),
        Scene(
            "trust2",
            AccessMode.C,
            "A move with the clock that is wrong: what was learnt of the home agent's time is still good.",
        ),
    ),
)
