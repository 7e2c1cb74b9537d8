# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent's figures in the text format of Prometheus, and in a file for node_exporter's textfile collector.

A file instead of an HTTP port: the home agent listens to nobody but its own nodes (docs/decisions/0073).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Final

from homeward import __version__
from homeward.agentd.metrics import VIOLATIONS, Metrics

Labels = Mapping[str, str]

_PREFIX: Final = "homeward_agent"
_BINDING: Final = "binding-"
_VISITOR: Final = "visitor-"
_CHANGES: Final = frozenset(
    ("made", "moved", "renewed", "completed", "removed", "revoked", "expired", "admitted", "changed", "left")
)
_PACKETS: Final = {"packets-in": "in", "packets-out": "out"}
_OCTETS: Final = {"octets-in": "in", "octets-out": "out"}
_NO_LABELS: Final[Labels] = {}


@dataclass(frozen=True, slots=True)
class Figures:
    """What an agent has to say about itself at one moment. `gauges` and `counters` are by name, without our prefix."""

    role: str
    _: KW_ONLY
    engine: str
    started: float
    metrics: Metrics
    gauges: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    counters: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    traffic: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """Packets and octets by direction and engine, of what went by another way than our own sockets."""


def exposition(figures: Figures) -> str:
    """The text; each metric once, with its HELP and TYPE before it."""
    page = _Page()
    labels = {"role": figures.role, "version": __version__, "engine": figures.engine}
    page.metric("info", "gauge", "What runs here, and by which engine packets go.", [(labels, 1)])
    page.one("start_time_seconds", "gauge", "Unix time at which it started.", figures.started)
    for name, (text, value) in figures.gauges.items():
        page.one(name, "gauge", text, value)
    for name, (text, value) in figures.counters.items():
        page.one(f"{name}_total", "counter", text, value)
    _counts(page, figures)
    return page.text()


def write_file(place: Path, text: str) -> None:
    """Replace the file at once, readable for all: it holds no secrets. OSError."""
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o644)
            file.write(text)
        os.rename(fresh, place)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _counts(page: _Page, figures: Figures) -> None:
    metrics = figures.metrics
    page.metric(
        "registration_replies",
        "counter",
        "Registration Replies by their code (RFC 5944 section 3.4; 0 is accepted).",
        [({"code": str(code)}, number) for code, number in sorted(metrics.replies.items())],
    )
    page.metric(
        "violations",
        "counter",
        "What somebody did who should not have, by kind.",
        [({"kind": kind}, metrics.violations().get(kind, 0)) for kind in sorted(set(VIOLATIONS.values()))],
    )
    changes, drops, events = [], [], []
    for code, number in sorted(metrics.counts.items()):
        if code in _PACKETS or code in _OCTETS:
            continue
        what, _, change = code.partition("-")
        if f"{what}-" in (_BINDING, _VISITOR) and change in _CHANGES:
            changes.append(({"change": change}, number))
        elif code in VIOLATIONS:
            drops.append(({"reason": code}, number))
        else:
            events.append(({"event": code}, number))
    page.metric("changes", "counter", "Bindings or visitors made, moved, renewed, ended.", changes)
    page.metric("refused", "counter", "Requests and packets refused, by the log's word for it.", drops)
    page.metric("events", "counter", "Everything else that is counted, by the log's word for it.", events)
    _traffic(page, figures)


def _traffic(page: _Page, figures: Figures) -> None:
    counts = figures.metrics.counts
    packets = {(way, "tun"): counts[code] for code, way in _PACKETS.items()}
    octets = {(way, "tun"): counts[code] for code, way in _OCTETS.items()}
    for (way, engine), (count, size) in figures.traffic.items():
        packets[way, engine] = packets.get((way, engine), 0) + count
        octets[way, engine] = octets.get((way, engine), 0) + size
    for name, text, found in (
        ("tunnel_packets", "Packets through tunnels, by direction and engine.", packets),
        ("tunnel_octets", "Octets of those packets, without the outer header.", octets),
    ):
        rows = [({"direction": way, "engine": engine}, number) for (way, engine), number in found.items()]
        page.metric(name, "counter", text, rows)


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def one(self, name: str, kind: str, text: str, value: float) -> None:
        self._write(name, kind, text, [(_NO_LABELS, value)])

    def metric(self, name: str, kind: str, text: str, rows: list[tuple[dict[str, str], int]]) -> None:
        self._write(f"{name}_total" if kind == "counter" else name, kind, text, list(rows))

    def _write(self, name: str, kind: str, text: str, rows: list[tuple[Labels, float]]) -> None:
        full = f"{_PREFIX}_{name}"
        self._lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
        self._lines += [f"{full}{_shown(labels)} {value:.16g}" for labels, value in rows]

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _shown(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
