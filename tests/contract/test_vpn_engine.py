# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of VpnEngine, kept by the fake and by the real adapter with a charon at both ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from homeward.model.errors import IkeError, Unavailable
from homeward.model.vpn import (
    EngineFound,
    EngineLost,
    VpnAnswered,
    VpnEstablished,
    VpnFailed,
    VpnLost,
    VpnMoved,
)
from homeward.ports.world import VpnEngine
from tests.world.fakes_vpn import PATIENCE, FakeVpnWorld
from tests.world.vpn_worlds import (
    KEY,
    NETWORKS,
    SETTINGS,
    RealVpnWorld,
    Reports,
    VpnWorld,
    secret,
    why_no_charons,
)


@pytest.fixture(params=["fake", pytest.param("charon", marks=[pytest.mark.root, pytest.mark.timeout(90)])])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[VpnWorld]:
    if request.param == "charon" and (reason := why_no_charons()):
        pytest.skip(reason)
    made: VpnWorld = FakeVpnWorld() if request.param == "fake" else await asyncio.to_thread(RealVpnWorld)
    try:
        await made.attach(0)
        await made.gateway_knows(KEY)
        yield made
    finally:
        await made.close()


@pytest.fixture
def reports(world: VpnWorld) -> Reports:
    # What the fake reports it reports within its patience with a silent gateway.
    return Reports(4 * PATIENCE) if isinstance(world, FakeVpnWorld) else Reports()


@pytest.fixture
async def engine(world: VpnWorld, reports: Reports) -> AsyncIterator[VpnEngine]:
    made = world.engine()
    await made.start(reports)
    yield made
    await made.stop()


async def connected(world: VpnWorld, engine: VpnEngine, reports: Reports) -> VpnEstablished:
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    established = await reports.get(VpnEstablished)
    reports.forget()
    return established


# --- finding the engine ---


async def test_a_running_engine_is_found_by_its_version(engine: VpnEngine, reports: Reports) -> None:
    assert (await reports.get(EngineFound)).version
    assert not reports.of(EngineLost)


async def test_an_absent_engine_is_told_once_and_found_when_it_starts(
    world: VpnWorld, reports: Reports
) -> None:
    await world.engine_runs(False)
    engine = world.engine()
    await engine.start(reports)
    try:
        assert (await reports.get(EngineLost)).cause
        await reports.stay_without(EngineFound)
        assert len(reports.of(EngineLost)) == 1
        await world.engine_runs(True)
        await reports.get(EngineFound)
    finally:
        await engine.stop()


