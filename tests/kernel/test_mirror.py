# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to a test inside is what is told of it outside, also when the kernel dies under it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kernel.runner import ROOT

OURS = ("conftest.py", "guest_init.sh", "inside_reports.py", "keeper.py", "mirror.py", "runner.py")
SAMPLE = """
import os, pytest, subprocess, time

@pytest.fixture
def broken():
    raise RuntimeError("the fixture broke")

@pytest.mark.parametrize("number", [1, 2])
def test_passes(number):
    assert os.uname().nodename == "guest"

def test_fails():
    print("said before")
    assert 6 * 7 == 54

@pytest.mark.skip(reason="just so")
def test_skips(): ...

def test_breaks(broken): ...

@pytest.mark.slow
def test_is_not_chosen(): ...

def test_kills_the_kernel():
    subprocess.run("echo last words >/dev/stderr; echo o >/proc/sysrq-trigger", shell=True)
    time.sleep(30)

def test_comes_too_late(): ...
"""
KILLED = "pytest inside ended without a report on this test"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of this one as it takes, with other tests inside."""
    kernel = tmp_path / "tests" / "kernel"
    (kernel / "inside").mkdir(parents=True)
    (kernel / "inside" / "test_sample.py").write_text(SAMPLE)
    for name in OURS:
        shutil.copy(ROOT / "tests" / "kernel" / name, kernel)
    for name in ("app", "devtools", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.timeout(180)
def test_what_happens_inside_is_told_outside(kernel: None, checkout: Path) -> None:
    report = checkout / "report.xml"
    argv = [sys.executable, "-m", "pytest", f"--junitxml={report}", "-m", "not slow", "tests/kernel"]
    run = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=False, env=os.environ)
    assert run.returncode == 1, run.stdout
    told = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - we just wrote it
        (problem,) = [child for child in case if child.tag in ("failure", "error", "skipped")] or [None]
        kind = "passed" if problem is None else problem.tag
        told[case.get("name")] = (
            kind,
            "" if problem is None else f"{problem.get('message')}\n{problem.text}",
        )
    assert {name: kind for name, (kind, _) in told.items()} == {
        "test_passes[1]": "passed",
        "test_passes[2]": "passed",
        "test_fails": "failure",
        "test_skips": "skipped",
        "test_breaks": "error",
        "test_kills_the_kernel": "failure",
        "test_comes_too_late": "failure",
    }
    assert "assert (6 * 7) == 54" in told["test_fails"][1]
    assert "just so" in told["test_skips"][1]
    assert "the fixture broke" in told["test_breaks"][1]
    assert KILLED in told["test_kills_the_kernel"][1]
    assert KILLED in told["test_comes_too_late"][1]
