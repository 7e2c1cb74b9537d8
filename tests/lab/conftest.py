# SPDX-License-Identifier: GPL-2.0-or-later
"""Labs for tests: one that several tests look at, and fresh ones for tests that break them."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeward.lab.access import Cable
from homeward.lab.build import Builder, check_machine, laptop_addresses
from homeward.lab.errors import LabError
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import LAPTOP
from homeward.model.status import ClientState
from tests.lab.laptop import Laptop, Status, address_of
from tests.lab.wiretap import Tap, tap_on_cable

_numbers = itertools.count(1)


def _require_machine() -> None:
    try:
        check_machine()
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture
def fresh_state(tmp_path: Path) -> Iterator[LabState]:
    """A lab's state in a folder of the test's own, nothing built yet; whatever the test leaves is taken down."""
    _require_machine()
    state = LabState(f"t{os.getpid()}-{next(_numbers)}", tmp_path)
    yield state
    Builder(state).down()


@pytest.fixture(scope="session")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabState]:
    """The state of one lab for all files that leave it as they found it; it is built when somebody needs it."""
    _require_machine()
    state = LabState(f"t{os.getpid()}-{next(_numbers)}", tmp_path_factory.mktemp("lab"))
    yield state
    Builder(state).down()


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[LabState]:
    """A lab that stands for all tests of a file, its cable loose; where the file says SHARES_LAB, others had it before.

    To build one takes as long as five tests in it.
    """
    if getattr(request.module, "SHARES_LAB", False):
        state: LabState = request.getfixturevalue("shared_state")
        if not Builder(state).up():
            Cable(state).unplug()
        yield state
        return
    _require_machine()
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    state = LabState(f"t{os.getpid()}-{next(_numbers)}", factory.mktemp("lab"))
    Builder(state).up()
    yield state
    Builder(state).down()


@pytest.fixture
def move(lab: LabState) -> Callable[[str], str]:
    """Plug the laptop in somewhere and wait for its address there."""

    def plug_and_wait(network: str) -> str:
        Cable(lab).plug(network)
        deadline = time.monotonic() + 10
        while not (addresses := laptop_addresses(lab)):
            assert time.monotonic() < deadline, f"no address in {network} after 10 s"
            time.sleep(0.02)
        # The DHCP client sets the address first, and the route a moment later.
        while not Host(lab, LAPTOP).run("ip", "-4", "route", "show", "default").stdout:
            assert time.monotonic() < deadline, f"no route in {network} after 10 s"
            time.sleep(0.02)
        return addresses[0]

    return plug_and_wait


@pytest.fixture(scope="module")
def status(lab: LabState) -> Iterator[Status]:
    """What the daemon of the file's lab tells, all the time."""
    with Status(address_of(lab)) as watching:
        yield watching


@pytest.fixture
def laptop(lab: LabState, status: Status) -> Iterator[Laptop]:
    """The laptop of the file's lab, with a daemon that runs and is disconnected, before the test and after it."""
    made = Laptop(lab, status)
    made.start_daemon()
    assert status.now is not None
    assert status.now.state is ClientState.DISCONNECTED
    yield made
    made.start_daemon()
    if status.now is None or status.now.state is not ClientState.DISCONNECTED:
        made.disconnect()


@pytest.fixture
def tap(lab: LabState) -> Iterator[Tap]:
    """What leaves the laptop."""
    with tap_on_cable(lab) as made:
        yield made
