# SPDX-License-Identifier: GPL-2.0-or-later
"""What a bench finds: rows of figures, each beside a goal and a peer where there is one.

Two files come of it. build/bench/NAME.json is for programs and holds nothing but `met` and the rows.
docs/performance/NAME.json belongs into the tree: the same with the machine that it was measured on and what else is to
be known, and docs/performance.md is made of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `value` is None where nothing could be measured, which misses any goal.

    `at_most` or `at_least` is the goal, in the row's unit, `ratio_at_least` one for the ratio. `peer` names what was
    measured beside it in the same run.
    """

    name: str
    value: float | None
    unit: str
    at_most: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    at_least: float | None = None
    ratio_at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's; None where there is no peer, or its figure is nothing."""
        if self.value is None or not self.peer_value:
            return None
        return round(self.value / self.peer_value, 3)

    @property
    def met(self) -> bool:
        """Whether every goal is reached; a row without a goal misses none."""
        return all(
            value is not None and (value <= goal if wanted.endswith("<=") else value >= goal)
            for value, wanted, goal in self._goals()
        )

    @property
    def goal(self) -> str | None:
        """The goals in signs, None where there is none."""
        return ", ".join(f"{wanted} {goal:g}" for _, wanted, goal in self._goals()) or None

    def _goals(self) -> Iterator[tuple[float | None, str, float]]:
        """What has to be at most, or at least, what."""
        for value, wanted, goal in (
            (self.value, "<=", self.at_most),
            (self.value, ">=", self.at_least),
            (self.ratio, "ratio >=", self.ratio_at_least),
        ):
            if goal is not None:
                yield value, wanted, goal

    def plain(self) -> dict[str, Any]:
        """For JSON, keys in their order."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "peer": self.peer,
            "peer_value": self.peer_value,
            "ratio": self.ratio,
            "goal": self.goal,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of a bench found. `notes` are sentences for the page that only the run itself knows."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """Whether anything was measured and every goal is reached."""
        return bool(self.rows) and all(row.met for row in self.rows)

    def plain(self) -> dict[str, Any]:
        """What build/bench/NAME.json holds."""
        return {"met": self.met, "rows": [row.plain() for row in self.rows]}


def write(
    figures: Figures, name: str, *, taken: str, machine: Mapping[str, str], build: Path, docs: Path
) -> None:
    """Write both files; `taken` is the day."""
    for folder in (build, docs):
        folder.mkdir(parents=True, exist_ok=True)
    _write(build / f"{name}.json", figures.plain())
    kept = {
        "bench": name,
        "taken": taken,
        "machine": dict(machine),
        "notes": figures.notes,
        **figures.plain(),
    }
    _write(docs / f"{name}.json", kept)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def in_lines(rows: Sequence[Row]) -> list[str]:
    """The rows for the terminal."""
    lines = []
    for row in rows:
        beside = f"; {row.peer}: {number(row.peer_value)}" if row.peer is not None else ""
        goal = "" if row.goal is None else f"  (goal: {row.goal}{'' if row.met else ', MISSED'})"
        lines.append(f"{row.name}: {number(row.value)} {row.unit}{goal}{beside}")
    return lines


def number(value: float | None) -> str:
    """A figure as people read it."""
    return "–" if value is None else f"{value:g}"
