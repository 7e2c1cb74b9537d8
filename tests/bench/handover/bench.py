# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev bench handover`: what is waited for, on the virtual clock, and what is worked, on the real one."""

import os
import sys
from pathlib import Path
from typing import Final

from tests.bench.figures import Figures, Row
from tests.bench.handover import waiting, work
from tests.bench.handover.peers import StrongSwan, WireGuard
from tests.bench.handover.walk import Say
from tests.kernel.runner import Settings, run

OUTAGE: Final = 30.0
CPU: Final = 8.0
DUMPS: Final = 1
_SECONDS: Final = 280.0
_MEGABYTES: Final = 2048
_KEPT: Final = ("PYTHONPYCACHEPREFIX", "PYTHONPATH")


def measure(folder: Path, say: Say) -> Figures:
    """Both halves, one after the other: each would disturb the other's."""
    say("on the virtual clock, in a kernel of its own")
    waited = _waited(folder, say)
    say("on the real clock, in a lab on this machine")
    worked = work.measure(folder, say)
    return Figures((*_waiting_rows(waited), *_work_rows(worked)), _notes(waited, worked))


def _waited(folder: Path, say: Say) -> waiting.Waiting:
    shared = folder / "guest"
    shared.mkdir()
    settings = Settings(
        shared=(shared,),
        environment={name: os.environ[name] for name in _KEPT if name in os.environ},
        seconds=_SECONDS,
        megabytes=_MEGABYTES,
        virtual_clock=True,
    )
    done = run([sys.executable, "-m", "tests.bench.handover.waiting", str(shared)], settings)
    assert done.status == 0, f"the run in the guest failed:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    say(f"that took {done.seconds:.0f} s")
    return waiting.read(shared)


def _waiting_rows(found: waiting.Waiting) -> list[Row]:
    rows = []
    for way, name in enumerate(("up", "down")):
        ours = worst(found.ours, way)
        for peer in (StrongSwan.name, WireGuard.name):
            rows.append(
                Row(f"outage {name}", ours, "ms", OUTAGE, peer=peer, peer_value=worst(found.peers[peer], way))
            )
    for way, name in enumerate(("up", "down")):
        silence = found.ours_with_dhcp[way]
        without = None if silence is None or found.dhcp is None else round(silence - found.dhcp, 2)
        rows.append(Row(f"outage {name} with DHCP, without its own time", without, "ms", OUTAGE))
    rows.append(Row("DHCP's own time, from the pulled cable to the address", found.dhcp, "ms"))
    rows.append(Row("round trip to the home agent", found.round_trip, "ms"))
    return rows


def _work_rows(found: work.Work) -> list[Row]:
    return [
        Row("processor time, new address to open gate", _least(found.moves, "work"), "ms", CPU),
        Row("processor time for the loss of the old network", _least(found.moves, "lost"), "ms"),
        Row(
            "processor time, pulled cable to open gate, all in one instant",
            round(min(found.at_once), 2),
            "ms",
        ),
        Row("time, new address to open gate, no delay in the network", _least(found.moves, "took"), "ms"),
        Row("dumps of kernel tables, new address to open gate", max(found.dumps), "", DUMPS),
        Row("dumps of kernel tables, pulled cable to open gate", max(found.dumps_in_all), ""),
        Row("processes started", max(found.processes), "", 0),
    ]


def worst(silences: list[waiting.Silence], way: int) -> float | None:
    """The longest of the moves; None when one of them did not come back."""
    values = [each[way] for each in silences]
    return None if None in values or not values else max(value for value in values if value is not None)


def _least(moves: tuple[work.Half, ...], what: str) -> float:
    return round(min(float(getattr(move, what)) for move in moves), 2)


def _notes(waited: waiting.Waiting, worked: work.Work) -> tuple[str, ...]:
    all_of_them = ", ".join(f"{move.work:.1f}" for move in worked.moves)
    return (
        f"The kernel with the virtual clock: Linux {waited.kernel}, User-Mode Linux.",
        f"Processor time of each move, new address to open gate: {all_of_them} ms.",
    )
