# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the command line, its exit statuses, and the programs that it becomes."""

import os
import sys
from pathlib import Path

import pytest

from homeward.bus.errors import BadProfile, BusUnreachable, DaemonAbsent, Failed, NoSuchProfile, Refused
from homeward.cli import commands, rooms
from homeward.cli.errors import UsageError, exit_status
from homeward.cli.main import _parser, main
from homeward.model.errors import HomewardError, ProfileError


@pytest.mark.parametrize(
    "words",
    [["--json", "--bus", "unix:path=/x", "status"], ["status", "--json", "--bus", "unix:path=/x"]],
)
def test_common_options_stand_before_or_behind_the_command(words: list[str]) -> None:
    options = _parser().parse_args(words)
    assert (options.command, options.json, options.bus) == ("status", True, "unix:path=/x")


def test_without_options() -> None:
    options = _parser().parse_args(["connect"])
    assert (options.json, options.bus, options.profile, options.secrets_fd, options.wait) == (
        False,
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["explode"],
        ["status", "extra"],
        ["status", "--wait", "3"],
        ["connect", "a", "b"],
        ["connect", "--wait", "-1"],
        ["connect", "--wait", "nan"],
        ["connect", "--wait", "soon"],
        ["connect", "--secrets-fd", "x"],
        ["--bus"],
    ],
)
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: homeward" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("x"), 2),
        (ProfileError("x"), 2),
        (BadProfile("x"), 2),
        (NoSuchProfile("x"), 2),
        (Refused("x"), 1),
        (Failed("x"), 1),
        (DaemonAbsent("x"), 1),
        (BusUnreachable("x"), 1),
        (HomewardError("x"), 1),
    ],
)
def test_exit_statuses(
    error: HomewardError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(error) == status

    def fail(*_words: object, **_options: object) -> int:
        raise error

    monkeypatch.setattr(commands, "show_status", fail)
    assert main(["status"]) == status
    assert capsys.readouterr().err == "homeward: x\n"


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyError("boom"), OSError("boom")])
def test_never_a_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_words: object, **_options: object) -> int:
        raise error

    monkeypatch.setattr(commands, "show_status", fail)
    assert main(["status"]) == 1
    text = capsys.readouterr().err
    assert "boom" in text
    assert "homeward report" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("error", [KeyboardInterrupt, EOFError])
def test_giving_up(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: object, **_options: object) -> int:
        raise error

    monkeypatch.setattr(commands, "show_status", fail)
    assert main(["status"]) == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("homeward ")


# --- other rooms -----------------------------------------------------------------------------------------------------


class Became(Exception):
    """execvp was called."""


@pytest.fixture
def becoming(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No program of another room is anywhere; the folder returned is on the search path."""

    def become(program: str, arguments: list[str]) -> None:
        raise Became(program, arguments)

    monkeypatch.setattr(os, "execvp", become)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "elsewhere" / "homeward")])
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def became(words: list[str]) -> list[str]:
    with pytest.raises(Became) as caught:
        rooms.enter(words[0], words[1:])
    program_started, arguments = caught.value.args
    assert program_started == arguments[0]
    return list(arguments)


@pytest.mark.parametrize("room", sorted(rooms.ROOMS))
def test_the_program_beside_ours_comes_first_then_the_search_path(room: str, becoming: Path) -> None:
    on_path = program(becoming / f"homeward-{room}")
    assert became([room, "--help"]) == [str(on_path), "--help"]
    beside = program(becoming / "elsewhere" / f"homeward-{room}")
    assert became([room, "up", "--bus", "x"]) == [str(beside), "up", "--bus", "x"]


def test_the_module_serves_where_there_is_no_program(becoming: Path) -> None:
    assert became(["profile", "check", "f"]) == [
        sys.executable, "-P", "-m", "homeward.daemon.profile_tool", "check", "f",
    ]  # fmt: skip


def test_what_is_not_installed_says_so(
    becoming: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = rooms.Room(
        "homeward-nowhere", "homeward.nowhere.main", "", "install the package homeward-nowhere"
    )
    monkeypatch.setitem(rooms.ROOMS, "lab", missing)
    assert main(["lab", "up"]) == 1
    assert "not installed" in capsys.readouterr().err
    assert main(["--json", "lab"]) == 2
