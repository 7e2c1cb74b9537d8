# SPDX-License-Identifier: GPL-2.0-or-later
"""The conformance page is what the table of rows and the tests' marks make of it today."""

import pytest

from devtools.conformance import PAGE, ROWS, Row, load_rows, render, unknown_rows, unshown
from devtools.marks import Claims, claims
from tests.architecture.tracked import ROOT


@pytest.fixture(scope="module")
def rows() -> tuple[Row, ...]:
    return load_rows((ROOT / ROWS).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def named() -> Claims:
    return claims(ROOT)


def test_every_row_is_there_once(rows: tuple[Row, ...]) -> None:
    assert [row.id for row in rows] == [f"R-{number}" for number in range(1, 293)]
    assert all(row.section and row.level and row.who and row.says for row in rows)


def test_tests_name_rows_that_there_are(named: Claims) -> None:
    assert unknown_rows(named) == []


def test_what_is_claimed_is_named_by_a_test(rows: tuple[Row, ...], named: Claims) -> None:
    assert [row.id for row in unshown(rows, named)] == []


def test_the_page_is_current(rows: tuple[Row, ...], named: Claims) -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == render(rows, named), "run ./dev conformance"
