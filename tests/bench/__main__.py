# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs one bench, writes its figures and the page, and says by its exit status whether every goal is met.

`./dev bench NAME` calls this in the environment of the tests, as root.
"""

import argparse
import importlib
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import figures, machine, page
from tests.bench.catalogue import BENCHES

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """0 when all goals are met, 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--note", action="append", default=[], help="a sentence for the page")
    options = parser.parse_args(arguments)
    bench = BENCHES[options.name]
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f}  {line}", flush=True)

    with tempfile.TemporaryDirectory(prefix="homeward-bench-") as folder:
        found: figures.Figures = importlib.import_module(bench.module).measure(Path(folder), say)
    found = figures.Figures(found.rows, (*found.notes, *options.note))
    day = datetime.now(UTC).date().isoformat()
    records = options.docs / "performance"
    figures.write(found, bench.name, taken=day, machine=machine.facts(), build=options.build, docs=records)
    page.make(records, options.docs / "performance.md")
    for line in figures.in_lines(found.rows):
        print(f"   {line}")
    print("every goal is met" if found.met else "A GOAL IS MISSED")
    return 0 if found.met else 1


if __name__ == "__main__":
    sys.exit(main())
