# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on a story that was played: measured from what arrived, proved from what was captured."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from homeward.lab.access import PORT
from homeward.lab.applications import Applications, Connections
from homeward.lab.director import Director, Played, Say
from homeward.lab.measure import Arrival, lost, outage
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
    foreign_agent,
    hardware_address,
)
from homeward.model.access import AccessMode
from homeward.model.profile import Timers
from homeward.model.status import Trust

_AUDIT_SECONDS: Final = 120.0


def judge(story: Story, director: Director, out: Path, say: Say) -> Timeline:
    """Measure, audit, write timeline.json, and tell the result."""
    stages = _stages(director)
    findings = audit(
        director.played, director.ended, out, say, monitor=story.setting.monitor, since=director.connected_at
    )
    tcp = _tcp(director.connections)
    leaks = tuple(findings.get("leaks", ("the captures could not be audited",)))
    passed = (
        len(stages) == len(story.scenes)
        and all(map(_reached, stages, director.played, [None, *director.played[:-1]]))
        and all(_flowed(stage) for stage in stages[1:])
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


def _reached(stage: StageResult, played: Played, before: Played | None) -> bool:
    # Where nothing passed before, it is one interruption to the client, whose verdict fell in the stage before.
    goes_on = before is not None and before.scene.expect is AccessMode.NONE
    timed = (
        stage.verdict_ms is not None or not played.moved or goes_on or played.scene.expect is AccessMode.NONE
    )
    return (
        stage.reached == stage.expected
        and stage.trusted == (stage.expected not in (AccessMode.MC.value, AccessMode.NONE.value))
        and timed
    )


def _flowed(stage: StageResult) -> bool:
    """Whether data flowed at the end of the stage; where none is expected to, that none did."""
    came_back = [stage.outage_up_ms is not None, stage.outage_down_ms is not None]
    return not any(came_back) if stage.expected == AccessMode.NONE.value else all(came_back)


def _in_one_line(stage: StageResult) -> str:
    def ms(value: float | None) -> str:
        return "–" if value is None else f"{value:.0f} ms"

    return (
        f"{stage.name:7} {stage.reached:5} address {ms(stage.address_ms)}, verdict {ms(stage.verdict_ms)}, "
        f"outage {ms(stage.outage_up_ms)} up {ms(stage.outage_down_ms)} down, "
        f"lost {stage.lost_up} up {stage.lost_down} down"
    )


def _stages(director: Director) -> tuple[StageResult, ...]:
    return tuple(
        _stage(played, played.over or end, director.applications, first=index == 0)
        for index, (played, end) in enumerate(_with_ends(director.played, director.ended))
    )


def _with_ends(played: list[Played], ended: float) -> Iterator[tuple[Played, float]]:
    """Each scene with the moment at which it ended: when the next one began."""
    ends = [each.move.pulled for each in played[1:]] + [ended]
    return zip(played, ends[: len(played)], strict=True)


def _stage(played: Played, end: float, applications: Applications, *, first: bool) -> StageResult:
    now = played.snapshot
    pulled = played.move.pulled
    begin = pulled if played.resumed is None else played.resumed
    gaps: dict[str, float | None] = {"up": None, "down": None}
    losses = {}
    for direction in gaps:
        arrivals, departures = applications.arrivals(direction), applications.departures(direction)
        if not first:
            # What rested was silent, and begins anew with the moment in which it went on.
            came = (
                arrivals if played.resumed is None else [Arrival(0, begin, begin), *_since(arrivals, begin)]
            )
            gaps[direction] = outage(came, begin, end)
        losses[direction] = lost(departures, arrivals, begin=begin, end=end)
    return StageResult(
        name=played.scene.name,
        expected=played.scene.expect.value,
        reached=now.mode.value if now is not None else AccessMode.NONE.value,
        trusted=now is not None and now.trust is Trust.TRUSTED,
        proof=now.proof.text if now is not None and now.proof is not None else "",
        address_ms=_milliseconds(pulled, played.address_at),
        verdict_ms=_milliseconds(played.address_at, played.verdict_at),
        outage_up_ms=_milliseconds(0.0, gaps["up"]),
        outage_down_ms=_milliseconds(0.0, gaps["down"]),
        lost_up=losses["up"],
        lost_down=losses["down"],
        care_of=str(now.care_of_address or "") if now is not None else "",
        lifetime_s=now.lifetime if now is not None else None,
        vpn=now.vpn.value if now is not None else "",
    )


def _since(arrivals: list[Arrival], moment: float) -> list[Arrival]:
    return [each for each in arrivals if each.received >= moment]


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


def audit(
    played: list[Played],
    ended: float,
    out: Path,
    say: Say,
    *,
    monitor: float = Timers().monitor,
    since: float = 0.0,
) -> dict[str, Any]:
    """Have the captures judged by the scapy room, a process of its own; what it found, empty when it could not.

    `monitor` is for how many seconds a proof of trust is good. `since` is when the laptop was told to connect: a laptop
    that nobody has connected is as any other.
    """
    evidence, findings = out / "evidence.json", out / "audit.json"
    evidence.write_text(
        json.dumps(_evidence(played, ended, monitor, since), indent=1) + "\n", encoding="utf-8"
    )
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


def _evidence(played: list[Played], ended: float, monitor: float, since: float) -> dict[str, Any]:
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
            _stage_evidence(number, each, end, since) | {"monitor": monitor}
            for number, (each, end) in enumerate(_with_ends(played, ended), start=1)
            if end > since
        ],
    }


def _stage_evidence(number: int, played: Played, end: float, since: float) -> dict[str, Any]:
    scene, move = played.scene, played.move
    network = ACCESS_NETWORKS[scene.network]
    agent = foreign_agent(scene.network) if network.foreign_agent is not None else None
    return {
        "name": f"{number}. {scene.name}",
        "inside": network.inside,
        "begin": max(move.pulled, since) + move.wall,
        "end": end + move.wall,
        "access_address": played.address,
        "mobike": scene.vpn_moves,
        "wall": move.wall,
        "expect": scene.expect.value,
        "network": scene.network,
        "moved": played.moved,
        "agent_address": "" if agent is None else str(agent.address),
        "agent_hardware_address": "" if agent is None else agent.hardware_address,
        "nat": str(network.nat or ""),
        "incidents": [type(each).__name__ for each in (*scene.opening, *scene.meanwhile)],
    }
