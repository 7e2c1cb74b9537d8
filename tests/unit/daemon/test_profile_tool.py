# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward profile check` and `homeward profile fingerprint`."""

import getpass
import os
import sys
from pathlib import Path

import pytest

from homeward.bus.fingerprint import matches
from homeward.daemon.profile_tool import main
from homeward.model.secret import Secret
from tests.unit.daemon.test_settings import FULL, write


def test_a_right_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "office.toml")
    assert main(["check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"{path}: right. Profile “office” of alice" in shown
    assert "home address    10.77.0.10 at home agent 10.0.0.2" in shown
    assert "home link       10.77.0.0/24" in shown
    assert "wherever one offers itself; keys for 10.1.3.1, 10.1.4.1, their server" in shown


def test_a_profile_with_an_assigned_home_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assigned = FULL.replace('home_address = "10.77.0.10"', 'home_address = "assigned"')
    path = write(tmp_path / "office.toml", assigned.replace('home_network = "10.77.0.0/24"\n', ""))
    assert main(["check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "home address    assigned to laptop@example.test at home agent 10.0.0.2" in shown
    assert "home link       none: always away" in shown


def test_a_draft_that_is_not_roots_yet_is_right_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "office.toml", mode=0o666)
    assert main(["check", str(path)]) == 0
    assert "Before homewardd takes it:" in capsys.readouterr().out


def test_a_wrong_profile_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "office.toml", FULL.replace("spi = 0x100", "spi = 1"))
    assert main(["check", str(path)]) == 2
    assert f"{path}: home_agent.spi: found 1" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "absent")]) == 2


def test_a_fingerprint_from_a_descriptor(capsys: pytest.CaptureFixture[str]) -> None:
    made = set()
    for _ in range(2):
        reading, writing = os.pipe()
        os.write(writing, b"hex:" + bytes(range(32)).hex().encode() + b"\n")
        os.close(writing)
        assert main(["fingerprint", "--secret-fd", str(reading)]) == 0
        os.close(reading)
        shown = capsys.readouterr()
        assert shown.err == ""
        made.add(shown.out.strip())
    assert len(made) == 2  # a salt of its own each time
    assert all(matches(Secret(bytes(range(32))), text) for text in made)


def test_a_short_secret_gets_a_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: "short")
    assert main(["fingerprint"]) == 0
    shown = capsys.readouterr()
    assert "5 octets" in shown.err
    assert matches(Secret(b"short"), shown.out.strip())


def test_two_different_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["hunter2", "hunter3"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: next(answers))
    assert main(["fingerprint"]) == 2
    assert "hunter" not in capsys.readouterr().err


def test_no_terminal_and_bad_descriptor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert main(["fingerprint"]) == 2
    assert "--secret-fd" in capsys.readouterr().err
    assert main(["fingerprint", "--secret-fd", "999"]) == 1


@pytest.mark.parametrize("words", [[], ["check"], ["explode"], ["fingerprint", "--secret-fd", "x"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
