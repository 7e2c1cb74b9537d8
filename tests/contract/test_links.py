# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of Links, kept by the fake and by rtnetlink in a namespace."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Protocol

import pytest

from homeward.adapters.netlink_links import NetlinkLinks
from homeward.model.access import Link
from homeward.ports.world import Links
from tests.world.fakes import FakeLinks
from tests.world.namespaces import Namespace, cable
from tests.world.stations import eventually

ADDRESS = IPv4Interface("10.1.1.10/24")
ROUTER = IPv4Address("10.1.1.1")


class World(Protocol):
    """What the contract is tried in: one cable, eth0."""

    links: Links

    def lend(self, *, metric: int = 100) -> None:
        """eth0 gets ADDRESS and a default route by ROUTER."""

    def take_back(self) -> None:
        """eth0 loses its address, and its routes with it."""

    def meet_router(self, station: str) -> None:
        """The router answers ARP with this hardware address."""

    def pull(self) -> None:
        """The cable is out."""

    def plug(self) -> None:
        """The cable is in again."""

    def add_foreign(self) -> None:
        """A bridge comes up."""

    def unplug_adapter(self) -> None:
        """eth0 is gone altogether."""


class FakeWorld:
    def __init__(self) -> None:
        self.links = FakeLinks(
            Link(1, "lo", False, "the loopback", True, mtu=65536), Link(2, "eth0", True, "a cable", True)
        )

    def lend(self, *, metric: int = 100) -> None:
        self.links.change("eth0", addresses=(ADDRESS,), gateway=ROUTER, metric=metric)

    def take_back(self) -> None:
        self.links.change("eth0", addresses=(), gateway=None, metric=None, station="")

    def meet_router(self, station: str) -> None:
        self.links.change("eth0", station=station)

    def _flap(self, carrier: bool) -> None:
        eth0 = next(link for link in self.links.links if link.name == "eth0")
        self.links.change("eth0", carrier=carrier, carrier_changes=eth0.carrier_changes + 1)

    def pull(self) -> None:
        self._flap(False)

    def plug(self) -> None:
        self._flap(True)

    def add_foreign(self) -> None:
        self.links.set(*self.links.links, Link(3, "br0", False, "a bridge", True))

    def unplug_adapter(self) -> None:
        self.links.set(*(link for link in self.links.links if link.name != "eth0"))


class RealWorld:
    def __init__(self, here: Namespace, there: Namespace) -> None:
        self.here, self._there = here, there
        cable(here, "eth0", there, "lan0")
        self.links = NetlinkLinks()

    def lend(self, *, metric: int = 100) -> None:
        self.here.ip(f"addr replace {ADDRESS} dev eth0")
        self.here.ip(f"route replace default via {ROUTER} metric {metric}")

    def take_back(self) -> None:
        self.here.ip(f"addr del {ADDRESS} dev eth0")

    def meet_router(self, station: str) -> None:
        self.here.ip(f"neigh replace {ROUTER} lladdr {station} dev eth0 nud reachable")

    def pull(self) -> None:
        self._there.ip("link set lan0 down")

    def plug(self) -> None:
        self._there.ip("link set lan0 up")

    def add_foreign(self) -> None:
        self.here.ip("link add br0 up type bridge")

    def unplug_adapter(self) -> None:
        self.here.ip("link del eth0")


