# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running agent says about itself, for people and as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from homeward.agentd.cli.outcome import OK
from homeward.agentd.cli.running import control_of
from homeward.agentd.control_client import ask, ask_for_all
from homeward.model.registration import LIFETIME_INFINITE

_MOST_SOURCES: Final = 5
_BINDINGS: Final = ("HOME ADDRESS", "NODE", "CARE-OF ADDRESS", "TUNNEL", "KEY", "LEFT")
_VISITORS: Final = ("HOME ADDRESS", "HOME AGENT", "LINK", "STATION", "TUNNEL", "LEFT")


def show(command: str, config: Path, *, as_json: bool) -> int:
    """status, bindings, visitors or metrics; the exit status."""
    place = control_of(config)
    match command:
        case "status":
            status = ask(place, "status")
            print(json.dumps(status, indent=1) if as_json else "\n".join(status_lines(status)))
        case "metrics":
            sys.stdout.write(ask(place, "metrics")["text"])
        case _:
            found = [each for answer in ask_for_all(place, command) for each in answer[command]]
            found.sort(key=lambda one: int(IPv4Address(one["home_address"])))
            if as_json:
                print(json.dumps({"format": 1, command: found}, indent=1))
            else:
                print("\n".join(_table(command, found)))
    return OK


def example(role: str) -> int:
    """Print the commented configuration for a role."""
    sys.stdout.write((files("homeward.data") / "agents" / f"{role}.toml").read_text(encoding="utf-8"))
    return OK


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """A few lines for people."""
    home = status["role"] == "home"
    where = status["address"] if home else ", ".join(status["care_of_addresses"])
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status["started"]))
    process = f"since {since}, process {status['process']}, version {status['version']}"
    lines = [
        f"{status['role']} agent {where}, running for {_span(status['uptime'])} ({process})",
        _line("configuration", status["configuration"]),
        _line("data path", status["engine"]),
    ]
    if home:
        retired = f", {status['keys_retired']} of them retired" if status["keys_retired"] else ""
        lines += [
            _line("nodes", f"{status['nodes']} with {status['keys']} keys{retired}"),
            _line(
                "bindings", f"{status['bindings']}{'; draining: no new ones' if status['draining'] else ''}"
            ),
            _line("store", _store(status["store"])),
        ]
    else:
        busy = "; busy: nobody new is let in" if status["busy"] else ""
        lines += [
            _line("visitors", f"{status['visitors']} of at most {status['visitors_max']}{busy}"),
            _line("waiting", f"{status['pending']} request(s)"),
        ]
    lines.append(
        _line("replies", _pairs({f"code {code}": n for code, n in status["replies"].items()}) or "none")
    )
    lines.append(_line("violations", _pairs(status["violations"]) or "none"))
    for source in status["sources"][:_MOST_SOURCES]:
        lines.append(_line("", f"{source['kind']} from {source['prefix']}: {source['at_least']} or more"))
    return lines


def _store(figures: Mapping[str, Any]) -> str:
    if "commits" not in figures:
        return "none: a crash forgets all bindings"
    if not figures["well"]:
        return f"{figures['file']} CANNOT BE WRITTEN, so nothing is accepted; see the log"
    return f"{figures['file']}, {figures['records']} written since the start, {figures['unsaved']} waiting"


def _table(command: str, found: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if not found:
        return [f"There are no {command}."]
    rows = [_BINDINGS, *map(_binding, found)] if command == "bindings" else [_VISITORS, *map(_visitor, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _binding(one: Mapping[str, Any]) -> tuple[str, ...]:
    tunnel = one["encapsulation"] + (f" in UDP to {one['udp']}" if one["udp"] else "")
    key = f"{one['spi']:#x}{' (retired)' if one['retired'] else ''}"
    return (one["home_address"], one["node"], one["care_of_address"], tunnel, key, _left(one["remaining"]))


def _visitor(one: Mapping[str, Any]) -> tuple[str, ...]:
    tunnel = one["encapsulation"] + (" in UDP" if one["udp"] else "")
    return (
        one["home_address"],
        one["home_agent"],
        one["interface"],
        one["hardware_address"],
        tunnel,
        _left(one["remaining"]),
    )


def _left(seconds: int) -> str:
    return "for ever" if seconds == LIFETIME_INFINITE else _span(seconds)


def _span(seconds: float) -> str:
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _line(name: str, text: object) -> str:
    return f"  {name:<14} {text}"


def _pairs(found: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in found.items() if value not in (None, ""))
