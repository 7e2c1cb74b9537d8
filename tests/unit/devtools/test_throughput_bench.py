# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev bench throughput`: what cannot be measured misses its goal, and the program that sends and takes does both."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench.figures import Figures
from tests.bench.throughput import flows
from tests.bench.throughput.bench import GOALS, IPIP, rows_of
from tests.bench.throughput.course import DIRECTIONS, KINDS, Course, Found

PLAIN = "plain ipip"


def found(gigabits: float) -> Found:
    """Three rounds, the first of them by luck the best one, with a second of the processors for two gigabytes."""
    rate = gigabits * 1e9 / 8
    return Found([3 * rate, rate / 2, rate], amount=2_000_000_000, machine=1.0, programs=0.1)


def course(*, ours: float, theirs: float) -> Course:
    rates = {IPIP: ours, PLAIN: theirs}
    return Course(
        {(way, kind, each): found(rates[way]) for way in rates for kind in KINDS for each in DIRECTIONS}
    )


@pytest.mark.parametrize(("ours", "met"), [(9.5, True), (9.4, False)])
def test_the_middle_one_of_the_rounds_is_held_against_the_peers(ours: float, met: bool) -> None:
    rows = rows_of(course(ours=ours, theirs=10.0), IPIP, PLAIN)
    assert Figures(tuple(rows)).met is met
    up = rows[0]
    assert (up.value, up.peer_value, up.goal) == (ours, 10.0, f"ratio >= {GOALS[IPIP]}")
    costs = {row.name: (row.value, row.peer_value) for row in rows if row.unit == "s"}
    assert costs[f"{IPIP}: processors per gigabyte up, whole machine"] == (0.5, 0.5)
    assert costs[f"{IPIP}: processors per gigabyte up, our two programs"] == (0.05, None)


@pytest.mark.parametrize("missing", [IPIP, PLAIN])
def test_what_could_not_be_measured_misses_the_goal(missing: str) -> None:
    done = course(ours=10.0, theirs=10.0)
    done.found = {figure: each for figure, each in done.found.items() if figure[0] != missing}
    assert not Figures(tuple(rows_of(done, IPIP, PLAIN))).met


class Hand:
    """The program on this machine's loopback."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", flows.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def tell(self, order: str, **words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": order, **words}) + "\n")

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def hands() -> Iterator[list[Hand]]:
    made = [Hand(), Hand()]
    yield made
    for hand in made:
        hand.process.communicate(timeout=10)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_sent_is_taken_and_counted(hands: list[Hand], kind: str) -> None:
    sender, receiver = hands
    receiver.tell("listen", kind=kind, address="127.77.0.1")
    assert receiver.answer() == {}
    receiver.tell("take", kind=kind)
    sender.tell("send", kind=kind, address="127.77.0.2", to="127.77.0.1", seconds=0.05)
    sent, taken = sender.answer(), receiver.answer()
    assert taken["seconds"] > 0
    if kind == "tcp":
        assert taken["amount"] == sent["amount"] > flows.DATAGRAM
    else:  # those of the first batch start the clock
        assert 0 < taken["amount"] <= sent["amount"]


def test_nobody_there_is_said(hands: list[Hand]) -> None:
    hands[0].tell("send", kind="tcp", address="127.77.0.2", to="127.77.0.3", seconds=0.05)
    assert hands[0].answer() == {"error": "Connection refused"}
