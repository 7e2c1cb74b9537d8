# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's own tests once more, with the kernel's ESP instead of charon's: attacks, bad input, deaths, MOBIKE."""

import subprocess
import sys

import pytest

from tests.kernel.runner import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.virtual_clock, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("name", ["attacks", "bad_input", "kill", "vpn_gateway"])
def test_the_labs_tests_pass(name: str) -> None:
    argv = [sys.executable, "-m", "pytest", f"--basetemp=/run/pytest-{name}", f"tests/lab/test_{name}.py"]
    done = subprocess.run(argv, cwd=ROOT, check=False)
    assert done.returncode == 0
