# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/performance.md, made of what is in docs/performance: one section for each bench that was ever run."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench.catalogue import BENCHES
from tests.bench.figures import number

_HEAD: Final = """\
# Performance

Made by `./dev bench NAME`, which runs a bench and puts its section in the place of the one before; the figures are in
[performance/](performance/). Do not edit. Less is better, but for what is counted per second; the ratio is ours divided
by the peer's. A bench ends with an error when a goal is missed.
"""


def render(records: Iterable[Mapping[str, Any]]) -> str:
    """The page of these records, in the catalogue's order."""
    known = {record["bench"]: record for record in records}
    return _HEAD + "".join(_section(known[name]) for name in BENCHES if name in known)


def _section(record: Mapping[str, Any]) -> str:
    bench = BENCHES[record["bench"]]
    machine = record["machine"]
    verdict = "All goals met" if record["met"] else "A goal was missed"
    taken = f"Taken on {record['taken']}: {machine['processor']}; {machine['kernel']}; {machine['python']}."
    lines = [
        f"\n## {bench.name}\n",
        f"{bench.about[0].upper()}{bench.about[1:]}. {taken} **{verdict}.**\n",
        "| what | value | goal | | peer | its value | ratio |",
        "|---|---|---|---|---|---|---|",
        *(_line(row) for row in record["rows"]),
        "",
        bench.prose,
        *(f"- {note}" for note in record["notes"]),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _line(row: Mapping[str, Any]) -> str:
    goal = (row["goal"] or "").replace("<=", "≤").replace(">=", "≥")
    verdict = "" if row["goal"] is None else ("met" if row["met"] else "**missed**")
    peer = row["peer"] or ""
    peer_value = "" if row["peer"] is None else number(row["peer_value"])
    ratio = "" if row["ratio"] is None else number(row["ratio"])
    cells = (
        row["name"],
        f"{number(row['value'])} {row['unit']}".strip(),
        goal,
        verdict,
        peer,
        peer_value,
        ratio,
    )
    return "| " + " | ".join(cells) + " |"


def make(folder: Path, page: Path) -> None:
    """Write the page anew from the records in the folder."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    page.write_text(render(records), encoding="utf-8")
