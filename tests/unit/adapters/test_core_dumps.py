# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that holds keys can neither dump its memory nor be looked into; tried on one of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import homeward

LOOK = """
import ctypes, resource
{before}
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))", " 1"),
        ("from homeward.adapters import core_dumps; core_dumps.switch_off()", "(0, 0) 0"),
    ],
    ids=["as it is", "switched off"],
)
def test_dumps_are_switched_off_for_good(before: str, expected: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(homeward.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(before=before)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().endswith(expected)