class Pictures:
    """An observer that keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[Link, ...]] = []
        self.at: list[float] = []

    def __call__(self, links: tuple[Link, ...]) -> None:
        self.seen.append(links)
        self.at.append(time.perf_counter())

    @property
    def eth0(self) -> Link | None:
        """eth0 in the last picture."""
        return next((link for link in self.seen[-1] if link.name == "eth0"), None)

    @property
    def names(self) -> set[str]:
        """All links of the last picture."""
        return {link.name for link in self.seen[-1]}


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    here, there = Namespace(), Namespace()
    with here:
        made = RealWorld(here, there)
        yield made
    here.close()
    there.close()


@pytest.fixture
async def pictures(world: World) -> AsyncIterator[Pictures]:
    made = Pictures()
    await world.links.start(made)
    yield made
    await world.links.stop()


async def test_the_whole_picture_comes_at_once(world: World, pictures: Pictures) -> None:
    assert len(pictures.seen) == 1
    first = {link.name: link for link in pictures.seen[0]}
    assert {"lo", "eth0"} <= first.keys()  # a kernel with tunnels built in shows some more
    assert not first["lo"].access


async def test_whoever_starts_again_gets_the_whole_picture_though_nothing_has_changed(
    world: World, pictures: Pictures
) -> None:
    """Disconnect and Connect in one life of the daemon, faster than anything happens."""
    await world.links.stop()
    await world.links.start(pictures)
    assert len(pictures.seen) == 2
    assert pictures.seen[0] == pictures.seen[1]


@pytest.mark.rows("R-72", "R-182")
async def test_a_lent_address_and_its_route_are_seen(world: World, pictures: Pictures) -> None:
    world.lend()
    found = await eventually(lambda: pictures.eth0 if pictures.eth0 and pictures.eth0.gateway else None)
    assert (found.addresses, found.gateway, found.metric) == ((ADDRESS,), ROUTER, 100)
    assert found.access
    assert found.carrier


async def test_the_picture_is_whole_each_time(world: World, pictures: Pictures) -> None:
    world.add_foreign()
    await eventually(lambda: "br0" in pictures.names)
    world.lend()
    await eventually(lambda: pictures.eth0 and pictures.eth0.gateway)
    assert {"lo", "eth0", "br0"} <= pictures.names


async def test_an_address_takes_its_routes_along(world: World, pictures: Pictures) -> None:
    world.lend()
    await eventually(lambda: pictures.eth0 and pictures.eth0.gateway)
    world.take_back()
    await eventually(lambda: pictures.eth0 and not pictures.eth0.addresses)
    assert pictures.eth0 is not None
    assert (pictures.eth0.gateway, pictures.eth0.metric) == (None, None)


async def test_a_cable_that_is_out_has_no_carrier_but_stays_an_access_link(
    world: World, pictures: Pictures
) -> None:
    world.lend()
    await eventually(lambda: pictures.eth0 and pictures.eth0.gateway)
    world.pull()
    await eventually(lambda: pictures.eth0 and not pictures.eth0.carrier)
    assert pictures.eth0 is not None
    assert pictures.eth0.access


@pytest.mark.rows("R-72")
async def test_a_flap_shows_even_between_two_looks(world: World, pictures: Pictures) -> None:
    before = pictures.eth0
    assert before is not None
    world.pull()
    world.plug()  # Both before the loop runs again: no picture was taken with the cable out.
    await eventually(lambda: pictures.eth0 and pictures.eth0.carrier_changes >= before.carrier_changes + 2)
    assert pictures.eth0 is not None
    assert pictures.eth0.carrier


@pytest.mark.rows("R-72", "R-128")
async def test_the_routers_station_appears_and_changes(world: World, pictures: Pictures) -> None:
    world.lend()
    for station in ("02:00:00:00:00:01", "02:00:00:00:00:02"):
        world.meet_router(station)
        await eventually(lambda station=station: pictures.eth0 and pictures.eth0.station == station)  # type: ignore[misc]


async def test_an_adapter_that_is_gone_is_gone(world: World, pictures: Pictures) -> None:
    world.unplug_adapter()
    await eventually(lambda: pictures.eth0 is None)


async def test_no_picture_comes_twice(world: World, pictures: Pictures) -> None:
    world.lend()
    world.add_foreign()
    await eventually(lambda: "br0" in pictures.names)
    await asyncio.sleep(0.1)
    assert all(one != other for one, other in zip(pictures.seen, pictures.seen[1:], strict=False))


async def test_after_stop_nothing_is_told(world: World, pictures: Pictures) -> None:
    await world.links.stop()
    told = len(pictures.seen)
    world.lend()
    await asyncio.sleep(0.1)
    assert len(pictures.seen) == told


@pytest.fixture
async def real() -> AsyncIterator[RealWorld]:
    here, there = Namespace(), Namespace()
    with here:
        made = RealWorld(here, there)
        yield made
        await made.links.stop()
    here.close()
    there.close()


@pytest.mark.root
async def test_lost_events_cost_no_change(real: RealWorld) -> None:
    pictures = Pictures()
    real.lend()
    await real.links.start(pictures)
    # Thousands of address events, without giving the loop a moment: more than the socket's buffer holds. What comes
    # last is lost, and is of another kind than all that was not.
    addresses = "".join(f"addr add 172.16.{n // 250}.{n % 250 + 1}/32 dev eth0\n" for n in range(2000))
    real.here.run("ip", "-batch", "-", stdin=addresses)
    real.here.run("ip", "-batch", "-", stdin=addresses.replace("addr add", "addr del"))
    real.meet_router("02:00:00:00:00:03")
    assert _lost_events(real.links) > 0
    await eventually(lambda: pictures.eth0 and pictures.eth0.station == "02:00:00:00:00:03")
    assert pictures.eth0 is not None
    assert pictures.eth0.addresses == (ADDRESS,)


@pytest.mark.root
async def test_neighbours_that_nobody_asked_for_cost_neither_memory_nor_pictures(real: RealWorld) -> None:
    """Whoever is on the link can make the kernel learn any number of neighbours; only the router's matters."""
    pictures = Pictures()
    real.lend()
    await real.links.start(pictures)
    asked = 0
    read = real.links._read

    def counting() -> None:
        nonlocal asked
        asked += 1
        read()

    real.links._read = counting  # type: ignore[method-assign]
    began = time.perf_counter()
    for part in range(20):
        numbers = range(part * 40 + 2, part * 40 + 42)
        entries = (
            f"neigh replace 10.1.{n // 250 + 2}.{n % 250 + 1} lladdr 02:00:00:00:01:{n % 256:02x}"
            for n in numbers
        )
        real.here.run(
            "ip", "-batch", "-", stdin="".join(f"{entry} dev eth0 nud stale\n" for entry in entries)
        )
        await asyncio.sleep(0.01)
    assert asked <= (time.perf_counter() - began) / 0.05 + 2
    real.meet_router("02:00:00:00:00:04")
    await eventually(lambda: pictures.eth0 and pictures.eth0.station == "02:00:00:00:00:04")
    assert len(real.links._tables.stations) == 1


