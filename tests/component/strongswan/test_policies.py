# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose packets the gateway lets in, wherever they come from, and how it learns that the VPN has ended."""

import asyncio
import socket
from ipaddress import IPv4Address
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP

from homeward.adapters.strongswan.engine import StrongSwanEngine
from homeward.model.vpn import VpnMoved
from tests.component.strongswan.steps import connected
from tests.world.stations import eventually
from tests.world.two_charons import INSIDE
from tests.world.vpn_worlds import RealVpnWorld, Reports

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]

HOME = IPv4Address("10.77.0.10")


def let_in(world: RealVpnWorld) -> set[tuple[bytes, ...]]:
    """What the gateway's CHILD_SAs are for: its own side, then the laptop's. A forerunner is one more."""
    children = [child for _, sa in world.hosts.gateway_charon.sas() for child in sa["child-sas"].values()]
    return {(*child["local-ts"], *child["remote-ts"]) for child in children}


@pytest.mark.rows("R-264", "R-269")
async def test_what_the_gateway_lets_in_depends_on_no_outer_address(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    inner = (await connected(world, engine, reports)).inner
    expected = {(b"10.0.0.0/8", f"{inner}/32".encode())}
    for number in (1, 0):
        assert let_in(world) == expected
        reports.forget()
        await engine.move(await world.attach(number))
        await reports.get(VpnMoved)
    assert let_in(world) == expected


def bare_packet(source: IPv4Address) -> bytes:
    return bytes(IP(src=str(source), dst=str(INSIDE)) / UDP(sport=9, dport=7777) / str(source).encode())


@pytest.mark.rows("R-57", "R-269")
async def test_a_packet_of_the_home_address_that_is_not_tunnelled_does_not_come_through(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    inner = (await connected(world, engine, reports)).inner
    hosts = world.hosts

    def listening() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        opened.bind((str(INSIDE), 7777))
        return opened

    def sending() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"ipsec0")
        return opened

    def heard() -> bytes | None:
        try:
            return far.recv(100)
        except BlockingIOError:
            return None

    hosts.laptop.ip(f"address add {HOME}/32 dev lo")
    with hosts.gateway.inside(listening) as far, hosts.laptop.inside(sending) as near:
        for source in (HOME, inner):
            near.sendto(bare_packet(source), (str(INSIDE), 0))
        assert await eventually(heard) == str(inner).encode()
        await asyncio.sleep(0.1)
        assert heard() is None


@pytest.mark.rows("R-40")
async def test_an_end_that_was_ordered_is_told_to_the_gateway(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)

    def sas() -> list[tuple[str, dict[str, Any]]]:
        return world.hosts.gateway_charon.sas()

    assert len(sas()) == 1
    await engine.disconnect()
    await eventually(lambda: not sas())
    assert "parsed INFORMATIONAL request" in world.hosts.gateway_charon.log.read_text()
    assert "received DELETE for IKE_SA" in world.hosts.gateway_charon.log.read_text()
