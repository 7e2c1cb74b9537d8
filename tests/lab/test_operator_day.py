# SPDX-License-Identifier: GPL-2.0-or-later
"""An operator's day: the blocks of docs/agents.md, typed word by word into the hosts of a lab.

Two things of the day are not in a lab's hosts and are done for it: systemd (`systemctl` lines start, stop and kill the
lab's own service), and the carrying of files from one desk to the other.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from homeward.lab import keys, services
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import AGENT, AGENT_ADDRESS, HOME_ADDRESS, LAPTOP

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.slow]

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/agents.md").read_text()
HOSTS = {"agent": AGENT, "laptop": LAPTOP, "outside": "ext1"}
CARRIED = ("laptop.secret", "laptop.profile", "laptop-new.secret", "laptop-new.profile")
PROGRAMS = Path(sys.executable).parent

Block = tuple[str, list[str]]


def chapters() -> dict[str, list[Block]]:
    """The blocks of each chapter: where, and which lines."""
    found: dict[str, list[Block]] = {}
    for chapter in DOCUMENT.split("\n## ")[1:]:
        blocks = re.findall(r"^```sh (\w+)\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)
        found[chapter.split("\n")[0]] = [(host, block.splitlines()) for host, block in blocks]
    return found


class Day:
    """Types what the document says, and keeps what was printed."""

    def __init__(self, state: LabState) -> None:
        self.state = state
        self.agent = Host(state, AGENT)
        self.chapters = chapters()

    def begin(self) -> None:
        """A host where no agent ever was."""
        self.agent.stop(services.AGENT_SERVICE)
        self.agent.run("sh", "-c", "rm -rf /etc/homeward/* /var/lib/homeward/*")
        vpn = keys.read(self.state).pre_shared.reveal().decode()
        (self.state.run(LAPTOP) / "vpn.secret").write_text(f"{keys.PRE_SHARED_KEY}=text:{vpn}\n")

    def types(self, chapter: str) -> dict[str, str]:
        """A chapter's lines, each of which must work; what each printed last."""
        printed: dict[str, str] = {}
        for host, lines in self.chapters[chapter]:
            if host == "laptop":
                self._carry()
            for line in lines:
                printed[line] = self._type(HOSTS[host], line)
        return printed

    def asks(self, command: str) -> object:
        """A command of the operator, with JSON for an answer."""
        answer: object = json.loads(self._type(AGENT, f"homeward-agent {command} --json"))
        return answer

    def _type(self, host: str, line: str) -> str:
        if line.startswith("systemctl "):
            self._systemctl(line.split()[1:])
            return ""
        path = f"PATH={PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin"
        done = Host(self.state, host).run("env", path, "sh", "-c", line, check=False, seconds=60)
        assert done.returncode == 0, f"{host}: {line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def _systemctl(self, words: list[str]) -> None:
        match words:
            case ["reboot"]:
                self.agent.stop(services.AGENT_SERVICE, signal.SIGKILL)
                self._start()
            case ["stop", "homeward-agent"]:
                assert self.agent.stop(services.AGENT_SERVICE) == 0
            case ["start", "homeward-agent"] | ["enable", "--now", "homeward-agent"]:
                self._start()
            case _:
                raise AssertionError(f"systemctl {' '.join(words)}")

    def _start(self) -> None:
        log = self.state.log(AGENT, services.AGENT_SERVICE)
        lives = log.read_text().count(" ready ")
        services.start_agent(self.state, AGENT)
        services.wait_for_agent(self.state, AGENT, lives + 1)

    def _carry(self) -> None:
        for name in CARRIED:
            source = self.state.run(AGENT) / name
            if source.exists():
                (self.state.run(LAPTOP) / name).write_bytes(source.read_bytes())


def keys_of(day: Day) -> list[int]:
    listed = day.asks("key list")
    assert isinstance(listed, dict)
    return [each["spi"] for each in listed["keys"]]


def bindings_of(day: Day) -> list[tuple[str, int]]:
    listed = day.asks("bindings")
    assert isinstance(listed, dict)
    return [(each["home_address"], each["spi"]) for each in listed["bindings"]]


@pytest.mark.rows("R-61", "R-94")
def test_an_operator_s_day(lab: LabState, move: Callable[[str], str]) -> None:
    day = Day(lab)
    day.begin()
    move("trust1")
    done = ["Install"]  # pip and a package index are not the lab's business

    def types(chapter: str) -> dict[str, str]:
        done.append(chapter)
        return day.types(chapter)

    printed = types("Configure, check, start")
    assert printed["homeward-agent check"].endswith("nothing wrong\n")
    types("Add a laptop")
    assert bindings_of(day) == [(str(HOME_ADDRESS), 0x100)]
    printed = types("See it register")
    assert "\nhomeward_agent_bindings 1\n" in printed["homeward-agent metrics"]
    types("Rotate its key")
    assert keys_of(day) == [0x101]
    assert bindings_of(day) == [(str(HOME_ADDRESS), 0x101)]
    types("Back up")
    # The day's reboot, with the laptop still there: nothing of it is lost.
    day.types("Reboot")
    assert bindings_of(day) == [(str(HOME_ADDRESS), 0x101)]
    reached(day)
    types("Lose the laptop")
    assert (keys_of(day), bindings_of(day)) == ([], [])
    types("Reboot")
    assert bindings_of(day) == []
    printed = types("Restore")
    assert keys_of(day) == [0x101], "found again, and let in again by name"
    printed = types("Drain before maintenance")
    assert "draining" in printed["homeward-agent status"]
    printed = types("Probe from outside")
    assert "Silence." in printed[f"homeward-agent probe {AGENT_ADDRESS}"]
    status = day.asks("status")
    assert isinstance(status, dict)
    outsiders = [each for each in status["sources"] if not each["prefix"].startswith("10.")]
    assert outsiders == [], "the lab's firewall let nothing through"
    assert [*done, "Where everything is"] == list(day.chapters)
    log = lab.log(AGENT, services.AGENT_SERVICE).read_text()
    assert "Traceback" not in log


def reached(day: Day) -> None:
    """The laptop's home address answers from inside the enterprise."""
    deadline = time.monotonic() + 10
    while (
        Host(day.state, "correspondent").run("ping", "-c1", "-W1", str(HOME_ADDRESS), check=False).returncode
    ):
        assert time.monotonic() < deadline, "the laptop cannot be reached"
