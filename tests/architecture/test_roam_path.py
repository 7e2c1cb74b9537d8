# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/architecture.md names the files that one roam passes: at most twelve, and joined as it says."""

import ast
import re
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (\d+) \| `(app/homeward/[\w/]+\.py)` \|.*\| ([^|]*) \|$", re.MULTILINE)
MOST = 12


def rows() -> list[tuple[int, str, str]]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    return [(int(number), file, joint.strip()) for number, file, joint in ROW.findall(text)]


def module(file: str) -> str:
    return file.removeprefix("app/").removesuffix(".py").replace("/", ".")


def imported_by(file: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def is_joined(joint: str, file: str, following: str) -> bool:
    if re.fullmatch(r"imports \d+", joint):
        return module(following) in imported_by(file)
    if re.fullmatch(r"is imported by \d+", joint):
        return module(file) in imported_by(following)
    shared = re.fullmatch(r"both import `(app/[\w/]+\.py)`", joint)
    assert shared, f"the joint {joint!r} says nothing that can be checked"
    return module(shared[1]) in imported_by(file) & imported_by(following)


def test_one_roam_passes_these_files_in_this_order() -> None:
    path = rows()
    assert [number for number, _, _ in path] == list(range(1, len(path) + 1))
    assert 8 <= len(path) <= MOST
    for _, file, _ in path:
        assert (ROOT / file).is_file(), file
    broken = [
        f"{file} -> {following}: {joint}"
        for (_, file, joint), (_, following, _) in pairwise(path)
        if not is_joined(joint, file, following)
    ]
    assert broken == []


def test_a_wrong_joint_is_noticed() -> None:
    driver, tray = "app/homeward/daemon/driver.py", "app/homeward/gui/tray.py"
    assert not is_joined("imports 2", driver, tray)
    assert not is_joined("both import `app/homeward/model/effects.py`", driver, tray)
