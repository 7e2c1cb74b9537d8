# SPDX-License-Identifier: GPL-2.0-or-later
"""The stories that can be played in the lab."""

from typing import Final

from homeward.lab.stories.agent_down import AGENT_DOWN
from homeward.lab.stories.clock_jump import CLOCK_JUMP
from homeward.lab.stories.grand_tour import GRAND_TOUR
from homeward.lab.stories.nat_office import NAT_OFFICE
from homeward.lab.stories.office_walk import OFFICE_WALK
from homeward.lab.stories.operators_day import OPERATORS_DAY
from homeward.lab.story import Story

STORIES: Final[dict[str, Story]] = {
    story.name: story
    for story in (GRAND_TOUR, OFFICE_WALK, NAT_OFFICE, AGENT_DOWN, CLOCK_JUMP, OPERATORS_DAY)
}
