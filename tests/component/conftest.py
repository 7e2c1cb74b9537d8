# SPDX-License-Identifier: GPL-2.0-or-later
"""A private bus and a second user for the tests of this folder."""

import shutil
from collections.abc import Iterator

import pytest

from tests.world.buses import OtherUser, PrivateBus


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("needs dbus-daemon")
    private = PrivateBus()
    private.start()
    yield private
    private.remove()


@pytest.fixture
def other_user() -> Iterator[OtherUser]:
    """Needs root: mark the test so."""
    user = OtherUser()
    yield user
    user.stop()
