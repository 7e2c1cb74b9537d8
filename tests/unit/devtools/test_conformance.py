# SPDX-License-Identifier: GPL-2.0-or-later
"""A row that is called done needs a test that passed; nothing but a test that passed is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from devtools import conformance
from devtools.conformance import (
    PAGE,
    RECORD,
    ROWS,
    Faulty,
    Outcome,
    Row,
    State,
    load_rows,
    read_report,
    render,
    shortfalls,
)
from devtools.marks import Misplaced, claims

ROOT = Path(__file__).resolve().parents[3]
PLAIN = 'section = "5944 §1"\nlevel = "MUST"\nwho = "MN"\nsays = "Do it."\nstate = "done"\n'
A, B = "tests/unit/test_it.py::test_a", "tests/unit/test_it.py::test_b"


def row(number: int, state: State = State.DONE, note: str = "") -> Row:
    return Row(f"R-{number}", "5944 §1", "MUST", "MN", "Do it.", state, note)


def table(**changes: str) -> str:
    """A whole table of rows; `changes` replace the lines of one, by its name without the dash."""
    return "".join(f"[R-{n}]\n{changes.get(f'R{n}', PLAIN)}\n" for n in range(1, conformance.COUNT + 1))


def checkout(root: Path, test: str, *, rows: str | None = None) -> Path:
    """A checkout with one test file, in which everything but R-1 is planned."""
    (root / "tests/unit").mkdir(parents=True)
    (root / "tests/unit/test_it.py").write_text(test)
    (root / ROWS).parent.mkdir(parents=True)
    planned = table().replace('"done"', '"planned"').replace('"planned"', '"done"', 1)
    (root / ROWS).write_text(planned if rows is None else rows)
    return root


def run(root: Path) -> Path:
    """Run the checkout's tests with our plugin; the report."""
    (root / "pytest.ini").write_text(
        "[pytest]\njunit_family = xunit1\nmarkers =\n    rows(*ids): rows\n    slow: slow\n"
    )
    report = root / "report.xml"
    plugins = ["-p", "tests.world.rows", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:pytest-qt"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow",
        f"--junitxml={report}",
        *plugins,
        "tests",
    ]
    subprocess.run(command, cwd=root, env={"PYTHONPATH": str(ROOT)}, check=False, capture_output=True)
    assert report.exists()
    return report


# --- the table -------------------------------------------------------------------------------------------------------


def test_a_whole_table_is_read() -> None:
    rows = load_rows(
        table(R7='section = "§"\nlevel = "B"\nwho = "HA"\nsays = "x"\nstate = "planned"\nnote = "y"')
    )
    assert [each.id for each in rows] == [f"R-{n}" for n in range(1, 293)]
    assert rows[6] == Row("R-7", "§", "B", "HA", "x", State.PLANNED, "y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (table().replace("[R-9]", "[R-8]"), "R-8"),
        (table().replace("[R-9]", "[R-999]"), "R-1 to R-292"),
        (table().split("[R-292]")[0], "R-1 to R-292"),
        (table(R3="state = 7\n"), "R-3"),
        (table(R3='section = "§"\nstate = "done"\n'), "R-3.*level"),
        (table().replace('"done"', '"finished"', 1), "R-1.*finished"),
        (table().replace('"done"', '"done"\nwhy = "so"', 1), "R-1.*why"),
        (table().replace('"done"', '"not applicable"', 1), "R-1.*note"),
        (table().replace('"done"', '"done"\nnote = "almost"', 1), "R-1.*note"),
    ],
)
def test_a_faulty_table_is_refused(text: str, words: str) -> None:
    with pytest.raises(Faulty, match=words):
        load_rows(text)


def test_a_line_of_the_page() -> None:
    page = render([row(1), row(2, State.NOT_APPLICABLE, "not here")], {"R-1": (A, "tests/lab/test_x.py")})
    first, second = page.splitlines()[-2:]
    assert first == "| R-1 | 5944 §1 | MUST | MN | done | `unit/test_it::test_a`, `lab/test_x` |"
    assert second == "| R-2 | 5944 §1 | MUST | MN | not applicable (not here) |  |"
    assert "1 done, 0 delegated, 0 planned, 1 not applicable." in page


# --- who names what --------------------------------------------------------------------------------------------------

MARKED = """
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.rows("R-5")]

@pytest.mark.rows("R-1", "R-2")
def test_a(): pass

@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.rows("R-3"))])
async def test_b(x): pass

@pytest.mark.rows("R-4")
class TestC:
    @pytest.mark.rows("R-1")
    def test_d(self): pass
"""


def test_marks_are_found_wherever_pytest_finds_them(tmp_path: Path) -> None:
    file = "tests/unit/test_it.py"
    assert claims(checkout(tmp_path, MARKED)) == {
        "R-5": (file,),
        "R-1": (A, f"{file}::TestC::test_d"),
        "R-2": (A,),
        "R-3": (B,),
        "R-4": (f"{file}::TestC",),
    }


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.mark.rows('R-1')\ndef helper(): pass",
        "mine = pytest.mark.rows('R-1')\n@mine\ndef test_a(): pass",
        "@pytest.mark.rows(ROW)\ndef test_a(): pass",
        "@pytest.mark.rows(*ROWS)\ndef test_a(): pass",
        "@pytest.mark.rows(['R-1'])\ndef test_a(): pass",
    ],
)
def test_a_mark_that_could_be_overlooked_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Misplaced, match=r"test_it\.py:\d"):
        claims(checkout(tmp_path, text))


# --- what is claimed and what was shown ------------------------------------------------------------------------------

