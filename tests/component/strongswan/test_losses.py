# SPDX-License-Identifier: GPL-2.0-or-later
"""How the end of a VPN, of charon or of a try is noticed and told."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from homeward.adapters.strongswan.engine import StrongSwanEngine
from homeward.model.errors import Unavailable
from homeward.model.profile import GatewaySettings
from homeward.model.vpn import (
    EngineFound,
    EngineLost,
    VpnAnswered,
    VpnEstablished,
    VpnFailed,
    VpnLost,
)
from tests.component.strongswan.steps import Measured, connected
from tests.world.echo import echo
from tests.world.vpn_worlds import KEY, NETWORKS, SETTINGS, RealVpnWorld, Reports, secret

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]


async def test_a_gateway_that_closes_the_vpn_is_told(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    with world.hosts.gateway_charon.session() as session:
        list(session.terminate({"ike": "roadwarrior"}))
    assert "the gateway closed" in (await reports.get(VpnLost)).cause
    assert len(reports.of(VpnLost)) == 1


async def test_a_gateway_that_closes_the_child_sa_only_is_told(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    with world.hosts.gateway_charon.session() as session:
        list(session.terminate({"child": "inside"}))
    assert "the gateway closed" in (await reports.get(VpnLost)).cause
    await asyncio.sleep(0.5)
    assert world.hosts.laptop_charon.sas() == []


async def test_somebody_elses_order_on_this_machine_is_told(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    [(name, _)] = world.hosts.laptop_charon.sas()
    with world.hosts.laptop_charon.session() as session:
        list(session.terminate({"ike": name}))
    assert "another program" in (await reports.get(VpnLost)).cause


@pytest.mark.rows("R-271")
async def test_a_killed_charon_is_missed_at_once_and_the_same_inner_address_returns(
    world: RealVpnWorld,
    engine: StrongSwanEngine,
    reports: Reports,
    record_property: Measured,
) -> None:
    inner = (await connected(world, engine, reports)).inner
    begun = asyncio.get_running_loop().time()
    await world.engine_runs(False)
    lost = await reports.get(EngineLost)
    assert reports.when(lost) - begun < 1
    assert "ipsec0" not in world.hosts.laptop.run("ip", "-brief", "link")
    begun = asyncio.get_running_loop().time()
    await world.engine_runs(True)
    found = await reports.get(EngineFound)
    await engine.connect(NETWORKS[0])
    established = await reports.get(VpnEstablished)
    record_property("found_ms", round((reports.when(found) - begun) * 1000))
    record_property("back_ms", round((reports.when(established) - begun) * 1000))
    assert established.inner == inner
    assert reports.when(established) - begun < 5
    with echo(world.hosts, inner) as traffic:
        await asyncio.sleep(0.3)
        assert traffic.came


@pytest.mark.slow
async def test_a_charon_that_hangs_is_unavailable_not_waited_for(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    charon = world.hosts.laptop_charon
    charon.freeze(True)
    try:
        async with asyncio.timeout(7):
            with pytest.raises(Unavailable, match="does not answer"):
                await engine.configure(SETTINGS, world.gateway, secret())
    finally:
        charon.freeze(False)
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.check()
    await reports.get(VpnAnswered)


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        pytest.param(
            replace(SETTINGS, proposals=("aes256-sha512-modp4096",)), "gateway-refused", "cipher", id="ike"
        ),
        pytest.param(
            replace(SETTINGS, esp_proposals=("aes256-sha512",)), "gateway-refused", "cipher", id="esp"
        ),
        pytest.param(
            replace(SETTINGS, remote_networks=(IPv4Network("172.16.0.0/12"),)),
            "gateway-refused",
            "networks",
            id="networks",
        ),
        pytest.param(
            replace(SETTINGS, remote_identity="other.example.test"),
            "authentication-failed",
            "key",
            id="identity",
        ),
    ],
)
async def test_a_refusal_is_told_in_words(
    world: RealVpnWorld,
    engine: StrongSwanEngine,
    reports: Reports,
    settings: GatewaySettings,
    code: str,
    words: str,
) -> None:
    strict = ("aes128gcm16-prfsha256-curve25519",)
    await asyncio.to_thread(
        lambda: world.hosts.configure_gateway(KEY, proposals=strict, esp_proposals=("aes128gcm16",))
    )
    await engine.configure(settings, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    failed = await reports.get(VpnFailed)
    assert failed.code == code
    assert words in failed.cause
    await asyncio.sleep(0.3)
    assert world.hosts.laptop_charon.sas() == []


async def test_a_try_without_a_route_can_be_called_off(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    world.hosts.laptop.ip("route del default")
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    await asyncio.sleep(0.2)
    assert [sa["local-host"] for _, sa in world.hosts.laptop_charon.sas()] == [b"%any"]
    await engine.disconnect()
    assert world.hosts.laptop_charon.sas() == []
    await world.attach(0)
    await connected(world, engine, reports)


@pytest.mark.slow
@pytest.mark.rows("R-248")
async def test_a_blocked_port_4500_is_told_apart_from_a_silent_gateway(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    world.hosts.router.run("nft", "add rule ip nat wall udp dport 4500 drop")
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    failed = await reports.get(VpnFailed)
    assert failed.code == "gateway-unreachable"
    assert "4500" in failed.cause


async def test_a_gateway_without_inner_addresses_is_told(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    await asyncio.to_thread(lambda: world.hosts.configure_gateway(KEY, pool=""))
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    failed = await reports.get(VpnFailed)
    assert failed.code == "gateway-refused"
    assert "inner address" in failed.cause


async def test_many_connections_leave_one_behind(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    for _ in range(5):
        reports.forget()
        await engine.connect(NETWORKS[0])
        await reports.get(VpnEstablished)
    await asyncio.sleep(0.5)
    assert len(world.hosts.laptop_charon.sas()) == 1
    with world.hosts.laptop_charon.session() as session:
        session.load_conn({"somebody-elses": {"version": "2", "remote_addrs": ["192.0.2.9"]}})
        await engine.disconnect()
        await engine.configure(SETTINGS, world.gateway, secret())
        names = [name.decode() for name in session.get_conns()["conns"]]
    assert world.hosts.laptop_charon.sas() == []
    assert "somebody-elses" in names
    assert len(names) == 2
