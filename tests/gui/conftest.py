# SPDX-License-Identifier: GPL-2.0-or-later
"""Private buses and screens for the tray's tests; nothing of the machine's own desktop is touched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gui.session import PrivateBus, Screen


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """Address of a bus with nothing on it, for the daemon's end."""
    with PrivateBus(tmp_path / "daemon-bus") as address:
        yield address


@pytest.fixture
def session(tmp_path: Path) -> Iterator[str]:
    """Address of a session bus with nothing on it: no panel, no keyring, no activation."""
    with PrivateBus(tmp_path / "session-bus") as address:
        yield address


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a virtual screen, since Qt has a tray only where there is a real display."""
    with Screen(tmp_path_factory.mktemp("screen")) as environment:
        yield environment
