# SPDX-License-Identifier: GPL-2.0-or-later
"""What machine figures were taken on: nothing that tells whose it is or what it is called."""

import os
import platform
import time
from pathlib import Path

MOST_BUSY = 0.15
"""Share of all processors that others may use before a bench begins; more, and its figures would be about them."""


def facts() -> dict[str, str]:
    """Processor, kernel and Python, for the page."""
    return {
        "processor": f"{processor()}, {os.cpu_count()} of them",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model as the kernel names it."""
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def busy(seconds: float = 2.0, stat: Path = Path("/proc/stat")) -> float:
    """The share of this machine's processors that were busy in the next so many seconds, 0 to 1."""
    before = _ticks(stat)
    time.sleep(seconds)
    after = _ticks(stat)
    passed = [later - earlier for earlier, later in zip(before, after, strict=True)]
    everything = sum(passed)
    idle = passed[3] + passed[4]  # idle, and waiting for a disk
    return 1 - idle / everything if everything else 0.0


def _ticks(stat: Path) -> list[int]:
    return [int(word) for word in stat.read_text().splitlines()[0].split()[1:9]]
