# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents that die, come back, and say no: what the laptop holds on to meanwhile, and what it does not."""

from typing import Final

from homeward.lab import services
from homeward.lab.incidents import DenyAll, Kill, StartForeignAgent, StartHomeAgent
from homeward.lab.story import Scene, Setting, Story
from homeward.lab.topology import AGENT
from homeward.model.access import AccessMode
from homeward.model.reply_codes import ReplyCode

AGENT_DOWN: Final = Story(
    name="agent-down",
    about=(
        "The agents fail, one after the other. A foreign agent is nothing that the laptop depends on: it goes back to "
        "an address of its own. Without the home agent nothing vouches for the network any more, and nothing leaves "
        "until it does again."
    ),
    setting=Setting(
        policy=('use_foreign_agents = "prefer"',),
        timers={"monitor": 3, "monitor_grace": 1},
    ),
    scenes=(
        Scene(
            "trust3",
            AccessMode.F,
            "On the floor with the foreign agent, data goes by its hands.",
            seconds=2.5,
        ),
        Scene(
            "trust3",
            AccessMode.C,
            "The foreign agent dies without a word. When its advertisement runs out, or a registration by it stays "
            "without an answer, the laptop registers the address of its own again.",
            opening=(Kill("trust3", services.AGENT_SERVICE),),
            title="agent dead",
        ),
        Scene(
            "trust3",
            AccessMode.F,
            "The foreign agent is back, and knows nobody. The laptop hears it advertise, and registers with it anew.",
            opening=(StartForeignAgent("trust3"),),
            title="agent back",
        ),
        Scene(
            "trust3",
            AccessMode.NONE,
            "The home agent dies. For T_MONITOR, three seconds here, the last proof is good; then it proves "
            "nothing, and all traffic is held.",
            opening=(Kill(AGENT, services.AGENT_SERVICE),),
            title="no home agent",
            seconds=6.0,
        ),
        Scene(
            "trust3",
            AccessMode.F,
            "The home agent is back, and remembers what was accepted before it died. The question that is still being "
            "asked is answered.",
            opening=(StartHomeAgent(),),
            title="home agent back",
            patience=30.0,
        ),
        Scene(
            "trust1",
            AccessMode.NONE,
            "Back at the desk, and the home agent says no, and signs it. That is an answer, and no proof.",
            opening=(DenyAll(ReplyCode.INSUFFICIENT_RESOURCES),),
            title="denied",
            seconds=2.5,
        ),
        Scene(
            "trust2",
            AccessMode.C,
            "In the meeting room the home agent has come to its senses.",
            opening=(StartHomeAgent(),),
        ),
    ),
)
