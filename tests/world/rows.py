# SPDX-License-Identifier: GPL-2.0-or-later
"""A pytest plugin: which rows of docs/conformance.md a test verifies goes into the report beside its outcome.

`@pytest.mark.rows("R-29", "R-30")` says so, also on a class, for a whole file as `pytestmark`, and on a `pytest.param`.
Claim what the test would notice if it were broken, and nothing else. `./dev test` reads the reports of all layers and
fails when a row that is called done was verified by nobody; one layer by itself is never asked.
"""

import pytest

PROPERTY = "row"
"""The property of a testcase in pytest's XML report, once for each row."""


def rows_of(item: pytest.Item) -> list[str]:
    """The rows that a test verifies, without repetition; none for a contract's run on the fake, which shows nothing."""
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "fake" in callspec.params.values():
        return []
    return list(dict.fromkeys(row for mark in item.iter_markers("rows") for row in mark.args))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [(PROPERTY, row) for row in rows_of(item)]
