# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's stories on a kernel with ESP, which charon then uses, and on the virtual clock.

Everything is real but the time: waiting costs none and computing takes none, so an outage is the sum of the waits that
the protocols and the programs ask for, whatever else this machine has to do.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.virtual_clock, pytest.mark.timeout(600)]

SAMPLING = 5
"""Milliseconds between two datagrams: what an outage is rounded up by, at either end."""
CHARONS_PAUSE = 100
"""Milliseconds that stock charon waits before it moves."""


@pytest.fixture(scope="module")
def grand_tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the story left behind."""
    folder = tmp_path_factory.mktemp("grand-tour")
    argv = [sys.executable, "-m", "homeward.lab.main", "--state", str(folder / "state"), "play", "grand-tour"]
    played = subprocess.run([*argv, "--out", str(folder)], capture_output=True, text=True, check=False)
    print(played.stdout, played.stderr)
    assert played.returncode == 0
    return folder


def test_the_grand_tour_passes_with_the_kernels_esp(grand_tour: Path) -> None:
    assert "ESP by the kernel" in (grand_tour / "logs" / "laptop-charon.log").read_text()
    told = json.loads((grand_tour / "timeline.json").read_text())
    assert told["passed"]
    assert told["leaks"] == []
    assert told["tcp"]["sha256_equal"]
    assert [stage["reached"] for stage in told["stages"]] == ["c", "c", "mc", "mc", "c"]


def test_a_move_costs_what_is_waited_for_and_nothing_else(grand_tour: Path) -> None:
    """No delay on any link of this lab: what is left is charon's own pause, and the sampling."""
    _first, *moves = json.loads((grand_tour / "timeline.json").read_text())["stages"]
    for stage in moves:
        pause = CHARONS_PAUSE if stage["vpn"] == "up" and stage["name"] == "ext2" else 0
        for direction in ("outage_up_ms", "outage_down_ms"):
            assert stage[direction] <= pause + 2 * SAMPLING, stage
