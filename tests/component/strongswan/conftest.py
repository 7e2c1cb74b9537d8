# SPDX-License-Identifier: GPL-2.0-or-later
"""The strongSwan adapter with a real charon at both ends: each test has a world of its own (0.2 s to build)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from homeward.adapters.strongswan.engine import StrongSwanEngine
from tests.world.vpn_worlds import KEY, RealVpnWorld, Reports, why_no_charons


@pytest.fixture
async def world() -> AsyncIterator[RealVpnWorld]:
    if reason := why_no_charons():
        pytest.skip(reason)
    made = await asyncio.to_thread(RealVpnWorld)
    try:
        await made.attach(0)
        await made.gateway_knows(KEY)
        yield made
    finally:
        await made.close()


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
async def engine(world: RealVpnWorld, reports: Reports) -> AsyncIterator[StrongSwanEngine]:
    made = world.engine()
    await made.start(reports)
    yield made
    await made.stop()
