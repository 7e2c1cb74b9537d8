# SPDX-License-Identifier: GPL-2.0-or-later
"""Where chance comes from: the system's generator, in every program and nowhere else (RFC 5944 section 5.4)."""

import ast

import pytest

from tests.architecture.tracked import PACKAGE, relative, tracked_files


@pytest.mark.rows("R-178")
def test_nothing_is_drawn_from_a_predictable_source() -> None:
    found, draws = [], []
    for path in tracked_files():
        if path.suffix != ".py" or not path.is_relative_to(PACKAGE):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    found += [
                        relative(path) for name in names if name.name.split(".")[0] in ("random", "uuid")
                    ]
                case ast.ImportFrom(module="random" | "uuid"):
                    found.append(relative(path))
                case ast.keyword(
                    arg="entropy", value=ast.Lambda(body=ast.Call(func=ast.Attribute() as source))
                ):
                    draws.append(ast.unparse(source))
    assert found == []
    assert draws == ["secrets.randbits"], "the daemon draws what Identifications are made of"
