# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever operates the lab's home agent: types what docs/agents.md says, and looks whether it is so."""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from homeward.lab import handbook, keys, power
from homeward.lab.errors import LabError
from homeward.lab.host import Host
from homeward.lab.replay import play_again, recorded_replies, recorded_requests
from homeward.lab.state import LabState
from homeward.lab.topology import AGENT, AGENT_ADDRESS, CORRESPONDENT, HOME_ADDRESS, LAPTOP
from homeward.lab.units import ServiceManager

UNIT: Final = "homeward-agent"
_PATH: Final = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HANDED_OUT: Final = re.compile(r"(?:--out |>)(/run/\S+\.(?:secret|profile))\b")
_OTHERS_FILE: Final = "/run/vpn.secret"
_SECONDS: Final = 10.0
_ACCEPTED: Final = (0, 1)
_MISMATCH: Final = 133
_SETTLE: Final = 0.3
_FOR_EVER: Final = 60.0


class Operator:
    """Types, carries, and looks. `say` is told what is typed and what came of it."""

    def __init__(self, state: LabState, say: Callable[[str, str], None]) -> None:
        self._state = state
        self._say = say
        self._agent = Host(state, AGENT)
        self._systemd = ServiceManager(self._agent, _PATH)
        self._chapters: dict[str, tuple[handbook.Block, ...]] | None = None
        self._handed_out: list[str] = []
        self._rebooted_at = 0.0

    def begin(self) -> None:
        """The chapters are there, the agent's host is one on which no agent ever was, the VPN's secret is at hand."""
        self._chapters = handbook.read()
        self._agent.run("sh", "-c", "rm -rf /etc/homeward /var/lib/homeward /run/homeward")
        secret = keys.read(self._state).pre_shared.reveal().decode()
        line = f"{keys.PRE_SHARED_KEY}=text:{secret}\n"
        Host(self._state, LAPTOP).run("install", "-m", "0600", "/dev/stdin", _OTHERS_FILE, text=line)

    def end(self) -> None:
        """What was installed is gone again."""
        if self._systemd.runs(UNIT):
            self._systemd.obey(["stop", UNIT])
        self._agent.run("sh", "-c", "rm -rf /etc/homeward /var/lib/homeward /run/homeward")
        self._agent.run("umount", "/proc/sys/kernel/random/boot_id", check=False)
        left = " ".join([_OTHERS_FILE, *self._handed_out])
        for host in (self._agent, Host(self._state, LAPTOP)):
            host.run("sh", "-c", f"rm -f {left}")

    # --- typing ---

    def follow(self, chapter: str) -> None:
        """Type a chapter's commands, each where it belongs; LabError with the line when one fails."""
        blocks = (self._chapters or {}).get(chapter)
        if blocks is None:
            raise LabError(f"{handbook.DOCUMENT} has no chapter {chapter!r} with commands")
        for block in blocks:
            if block.host == LAPTOP:
                self._carry()
            for number, command in enumerate(block.commands, block.line):
                self._say(block.host, f"# {command}")
                try:
                    said = self._type(block.host, command)
                except LabError as error:
                    raise LabError(f"{handbook.DOCUMENT}, line {number}: {error}") from error
                for line in said.splitlines():
                    self._say("", line)

    def _type(self, host: str, command: str) -> str:
        if command == "systemctl reboot":
            self._rebooted_at = time.time()
            power.reboot(self._state, host, self._systemd)
            return ""
        if command.startswith("systemctl "):
            return self._systemd.obey(command.split()[1:])
        done = Host(self._state, host).run("env", f"PATH={_PATH}", "sh", "-c", command, seconds=_FOR_EVER)
        self._handed_out += _HANDED_OUT.findall(command) if host == AGENT else []
        if command.startswith("homeward-agent metrics"):
            return f"{len(done.stdout.splitlines())} lines"
        return done.stdout + done.stderr

    def _carry(self) -> None:
        laptop = Host(self._state, LAPTOP)
        for place in self._handed_out:
            # Through pipes: not even in the lab does a key lie anywhere else.
            text = self._agent.run("cat", place, check=False).stdout
            if text:
                laptop.run("install", "-m", "0600", "/dev/stdin", place, text=text)

    # --- looking ---

    def look_for_binding(self, spi: int) -> None:
        """The laptop's binding stands, by this key, and no other key of it is good for anything. LabError."""
        self._until(lambda: self._bindings() == [(str(HOME_ADDRESS), spi)], f"no binding by SPI {spi:#x}")
        if self._keys() != [spi]:
            raise LabError(f"the keys of the laptop are {self._keys()}, not {[spi]}")
        self._say("operator", f"the binding of {HOME_ADDRESS} stands by SPI {spi:#x}")

    def look_for_nothing(self) -> None:
        """No binding, no key, no session: nobody inside reaches the home address any more. LabError."""
        if self._bindings() or self._keys():
            raise LabError(f"there are still {self._bindings()} and keys {self._keys()}")
        self._until(lambda: not self._answers(), f"{HOME_ADDRESS} still answers", seconds=3.0)
        self._say("operator", f"no binding, no key, and {HOME_ADDRESS} answers nobody")

    def look_for_survival(self, spi: int) -> None:
        """After the reboot the binding stands and carries data, and the laptop has asked for nothing. LabError."""
        self.look_for_binding(spi)
        self._until(self._answers, f"{HOME_ADDRESS} does not answer after the reboot")
        asked = [each for each in recorded_requests(self._state) if each.at > self._rebooted_at]
        if asked:
            raise LabError(f"the laptop asked {len(asked)} times before its binding carried data")
        self._say("operator", "the binding carries data again, and the laptop has asked for nothing")

    def look_for_replays(self) -> None:
        """Every request that was recorded until now is sent again, and every one is refused. LabError."""
        before = self._places()
        requests = recorded_requests(self._state)
        if not requests:
            raise LabError("no request was recorded that could be sent again")
        began = time.time()
        play_again(self._state, requests)
        time.sleep(_SETTLE)
        marks = {each.mark for each in requests}
        codes = [each.code for each in recorded_replies(self._state, began) if each.mark in marks]
        refused = codes.count(_MISMATCH)
        if set(codes) & set(_ACCEPTED) or self._places() != before or not refused:
            raise LabError(f"{len(requests)} old requests were answered with codes {codes}")
        self._say(
            "operator", f"{len(requests)} old requests again: none accepted, {refused} refused as replays"
        )

    def look_for_silence(self) -> None:
        """Nothing that was sent from outside came as far as the agent. LabError."""
        outside = [each for each in self._ask("status")["sources"] if not each["prefix"].startswith("10.")]
        if outside:
            raise LabError(f"the firewall lets through to {AGENT_ADDRESS}: {outside}")
        self._say("operator", "nothing from outside came as far as the agent")

    def _bindings(self) -> list[tuple[str, int]]:
        return [(each["home_address"], each["spi"]) for each in self._ask("bindings")["bindings"]]

    def _keys(self) -> list[int]:
        return [each["spi"] for each in self._ask("key list")["keys"]]

    def _places(self) -> list[str]:
        return [each["care_of_address"] for each in self._ask("bindings")["bindings"]]

    def _ask(self, command: str) -> Any:
        words = ("homeward-agent", *command.split(), "--json")
        return json.loads(self._agent.run("env", f"PATH={_PATH}", *words).stdout)

    def _answers(self) -> bool:
        ping = ("ping", "-c1", "-W1", str(HOME_ADDRESS))
        return Host(self._state, CORRESPONDENT).run(*ping, check=False).returncode == 0

    def _until(self, look: Callable[[], bool], told: str, *, seconds: float = _SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                raise LabError(told)
            time.sleep(0.05)
