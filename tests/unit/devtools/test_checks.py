# SPDX-License-Identifier: GPL-2.0-or-later
"""The sum over the layers counts everything once, and counts what went wrong as wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from devtools import checks
from devtools.checks import Layer, Tally, folders_without_a_layer
from devtools.machine import Caller

REPORT = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="1" failures="2"
 skipped="3" tests="10"><testcase name="a"><skipped type="pytest.skip" message="needs root">x</skipped></testcase>
<testcase name="b"><skipped type="pytest.skip" message="needs root">x</skipped></testcase>
<testcase name="c"><skipped type="pytest.xfail" message="known">x</skipped></testcase></testsuite></testsuites>"""


def me() -> Caller:
    return Caller(uid=0, gid=0, is_root=True)


def test_reports_add_up(tmp_path: Path) -> None:
    (tmp_path / "one.xml").write_text(REPORT)
    tally = Tally(passed=1)
    tally.add_report(tmp_path / "one.xml")
    assert tally.closing_line() == "5 passed, 3 failed, 3 skipped"
    assert tally.reasons == {"needs root": 2, "known": 1}


@pytest.mark.parametrize("content", [None, "", "<testsuites><testsuite"])
def test_a_report_that_is_missing_or_broken_off_is_a_failure(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "one.xml").write_text(content)
    tally = Tally()
    tally.add_report(tmp_path / "one.xml")
    assert tally.failed == 1


@pytest.fixture
def only_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one test folder, run in this process's Python, without static checks."""
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    slow: slow\naddopts = -p no:pytest-qt -p no:asyncio\n"
    )
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    monkeypatch.setattr(checks, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(checks, "LAYERS", (Layer("one", ("unit", "absent"), 1),))
    monkeypatch.setattr(checks, "static", lambda _who: [])
    return folder


@pytest.mark.parametrize(
    ("body", "line", "status"),
    [
        ("def test_a(): pass", "1 passed, 0 failed, 0 skipped", 0),
        ("def test_a(): assert 0\ndef test_b(): pass", "1 passed, 1 failed, 0 skipped", 1),
        ("import os\ndef test_a(): os._exit(0)", "0 passed, 1 failed, 0 skipped", 1),
        ("import no_such_module_anywhere", "0 passed, 1 failed, 0 skipped", 1),
        ("import pytest\n@pytest.mark.slow\ndef test_a(): pass", "0 passed, 0 failed, 0 skipped", 1),
    ],
)
def test_the_closing_line_and_the_status_agree(
    only_these: Path, capsys: pytest.CaptureFixture[str], body: str, line: str, status: int
) -> None:
    (only_these / "test_it.py").write_text(body)
    assert checks.test(me(), thorough=False, arguments=[]) == status
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_a_failed_static_check_fails_the_whole(
    only_these: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (only_these / "test_it.py").write_text("def test_a(): pass")
    monkeypatch.setattr(checks, "static", lambda _who: ["mypy"])
    assert checks.test(me(), thorough=False, arguments=[]) == 1
    assert "failed static check: mypy" in capsys.readouterr().out


def test_compiled_modules_are_kept_though_the_machine_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    asked = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode, bool(sys.pycache_prefix))"]
    environment = checks.environment(me())
    said = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "False True\n"


def test_a_folder_that_nobody_runs_is_noticed() -> None:
    assert folders_without_a_layer(["unit", "world", "lab", "forgotten"]) == {"forgotten"}
