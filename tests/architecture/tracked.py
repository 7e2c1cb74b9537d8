# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of the checkout that are under version control."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "app" / "homeward"


NOT_OURS = frozenset({".git", "build", "__pycache__"})


@cache
def tracked_files() -> tuple[Path, ...]:
    """Files that are tracked, or would be with the next `git add`; links are left to what they point at.

    In an unpacked archive, where git knows nothing, every file that is not made by running something.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        paths = [ROOT / name for name in listing.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not NOT_OURS & set(path.relative_to(ROOT).parts)]
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))
