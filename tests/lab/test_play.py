# SPDX-License-Identifier: GPL-2.0-or-later
"""The grand tour, from the command line to its timeline; a broken-off one says so and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from homeward.lab.access import Cable
from homeward.lab.build import ALL_HOSTS, Builder, laptop_addresses
from homeward.lab.capture import HOPS, Captures
from homeward.lab.director import Played
from homeward.lab.host import Host
from homeward.lab.play import play
from homeward.lab.state import LabState
from homeward.lab.story import Scene, Story
from homeward.lab.topology import LAPTOP
from homeward.lab.verdict import audit
from homeward.model.access import AccessMode
from tests.world.host_state import changes_made_by

pytestmark = [pytest.mark.root, pytest.mark.lab]

_STAGE_KEYS = [
    "name", "expected", "reached", "trusted", "proof", "address_ms", "verdict_ms", "outage_up_ms", "outage_down_ms",
    "lost_up", "lost_down", "care_of", "lifetime_s", "vpn",
]  # fmt: skip

SHORT = Story(
    "out-of-the-door",
    "One step out, for tests that break things.",
    (
        Scene("trust1", AccessMode.C, "Inside.", seconds=1.5),
        Scene("ext1", AccessMode.MC, "Outside.", seconds=2.0),
    ),
)


def _start(state: LabState, out: Path, *options: str, story: str = "grand-tour") -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "homeward.lab.main", "--state", str(state.root.parent), "--name", state.name,
        "play", story, "--out", str(out), *options,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def _nothing_is_left(state: LabState) -> None:
    assert state.processes() == []
    assert not state.root.exists()
    assert str(state.root) not in Path("/proc/self/mountinfo").read_text()


def _timeline(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "timeline.json").read_text())
    return found


@pytest.mark.rows(
    "R-1",
    "R-2",
    "R-5",
    "R-7",
    "R-8",
    "R-11",
    "R-12",
    "R-15",
    "R-16",
    "R-20",
    "R-23",
    "R-24",
    "R-28",
    "R-32",
    "R-37",
    "R-41",
    "R-46",
    "R-49",
    "R-54",
    "R-57",
    "R-58",
    "R-60",
    "R-87",
    "R-88",
    "R-89",
    "R-90",
    "R-183",
    "R-191",
    "R-267",
)
def test_the_grand_tour_passes_and_leaves_the_host_as_it_was(fresh_state: LabState, tmp_path: Path) -> None:
    """As `./dev demo` plays it, with the tray under a virtual screen."""
    out = tmp_path / "out"

    def tour() -> None:
        with _start(fresh_state, out, "--tray") as playing:
            said, _ = playing.communicate(timeout=200)
        assert playing.returncode == 0, said

    assert changes_made_by(tour) == []
    assert (out / "screenshot.png").read_bytes().startswith(b"\x89PNG")
    timeline = _timeline(out)
    assert list(timeline) == ["story", "passed", "stages", "tcp", "leaks"]
    assert timeline["passed"] is True
    assert timeline["leaks"] == []
    stages = timeline["stages"]
    assert [(stage["name"], stage["reached"], stage["trusted"]) for stage in stages] == [
        ("trust1", "c", True),
        ("trust2", "c", True),
        ("ext1", "mc", False),
        ("ext2", "mc", False),
        ("trust1", "c", True),
    ]
    for stage in stages:
        assert list(stage) == _STAGE_KEYS
        assert stage["address_ms"] > 0
        assert stage["verdict_ms"] >= 0
    assert stages[0]["outage_up_ms"] is None
    assert all(0 < stage[key] < 5000 for stage in stages[1:] for key in ("outage_up_ms", "outage_down_ms"))
    assert stages[2]["care_of"] == stages[3]["care_of"], "the inner address changed on a MOBIKE move"
    tcp = timeline["tcp"]
    assert tcp["sha256_equal"] is True
    assert tcp["resets"] == 0
    assert min(tcp["up_bytes"], tcp["down_bytes"]) > 1_000_000
    taken = {path.name for path in (out / "captures").iterdir()}
    assert taken == {f"{host}-{interface}.pcap" for host, interface in HOPS}
    proofs = json.loads((out / "audit.json").read_text())["proofs"]
    assert len(proofs) == 14
    assert all(proof["holds"] for proof in proofs)
    _nothing_is_left(fresh_state)


def test_no_secret_is_in_what_a_story_leaves(fresh_state: LabState, tmp_path: Path) -> None:
    out, drawn = tmp_path / "out", []
    builder = Builder(fresh_state)
    builder.up()
    for key in fresh_state.keys.iterdir():
        assert key.stat().st_mode & 0o777 == 0o600
        drawn.append(key.read_text().strip().partition(":")[2].encode())
    assert play(SHORT, fresh_state, out, tray=False)
    assert builder.stands(), "a lab that stood before must stand afterwards"
    assert len(drawn) == 2
    for path in out.rglob("*"):
        if path.is_file():
            octets = path.read_bytes()
            assert not any(secret in octets for secret in drawn), path
    for process in fresh_state.processes():
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        assert not any(secret in command for secret in drawn)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_story_leaves_nothing_but_what_it_saw(
    fresh_state: LabState, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    with _start(fresh_state, out) as tour:
        assert tour.stdout is not None
        for line in tour.stdout:
            if "trusted-c" in line:
                break
        tour.send_signal(number)
        tour.communicate(timeout=60)
    assert tour.returncode not in (0, None)
    _nothing_is_left(fresh_state)
    assert (out / "logs" / "laptop-homewardd.log").stat().st_size > 0


@pytest.mark.slow
def test_a_killed_story_leaves_nothing_that_down_does_not_find(fresh_state: LabState, tmp_path: Path) -> None:
    with _start(fresh_state, tmp_path / "out") as tour:
        assert tour.stdout is not None
        for line in tour.stdout:
            if "trusted-c" in line:
                break
        tour.kill()
        tour.communicate(timeout=20)
    assert Builder(fresh_state).down() >= len(ALL_HOSTS)
    _nothing_is_left(fresh_state)


@pytest.mark.slow
@pytest.mark.parametrize("service", ["homewardd", "charon"])
def test_a_killed_part_fails_the_story_and_nothing_is_left(
    fresh_state: LabState, tmp_path: Path, service: str
) -> None:
    out = tmp_path / "out"
    first, second = SHORT.scenes
    story = replace(SHORT, scenes=(first, replace(second, patience=4.0)))

    def kill_when_data_flows() -> None:
        while not (fresh_state.run(LAPTOP) / "traffic" / "udp").exists():
            time.sleep(0.05)
        Host(fresh_state, LAPTOP).stop(service, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_data_flows, daemon=True)
    killer.start()
    assert not play(story, fresh_state, out, tray=False)
    killer.join(1)
    assert _timeline(out)["passed"] is False
    _nothing_is_left(fresh_state)


def test_a_leak_injected_into_a_real_lab_is_found(
    lab: LabState, move: Callable[[str], str], tmp_path: Path
) -> None:
    # Without a client nothing stops an application from talking in clear: the audit must say so.
    move("trust1")
    captures = Captures(lab)
    captures.start()
    plugged = Cable(lab).plug("ext1")
    deadline = time.monotonic() + 10
    while not (addresses := laptop_addresses(lab)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    Host(lab, LAPTOP).run("ping", "-c2", "-i0.2", "-W1", "203.0.113.1", check=False)
    ended = time.monotonic()
    captures.stop()
    captures.collect(tmp_path / "captures")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "laptop-charon.log").touch()
    scene = Scene("ext1", AccessMode.MC, "Outside, and careless.")
    played = Played(scene, plugged, addresses[0], None, verdict_at=None, open_at=None, snapshot=None)
    found = audit([played], ended, tmp_path, lambda who, line: None)
    assert found["passed"] is False
    (ping,) = [leak for leak in found["leaks"] if "echo-request" in leak]
    assert "1. ext1, outside" in ping
    assert "2 times" in ping
