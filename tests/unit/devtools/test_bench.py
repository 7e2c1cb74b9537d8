# SPDX-License-Identifier: GPL-2.0-or-later
"""The benches' harness: a missed goal is an error, files have the shape that others read, a busy machine waits."""

import json
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devtools import bench, console
from devtools.machine import Caller
from tests.bench import __main__ as command
from tests.bench import figures, machine, page
from tests.bench.catalogue import BENCHES, Bench
from tests.bench.figures import Figures, Row
from tests.bench.handover import work
from tests.bench.handover.bench import worst

ROOT = Path(__file__).resolve().parents[3]
GOOD = Row("outage", 22.0, "ms", 30.0, peer="strongSwan", peer_value=121.0)
SLOW = Row("outage", 31.0, "ms", 30.0)
UNKNOWN = Row("outage", None, "ms", 30.0)
TOLD = Row("round trip", 20.0, "ms")
FAST = Row("registrations", 10_000.0, "/s", at_least=10_000)
FEW = Row("registrations", 9_999.0, "/s", at_least=10_000)
WIDE = Row("TCP", 8.0, "Gbit/s", ratio_at_least=0.8, peer="raw veth", peer_value=10.0)
NARROW = Row("TCP", 7.9, "Gbit/s", ratio_at_least=0.8, peer="raw veth", peer_value=10.0)
ALONE = Row("TCP", 8.0, "Gbit/s", ratio_at_least=0.8, peer="raw veth")
STILL = Row("TCP", None, "Gbit/s", ratio_at_least=0.8, peer="raw veth", peer_value=10.0)


@pytest.mark.parametrize(
    ("rows", "met"),
    [
        ((GOOD, TOLD), True),
        ((GOOD, SLOW), False),
        ((UNKNOWN,), False),
        ((TOLD,), True),
        ((), False),
        ((FAST, WIDE), True),
        ((FEW,), False),
        ((NARROW,), False),
        ((ALONE,), False),
        ((STILL,), False),
    ],
)
def test_a_bench_is_met_when_every_goal_is(rows: tuple[Row, ...], met: bool) -> None:
    assert Figures(rows).met is met


def test_a_row_is_what_was_promised_and_nothing_else() -> None:
    assert Figures((GOOD, UNKNOWN)).plain() == {
        "met": False,
        "rows": [
            {
                "name": "outage",
                "value": 22.0,
                "unit": "ms",
                "peer": "strongSwan",
                "peer_value": 121.0,
                "ratio": 0.182,
                "goal": "<= 30",
                "met": True,
            },
            {
                "name": "outage",
                "value": None,
                "unit": "ms",
                "peer": None,
                "peer_value": None,
                "ratio": None,
                "goal": "<= 30",
                "met": False,
            },
        ],
    }


def test_goals_are_said_in_signs() -> None:
    both = Row("registrations", 9.0, "/s", peer="echo", peer_value=10.0, at_least=8, ratio_at_least=0.4)
    assert [row.goal for row in (GOOD, FAST, WIDE, both, TOLD)] == [
        "<= 30",
        ">= 10000",
        "ratio >= 0.8",
        ">= 8, ratio >= 0.4",
        None,
    ]
    (line,) = figures.in_lines((NARROW,))
    assert line == "TCP: 7.9 Gbit/s  (goal: ratio >= 0.8, MISSED); raw veth: 10"


