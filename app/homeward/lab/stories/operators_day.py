# SPDX-License-Identifier: GPL-2.0-or-later
"""An operator's day, by the book: what docs/agents.md says is typed, word by word, while somebody works."""

from typing import Final

from homeward.lab.incidents import (
    FindBinding,
    FindBindingAfterReboot,
    FindNothing,
    FindSilence,
    Follow,
    PlayRequestsAgain,
)
from homeward.lab.story import Scene, Story
from homeward.model.access import AccessMode

_FIRST: Final = 0x100
_SECOND: Final = 0x101
_NETWORK: Final = "trust1"

OPERATORS_DAY: Final = Story(
    name="operators-day",
    about=(
        "From a bare host to the last probe: the operator of a home agent does what docs/agents.md says, command by "
        "command, and one laptop lives with it. Its connections live through a new key and a reboot of the home "
        "agent's host, stand still while it counts as lost, and go on when it has been found."
    ),
    operated=True,
    scenes=(
        Scene(
            _NETWORK,
            AccessMode.NONE,
            "A home agent is installed, and knows nobody.",
            opening=(Follow("Configure, check, start"),),
            title="installed",
            seconds=2.0,
        ),
        Scene(
            _NETWORK,
            AccessMode.C,
            "The laptop gets a key, and registers with it.",
            opening=(Follow("Add a laptop"),),
            meanwhile=(FindBinding(_FIRST), Follow("See it register")),
            title="added",
            seconds=2.0,
        ),
        Scene(
            _NETWORK,
            AccessMode.C,
            "It gets another key, and registers with that; the first one is gone.",
            opening=(Follow("Rotate its key"),),
            meanwhile=(FindBinding(_SECOND),),
            title="new key",
            seconds=2.0,
        ),
        Scene(
            _NETWORK,
            AccessMode.C,
            "All is backed up, and the home agent's host reboots. The binding is there again before the laptop would "
            "have asked for it.",
            opening=(Follow("Back up"), Follow("Reboot"), FindBindingAfterReboot(_SECOND)),
            title="rebooted",
            seconds=2.0,
        ),
        Scene(
            _NETWORK,
            AccessMode.NONE,
            "The laptop is lost: binding, key and session are gone at once.",
            opening=(Follow("Lose the laptop"), FindNothing()),
            title="lost",
            seconds=2.5,
        ),
        Scene(
            _NETWORK,
            AccessMode.C,
            "It has been found. The backup is restored, without its key at first and then with it; the laptop "
            "registers anew, and what was recorded of it before is refused.",
            opening=(Follow("Restore"),),
            meanwhile=(FindBinding(_SECOND), PlayRequestsAgain()),
            title="restored",
            seconds=2.0,
            patience=40.0,
        ),
        Scene(
            _NETWORK,
            AccessMode.C,
            "Before maintenance nobody new is let in; whoever is in stays.",
            opening=(Follow("Drain before maintenance"),),
            title="drained",
            seconds=2.0,
        ),
        Scene(
            _NETWORK,
            AccessMode.C,
            "From outside the home agent is asked, and nothing answers.",
            opening=(Follow("Probe from outside"), FindSilence()),
            title="probed",
            seconds=2.0,
        ),
    ),
)
