# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of HomeLinks, kept by the fake and by a packet socket between namespaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

import pytest
from scapy.layers.l2 import ARP, Ether

from homeward.adapters import home_link
from homeward.adapters.home_link import ANNOUNCEMENTS, ArpHomeLinks
from homeward.adapters.kernel_switches import KernelSwitches
from homeward.model.access import HomePath
from homeward.model.errors import AdapterError
from homeward.ports.world import HomeLinks
from tests.contract.worlds import between_namespaces, worlds
from tests.world.fakes import FakeHomeLinks
from tests.world.namespaces import cable
from tests.world.stations import HOME, ROUTER, Stations, eventually

OTHER = IPv4Address("10.77.0.11")


class World(Protocol):
    """What the contract is tried in: two links, `home` and `away`."""

    home_links: HomeLinks
    home: HomePath
    away: HomePath

    async def answers(self, path: HomePath, address: IPv4Address = HOME) -> bool:
        """Whether somebody who asks for an address on a link is answered by the laptop."""

    def cut(self) -> None:
        """The home link is gone."""


class FakeWorld:
    home = HomePath(2, "eth0", HOME)
    away = HomePath(3, "eth1", HOME)

    def __init__(self) -> None:
        self.home_links = FakeHomeLinks()

    async def answers(self, path: HomePath, address: IPv4Address = HOME) -> bool:
        return address == HOME and self.home_links.announced == path

    def cut(self) -> None:
        self.home_links.gone.add(2)


class RealWorld:
    """As on a laptop with a plan applied: the address is on a device of its own, and the kernel answers nobody."""

    def __init__(self, stations: Stations, state: Path) -> None:
        self.stations = stations
        cable(stations.laptop, "eth1", stations.agent, "lan1")
        stations.laptop.ip(f"addr add {HOME}/32 dev lo")
        KernelSwitches(state).set_for(frozenset({"eth0", "eth1"}), frozenset())
        self.home_links = ArpHomeLinks()
        self.home = HomePath(stations.link, "eth0", HOME)
        self.away = HomePath(socket.if_nametoindex("eth1"), "eth1", HOME)

    async def answers(self, path: HomePath, address: IPv4Address = HOME) -> bool:
        with self.stations.agent:
            asker = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        with asker:
            asker.bind(({"eth0": "lan0", "eth1": "lan1"}[path.link_name], 0x0806))
            mine = asker.getsockname()[4].hex(":")
            question = ARP(op=1, hwsrc=mine, psrc=str(ROUTER), pdst=str(address))
            asker.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=mine) / question))
            try:
                async with asyncio.timeout(0.05):
                    return await self._heard(asker, mine)
            except TimeoutError:
                return False

    async def _heard(self, asker: socket.socket, mine: str) -> bool:
        while True:
            frame = Ether(await asyncio.get_running_loop().sock_recv(asker, 200))
            if frame[ARP].op == 2 and frame[ARP].psrc == str(HOME):
                assert (frame.dst, frame[ARP].hwdst, frame[ARP].pdst) == (mine, mine, str(ROUTER))
                assert frame.src == frame[ARP].hwsrc
                return True

    def cut(self) -> None:
        self.stations.laptop.ip("link del eth0")

    async def close(self) -> None:
        self.home_links.stop()


world = worlds(FakeWorld, RealWorld)


@pytest.mark.rows("R-183", "R-190")
async def test_the_home_address_is_answered_for_on_its_own_link_while_it_is_announced(world: World) -> None:
    assert not await world.answers(world.home)
    world.home_links.announce(world.home)
    assert await world.answers(world.home)
    assert not await world.answers(world.away)
    assert not await world.answers(world.home, OTHER)


@pytest.mark.rows("R-189")
async def test_it_is_withdrawn_at_once(world: World) -> None:
    world.home_links.announce(world.home)
    world.home_links.withdraw(world.home)
    assert not await world.answers(world.home)
    world.home_links.withdraw(world.home)


async def test_another_link_takes_its_place(world: World) -> None:
    world.home_links.announce(world.home)
    world.home_links.announce(world.away)
    assert not await world.answers(world.home)
    assert await world.answers(world.away)
    world.home_links.withdraw(world.home)
    assert await world.answers(world.away)


async def test_stop_withdraws_it_wherever_it_is(world: World) -> None:
    world.home_links.announce(world.home)
    world.home_links.stop()
    assert not await world.answers(world.home)


async def test_a_link_that_is_gone_is_an_adapter_error_and_withdrawing_there_is_not(world: World) -> None:
    world.home_links.announce(world.home)
    world.cut()
    with pytest.raises(AdapterError):
        world.home_links.announce(world.home)
    world.home_links.withdraw(world.home)


# --- what only the real one can get wrong ----------------------------------------------------------------------------


@pytest.fixture
async def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RealWorld]:
    monkeypatch.setattr(home_link, "PAUSE", 0.1)
    async with between_namespaces(lambda stations: RealWorld(stations, tmp_path)) as made:
        yield made


def announcements(frames: list[bytes]) -> list[Ether]:
    return [frame for octets in frames if ARP in (frame := Ether(octets)) and frame[ARP].psrc == str(HOME)]


@pytest.mark.root
@pytest.mark.rows("R-190")
async def test_coming_home_is_told_to_everybody_a_few_times_without_waiting(real: RealWorld) -> None:
    own = real.stations.laptop.ip("-br link show eth0").split()[2]
    with real.stations.listen() as wire:
        real.home_links.announce(real.home)
        (first,) = announcements(wire.heard())
        assert (first.dst, first.src) == ("ff:ff:ff:ff:ff:ff", own)
        message = first[ARP]
        assert (message.op, message.hwsrc, message.psrc, message.pdst) == (1, own, str(HOME), str(HOME))
        await asyncio.sleep((ANNOUNCEMENTS - 1) * home_link.PAUSE + 0.1)
        assert len(announcements(wire.heard())) == ANNOUNCEMENTS - 1


@pytest.mark.root
@pytest.mark.rows("R-190")
async def test_a_neighbour_that_had_the_home_agents_address_learns_ours(real: RealWorld) -> None:
    own = real.stations.laptop.ip("-br link show eth0").split()[2]
    real.stations.agent.ip(f"neigh add {HOME} lladdr 02:00:00:00:00:02 dev lan0 nud stale")
    real.home_links.announce(real.home)
    await eventually(lambda: own in real.stations.agent.ip(f"neigh show {HOME} dev lan0"))


@pytest.mark.root
@pytest.mark.rows("R-189")
async def test_after_leaving_home_nothing_is_told_any_more(real: RealWorld) -> None:
    with real.stations.listen() as wire:
        real.home_links.announce(real.home)
        wire.heard()
        real.home_links.withdraw(real.home)
        await asyncio.sleep(home_link.PAUSE + 0.05)
        assert announcements(wire.heard()) == []


@pytest.mark.root
async def test_who_claims_the_home_address_is_not_answered_and_nonsense_does_no_harm(real: RealWorld) -> None:
    real.home_links.announce(real.home)
    with real.stations.agent:
        speaker = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with speaker, real.stations.listen() as wire:
        speaker.bind(("lan0", 0x0806))
        claim = Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, psrc=str(HOME), pdst=str(HOME))
        nonsense = bytearray(bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, pdst=str(HOME))))
        nonsense[18] = 8  # hardware addresses of eight octets
        for frame in (bytes(claim), bytes(nonsense), bytes(claim)[:30]):
            speaker.send(frame)
        await asyncio.sleep(0.03)
        assert [frame for frame in announcements(wire.heard()) if frame[ARP].op == 2] == []
    assert await real.answers(real.home)
