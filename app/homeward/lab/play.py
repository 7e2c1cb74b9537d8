# SPDX-License-Identifier: GPL-2.0-or-later
"""`homeward-lab play`: up, the story, the audit of its captures, down; and all that was seen in one folder."""

import asyncio
import contextlib
import os
import shutil
import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from homeward.lab import desktop
from homeward.lab.build import ALL_HOSTS, Builder
from homeward.lab.capture import Captures, hops
from homeward.lab.director import Director, Say
from homeward.lab.errors import LabError, UsageError
from homeward.lab.state import LabState, checkout, invoking_user
from homeward.lab.story import Story
from homeward.lab.verdict import judge
from homeward.model.errors import HomewardError


def default_out(story: str) -> Path:
    """Where a story leaves what it saw, when nobody says where: in the checkout's build folder, else here."""
    root = checkout()
    return (root / "build" / "play" if root is not None else Path.cwd()) / story


def play(story: Story, state: LabState, out: Path, *, tray: bool, real_clock: bool = False) -> bool:
    """Play a story and say whether it passed. A lab that stood before stands afterwards; one built for it is gone.

    With `real_clock` a story that sets the laptop's clock sets the machine's own; UsageError where that is not a kernel
    of one's own. A story that is broken off has not passed; what was seen until then is in `out` all the same.
    """
    if real_clock and not _kernel_of_our_own():
        raise UsageError("the real clock is only set in a kernel of one's own (tests/kernel)")
    out.mkdir(parents=True, exist_ok=True)
    say = live()
    say(story.name, story.about)
    with _ends_in_order(), _lab(state, say) as built:
        captures = Captures(state, hops(story))
        director = Director(state, say, real_clock=real_clock)
        captures.start()
        try:
            with desktop.tray_of(state) if tray else contextlib.nullcontext() as shown:
                try:
                    asyncio.run(director.perform(story))
                except (LabError, HomewardError) as error:
                    say(story.name, f"broken off: {error}")
                if shown is not None and shown.picture(out / desktop.SCREENSHOT):
                    say("tray", f"screenshot in {out / desktop.SCREENSHOT}")
        finally:
            captures.stop()
            _collect(state, captures, out)
            director.tidy_up(story, lab_stays=not built)
        timeline = judge(story, director, out, say)
    _give_back(out)
    return timeline.passed


def live() -> Say:
    """The live timeline on standard output: seconds since now, who, and what; wrapped for reading."""
    began = time.monotonic()
    width = min(max(shutil.get_terminal_size((110, 24)).columns, 60), 120) - 1

    def say(who: str, line: str) -> None:
        head = f"{time.monotonic() - began:7.2f}  {who:11}  "
        print(textwrap.fill(line, width, initial_indent=head, subsequent_indent=" " * len(head)), flush=True)

    return say


def _kernel_of_our_own() -> bool:
    return "User Mode Linux" in Path("/proc/cpuinfo").read_text()


# --- around the story ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end a story as Ctrl-C does, so that the lab is taken down."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _lab(state: LabState, say: Say) -> Iterator[bool]:
    """A lab that stands, and whether it was built for us."""
    builder = Builder(state, lambda line: say("lab", line))
    built = builder.up()
    try:
        yield built
    finally:
        if built:
            # A second Ctrl-C must not leave half a lab behind.
            handlers = {
                number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
            }
            try:
                builder.down()
                say("lab", "is down")
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)


def _collect(state: LabState, captures: Captures, out: Path) -> None:
    """Captures and logs, by host, into the story's folder."""
    captures.collect(out / "captures")
    for host in ALL_HOSTS:
        for log in sorted((state.host(host) / "log").glob("*.log")):
            if log.stat().st_size == 0:
                continue
            target = out / "logs" / f"{host}-{log.name}"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(log, target)


def _give_back(out: Path) -> None:
    """What root wrote belongs to the user for whom it was written."""
    uid, gid = invoking_user()
    if os.geteuid() == 0 and uid != 0:
        for path in (out, *out.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)
