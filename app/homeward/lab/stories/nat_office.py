# SPDX-License-Identifier: GPL-2.0-or-later
"""The office behind NAT: tunnels in UDP, and a NAT that forgets them while nobody speaks."""

from typing import Final

from homeward.lab.incidents import RebindWhileIdle
from homeward.lab.services import KEEPALIVE
from homeward.lab.story import Scene, Setting, Story
from homeward.model.access import AccessMode

TRIES: Final = 15
"""Seconds for which a keepalive is repeated: after 1, 2, 4 and 8 s the tunnel counts as dead."""

NAT_OFFICE: Final = Story(
    name="nat-office",
    about=(
        "A laptop in a branch office that hides behind NAT: inside, but seen by the home agent under an address that "
        "is not its own. Its tunnels go in UDP there. The NAT forgets them while the applications rest, and takes "
        "another port afterwards."
    ),
    setting=Setting(
        policy=('use_foreign_agents = "prefer"', "nat_inside = true"),
    ),
    scenes=(
        Scene(
            "nat1",
            AccessMode.C,
            "In the branch office. The home agent sees the NAT's address, which is on its list, says so in its answer, "
            "and data goes to it in UDP by the port that the request came from.",
            seconds=2.5,
        ),
        Scene(
            "nat1",
            AccessMode.C,
            f"The applications rest, and the NAT forgets everything. The keepalive, due every {KEEPALIVE} s, stays "
            "without an answer; the laptop registers anew, by the NAT's new port, before anybody misses it.",
            opening=(RebindWhileIdle("nat1", KEEPALIVE + TRIES - 2.5),),
            title="rebound",
        ),
        Scene(
            "nat2",
            AccessMode.F,
            "In another branch, with a foreign agent behind its NAT. The agent takes the data as it is, and it is the "
            "agent's tunnel that goes in UDP.",
            seconds=2.5,
        ),
        Scene(
            "trust1",
            AccessMode.C,
            "At the desk, where nothing stands between: the tunnel is IP-in-IP again.",
            seconds=2.5,
        ),
    ),
)
