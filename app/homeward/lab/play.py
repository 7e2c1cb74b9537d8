# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward-lab play`: up, the story, the audit of its captures, down; and all that was seen in one folder."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from homeward.lab import desktop
from homeward.lab.access import PORT
from homeward.lab.applications import Applications, Connections
from homeward.lab.build import ALL_HOSTS, Builder
from homeward.lab.capture import Captures
from homeward.lab.director import Director, Played, Say
from homeward.lab.measure import lost, outage
from homeward.lab.state import LabState, checkout, invoking_user
from homeward.lab.story import Story
from homeward.lab.timeline import StageResult, TcpResult, Timeline
from homeward.lab.topology import (
    ACCESS_NETWORKS,
    AGENT_ADDRESS,
    CABLE,
    GATEWAY_ADDRESS,
    GATEWAY_NAME,
    HOME_ADDRESS,
    INNER_NETWORK,
    LAPTOP,
    SWITCH,
    hardware_address,
)
from homeward.model.access import AccessMode
from homeward.model.status import Trust

_AUDIT_SECONDS: Final = 120.0


def default_out(story: str) -> Path:
    """Where a story leaves what it saw, when nobody says where: in the checkout's build folder, else here."""
    root = checkout()
    return (root / "build" / "play" if root is not None else Path.cwd()) / story


def play(story: Story, state: LabState, out: Path, *, tray: bool) -> bool:
    """Play a story and say whether it passed. A lab that stood before stands afterwards; one built for it is gone.

    LabError when it could not be played to its end; what was seen until then is in `out` all the same.
    """
    out.mkdir(parents=True, exist_ok=True)
    say = live()
    say(story.name, story.about)
    with _ends_in_order(), _lab(state, say):
        captures = Captures(state)
        director = Director(state, say)
        captures.start()
        try:
            with desktop.tray_of(state) if tray else contextlib.nullcontext() as shown:
                asyncio.run(director.perform(story))
                if shown is not None and shown.picture(out / desktop.SCREENSHOT):
                    say("tray", f"screenshot in {out / desktop.SCREENSHOT}")
        finally:
            captures.stop()
            _collect(state, captures, out)
        timeline = judge(story, director, out, say)
    _give_back(out)
    return timeline.passed


def live() -> Say:
    """The live timeline on standard output: seconds since now, who, and what; wrapped for reading."""
    began = time.monotonic()
    width = min(max(shutil.get_terminal_size((110, 24)).columns, 60), 120) - 1

    def say(who: str, line: str) -> None:
        head = f"{time.monotonic() - began:7.2f}  {who:11}  "
        print(textwrap.fill(line, width, initial_indent=head, subsequent_indent=" " * len(head)), flush=True)

    return say


# --- around the story ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end a story as Ctrl-C does, so that the lab is taken down."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _lab(state: LabState, say: Say) -> Iterator[None]:
    builder = Builder(state, lambda line: say("lab", line))
    built = builder.up()
    try:
        yield
    finally:
        if built:
            # A second Ctrl-C must not leave half a lab behind.
            handlers = {
                number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
            }
            try:
                builder.down()
                say("lab", "is down")
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)


def _collect(state: LabState, captures: Captures, out: Path) -> None:
    """Captures and logs, by host, into the story's folder."""
    captures.collect(out / "captures")
    for host in ALL_HOSTS:
        for log in sorted((state.host(host) / "log").glob("*.log")):
            if log.stat().st_size == 0:
                continue
            target = out / "logs" / f"{host}-{log.name}"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(log, target)


def _give_back(out: Path) -> None:
    """What root wrote belongs to the user for whom it was written."""
    uid, gid = invoking_user()
    if os.geteuid() == 0 and uid != 0:
        for path in (out, *out.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)


# --- the verdict -----------------------------------------------------------------------------------------------------


def judge(story: Story, director: Director, out: Path, say: Say) -> Timeline:
    """Measure, audit, write timeline.json, and tell the result."""
    stages = _stages(director)
    findings = _audit(director.played, director.ended, out, say)
    tcp = _tcp(director.connections)
    leaks = tuple(findings.get("leaks", ("the captures could not be audited",)))
    passed = (
        len(stages) == len(story.scenes)
        and all(_stage_passed(stage) for stage in stages)
        and tcp.sha256_equal
        and tcp.resets == 0
        and min(tcp.up_bytes, tcp.down_bytes) > 0
        and findings.get("passed") is True
    )
    timeline = Timeline(story.name, passed, stages, tcp, leaks)
    timeline.write(out)
    for stage in stages:
        say("stage", _in_one_line(stage))
    for error in director.connections.errors if director.connections else ():
        say("tcp", error)
    same = "the same octets at both ends" if tcp.sha256_equal else "NOT the same octets at both ends"
    say("tcp", f"{tcp.up_bytes} octets up, {tcp.down_bytes} down, {same}, {tcp.resets} resets")
    say(story.name, "passed" if passed else "FAILED")
    return timeline


