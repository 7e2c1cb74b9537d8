# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts a program in a session of its own and sees to it that no process of that session outlives it, or its starter.

Run as `python -I -S keeper.py PROGRAM ARGUMENT…`. A User-Mode Linux kernel is many processes: each one inside is one
outside. When the kernel is killed they go to whoever adopts orphans; here they are killed, waited for, and gone.
"""

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _stop(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main(argv: list[str]) -> int:
    """The program's exit status; its whole session has ended by then."""
    starter = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != starter:
        return 1  # it died before we could ask to be told
    program = subprocess.Popen(argv, start_new_session=True)
    try:
        return program.wait()
    finally:
        _bury(program.pid)


def _bury(session: int) -> None:
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all ended by themselves
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
