# SPDX-License-Identifier: GPL-2.0-or-later
"""The office walk: through every way that the inside offers, the foreign agent's and the home link's among them."""

from typing import Final

from homeward.lab.incidents import AskForHomeAddress, RedirectToNobody
from homeward.lab.story import Scene, Setting, Story
from homeward.lab.topology import HOME_NETWORK
from homeward.model.access import AccessMode

OFFICE_WALK: Final = Story(
    name="office-walk",
    about=(
        "A laptop walks through the inside of its enterprise: from its desk to a floor with a foreign agent, to the "
        "home link itself, and to another subnet. Nothing is encrypted here by anybody, and nothing needs to be; what "
        "changes from floor to floor is who takes the data to the home address."
    ),
    setting=Setting(
        home_agent=(f'home_network = "{HOME_NETWORK}"',),
        policy=('use_foreign_agents = "prefer"',),
        timers={"monitor": 3, "monitor_grace": 1},
    ),
    scenes=(
        Scene(
            "trust1",
            AccessMode.C,
            "At the desk. The home agent vouches for the network, and data goes to it in a tunnel of the laptop's own. "
            "Every two seconds the laptop asks again, so that it always knows where it is.",
        ),
        Scene(
            "trust3",
            AccessMode.F,
            "On a floor with a foreign agent. First the network proves itself as everywhere, with an address of the "
            "laptop's own; then a second registration goes by the agent, and the data as well. What the agent says by "
            "ICMP of another router leads nowhere, and who asks for the home address by ARP hears nothing.",
            meanwhile=(RedirectToNobody("trust3"), AskForHomeAddress("trust3")),
        ),
        Scene(
            "home",
            AccessMode.HOME,
            "On the home link. The laptop says by ARP that the home address is here, gives up its bindings, and is a "
            "host like any other: no agent, no tunnel.",
            meanwhile=(AskForHomeAddress("home"),),
        ),
        Scene(
            "trust2",
            AccessMode.C,
            "To the meeting room. The home address is the home agent's to answer for again, and the laptop is silent "
            "about it.",
            meanwhile=(AskForHomeAddress("trust2"),),
        ),
    ),
)
