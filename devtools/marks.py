# SPDX-License-Identifier: GPL-2.0-or-later
"""Which test names which row, read from the tests' source: to import them all would take seconds, and Qt, and scapy."""

import ast
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

Claims = Mapping[str, tuple[str, ...]]
"""By row, the tests that name it, as `tests/unit/test_x.py::test_y`, a class or a file standing for all its tests."""


class Misplaced(ValueError):
    """A mark that names rows where no test can be made out; the text says where."""


def claims(root: Path) -> dict[str, tuple[str, ...]]:
    """Every claim of every test below root, in the order of files and lines; Misplaced."""
    found: dict[str, dict[str, None]] = {}
    for path in _test_files(root):
        text = path.read_text(encoding="utf-8")
        if "mark.rows" in text:
            name = path.relative_to(root).as_posix()
            for test, row in _claims_of(ast.parse(text, name), name):
                found.setdefault(row, {})[test] = None
    return {row: tuple(tests) for row, tests in found.items()}


def _test_files(root: Path) -> list[Path]:
    """Those that git knows, or the page would not be that of any commit; where there is no git, all."""
    command = ["git", "ls-files", "-z", "--", "tests"]
    try:
        listing = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
        paths = [root / name for name in listing.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = list((root / "tests").rglob("*.py"))
    return sorted(path for path in paths if path.match("test_*.py") and path.is_file())


def _claims_of(module: ast.Module, name: str) -> Iterator[tuple[str, str]]:
    seen: set[ast.Call] = set()
    for test, marks in _marked(module, name):
        for call in marks:
            seen.add(call)
            for argument in call.args:
                if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                    raise Misplaced(f"{name}:{call.lineno}: rows are named by plain strings")
                yield test, argument.value
    for call in _row_marks(module):
        if call not in seen:
            raise Misplaced(
                f"{name}:{call.lineno}: rows are named on a test, on a class of tests, or by pytestmark"
            )


def _marked(scope: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, list[ast.Call]]]:
    """Each test, class or file, and the marks on it."""
    for node in scope.body:
        match node:
            case ast.FunctionDef(name=own) | ast.AsyncFunctionDef(name=own) if own.startswith("test"):
                yield f"{name}::{own}", [call for each in node.decorator_list for call in _row_marks(each)]
            case ast.ClassDef(name=own) if own.startswith("Test"):
                yield f"{name}::{own}", [call for each in node.decorator_list for call in _row_marks(each)]
                yield from _marked(node, f"{name}::{own}")
            case ast.Assign(targets=[ast.Name(id="pytestmark")]):
                yield name, list(_row_marks(node))


def _row_marks(node: ast.AST) -> Iterator[ast.Call]:
    """The calls `pytest.mark.rows(…)` in and below a node."""
    for each in ast.walk(node):
        match each:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="mark"), attr="rows")):
                yield each
