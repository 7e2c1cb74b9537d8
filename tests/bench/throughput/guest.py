# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways that only a kernel with `ipip` has.

Run inside the guest as `python -m tests.bench.throughput.guest FOLDER`; leaves guest.json in the folder, which is the
host's.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.bench.throughput.course import Course, Found
from tests.bench.throughput.offices import Homeward, PlainIpip, RawVeth, opened

RESULT: Final = "guest.json"


def read(folder: Path) -> tuple[Course, str]:
    """What a run in the guest has left, and the kernel's release."""
    plain = json.loads((folder / RESULT).read_text())
    found = {tuple(figure): Found(**words) for figure, words in plain["found"]}
    return Course(found, plain["failed"]), plain["kernel"]


def main(folder: Path) -> None:
    """Measure, and leave the result."""
    course = Course()
    with tempfile.TemporaryDirectory() as own:
        place = Path(own)
        ways = (RawVeth, PlainIpip, lambda: Homeward(place, "ipip"))
        with opened(ways, course.failed) as stand:
            course.run(stand)
    found = [[figure, asdict(each)] for figure, each in course.found.items()]
    plain = {"kernel": platform.release(), "found": found, "failed": course.failed}
    (folder / RESULT).write_text(json.dumps(plain))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