def _stage_passed(stage: StageResult) -> bool:
    return (
        stage.reached == stage.expected
        and stage.trusted == (stage.expected != AccessMode.MC.value)
        and stage.verdict_ms is not None
    )


def _in_one_line(stage: StageResult) -> str:
    def ms(value: float | None) -> str:
        return "–" if value is None else f"{value:.0f} ms"

    return (
        f"{stage.name:7} {stage.reached:5} address {ms(stage.address_ms)}, verdict {ms(stage.verdict_ms)}, "
        f"outage {ms(stage.outage_up_ms)} up {ms(stage.outage_down_ms)} down, "
        f"lost {stage.lost_up} up {stage.lost_down} down"
    )


def _stages(director: Director) -> tuple[StageResult, ...]:
    ends = [played.move.pulled for played in director.played[1:]] + [director.ended]
    return tuple(
        _stage(played, end, director.applications, first=index == 0)
        for index, (played, end) in enumerate(zip(director.played, ends, strict=True))
    )


def _stage(played: Played, end: float, applications: Applications, *, first: bool) -> StageResult:
    now = played.snapshot
    begin = played.move.pulled
    gaps: dict[str, float | None] = {"up": None, "down": None}
    losses = {}
    for direction in gaps:
        arrivals, departures = applications.arrivals(direction), applications.departures(direction)
        if not first:
            gaps[direction] = outage(arrivals, begin, end)
        losses[direction] = lost(departures, arrivals, begin=begin, end=end)
    return StageResult(
        name=played.scene.network,
        expected=played.scene.expect.value,
        reached=now.mode.value if now is not None else AccessMode.NONE.value,
        trusted=now is not None and now.trust is Trust.TRUSTED,
        proof=now.proof.text if now is not None and now.proof is not None else "",
        address_ms=_milliseconds(begin, played.address_at),
        verdict_ms=_milliseconds(played.address_at, played.verdict_at),
        outage_up_ms=_milliseconds(0.0, gaps["up"]),
        outage_down_ms=_milliseconds(0.0, gaps["down"]),
        lost_up=losses["up"],
        lost_down=losses["down"],
        care_of=str(now.care_of_address or "") if now is not None else "",
        lifetime_s=now.lifetime if now is not None else None,
        vpn=now.vpn.value if now is not None else "",
    )


def _milliseconds(since: float | None, until: float | None) -> float | None:
    return None if since is None or until is None else round((until - since) * 1000, 1)


def _tcp(connections: Connections | None) -> TcpResult:
    if connections is None:
        return TcpResult(0, 0, sha256_equal=False, resets=0)
    return TcpResult(
        connections.up_bytes,
        connections.down_bytes,
        sha256_equal=connections.sha256_equal,
        resets=connections.resets,
    )


def _audit(played: list[Played], ended: float, out: Path, say: Say) -> dict[str, Any]:
    """Have the captures judged by the scapy room, a process of its own; what it found, empty when it could not."""
    evidence, findings = out / "evidence.json", out / "audit.json"
    evidence.write_text(json.dumps(_evidence(played, ended), indent=1) + "\n", encoding="utf-8")
    findings.unlink(missing_ok=True)
    say("audit", "reading the captures")
    auditor = subprocess.run(
        [sys.executable, "-m", "homeward.diagnostics.main", "audit", str(evidence), "--out", str(findings)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_AUDIT_SECONDS,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    for line in (auditor.stdout + auditor.stderr).splitlines():
        say("audit", line.strip())
    try:
        found: dict[str, Any] = json.loads(findings.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _evidence(played: list[Played], ended: float) -> dict[str, Any]:
    wall = time.time() - time.monotonic()
    ends = [each.move.pulled for each in played[1:]] + [ended]
    return {
        "home_address": str(HOME_ADDRESS),
        "home_agent": str(AGENT_ADDRESS),
        "gateway": str(GATEWAY_ADDRESS),
        "gateway_name": GATEWAY_NAME,
        "cable": {"host": SWITCH, "interface": PORT, "hardware_address": hardware_address(LAPTOP, CABLE)},
        "inner_network": str(INNER_NETWORK),
        "captures": "captures",
        "charon_log": f"logs/{LAPTOP}-charon.log",
        "stages": [
            {
                "name": f"{number}. {each.scene.network}",
                "inside": ACCESS_NETWORKS[each.scene.network].inside,
                "begin": each.move.pulled + wall,
                "end": end + wall,
                "access_address": each.address,
                "router": str(ACCESS_NETWORKS[each.scene.network].router),
                "mobike": each.scene.vpn_moves,
            }
            for number, (each, end) in enumerate(zip(played, ends, strict=True), start=1)
        ],
    }
