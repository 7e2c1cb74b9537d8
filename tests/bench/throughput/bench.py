# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev bench throughput`: what the tunnel carries, and what that costs, beside the same cables without it."""

import os
import sys
from pathlib import Path
from typing import Final

from tests.bench.figures import Figures, Row
from tests.bench.handover.walk import Say
from tests.bench.throughput import guest
from tests.bench.throughput.course import DIRECTIONS, Course, Found
from tests.bench.throughput.offices import Homeward, PlainIpip, RawVeth, opened
from tests.kernel.runner import Settings, run

MIP_UDP: Final = "bpf, MIP-UDP"
TUN: Final = "tun, IP-in-IP"
IPIP: Final = "ipip, IP-in-IP"
GOALS: Final = {MIP_UDP: 0.8, TUN: 0.02, IPIP: 0.95}
"""Of the peer's throughput."""

_SECONDS: Final = 200.0
_MEGABYTES: Final = 1536
_KEPT: Final = ("PYTHONPYCACHEPREFIX", "PYTHONPATH")
_GIGABIT: Final = 1e9 / 8


def measure(folder: Path, say: Say) -> Figures:
    """Both halves, one after the other: each would disturb the other's."""
    say("on this machine's own kernel")
    here = _here(folder, say)
    say("in a kernel with ipip, on the real clock")
    there, kernel = _there(folder, say)
    rows = (
        *rows_of(here, MIP_UDP, RawVeth.name),
        *rows_of(here, TUN, RawVeth.name),
        *rows_of(there, IPIP, PlainIpip.name),
        *rows_of(there, PlainIpip.name, RawVeth.name),
    )
    notes = (
        f"The kernel with `ipip`: Linux {kernel}, User-Mode Linux on one processor.",
        *here.failed,
        *there.failed,
    )
    return Figures(rows, notes)


def _here(folder: Path, say: Say) -> Course:
    course = Course()
    ways = (RawVeth, lambda: Homeward(folder, "bpf", udp=True), lambda: Homeward(folder, "tun"))
    with opened(ways, course.failed) as stand:
        say(f"{', '.join(way.name for way in stand)}: all stand")
        course.run(stand)
    return course


def _there(folder: Path, say: Say) -> tuple[Course, str]:
    shared = folder / "guest"
    shared.mkdir()
    settings = Settings(
        shared=(shared,),
        environment={name: os.environ[name] for name in _KEPT if name in os.environ},
        seconds=_SECONDS,
        megabytes=_MEGABYTES,
    )
    done = run([sys.executable, "-m", "tests.bench.throughput.guest", str(shared)], settings)
    assert done.status == 0, f"the run in the guest failed:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    say(f"that took {done.seconds:.0f} s")
    return guest.read(shared)


def rows_of(course: Course, way: str, peer: str) -> list[Row]:
    """Of one way beside a peer: throughput with its goal, what it costs, small packets."""
    rows: list[Row] = []
    for direction in DIRECTIONS:
        ours, theirs = (course.of(each, "tcp", direction) for each in (way, peer))
        rows.append(
            Row(
                f"{way}: TCP {direction}", _gigabits(ours), "Gbit/s",
                peer=peer, peer_value=_gigabits(theirs), ratio_at_least=GOALS.get(way),
            )
        )  # fmt: skip
    for direction in DIRECTIONS:
        ours, theirs = (course.of(each, "tcp", direction) for each in (way, peer))
        rows.append(
            Row(
                f"{way}: processors per gigabyte {direction}, whole machine", _machine(ours), "s",
                peer=peer, peer_value=_machine(theirs),
            )
        )  # fmt: skip
        if way in GOALS:
            own = None if ours is None else round(ours.per_giga(ours.programs), 3)
            rows.append(Row(f"{way}: processors per gigabyte {direction}, our two programs", own, "s"))
    for direction in DIRECTIONS:
        ours, theirs = (course.of(each, "udp", direction) for each in (way, peer))
        rows.append(
            Row(
                f"{way}: small packets {direction}", _thousands(ours), "thousand/s",
                peer=peer, peer_value=_thousands(theirs),
            )
        )  # fmt: skip
    return rows


def _gigabits(found: Found | None) -> float | None:
    return None if found is None else round(found.middle / _GIGABIT, 2)


def _thousands(found: Found | None) -> float | None:
    return None if found is None else round(found.middle / 1000, 1)


def _machine(found: Found | None) -> float | None:
    return None if found is None else round(found.per_giga(found.machine), 3)
