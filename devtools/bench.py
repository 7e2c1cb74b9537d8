# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev bench`: measures on a machine that has nothing else to do. The benches are in tests/bench."""

import argparse
import os
from collections.abc import Sequence

from devtools import console, kernel, packages
from devtools.machine import BUILD, ROOT, Caller, give_back, run, settings
from devtools.venv import program
from tests.bench.catalogue import BENCHES, Bench
from tests.bench.machine import MOST_BUSY, busy

RESULTS = BUILD / "bench"
PAGE = ROOT / "docs" / "performance.md"
RECORDS = ROOT / "docs" / "performance"
NEEDED = packages.Group("counting what a program asks of the kernel", ("strace",))


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", allow_abbrev=False)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the bench; none lists them")
    parser.add_argument(
        "--anyway",
        metavar="REASON",
        help="measure on a machine that is busy with something else; the reason goes onto the page",
    )
    parser.add_argument("--yes", action="store_true", help="install what is missing without asking")
    return parser.parse_args(arguments)


def list_all() -> None:
    """Say which benches there are and what each takes."""
    console.say(
        "./dev bench NAME measures, writes docs/performance.md and build/bench/NAME.json, and fails with a goal."
    )
    for bench in BENCHES.values():
        console.say(f"\n    {bench.name:10} {bench.about}\n    {'':10} takes {bench.takes}")


def find(name: str) -> Bench:
    """The bench of that name, or Failed."""
    if name not in BENCHES:
        raise console.Failed(f"There is no bench {name!r}; there are {', '.join(BENCHES)}.", 2)
    return BENCHES[name]


def check_kernel(bench: Bench, who: Caller) -> None:
    """Failed where the bench needs a kernel of its own and there is none."""
    if bench.kernel and kernel.find(who.user_environment()) is None:
        raise console.Failed(
            f"{bench.name} needs a kernel with a virtual clock: `./dev kernel` builds it, once."
        )


def check_load(anyway: str | None) -> list[str]:
    """Failed on a machine that is busy with something else; with a reason to go on, what the page has to say of it."""
    share = busy()
    if share <= MOST_BUSY:
        return []
    told = f"{share:.0%} of this machine's processors were busy with something else"
    if anyway is None:
        raise console.Failed(
            f"{told}: the figures would be about that. Wait until it is done, or say --anyway REASON."
        )
    return [f"Taken although {told}: {anyway}"]


def measure(bench: Bench, who: Caller, notes: Sequence[str]) -> int:
    """Run a bench as root and give its files to the user; its exit status."""
    console.heading(f"bench {bench.name}")
    console.say(f"{bench.about}; takes {bench.takes}")
    words = [word for note in notes for word in ("--note", note)]
    argv = [program("python"), "-m", "tests.bench", bench.name, *words]
    env = settings() | kernel.setting(who) | {"PYTHONPATH": str(ROOT / "app")}
    try:
        return run(who.as_root(argv, env), env=dict(os.environ))
    finally:
        give_back(who, BUILD / "cache", RESULTS, RECORDS, PAGE)
