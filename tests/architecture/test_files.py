# SPDX-License-Identifier: GPL-2.0-or-later
"""What every file of the project has, and what none has."""

import re
from pathlib import Path

import pytest

from tests.architecture.tracked import PACKAGE, ROOT, relative, tracked_files

LICENCE = "SPDX-License-Identifier: GPL-2.0-or-later"
SCAPY_LICENCE = "SPDX-License-Identifier: GPL-2.0-only"
LONGEST_FILE = 500
"""Lines. The aim is 400 (house.md); what grows past this is split by what it does, never into leftovers."""

EMPTY_NAMES = re.compile(r"(^|_)(utils?|managers?|helpers?|common|misc)(_|$)")

# The brackets keep this file from finding itself.
FOREIGN = {
    "a registry or mirror": re.compile(
        r"[p]ypi\.org|[p]ythonhosted|[d]eb\.debian\.org|[s]napshot\.debian|[n]pmjs\.com"
        r"|--(extra-)?[i]ndex-url[ =]|--[f]ind-links[ =]"
    ),
    "a path of one machine": re.compile(
        r"/[w]ork/(main|shared)|/[r]oot/|/[t]mp/spec|/[o]pt/(pypi|wheels)|/[h]ome/(?!USER|\.\.\.)[a-z]"
    ),
}


def python_files() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py"]


def test_every_source_file_names_its_licence() -> None:
    without = []
    for path in python_files():
        wished = SCAPY_LICENCE if path.is_relative_to(PACKAGE / "diagnostics") else LICENCE
        with path.open(encoding="utf-8") as text:
            first_lines = [text.readline().rstrip("\n"), text.readline().rstrip("\n")]
        first = first_lines[1] if first_lines[0].startswith("#!") else first_lines[0]
        if first != f"# {wished}":
            without.append(relative(path))
    assert not without, without


def test_the_licence_is_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 2, June 1991" in text


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names(what: str) -> None:
    found = []
    for path in tracked_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture or a capture
        found += [
            f"{relative(path)}:{n}: {line.strip()}"
            for n, line in enumerate(lines, 1)
            if FOREIGN[what].search(line)
        ]
    assert not found, found


def test_the_lock_pins_everything_by_hash_and_names_no_place() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    odd = [
        line
        for line in lines
        if not re.match(r"#|    #|[a-z0-9-]+==\S+ \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$", line)
    ]
    assert not odd, odd


def test_names_say_what_a_file_is() -> None:
    named = [
        relative(path)
        for path in python_files()
        if EMPTY_NAMES.search(path.stem) or EMPTY_NAMES.search(path.parent.name)
    ]
    assert not named, named


def test_files_stay_short() -> None:
    count = {
        relative(p): len(p.read_text(encoding="utf-8").splitlines())
        for p in python_files()
        if p.is_relative_to(PACKAGE)
    }
    long = {name: lines for name, lines in count.items() if lines > LONGEST_FILE}
    assert not long, long


def test_every_test_folder_is_run_by_a_layer() -> None:
    from devtools.checks import folders_without_a_layer

    folders = {
        path.relative_to(ROOT / "tests").parts[0]
        for path in python_files()
        if path.is_relative_to(ROOT / "tests")
    }
    assert not folders_without_a_layer({name for name in folders if not name.endswith(".py")})
