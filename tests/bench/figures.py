# SPDX-License-Identifier: GPL-2.0-or-later
"""What a bench finds: rows of figures, each beside a goal and a peer where there is one. Less is better in all of them.

Two files come of it. build/bench/NAME.json is for programs and holds nothing but `met` and the rows.
docs/performance/NAME.json belongs into the tree: the same with the machine that it was measured on and what else is to
be known, and docs/performance.md is made of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `value` is None where nothing could be measured, which misses any goal.

    `at_most` is the goal, in the row's unit. `peer` names what was measured beside it in the same run.
    """

    name: str
    value: float | None
    unit: str
    at_most: float | None = None
    peer: str | None = None
    peer_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's; None where there is no peer, or its figure is nothing."""
        if self.value is None or not self.peer_value:
            return None
        return round(self.value / self.peer_value, 3)

    @property
    def met(self) -> bool:
        """Whether the goal is reached; a row without a goal misses none."""
        return self.at_most is None or (self.value is not None and self.value <= self.at_most)

    def plain(self) -> dict[str, Any]:
        """For JSON, keys in their order."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "peer": self.peer,
            "peer_value": self.peer_value,
            "ratio": self.ratio,
            "goal": None if self.at_most is None else f"<= {self.at_most:g}",
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
        goal = (
            "" if row.at_most is None else f"  (goal: at most {row.at_most:g}{'' if row.met else ', MISSED'})"
        )
        lines.append(f"{row.name}: {number(row.value)} {row.unit}{goal}{beside}")
    return lines


def number(value: float | None) -> str:
    """A figure as people read it."""
    return "–" if value is None else f"{value:g}"
