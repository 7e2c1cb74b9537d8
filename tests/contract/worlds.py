# SPDX-License-Identifier: GPL-2.0-or-later
"""Where contracts are tried: in memory, and as root between network namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from tests.world.stations import Stations


class Standing(Protocol):
    async def close(self) -> None: ...


Real = TypeVar("Real", bound=Standing)


@asynccontextmanager
async def between_namespaces(make: Callable[[Stations], Real]) -> AsyncIterator[Real]:
    """What `make` builds around the stations, and inside it; closed at the end."""
    with Stations() as stations:
        made = make(stations)
        yield made
        await made.close()


def worlds(fake: Callable[[], object], real: Callable[[Stations, Path], Standing]) -> Any:
    """The fixture `world`: the fake one; and the real one, with a directory of its own to keep notes in."""

    @pytest.fixture(name="world", params=["fake", pytest.param("real", marks=pytest.mark.root)])
    async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[object]:
        if request.param == "fake":
            yield fake()
            return
        async with between_namespaces(lambda stations: real(stations, tmp_path)) as made:
            yield made

    return world
