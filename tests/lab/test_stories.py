# SPDX-License-Identifier: GPL-2.0-or-later
"""The stories of the whole of Mobile IPv4, each from the command line to its timeline and what its captures prove."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from homeward.lab.capture import hops
from homeward.lab.state import LabState
from homeward.lab.stories import STORIES

pytestmark = [pytest.mark.root, pytest.mark.lab]


@dataclass(frozen=True, slots=True)
class Told:
    """What a story left behind."""

    timeline: dict[str, Any]
    proofs: list[dict[str, Any]]

    @property
    def stages(self) -> list[dict[str, Any]]:
        return list(self.timeline["stages"])

    def claims(self, stage: str) -> set[str]:
        """What was proved about a stage."""
        return {
            each["claim"] for each in self.proofs if each["stage"].endswith(f". {stage}") and each["holds"]
        }


def played(state: LabState, out: Path, story: str) -> Told:
    """Play it in a lab of its own; it must pass, and leave nothing."""
    argv = [
        sys.executable, "-m", "homeward.lab.main", "--state", str(state.root.parent), "--name", state.name,
        "play", story, "--out", str(out),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not state.root.exists()
    assert state.processes() == []
    taken = {path.stem for path in (out / "captures").iterdir()}
    assert taken == {f"{host}-{interface}" for host, interface in hops(STORIES[story])}
    timeline = json.loads((out / "timeline.json").read_text())
    told = Told(timeline, json.loads((out / "audit.json").read_text())["proofs"])
    assert timeline["passed"] is True
    assert timeline["leaks"] == []
    assert timeline["tcp"]["sha256_equal"] is True
    assert timeline["tcp"]["resets"] == 0
    assert min(timeline["tcp"]["up_bytes"], timeline["tcp"]["down_bytes"]) > 1_000_000
    assert all(proof["holds"] for proof in told.proofs)
    return told


@pytest.mark.rows(
    "R-8",
    "R-14",
    "R-15",
    "R-17",
    "R-22",
    "R-25",
    "R-53",
    "R-56",
    "R-87",
    "R-124",
    "R-126",
    "R-131",
    "R-132",
    "R-133",
    "R-134",
    "R-135",
    "R-180",
    "R-183",
    "R-189",
    "R-190",
    "R-191",
)
def test_the_office_walk(fresh_state: LabState, tmp_path: Path) -> None:
    told = played(fresh_state, tmp_path / "out", "office-walk")
    assert [(stage["name"], stage["reached"], stage["trusted"]) for stage in told.stages] == [
        ("trust1", "c", True),
        ("trust3", "f", True),
        ("home", "home", True),
        ("trust2", "c", True),
    ]
    assert all(
        0 < stage[key] < 5000 for stage in told.stages[1:] for key in ("outage_up_ms", "outage_down_ms")
    )
    assert "an ICMP Redirect of the agent's changes nothing" in told.claims("trust3")
    assert "nobody is answered who asks for it by ARP" in told.claims("trust3") & told.claims("trust2")
    assert "who asks for the home address by ARP is answered" in told.claims("home")
    assert "on the home link the home agent takes the home address over by ARP" in told.claims("trust2")


@pytest.mark.rows("R-48", "R-59", "R-87", "R-101", "R-229", "R-236", "R-238", "R-240", "R-244")
def test_the_office_behind_nat(fresh_state: LabState, tmp_path: Path) -> None:
    told = played(fresh_state, tmp_path / "out", "nat-office")
    assert [(stage["name"], stage["reached"]) for stage in told.stages] == [
        ("nat1", "c"),
        ("rebound", "c"),
        ("nat2", "f"),
        ("trust1", "c"),
    ]
    nat1, rebound, nat2, trust1 = told.stages
    # Whoever redirects a binding behind NAT has it for a minute at most.
    assert all(0 < stage["lifetime_s"] <= 60 for stage in (nat1, rebound, nat2))
    assert trust1["lifetime_s"] > 60
    # When the applications go on, the tunnel is there again.
    assert max(rebound["outage_up_ms"], rebound["outage_down_ms"]) < 1000
    assert "the NAT's new port is registered, and data goes by it" in told.claims("rebound")
    assert "between the agents it travels in a tunnel, in UDP" in told.claims("nat2")


@pytest.mark.slow
@pytest.mark.rows("R-9", "R-56", "R-67", "R-121", "R-131")
def test_agents_that_fail(fresh_state: LabState, tmp_path: Path) -> None:
    told = played(fresh_state, tmp_path / "out", "agent-down")
    assert [stage["reached"] for stage in told.stages] == ["f", "c", "f", "none", "f", "none", "c"]
    for stage in told.stages:
        if stage["reached"] == "none":
            assert (stage["outage_up_ms"], stage["outage_down_ms"]) == (None, None)
            assert not stage["trusted"]


@pytest.mark.slow
@pytest.mark.rows("R-156", "R-172", "R-174", "R-175")
def test_a_clock_that_is_set(fresh_state: LabState, tmp_path: Path) -> None:
    told = played(fresh_state, tmp_path / "out", "clock-jump")
    assert [stage["reached"] for stage in told.stages] == ["c", "c", "c", "c"]
    _, forward, back, _ = told.stages
    # The binding and what goes by it never notice.
    assert all(stage[key] < 1000 for stage in (forward, back) for key in ("outage_up_ms", "outage_down_ms"))
