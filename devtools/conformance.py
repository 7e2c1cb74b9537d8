# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/conformance.md: made from the table of rows and the tests that name them, and checked against what passed.

The rows stand in docs/conformance/rows.toml. A test names the rows that it verifies (`@pytest.mark.rows("R-29")`). A
row that is called done or delegated needs a test that passed: in this run, or, for tests that this run left out or
this machine cannot run, in the `./dev test --all` whose outcome stands in docs/conformance/passed.json.
"""

import json
import platform
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from xml.etree import ElementTree

from devtools import console
from devtools.machine import ROOT
from devtools.marks import Claims, claims

ROWS = Path("docs/conformance/rows.toml")
RECORD = Path("docs/conformance/passed.json")
PAGE = Path("docs/conformance.md")
COUNT = 292
_PROPERTY = "row"
"""As tests/world/rows.py writes it."""
_LACKING = re.compile(r"\bneeds\b|\bmay not\b|\bnot installed\b|\bmissing\b|\bno kernel\b")
"""A test that was skipped for such a reason was not given up: this machine cannot run it."""
_HEAD = """\
# Conformance

Made by `./dev conformance` from [rows.toml](conformance/rows.toml), where each requirement stands in words, and from
the tests that name rows (`@pytest.mark.rows`). Do not edit. `./dev test` fails when a row below is called done or
delegated and none of its tests passed.

done: our code does it, and a test shows it. delegated: strongSwan does it, and a test of ours shows that. planned: not
yet, or not in all its parts; tests that are named all the same show the parts that are there. not applicable: with the
reason. {counts}.

| R-n | section | level | who | state | tests |
|---|---|---|---|---|---|
"""


class State(Enum):
    """How far a row is."""

    DONE = "done"
    DELEGATED = "delegated"
    PLANNED = "planned"
    NOT_APPLICABLE = "not applicable"

    @property
    def needs_test(self) -> bool:
        """Whether a test must have shown it."""
        return self in (State.DONE, State.DELEGATED)


@dataclass(frozen=True, slots=True)
class Row:
    """One requirement. `note`: what is there of a planned row, or why one does not apply."""

    id: str
    section: str
    level: str
    who: str
    says: str
    state: State
    note: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a test ended, with the rows that it names; `skipped` is the reason, empty for a test that ran."""

    test: str
    rows: tuple[str, ...]
    passed: bool
    skipped: str = ""


class Faulty(ValueError):
    """The table cannot be used; the text says where and why."""


def load_rows(text: str) -> tuple[Row, ...]:
    """The table's rows, R-1 to R-292 in order; Faulty otherwise."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # a row that stands there twice is one, too
        raise Faulty(f"{ROWS}: {error}") from error
    if list(found) != [f"R-{number}" for number in range(1, COUNT + 1)]:
        raise Faulty(f"{ROWS}: the rows must be R-1 to R-{COUNT}, each once, in this order")
    return tuple(_row(name, each) for name, each in found.items())


def _row(name: str, found: Mapping[str, str]) -> Row:
    try:
        row = Row(name, **{**found, "state": State(found.get("state"))})  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise Faulty(f"{ROWS}: {name}: {error}") from error
    if row.state is State.NOT_APPLICABLE and not row.note:
        raise Faulty(f"{ROWS}: {name}: why it does not apply must stand in its note")
    if row.state.needs_test and row.note:
        raise Faulty(f"{ROWS}: {name}: a note to a row that is {row.state.value} would stand nowhere")
    return row


def unknown_rows(named: Claims) -> list[str]:
    """Rows that a test names and that there are not."""
    return [f"{tests[0]} names {row}" for row, tests in named.items() if not _is_row(row)]


def _is_row(name: str) -> bool:
    return re.fullmatch(r"R-[1-9]\d{0,2}", name) is not None and int(name[2:]) <= COUNT


def render(rows: Sequence[Row], named: Claims) -> str:
    """The page."""
    counted = Counter(row.state for row in rows)
    counts = ", ".join(f"{counted[state]} {state.value}" for state in State)
    lines = (_line(row, named.get(row.id, ())) for row in rows)
    return _HEAD.format(counts=counts[0].upper() + counts[1:]) + "".join(lines)


def _line(row: Row, tests: Iterable[str]) -> str:
    state = f"{row.state.value} ({row.note})" if row.note else row.state.value
    shown = ", ".join(_short(test) for test in tests)
    cells = (row.id, row.section, row.level, row.who, state, shown)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _short(test: str) -> str:
    """`scenarios/test_roaming::test_grand_tour`: what follows tests/, without the file's suffix."""
    return "`" + test.removeprefix("tests/").replace(".py", "", 1) + "`"


def read_report(report: Path) -> list[Outcome]:
    """The outcome of each test of one of pytest's XML reports; none when it cannot be read."""
    try:
        cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 - pytest just wrote it
    except (OSError, ElementTree.ParseError):
        return []
    return [_outcome(case) for case in cases]


