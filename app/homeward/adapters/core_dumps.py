# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that holds keys leaves no picture of its memory behind."""

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def switch_off() -> None:
    """No core dump whatever happens, also none that a handler would take over a pipe; and no debugger but root's."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
