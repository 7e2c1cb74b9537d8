# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests below `inside` run in a kernel of their own; the others of this folder start one themselves."""

import os

import pytest

from tests.kernel.inside_reports import REPORTS_VARIABLE
from tests.kernel.mirror import Mirror, Stage, replace_by_mirrors
from tests.kernel.runner import NoKernel, find_kernel

_IN_GUEST = REPORTS_VARIABLE in os.environ
_stage = pytest.StashKey[Stage]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not _IN_GUEST:
        replace_by_mirrors(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    stage = session.config.stash[_stage] = Stage()
    if not session.config.option.collectonly:
        stage.open(session.config, session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    stage = item.config.stash[_stage]
    stage.start()
    if not isinstance(item, Mirror):
        return None
    stage.play(item)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    stage = session.config.stash.get(_stage, None)
    if stage is not None:
        stage.close()


@pytest.fixture
def kernel() -> None:
    """Needs a kernel to boot."""
    try:
        find_kernel()
    except NoKernel as missing:
        pytest.skip(str(missing))