NEEDS_ROOT = Outcome(A, ("R-1",), passed=False, skipped="needs root")


@pytest.mark.parametrize(
    ("outcomes", "recorded", "faults", "resting"),
    [
        ([Outcome(A, ("R-1",), passed=True)], {}, 0, 0),
        ([Outcome(A, ("R-1",), passed=False)], {}, 1, 0),
        ([Outcome(A, ("R-1",), passed=False), Outcome(A, ("R-1",), passed=True)], {}, 0, 0),
        ([Outcome(A, ("R-2",), passed=True)], {}, 1, 0),
        ([], {}, 1, 0),
        ([NEEDS_ROOT], {}, 1, 0),
        ([], {"R-1": (A,)}, 0, 1),
        ([NEEDS_ROOT], {"R-1": (A,)}, 0, 1),
        ([NEEDS_ROOT, NEEDS_ROOT], {"R-1": (A,)}, 0, 1),
        # A record is no excuse for a test that failed, or that somebody switched off, or that names the row no more.
        ([Outcome(A, ("R-1",), passed=False)], {"R-1": (A,)}, 1, 0),
        ([NEEDS_ROOT, Outcome(A, ("R-1",), passed=False)], {"R-1": (A,)}, 1, 0),
        ([Outcome(A, ("R-1",), passed=False, skipped="later")], {"R-1": (A,)}, 1, 0),
        ([], {"R-1": (B,)}, 1, 0),
        ([], {"R-2": (A,)}, 1, 0),
    ],
)
@pytest.mark.parametrize("state", [State.DONE, State.DELEGATED])
def test_what_counts(
    outcomes: list[Outcome], recorded: dict[str, tuple[str, ...]], faults: int, resting: int, state: State
) -> None:
    told, rest = shortfalls([row(1, state)], {"R-1": (A,)}, outcomes, recorded)
    assert (len(told), len(rest)) == (faults, resting)
    assert all("R-1" in each for each in told + rest)


@pytest.mark.parametrize("state", [State.PLANNED, State.NOT_APPLICABLE])
def test_what_is_not_claimed_needs_no_test(state: State) -> None:
    assert shortfalls([row(1, state, "why")], {}, [], {}) == ([], [])


def test_a_file_that_names_a_row_names_it_for_each_of_its_tests() -> None:
    named = {"R-1": ("tests/unit/test_it.py",)}
    assert shortfalls([row(1)], named, [], {"R-1": (A,)}) == ([], ["R-1"])


# --- as ./dev test does it -------------------------------------------------------------------------------------------

STORY = """
import pytest

@pytest.mark.rows("R-1")
def test_a(): pass

@pytest.mark.rows("R-2")
@pytest.mark.parametrize("x", [1, 2])
def test_one_of_two(x): assert x == 1

class TestA:
    @pytest.mark.rows("R-3")
    def test_in_a_class(self): pass

@pytest.mark.rows("R-4")
def test_failing(): assert 0

@pytest.mark.rows("R-5")
def test_skipped(): pytest.skip("needs root")

@pytest.mark.rows("R-6")
@pytest.mark.xfail
def test_known_to_fail(): assert 0

@pytest.mark.slow
@pytest.mark.rows("R-7")
def test_left_out(): pass

@pytest.fixture
def bad():
    yield
    assert 0

@pytest.mark.rows("R-8")
def test_failing_afterwards(bad): pass

@pytest.fixture(params=["fake", "real"])
def world(request):
    if request.param == "real":
        pytest.skip("needs root")

@pytest.mark.rows("R-9")
def test_shown_by_the_fake_alone(world): pass
"""


def test_a_run_is_judged_by_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table().replace('"done"', '"planned"').replace('"planned"', '"done"', 9)
    root = checkout(tmp_path, STORY, rows=rows)
    report = run(root)
    assert Outcome(A, ("R-1",), passed=True) in read_report(report)
    faults = conformance.check([report], root=root, thorough=True)
    assert [fault.split()[0] for fault in faults] == ["R-4", "R-5", "R-6", "R-7", "R-8", "R-9"]
    assert not (root / RECORD).exists(), "only a run that shows everything is recorded"

    for number in (4, 5, 6, 7, 8, 9):
        rows = rows.replace(f"[R-{number}]\n{PLAIN}", f"[R-{number}]\n{PLAIN.replace('done', 'planned')}")
    (root / ROWS).write_text(rows)
    assert conformance.check([report], root=root, thorough=True) == []
    written = (root / RECORD).read_text()
    assert json.loads(written)["rows"]["R-1"] == [A]
    assert conformance.check([], root=root, thorough=False) == []
    assert "rests on docs/conformance/passed.json for 3 rows: R-1, R-2, R-3" in capsys.readouterr().out
    # What rests on an old record is not recorded again.
    assert conformance.check([], root=root, thorough=True) == []
    assert (root / RECORD).read_text() == written


def test_a_broken_table_fails_the_run(tmp_path: Path) -> None:
    assert conformance.check([], root=checkout(tmp_path, "", rows="[R-1]\n"), thorough=False)


def test_a_checkout_without_a_table_is_not_judged(tmp_path: Path) -> None:
    assert conformance.check([], root=tmp_path, thorough=False) == []


def test_the_page_is_written_and_gaps_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = checkout(tmp_path, "import pytest\n@pytest.mark.rows('R-2', 'R-293')\ndef test_a(): pass")
    monkeypatch.setattr(conformance, "ROOT", root)
    assert conformance.write_page() == 1
    assert "| R-292 |" in (root / PAGE).read_text()
    said = capsys.readouterr().out
    assert "R-1 is called done, and no test names it" in said
    assert "test_a names R-293" in said
