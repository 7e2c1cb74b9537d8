# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev bench agent`: registrations a second, what 100,000 bindings take, and a restart with all of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from tests.bench.agent.hosts import (
    ECHO,
    Flow,
    Hosts,
    end_standing,
    locked_megabytes,
    process_megabytes,
    slab_megabytes,
)
from tests.bench.figures import Figures, Row
from tests.bench.handover.walk import Say

BINDINGS: Final = 100_000
PER_SECOND: Final = 10_000.0
OF_THE_ECHO: Final = 0.4
LATENCY: Final = 5.0
MEGABYTES: Final = 150.0
RESTART: Final = 5.0

_ROUNDS: Final = 5
_SECONDS: Final = "4"
_PEER: Final = "twenty lines of UDP echo with the same HMACs"


def measure(folder: Path, say: Say, bindings: int = BINDINGS) -> Figures:
    """Bind all, load it, restart it."""
    hosts = Hosts(folder, bindings)
    try:
        return _measure(hosts, say, bindings)
    finally:
        hosts.close()


def _measure(hosts: Hosts, say: Say, bindings: int) -> Figures:
    before = slab_megabytes()
    agent = hosts.start()
    agent.wait_for("ready ")
    say(f"an agent for {bindings} nodes is ready")
    bound = hosts.load("--count", str(bindings), "--seconds", "120")
    say(f"{bound['accepted']} are bound")
    rounds, echoes = _rounds(hosts, say)
    best = max(each["accepted_per_second"] for each in rounds)
    halves = [hosts.load("--rate", str(best / 2), "--seconds", _SECONDS) for _ in range(_ROUNDS)]
    latencies = [each["p99_ms"] for each in halves]
    say(f"at half of {best}/s, 99 of a hundred within: {latencies} ms")
    process, locked = process_megabytes(agent.pid), locked_megabytes(agent.pid)
    kernel = locked + max(0.0, slab_megabytes() - before)
    with Flow(hosts) as flow:
        time.sleep(0.5)
        began = time.monotonic()
        end_standing(agent)
        stopped = time.monotonic()
        again = hosts.start()
        line = again.wait_for("ready ")
        ready = time.monotonic()
        time.sleep(0.5)
    say(f"restarted: {line}")
    kept = int(line.split("bindings=")[1].split()[0])
    again.stop()
    complete = bound["accepted"] == bindings == kept
    lost = sum(each["lost"] for each in (bound, *rounds, *halves))
    rows = (
        Row(
            "registrations that move a binding, per second on one core",
            best,
            "",
            at_least=PER_SECOND,
            peer=_PEER,
            peer_value=max(each["accepted_per_second"] for each in echoes),
            ratio_at_least=OF_THE_ECHO,
        ),
        Row("of a hundred, 99 are answered within, at half that load", min(latencies), "ms", LATENCY),
        Row("requests that were not answered", lost, "", 0),
        Row(
            f"{bindings} bindings, process and kernel together",
            round(process + kernel, 1) if complete else None,
            "MB",
            MEGABYTES,
        ),
        Row("restart with all of them", round(ready - began, 2) if complete else None, "s", RESTART),
        Row("packets of a flow through a binding that were lost meanwhile", flow.lost, "", 0),
    )
    shares = (
        f"Of the memory, {process:.0f} MB are the process's and {kernel:.0f} MB the kernel's; of the restart,"
        f" {stopped - began:.2f} s are the old life's end. The flow had {flow.sent} packets, one a millisecond."
    )
    notes = (
        shares,
        "Each round, in registrations per second: "
        + ", ".join(f"{one['accepted_per_second']:.0f}" for one in rounds)
        + "; the echo: "
        + ", ".join(f"{one['accepted_per_second']:.0f}" for one in echoes)
        + "; at half the load, 99 of a hundred within "
        + ", ".join(f"{one:.1f}" for one in latencies)
        + " ms.",
    )
    return Figures(rows, notes)


def _rounds(hosts: Hosts, say: Say) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """In turn, so that both have the machine's same minutes."""
    rounds, echoes = [], []
    for _ in range(_ROUNDS):
        rounds.append(hosts.load("--seconds", _SECONDS))
        with hosts.echo():
            echoes.append(hosts.load("--seconds", _SECONDS, agent=ECHO))
        say(f"agent {rounds[-1]['accepted_per_second']}/s, echo {echoes[-1]['accepted_per_second']}/s")
    return rounds, echoes
