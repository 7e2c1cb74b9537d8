# SPDX-License-Identifier: GPL-2.0-or-later
"""An operator's day: docs/agents.md, typed word by word into a lab while somebody works; and nothing of it left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from homeward.lab.capture import hops
from homeward.lab.state import LabState
from homeward.lab.stories import STORIES


@pytest.mark.root
@pytest.mark.lab
@pytest.mark.rows("R-61", "R-94")
def test_an_operator_s_day(fresh_state: LabState, tmp_path: Path) -> None:
    """Each command must work, what must be true after each chapter is; the captures prove the rest."""
    out = tmp_path / "out"
    argv = [
        sys.executable, "-m", "homeward.lab.main", "--state", str(tmp_path), "--name", fresh_state.name,
        "play", "operators-day", "--out", str(out),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not fresh_state.root.exists()
    assert fresh_state.processes() == []
    timeline = json.loads((out / "timeline.json").read_text())
    assert [(stage["name"], stage["reached"]) for stage in timeline["stages"]] == [
        ("installed", "none"),
        ("added", "c"),
        ("new key", "c"),
        ("rebooted", "c"),
        ("lost", "none"),
        ("restored", "c"),
        ("drained", "c"),
        ("probed", "c"),
    ]
    assert timeline["leaks"] == []
    assert timeline["tcp"]["sha256_equal"] is True
    assert timeline["tcp"]["resets"] == 0
    rotated, rebooted = timeline["stages"][2:4]
    assert max(rotated["outage_up_ms"], rotated["outage_down_ms"]) < 3000
    assert max(rebooted["outage_up_ms"], rebooted["outage_down_ms"]) < 10_000
    assert "Traceback" not in (out / "logs" / "agent-homeward-agent.log").read_text()
    proofs = json.loads((out / "audit.json").read_text())["proofs"]
    assert all(proof["holds"] for proof in proofs)
    taken = {path.stem for path in (out / "captures").iterdir()}
    assert taken == {f"{host}-{interface}" for host, interface in hops(STORIES["operators-day"])}
