# SPDX-License-Identifier: GPL-2.0-or-later
"""The stories that can be played in the lab."""

from typing import Final

from homeward.lab.stories.grand_tour import GRAND_TOUR
from homeward.lab.story import Story

STORIES: Final[dict[str, Story]] = {story.name: story for story in (GRAND_TOUR,)}
