# SPDX-License-Identifier: GPL-2.0-or-later
"""A laptop on which everything outside the daemon is a fake, for the tests of driver, executor and client."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

from homeward.daemon.executor import World
from homeward.daemon.journal_keeper import JournalKeeper
from homeward.model.access import ClearPath, Link
from homeward.model.errors import AdapterError
from homeward.model.inputs import DatagramReceived
from tests.unit.daemon.parts import PSK
from tests.world.fakes import (
    FakeAgents,
    FakeClock,
    FakeHomeLinks,
    FakeJournals,
    FakeLinks,
    FakeNameQueries,
    FakeNetworkPlans,
    FakeRegistrations,
)
from tests.world.fakes_vpn import FakeVpnEngine, FakeVpnWorld

AGENT = IPv4Address("10.0.0.2")
CARE_OF = IPv4Address("198.51.100.10")
ETHERNET = Link(
    2,
    "eth0",
    access=True,
    why="Ethernet",
    carrier=True,
    addresses=(IPv4Interface(f"{CARE_OF}/24"),),
    gateway=IPv4Address("198.51.100.1"),
    metric=100,
)


class Engine(FakeVpnEngine):
    """An engine that can refuse."""

    refuses: AdapterError | None = None

    async def connect(self, source: IPv4Address) -> None:
        if self.refuses is not None:
            raise self.refuses
        await super().connect(source)

    async def disconnect(self) -> None:
        if self.refuses is not None:
            raise self.refuses
        await super().disconnect()


@dataclass
class Laptop:
    """The fakes, and the World that they make; `until_reboot` survives the daemon as /run does."""

    clock: FakeClock = field(default_factory=FakeClock)
    links: FakeLinks = field(default_factory=lambda: FakeLinks(ETHERNET))
    plans: FakeNetworkPlans = field(default_factory=FakeNetworkPlans)
    registrations: FakeRegistrations = field(default_factory=FakeRegistrations)
    agents: FakeAgents = field(default_factory=FakeAgents)
    home_links: FakeHomeLinks = field(default_factory=FakeHomeLinks)
    vpn_world: FakeVpnWorld = field(default_factory=FakeVpnWorld)
    until_reboot: FakeJournals = field(default_factory=FakeJournals)

    def __post_init__(self) -> None:
        self.vpn_world.key = PSK
        self.engine = Engine(self.vpn_world)

    def world(self) -> World:
        """What a daemon that begins now has in its hands."""
        names = FakeNameQueries({"gw.example.test": (self.vpn_world.gateway,)})
        journal = JournalKeeper(FakeJournals(), self.until_reboot)
        return World(
            self.registrations, self.plans, self.engine, names, journal, self.agents, self.home_links
        )

    def receive(self, datagram: DatagramReceived) -> None:
        """A datagram arrives on a registration socket."""
        observer = self.registrations._observer
        assert observer is not None
        observer(datagram)


def forged(number: int = 0) -> DatagramReceived:
    """Not even a message; two numbers, two texts in the status."""
    path = ClearPath(2, "eth0", CARE_OF)
    return DatagramReceived(path, bytes([number % 256]), AGENT, 434, 2)


async def settle() -> None:
    """Let everything come to rest that needs no time."""
    for _ in range(50):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something that takes a moment."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells that the daemon has come so far
            await asyncio.sleep(0)