@pytest.fixture
def a_bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bench that finds what it is told."""
    module = ModuleType("tests.bench.nothing")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(
        BENCHES, "nothing", Bench("nothing", "nothing at all", "a moment", module.__name__, "Prose.")
    )

    def finds(*rows: Row) -> None:
        module.measure = lambda folder, say: Figures(rows, ("A note.",))  # type: ignore[attr-defined]

    return finds


@pytest.mark.parametrize(
    ("row", "status", "said"), [(GOOD, 0, "All goals met"), (SLOW, 1, "A goal was missed")]
)
def test_a_missed_goal_is_an_error_and_both_are_written_down(
    a_bench: Any, tmp_path: Path, row: Row, status: int, said: str
) -> None:
    a_bench(row)
    build, docs = tmp_path / "build", tmp_path / "docs"
    assert (
        command.main(["nothing", "--build", str(build), "--docs", str(docs), "--note", "Another."]) == status
    )
    assert json.loads((build / "nothing.json").read_text()) == Figures((row,)).plain()
    text = (docs / "performance.md").read_text()
    for part in (
        said,
        "## nothing",
        "Prose.",
        "- A note.",
        "- Another.",
        platform.release(),
        f"{row.value:g} ms",
    ):
        assert part in text
    assert platform.node() not in text


def test_the_page_keeps_what_other_benches_have_found(a_bench: Any, tmp_path: Path) -> None:
    records = tmp_path / "performance"
    figures.write(
        Figures((TOLD,)),
        "handover",
        taken="2026-11-23",
        machine=machine.facts(),
        build=tmp_path,
        docs=records,
    )
    a_bench(GOOD)
    command.main(["nothing", "--build", str(tmp_path / "build"), "--docs", str(tmp_path)])
    text = (tmp_path / "performance.md").read_text()
    assert text.index("## handover") < text.index("## nothing")


def test_the_page_in_the_tree_is_made_of_the_records_in_the_tree() -> None:
    records = [json.loads(path.read_text()) for path in sorted((ROOT / "docs/performance").glob("*.json"))]
    assert (ROOT / "docs/performance.md").read_text() == page.render(records)


def stat(folder: Path, *looks: str) -> Path:
    """A /proc/stat that reads differently each time."""

    class Stat:
        def __init__(self) -> None:
            self._looks = list(looks)

        def read_text(self) -> str:
            return self._looks.pop(0)

    return Stat()  # type: ignore[return-value]


def test_how_busy_the_machine_is(tmp_path: Path) -> None:
    looks = ("cpu  100 0 100 800 0 0 0 0 0 0\n", "cpu  130 0 110 1660 0 0 0 0 0 0\n")
    assert machine.busy(0, stat(tmp_path, *looks)) == pytest.approx(0.0444, abs=0.001)
    assert machine.busy(0, stat(tmp_path, looks[0], looks[0])) == 0


def test_a_busy_machine_is_refused_and_a_reason_goes_onto_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "busy", lambda: 0.5)
    with pytest.raises(console.Failed, match="50% of this machine's processors"):
        bench.check_load(None)
    (note,) = bench.check_load("only to see that it works")
    assert "50%" in note
    assert note.endswith("only to see that it works")
    monkeypatch.setattr(bench, "busy", lambda: 0.01)
    assert bench.check_load(None) == []


def test_the_list_says_what_each_takes(capsys: pytest.CaptureFixture[str]) -> None:
    bench.list_all()
    said = capsys.readouterr().out
    for each in BENCHES.values():
        assert each.name in said
        assert each.takes in said


def test_an_unknown_bench_and_a_missing_kernel_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(console.Failed, match="handover"):
        bench.find("nope")
    monkeypatch.setattr("devtools.kernel.find", lambda environment: None)
    with pytest.raises(console.Failed, match="dev kernel"):
        bench.check_kernel(BENCHES["handover"], Caller(uid=0, gid=0, is_root=True))


def test_the_processors_model_is_what_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Fine One @ 2 GHz\n\nprocessor\t: 1\n")
    assert machine.processor(tmp_path / "cpuinfo") == "A Fine One @ 2 GHz"
    (tmp_path / "none").write_text("\n")
    assert machine.processor(tmp_path / "none") == platform.machine()


TRACE = """\
7 100.1 sendto(5<NETLINK:[ROUTE:9]>, [{nlmsg_len=28, nlmsg_type=0x1a, nlmsg_flags=0x301, nlmsg_seq=1}], 28, 0) = 28
7 100.2 sendto(5<NETLINK:[ROUTE:9]>, [{nlmsg_len=36, nlmsg_type=0x1e, nlmsg_flags=0x5, nlmsg_seq=2}], 36, 0) = 36
7 100.3 sendto(6<NETLINK:[NETFILTER:3]>, [{nlmsg_len=20, nlmsg_type=0xa<<8|0x1, nlmsg_flags=0x301}], 20, 0) = 20
7 100.4 sendto(5<NETLINK:[ROUTE:9]>, [{nlmsg_len=60, nlmsg_type=0x18, nlmsg_flags=0x705}], 60, 0) = 60
7 100.5 sendto(9<UDP:[1]>, "nlmsg_type=0x1a, nlmsg_flags=0x301", 9, 0) = 9
7 100.6 clone(child_stack=NULL, flags=0x1200011, child_tidptr=0x7f) = 9
7 100.7 clone3({flags=0x3d0f00, child_tid=0x7f}, 88) = 10
7 100.8 vfork() = 11
7 100.9 write(2<pipe:[1]>, "x", 1) = 1
7 101.0 sendto(5<NETLINK:[ROUTE:9]>, [{nlmsg_len=20, nlmsg_type=0x12, nlmsg_flags=0x301}], 20, 0 <unfinished ...>
7 101.1 <... write resumed>) = 56
"""


def test_dumps_and_processes_are_counted_and_threads_and_single_questions_are_not() -> None:
    assert list(work.requests(TRACE.splitlines())) == [
        (100.1, "dump"),
        (100.3, "dump"),
        (100.6, "process"),
        (100.8, "process"),
        (101.0, "dump"),
    ]


def test_the_worst_move_counts_and_one_that_never_came_back_counts_most() -> None:
    assert worst([(22.0, 23.0), (21.0, 30.0)], 1) == 30.0
    assert worst([(22.0, None), (21.0, 30.0)], 1) is None
    assert worst([], 0) is None
