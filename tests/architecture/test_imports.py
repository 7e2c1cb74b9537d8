# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may import whom: the contracts hold, and each of them can be broken."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.tracked import PACKAGE, ROOT, relative

PURE_STANDARD_LIBRARY = frozenset(
    {
        "__future__", "abc", "bisect", "collections", "copy", "dataclasses", "datetime", "difflib", "enum", "errno",
        "fractions", "functools", "heapq", "ipaddress", "itertools", "math", "operator", "re", "string", "struct",
        "types", "typing",
    }
)  # fmt: skip
"""What decisions may use: nothing that reads a clock, a file, a socket or chance."""
DIGESTS = frozenset({"hashlib", "hmac"})

VIOLATIONS = {
    "layers": ("wire/upwards.py", "import homeward.core"),
    "pure": ("core/clock.py", "import time"),
    "digests": ("agents/digest.py", "import hashlib"),
    "adapters-decide-nothing": ("adapters/deciding.py", "import homeward.agents"),
    "adapters-apart": ("adapters/neighbourly.py", "import homeward.adapters.deciding"),
    "faces-render": ("cli/direct.py", "import homeward.wire"),
    "sole-pyroute2": ("daemon/netlink.py", "import pyroute2"),
    "sole-qasync": ("gui/second_loop.py", "import qasync"),
    "sole-pyside6": ("cli/window.py", "from PySide6 import QtCore"),
    "sole-keyring": ("daemon/keys.py", "import keyring"),
    "sole-scapy": ("lab/packets.py", "from scapy.all import IP"),
    "sole-dbus-fast": ("daemon/calls.py", "import dbus_fast"),
    "sole-vici": ("daemon/ike.py", "import vici"),
}


def contracts() -> list[dict[str, str]]:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, str]] = described["tool"]["importlinter"]["contracts"]
    return found


def lint_imports(source_root: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program), "--config", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    env = {**os.environ, "PYTHONPATH": str(source_root), "COLUMNS": "400"}
    return subprocess.run(command, cwd=source_root, env=env, capture_output=True, text=True, check=False)


def test_every_contract_holds(tmp_path: Path) -> None:
    done = lint_imports(ROOT / "app", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_can_be_broken(tmp_path: Path) -> None:
    assert {contract["id"] for contract in contracts()} == set(VIOLATIONS), "a contract without its violation"
    for package in (PACKAGE, *(path for path in PACKAGE.iterdir() if (path / "__init__.py").exists())):
        copy = tmp_path / "homeward" / package.relative_to(PACKAGE)
        copy.mkdir(parents=True)
        (copy / "__init__.py").write_text("")
    for name, line in VIOLATIONS.values():
        (tmp_path / "homeward" / name).write_text(line + "\n")
    done = lint_imports(tmp_path, tmp_path / "cache")
    unbroken = [c["id"] for c in contracts() if f"{c['name']} BROKEN" not in " ".join(done.stdout.split())]
    assert not unbroken, done.stdout + done.stderr


@pytest.mark.parametrize("layer", ["model", "wire", "core", "agents"])
def test_a_pure_layer_uses_only_what_is_listed(layer: str) -> None:
    allowed = PURE_STANDARD_LIBRARY | {"homeward"} | (DIGESTS if layer == "wire" else frozenset())
    surplus = [
        f"{relative(path)}: {name}"
        for path in sorted((PACKAGE / layer).rglob("*.py"))
        for name in imported_packages(path)
        if name not in allowed
    ]
    assert not surplus, surplus


def imported_packages(path: Path) -> set[str]:
    """First names of everything that a file imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names
