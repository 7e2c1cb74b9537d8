# SPDX-License-Identifier: GPL-2.0-or-later
"""Set-up asks before it changes anything, shows what it will do, and knows when there is nothing to do."""

import subprocess
from pathlib import Path

import pytest

from devtools import __main__ as commands
from devtools import console, machine, packages, venv
from devtools.machine import Caller
from devtools.packages import Group

ROOT = Path(__file__).resolve().parents[3]
LACKING = (Group("the lab", ("strongswan-charon", "dnsmasq-base")),)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What set-up did, instead of doing it."""
    steps: list[str] = []
    monkeypatch.setattr(packages, "missing", lambda _groups: LACKING)
    monkeypatch.setattr(packages, "describe", lambda _groups: "strongswan-charon dnsmasq-base")
    monkeypatch.setattr(packages, "install", lambda _groups, _who: steps.append("packages"))
    monkeypatch.setattr(venv, "ensure", lambda _who: steps.append("environment"))
    monkeypatch.setattr(commands, "make_build_folder", lambda _who: steps.append("folder"))
    return steps


def terminal(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: answer is not None, raising=False)
    monkeypatch.setattr(console, "ask", lambda _question: answer == "y")


def set_up(*, yes: bool, insist: bool) -> None:
    who = Caller(uid=0, gid=0, is_root=True)
    commands._set_up(who, with_lab=True, with_screen=False, yes=yes, insist=insist)


ALL = ["folder", "packages", "environment"]


@pytest.mark.parametrize(
    ("answer", "yes", "insist"),
    [("y", False, True), ("n", True, True), (None, True, True), (None, False, False)],
)
def test_set_up_goes_on(
    monkeypatch: pytest.MonkeyPatch, done: list[str], answer: str | None, yes: bool, insist: bool
) -> None:
    terminal(monkeypatch, answer)
    set_up(yes=yes, insist=insist)
    assert done == ALL


@pytest.mark.parametrize(("answer", "insist", "status"), [("n", True, 1), ("n", False, 1), (None, True, 2)])
def test_set_up_stops_before_it_changed_anything(
    monkeypatch: pytest.MonkeyPatch, done: list[str], answer: str | None, insist: bool, status: int
) -> None:
    terminal(monkeypatch, answer)
    with pytest.raises(console.Failed) as stopped:
        set_up(yes=False, insist=insist)
    assert stopped.value.status == status
    assert done == []


def test_what_is_installed_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_installed", lambda: frozenset({"tcpdump", "python3-venv"}))
    groups = (packages.PYTHON, Group("the lab", ("tcpdump", "nftables")))
    assert packages.missing(groups) == (Group("the lab", ("nftables",)),)


def test_the_dhcp_client_is_the_releases_own() -> None:
    assert "isc-dhcp-client" in packages.lab(12).packages
    assert "dhcpcd-base" in packages.lab(13).packages


def test_no_package_is_asked_for_that_is_a_service_by_itself() -> None:
    services = {"charon-systemd", "strongswan-starter", "dnsmasq", "strongswan", "isc-dhcp-server", "dhcpcd"}
    for release in (12, 13):
        assert not services & set(packages.names((packages.PYTHON, packages.lab(release), packages.SCREEN)))


def test_a_changed_lock_or_project_asks_for_a_new_environment(tmp_path: Path) -> None:
    lock, project = tmp_path / "lock", tmp_path / "project"
    lock.write_text("a==1\n")
    project.write_text('[build-system]\nrequires = []\n[project]\nname = "x"\n[tool.ruff]\nline-length = 1\n')
    first = venv.wished(lock, project)
    project.write_text(project.read_text().replace("line-length = 1", "line-length = 2"))
    assert venv.wished(lock, project) == first, "a tool's settings need no new environment"
    project.write_text(project.read_text().replace('"x"', '"y"'))
    second = venv.wished(lock, project)
    lock.write_text("a==2\n")
    assert len({first, second, venv.wished(lock, project)}) == 3


def test_root_s_work_is_done_by_sudo_with_the_environment_that_it_would_take_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user = Caller(uid=1000, gid=1000, is_root=False)
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/sudo")
    assert user.as_root(["lab"], {"DISPLAY": ":0"}) == ["sudo", "/usr/bin/env", "DISPLAY=:0", "lab"]
    assert user.as_user() == {}
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(console.Failed, match="needs root"):
        user.as_root(["lab"])


def test_under_sudo_the_caller_is_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    who = machine.caller()
    assert (who.uid, who.drops_privilege) == (65534, True)
    assert who.as_user()["user"] == 65534
    monkeypatch.setenv("SUDO_UID", "nonsense")
    assert not machine.caller().drops_privilege


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_dev_alone_explains_itself(arguments: list[str]) -> None:
    told = subprocess.run([str(ROOT / "dev"), *arguments], capture_output=True, text=True, check=False)
    assert told.returncode == 0
    for command in ("./dev demo", "./dev test", "./dev lint", "./dev fmt", "./dev lab"):
        assert command in told.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["demo", "--nonsense"], ["lint", "surplus"]])
def test_wrong_usage_is_status_two(arguments: list[str]) -> None:
    told = subprocess.run([str(ROOT / "dev"), *arguments], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr


def test_ci_runs_the_test_command_of_the_readme() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-1] == "exec ./dev test"
    assert "./dev test" in (ROOT / "README.md").read_text().split("##")[0]
