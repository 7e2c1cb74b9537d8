# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab comes and goes, and the host is as it was."""

import pytest

from homeward.lab.access import Cable
from homeward.lab.build import Builder
from homeward.lab.state import LabState
from tests.world.host_state import changes_made_by

pytestmark = [pytest.mark.root, pytest.mark.lab]


@pytest.mark.slow
def test_a_lab_changes_nothing_of_the_host(fresh_state: LabState) -> None:
    def live() -> None:
        Builder(fresh_state).up()
        Cable(fresh_state).plug("trust1")
        Cable(fresh_state).plug("ext2")
        Builder(fresh_state).down()

    assert changes_made_by(live) == []


@pytest.mark.slow
def test_a_standing_lab_changes_nothing_of_the_host(fresh_state: LabState) -> None:
    assert changes_made_by(Builder(fresh_state).up) == []
