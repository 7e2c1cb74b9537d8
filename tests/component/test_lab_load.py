# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward-lab load` against an agent of twenty lines: what it counts, and what it says when it cannot."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from homeward.lab.main import main
from tests.component.agent_network import ROOT, WITH_US, Namespace

pytestmark = pytest.mark.root

ECHO = ROOT / "tests" / "bench" / "agent" / "echo.py"
AGENT = "127.0.0.1"
CARE_OF = "10.200.0.0/24"


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    made = Namespace()
    made.ip(f"route add local {CARE_OF} dev lo")
    yield made
    made.close()


def load(host: Namespace, *words: str) -> subprocess.CompletedProcess[str]:
    argv = host.command(*WITH_US, sys.executable, "-m", "homeward.lab.main", "load", *words)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "app")}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def nodes(host: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("load") / "nodes"
    done = load(host, "--write-nodes", str(place), "--count-nodes", "20", "--home", "10.64.0.0/24")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert len(place.read_text().splitlines()) == 20
    return place


@pytest.fixture
def echo(host: Namespace, nodes: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = host.command(*WITH_US, sys.executable, str(ECHO), str(nodes))
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.communicate()


def found(host: Namespace, nodes: Path, *words: str) -> dict[str, float]:
    options = ("--agent", AGENT, "--nodes", str(nodes), "--care-of", CARE_OF, "--json")
    done = load(host, *options, *words)
    assert done.returncode == 0, done.stderr
    plain: dict[str, float] = json.loads(done.stdout)
    return plain


def test_it_counts_what_is_accepted(host: Namespace, nodes: Path, echo: object) -> None:
    outcome = found(host, nodes, "--count", "500")
    assert (outcome["accepted"], outcome["sent"], outcome["lost"], outcome["forged"]) == (500, 500, 0, 0)
    assert 0 < outcome["p50_ms"] <= outcome["p99_ms"] <= outcome["p100_ms"]


def test_it_keeps_to_a_rate(host: Namespace, nodes: Path, echo: object) -> None:
    outcome = found(host, nodes, "--rate", "200", "--seconds", "0.5")
    assert 90 <= outcome["sent"] <= 101
    assert outcome["accepted"] == outcome["sent"]


FORGER = """
import socket
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port.bind(("0.0.0.0", 434))
print("ready", flush=True)
while True:
    octets, sender = port.recvfrom(2048)
    port.sendto(b"\\3\\0" + octets[2:12] + octets[16:24] + octets[24:30] + bytes(32), sender)
"""


def test_forged_answers_are_no_success(host: Namespace, nodes: Path) -> None:
    forger = subprocess.Popen(host.command(*WITH_US, sys.executable, "-c", FORGER), stdout=subprocess.PIPE)
    try:
        assert forger.stdout is not None
        assert forger.stdout.readline() == b"ready\n"
        words = ("--agent", AGENT, "--nodes", str(nodes), "--care-of", CARE_OF, "--count", "10", "--json")
        done = load(host, *words)
    finally:
        forger.kill()
        forger.communicate()
    assert done.returncode == 1
    assert json.loads(done.stdout)["forged"] == 10


def test_nobody_answers(host: Namespace, nodes: Path) -> None:
    done = load(host, "--agent", AGENT, "--nodes", str(nodes), "--care-of", CARE_OF, "--seconds", "0.1")
    assert done.returncode == 1
    assert "accepted  0" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "load needs --agent"),
        (("--agent", AGENT), 2, "--nodes FILE and --care-of PREFIX"),
        (("--agent", AGENT, "--nodes", "absent", "--care-of", CARE_OF), 2, "--write-nodes makes such a file"),
        (
            ("--agent", AGENT, "--nodes", "NODES", "--care-of", "10.9.0.0/24"),
            1,
            "ip route add local 10.9.0.0/24",
        ),
        (("--agent", AGENT, "--nodes", "NODES", "--care-of", "10.9.0.0/31"), 2, "no room to move"),
        (("--write-nodes", "NODES"), 1, "left alone"),
        (("--write-nodes", "new", "--home", "10.0.0.0/29", "--count-nodes", "7"), 2, "room for 6 nodes"),
        (("--agent", "nobody"), 2, "nobody"),
        (("--rate", "0", "--agent", AGENT), 2, "above 0"),
    ],
)
def test_what_cannot_be_done_says_why(
    host: Namespace, nodes: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    """In this process: an exception that gets out fails the test, and a process each would cost half a second."""
    argv = ["load", *(str(nodes) if word == "NODES" else word for word in words)]
    errors = io.StringIO()
    with host.entered(), redirect_stderr(errors):
        try:
            ended = main(argv)
        except SystemExit as refusal:  # argparse's
            ended = int(refusal.code or 0)
    assert (ended, said in errors.getvalue()) == (status, True), errors.getvalue()