async def test_without_an_engine_a_connection_cannot_be_made(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await engine.configure(SETTINGS, world.gateway, secret())
    await world.engine_runs(False)
    await reports.get(EngineLost)
    with pytest.raises(Unavailable):
        await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    failed = await reports.get(VpnFailed)
    assert failed.code == "engine-missing"


# --- connecting ---


@pytest.mark.rows("R-246", "R-271")
async def test_a_connection_tells_both_ends_and_the_inner_address(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    established = await connected(world, engine, reports)
    assert established == VpnEstablished(
        local=NETWORKS[0], remote=world.gateway, inner=established.inner, mobike=True, behind_nat=False
    )
    assert str(established.inner).startswith("10.9.0.")
    await reports.stay_without(VpnFailed, VpnLost, VpnEstablished)


@pytest.mark.rows("R-49", "R-91", "R-266")
async def test_a_nat_in_between_is_told(world: VpnWorld, engine: VpnEngine, reports: Reports) -> None:
    source = await world.attach(1)
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(source)
    established = await reports.get(VpnEstablished)
    assert (established.local, established.behind_nat) == (NETWORKS[1], True)


@pytest.mark.rows("R-4", "R-246")
async def test_a_gateway_without_mobike_is_told(world: VpnWorld, engine: VpnEngine, reports: Reports) -> None:
    await world.gateway_knows(KEY, mobike=False)
    assert not (await connected(world, engine, reports)).mobike


async def test_nothing_connects_before_it_is_configured(engine: VpnEngine) -> None:
    with pytest.raises(IkeError):
        await engine.connect(NETWORKS[0])


async def test_a_wrong_key_is_told_without_the_key(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await engine.configure(SETTINGS, world.gateway, secret(b"not the gateway's key"))
    await engine.connect(NETWORKS[0])
    failed = await reports.get(VpnFailed)
    assert failed.code == "authentication-failed"
    assert "not the gateway" not in failed.cause
    assert not reports.of(VpnLost)


async def test_a_corrected_key_replaces_the_wrong_one(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await engine.configure(SETTINGS, world.gateway, secret(b"not the gateway's key"))
    await engine.connect(NETWORKS[0])
    await reports.get(VpnFailed)
    await connected(world, engine, reports)


@pytest.mark.slow
async def test_a_silent_gateway_is_told(world: VpnWorld, engine: VpnEngine, reports: Reports) -> None:
    await world.gateway_speaks(False)
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    failed = await reports.get(VpnFailed)
    assert failed.code == "gateway-unreachable"
    assert str(world.gateway) in failed.cause


async def test_a_second_connection_replaces_the_first_without_a_loss(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    await engine.connect(NETWORKS[0])
    await reports.get(VpnEstablished)
    await reports.stay_without(VpnLost, VpnFailed)


# --- moving ---


@pytest.mark.rows("R-28")
async def test_a_move_is_told_with_the_new_address(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    source = await world.attach(1)
    await engine.move(source)
    assert await reports.get(VpnMoved) == VpnMoved(NETWORKS[1], world.gateway)
    # A move in the middle of the update that the last one began loses a path probe, which charon repeats seconds later.
    await asyncio.sleep(1.0)
    reports.forget()
    await engine.move(await world.attach(0))
    assert (await reports.get(VpnMoved)).local == NETWORKS[0]
    await reports.stay_without(VpnLost, VpnEstablished)


@pytest.mark.rows("R-4", "R-247")
async def test_a_move_without_mobike_is_a_new_connection(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await world.gateway_knows(KEY, mobike=False)
    await connected(world, engine, reports)
    await engine.move(await world.attach(1))
    assert (await reports.get(VpnEstablished)).local == NETWORKS[1]
    assert not reports.of(VpnMoved)


async def test_a_move_to_where_the_gateway_is_silent_ends_in_a_loss_or_in_silence(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    await world.gateway_speaks(False)
    await engine.move(await world.attach(1))
    await reports.stay_without(VpnMoved, VpnAnswered, VpnEstablished)


# --- checking ---


async def test_an_answer_to_a_check_is_told(world: VpnWorld, engine: VpnEngine, reports: Reports) -> None:
    await connected(world, engine, reports)
    await engine.check()
    assert await reports.get(VpnAnswered) == VpnAnswered(NETWORKS[0])
    await reports.stay_without(VpnLost, VpnEstablished, VpnMoved)
    assert len(reports.of(VpnAnswered)) == 1


@pytest.mark.slow
async def test_a_gateway_that_forgot_us_is_found_out_by_a_check(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    await world.gateway_forgets()
    await engine.check()
    assert "no longer answers" in (await reports.get(VpnLost)).cause
    assert not reports.of(VpnAnswered)


async def test_a_check_without_a_vpn_asks_nobody(engine: VpnEngine, reports: Reports) -> None:
    await engine.check()
    await reports.stay_without(VpnAnswered, VpnFailed, VpnLost)


# --- the end ---


@pytest.mark.rows("R-40", "R-271")
async def test_what_was_ordered_to_end_is_no_news(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    inner = (await connected(world, engine, reports)).inner
    await engine.disconnect()
    await reports.stay_without(VpnLost, VpnFailed)
    assert await world.device(engine, inner) is None
    await engine.connect(NETWORKS[0])
    assert (await reports.get(VpnEstablished)).inner == inner


async def test_a_gateway_that_is_gone_does_not_delay_the_end(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    await world.gateway_speaks(False)
    async with asyncio.timeout(1.5):
        await engine.disconnect()
    await reports.stay_without(VpnLost)


async def test_a_try_can_be_called_off(world: VpnWorld, engine: VpnEngine, reports: Reports) -> None:
    await world.gateway_speaks(False)
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    async with asyncio.timeout(1.5):
        await engine.disconnect()
    await world.gateway_speaks(True)
    await reports.stay_without(VpnFailed, VpnEstablished, VpnLost, during=1.5)
    await engine.connect(NETWORKS[0])
    await reports.get(VpnEstablished)


async def test_disconnecting_nothing_is_no_error(engine: VpnEngine, reports: Reports) -> None:
    await engine.disconnect()
    assert not reports.of(VpnLost)


# --- deaths ---


async def test_an_engine_that_dies_and_returns_needs_no_new_configuration(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    await world.engine_runs(False)
    await reports.get(EngineLost)
    reports.forget()
    await world.engine_runs(True)
    await reports.get(EngineFound)
    assert not reports.of(VpnEstablished)
    await engine.connect(NETWORKS[0])
    await reports.get(VpnEstablished)


async def test_a_daemon_that_returns_finds_the_vpn_standing(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    inner = (await connected(world, engine, reports)).inner
    await engine.stop()
    await reports.stay_without(VpnLost)
    later, seen = world.engine(), Reports()
    await later.start(seen)
    try:
        found = await seen.get(VpnEstablished)
        assert (found.inner, found.local, found.remote) == (inner, NETWORKS[0], world.gateway)
        assert [type(report) for report in seen.all] == [EngineFound, VpnEstablished]
        await later.check()
        await seen.get(VpnAnswered)
    finally:
        await later.stop()


async def test_an_engine_that_was_stopped_can_be_started_again(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    """Disconnect and Connect in one life of the daemon: the same object works for the next profile."""
    for _ in range(2):
        await connected(world, engine, reports)
        await engine.disconnect()
        await engine.stop()
        await engine.disconnect()
        await engine.start(reports)
        assert [type(report) for report in reports.all] == [EngineFound]


async def test_an_engine_that_was_stopped_finds_its_own_vpn_again(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    inner = (await connected(world, engine, reports)).inner
    await engine.stop()
    await engine.start(reports)
    assert (await reports.get(VpnEstablished)).inner == inner
    assert [type(report) for report in reports.all] == [EngineFound, VpnEstablished]


async def test_the_tunnel_device_is_the_one_with_the_inner_address(
    world: VpnWorld, engine: VpnEngine, reports: Reports
) -> None:
    inner = (await connected(world, engine, reports)).inner
    assert await world.device(engine, inner) == "ipsec0"
    assert await world.device(engine, inner + 1) is None
