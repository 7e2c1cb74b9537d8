# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests share: where they may run, how long they may take, and a hypothesis profile for two slow cores."""

import os
import subprocess
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.world.rows",)

LAB_SECONDS = 240

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

# The machine is shared while tests run: a slow example is no finding, a different answer on each run would be.
settings.register_profile(
    "homeward", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("homeward")


@cache
def why_no_root() -> str | None:
    """The reason why tests that need root cannot run here, None when they can."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if tried.returncode == 0 else f"may not make namespaces: {tried.stderr.strip()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, saying why, what this machine cannot run; give the lab's tests the time that a lab takes."""
    for item in items:
        needs_root = item.get_closest_marker("root") is not None
        if needs_root and (reason := why_no_root()) is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("lab") is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LAB_SECONDS))