@pytest.mark.root
async def test_the_router_that_was_known_before_its_route_is_known_with_it(real: RealWorld) -> None:
    pictures = Pictures()
    real.lend()
    real.meet_router("02:00:00:00:00:05")
    real.here.ip("route del default")
    await real.links.start(pictures)
    real.here.ip(f"route add default via {ROUTER} dev eth0 metric 100")
    await eventually(lambda: pictures.eth0 and pictures.eth0.station == "02:00:00:00:00:05")


@pytest.mark.root
async def test_a_watch_that_ends_of_an_error_of_ours_says_so(real: RealWorld) -> None:
    """Nobody would notice a move any more: whoever relies on us must know."""
    failures: list[BaseException] = []
    real.links.on_failed = failures.append
    await real.links.start(Pictures())

    def broken() -> None:
        raise ValueError("not an address")

    real.links._read = broken  # type: ignore[method-assign]
    real.lend()
    await eventually(lambda: failures)
    assert isinstance(failures[0], ValueError)


def _lost_events(links: NetlinkLinks) -> int:
    """How many events the kernel had to throw away: the test would prove nothing without."""
    assert links._wake_up is not None
    inode = str(os.fstat(links._wake_up.fileno()).st_ino)
    lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()
    return sum(int(line.split()[8]) for line in lines[1:] if line.split()[9] == inode)


@pytest.mark.root
async def test_a_storm_of_foreign_links_is_a_handful_of_pictures(real: RealWorld) -> None:
    pictures = Pictures()
    real.lend()
    await real.links.start(pictures)
    real.here.ip("link add br0 type bridge")
    await asyncio.sleep(0.2)
    before = len(pictures.seen)
    flaps = "link set br0 up\nlink set br0 down\n" * 100
    process = await asyncio.create_subprocess_exec("ip", "-batch", "-", stdin=asyncio.subprocess.PIPE)
    began = time.perf_counter()
    await process.communicate(flaps.encode())
    await asyncio.sleep(0.1)
    seconds = time.perf_counter() - began
    assert len(pictures.seen) - before <= seconds / 0.05 + 2
    assert {
        replace(link, carrier_changes=0)
        for picture in pictures.seen
        for link in picture
        if link.name == "eth0"
    } == {
        replace(pictures.eth0, carrier_changes=0)  # type: ignore[type-var]
    }
