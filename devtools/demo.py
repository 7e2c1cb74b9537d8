# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev demo`: the grand tour in the lab, then the page that shows what happened."""

import json
import shutil
import subprocess

from devtools import console
from devtools.machine import BUILD, Caller, give_back, run, settings
from devtools.venv import program

OUT = BUILD / "demo"


def play(who: Caller, *, headless: bool) -> int:
    """Play, render, and say where the page is; 0 only if the tour passed."""
    _make_room(who)
    command = [program("homeward-lab"), "play", "grand-tour", "--out", str(OUT)]
    if not headless:
        command.append("--tray")
    env = settings() | who.session()
    console.heading("the grand tour: office, office, foreign, foreign behind NAT, office")
    status = run(who.as_root(command, env), env=who.user_environment())
    give_back(who, OUT, BUILD / "cache", BUILD / "lab")
    if not (OUT / "timeline.json").exists():
        console.say(
            f"The tour ended with status {status} before it had anything to show. Its logs are in {OUT / 'logs'}"
        )
        return status or 1
    return _render(who) or status or _verdict()


def _make_room(who: Caller) -> None:
    """An empty folder, so that nothing of an earlier tour is taken for this one's."""
    if OUT.exists():
        try:
            shutil.rmtree(OUT)
        except PermissionError:
            subprocess.run(who.as_root(["rm", "-rf", str(OUT)]), check=True)
    OUT.mkdir(parents=True)
    give_back(who, OUT)


def _render(who: Caller) -> int:
    page = [program("python"), "-m", "homeward.lab.page", str(OUT)]
    return run(page, env=who.user_environment() | settings(), become=who.as_user())


def _verdict() -> int:
    timeline = json.loads((OUT / "timeline.json").read_text(encoding="utf-8"))
    return 0 if timeline["passed"] is True else 1