def _outcome(case: ElementTree.Element) -> Outcome:
    file, place = case.get("file", ""), case.get("classname", "")
    inner = place.removeprefix(file.removesuffix(".py").replace("/", ".")).strip(".")
    function = case.get("name", "").split("[")[0]
    skip = case.find("skipped")
    return Outcome(
        "::".join(part for part in (file, inner.replace(".", "::"), function) if part),
        tuple(each.get("value", "") for each in case.iter("property") if each.get("name") == _PROPERTY),
        passed=not any(case.find(kind) is not None for kind in ("skipped", "failure", "error")),
        skipped="" if skip is None else skip.get("message", "no reason"),
    )


def shortfalls(
    rows: Sequence[Row], named: Claims, outcomes: Iterable[Outcome], recorded: Claims
) -> tuple[list[str], list[str]]:
    """What is claimed and was not shown, in words; and the rows that rest on the recorded run alone."""
    ran: dict[str, list[Outcome]] = {}
    shown: set[str] = set()
    for outcome in outcomes:
        ran.setdefault(outcome.test, []).append(outcome)
        if outcome.passed:
            shown.update(outcome.rows)
    faults, resting = [], []
    for row in rows:
        if not row.state.needs_test or row.id in shown:
            continue
        tests = named.get(row.id, ())
        known = [test for test in recorded.get(row.id, ()) if _still_claims(test, tests)]
        if any(_was_left_out(ran.get(test, ())) for test in known):
            resting.append(row.id)
        elif not tests:
            faults.append(f"{row.id} is called {row.state.value}, and no test names it")
        else:
            more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
            faults.append(f"{row.id} is called {row.state.value}, and none passed of {tests[0]}{more}")
    return faults, resting


def _still_claims(test: str, tests: Iterable[str]) -> bool:
    """Whether the test, its class or its file names the row today."""
    return any(test == each or test.startswith(f"{each}::") for each in tests)


def _was_left_out(outcomes: Sequence[Outcome]) -> bool:
    """Not chosen, as slow tests are, or skipped for what this machine lacks; a test that ran speaks for itself."""
    return all(outcome.skipped and _LACKING.search(outcome.skipped) for outcome in outcomes)


def check(reports: Iterable[Path], *, root: Path = ROOT, thorough: bool) -> list[str]:
    """After a run over all layers: what is claimed and was not shown. Writes the record of a thorough run."""
    if not (root / ROWS).exists():
        return []
    try:
        rows, named = load_rows((root / ROWS).read_text(encoding="utf-8")), claims(root)
    except ValueError as error:
        return [str(error)]
    outcomes = [outcome for report in reports for outcome in read_report(report)]
    faults, resting = shortfalls(rows, named, outcomes, _recorded(root))
    if resting:
        console.say(f"   conformance rests on {RECORD} for {len(resting)} rows: {', '.join(resting)}")
    if thorough and not faults and not resting:
        _write_record(root, outcomes)
    return faults


def _recorded(root: Path) -> Claims:
    try:
        found = json.loads((root / RECORD).read_text(encoding="utf-8"))
        return {row: tuple(tests) for row, tests in found["rows"].items()}
    except (OSError, ValueError, KeyError):
        return {}


def _write_record(root: Path, outcomes: Iterable[Outcome]) -> None:
    rows: dict[str, set[str]] = {}
    for outcome in outcomes:
        for row in outcome.rows if outcome.passed else ():
            rows.setdefault(row, set()).add(outcome.test)
    found = {row: tuple(sorted(rows[row])) for row in sorted(rows, key=lambda name: int(name[2:]))}
    if found == _recorded(root):
        return
    told = {
        "by": "./dev test --all",
        "on": datetime.now(UTC).date().isoformat(),
        "kernel": platform.release(),
        "rows": found,
    }
    (root / RECORD).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    console.say(f"   conformance: {RECORD} is written anew; it belongs into the tree")


def write_page() -> int:
    """`./dev conformance`: the page anew, and what is wrong with the claims as far as their text shows it."""
    try:
        rows, named = load_rows((ROOT / ROWS).read_text(encoding="utf-8")), claims(ROOT)
    except ValueError as error:
        raise console.Failed(str(error)) from error
    page = render(rows, named)
    changed = not (ROOT / PAGE).exists() or (ROOT / PAGE).read_text(encoding="utf-8") != page
    if changed:
        (ROOT / PAGE).write_text(page, encoding="utf-8")
    console.say(f"{PAGE}: {'written' if changed else 'was current'}")
    faults = unknown_rows(named)
    faults += [f"{row.id} is called {row.state.value}, and no test names it" for row in unshown(rows, named)]
    for fault in faults:
        console.say(f"   {fault}")
    return 1 if faults else 0


def unshown(rows: Iterable[Row], named: Claims) -> list[Row]:
    """Rows that claim a test and that none names."""
    return [row for row in rows if row.state.needs_test and not named.get(row.id)]
