# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's stories on a kernel with ESP, which charon then uses, and on the virtual clock.

Everything is real but the time: waiting costs none and computing takes none, so an outage is the sum of the waits that
the protocols and the programs ask for, whatever else this machine has to do.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.virtual_clock, pytest.mark.timeout(600)]

SAMPLING = 5
"""Milliseconds between two datagrams: what an outage is rounded up by, at either end."""
CHARONS_PAUSE = 100
"""Milliseconds that stock charon waits before it moves."""


def play(folder: Path, story: str, *options: str) -> dict[str, Any]:
    """Play a story, which must pass, and what its timeline tells; the captures' proofs are part of passing."""
    argv = [
        sys.executable,
        "-m",
        "homeward.lab.main",
        "--state",
        str(folder / "state"),
        "play",
        story,
        *options,
    ]
    played = subprocess.run([*argv, "--out", str(folder)], capture_output=True, text=True, check=False)
    print(played.stdout, played.stderr)
    assert played.returncode == 0
    assert "ESP by the kernel" in (folder / "logs" / "laptop-charon.log").read_text()
    told: dict[str, Any] = json.loads((folder / "timeline.json").read_text())
    assert told["passed"]
    assert told["leaks"] == []
    assert told["tcp"]["sha256_equal"]
    return told


@pytest.fixture(scope="module")
def grand_tour(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the story told."""
    return play(tmp_path_factory.mktemp("grand-tour"), "grand-tour")


def test_the_grand_tour_passes_with_the_kernels_esp(grand_tour: dict[str, Any]) -> None:
    assert [stage["reached"] for stage in grand_tour["stages"]] == ["c", "c", "mc", "mc", "c"]


def test_a_move_costs_what_is_waited_for_and_nothing_else(grand_tour: dict[str, Any]) -> None:
    """No delay on any link of this lab: what is left is charon's own pause, and the sampling."""
    _first, *moves = grand_tour["stages"]
    for stage in moves:
        pause = CHARONS_PAUSE if stage["vpn"] == "up" and stage["name"] == "ext2" else 0
        for direction in ("outage_up_ms", "outage_down_ms"):
            assert stage[direction] <= pause + 2 * SAMPLING, stage


STORIES = {
    "office-walk": ["c", "f", "home", "c"],
    "nat-office": ["c", "c", "f", "c"],
    "agent-down": ["f", "c", "f", "none", "f", "none", "c"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("story", "modes"), STORIES.items(), ids=STORIES)
def test_the_other_stories_pass_with_the_kernels_esp(tmp_path: Path, story: str, modes: list[str]) -> None:
    told = play(tmp_path, story)
    assert [stage["reached"] for stage in told["stages"]] == modes


@pytest.mark.slow
@pytest.mark.rows("R-172", "R-174")
def test_the_story_of_the_clock_passes_where_the_machines_own_is_set(tmp_path: Path) -> None:
    """For everybody on this machine, the home agent included."""
    told = play(tmp_path, "clock-jump", "--real-clock")
    assert [stage["reached"] for stage in told["stages"]] == ["c", "c", "c", "c"]
