# SPDX-License-Identifier: GPL-2.0-or-later
"""The runner itself: what comes out of a guest, what does not, and that nothing of it stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools.kernel import VARIABLE
from tests.kernel.runner import ROOT, Guest, GuestFailed, NoKernel, Outcome, Settings, run

pytestmark = pytest.mark.timeout(120)


def processes(channels: Path) -> set[int]:
    """Every process of a kernel whose channel is in this folder: it has that in its command line."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"CHANNEL={channels}/".encode() in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture
def nothing_left(kernel: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every process and file of a guest is gone afterwards."""
    channels = tmp_path / "channels"
    channels.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(channels))
    yield
    assert not processes(channels)
    assert not list(channels.iterdir())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results with a space"
    folder.mkdir()
    return folder


def shell(script: str, settings: Settings | None = None) -> Outcome:
    return run(["sh", "-c", script], settings)


def test_output_errors_and_status_come_back_and_only_results_reach_the_host(
    nothing_left: None, results: Path
) -> None:
    script = f"""
        echo "to standard output, $GREETING"; echo "to standard error" >&2
        id -u; uname -n; pwd
        echo changed >{ROOT}/pyproject.toml; cat {ROOT}/pyproject.toml
        echo kept >'{results}/file'; ls '{results}'
        exit 7
    """
    before = (ROOT / "pyproject.toml").read_bytes()
    outcome = shell(script, Settings(shared=(results,), environment={"GREETING": "it's here"}))
    assert outcome.stdout.splitlines() == [
        "to standard output, it's here", "0", "guest", str(ROOT), "changed", "file",
    ]  # fmt: skip
    assert (outcome.stderr, outcome.status) == ("to standard error\n", 7)
    assert (ROOT / "pyproject.toml").read_bytes() == before
    assert (results / "file").read_text() == "kept\n"


def test_what_takes_too_long_is_ended_and_what_it_said_is_told(nothing_left: None) -> None:
    with pytest.raises(GuestFailed, match=r"busy with its command after 15 s(?s:.*)still here"):
        shell("echo still here; sleep 1000 & sleep 1000", Settings(seconds=15))


def test_a_kernel_that_dies_is_told_from_a_command_that_fails(nothing_left: None) -> None:
    with pytest.raises(GuestFailed, match=r"ended before its command(?s:.*)last words"):
        shell("echo last words; echo o >/proc/sysrq-trigger; sleep 100")


def test_a_kernel_that_does_not_come_up_says_why(nothing_left: None) -> None:
    with pytest.raises(GuestFailed, match="ended before its command"):
        shell("true", Settings(megabytes=1))


def test_the_virtual_clock_jumps_over_waiting(nothing_left: None) -> None:
    outcome = shell("cat /proc/uptime; sleep 86400; cat /proc/uptime", Settings(virtual_clock=True))
    before, after = (float(line.split()[0]) for line in outcome.stdout.splitlines())
    assert after - before == pytest.approx(86400, abs=0.1)
    assert outcome.seconds < 60


def test_a_guest_ends_with_the_one_who_started_it(kernel: None, tmp_path: Path) -> None:
    starter = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from tests.kernel.runner import Guest, Settings
with Guest(["sleep", "1000"], Settings()) as guest:
    while not (guest._channel / "up").exists():
        time.sleep(0.05)
    print("up", flush=True)
    time.sleep(1000)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", starter], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert processes(tmp_path)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes(tmp_path):
        assert time.monotonic() < deadline, "the kernel outlives its starter"
        time.sleep(0.05)


def test_without_a_kernel_the_reason_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NoKernel, match="dev kernel"):
        Guest(["true"], Settings())
