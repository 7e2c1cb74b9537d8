# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of AgentDiscovery, kept by the fake and by packet sockets between namespaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from homeward.adapters.icmp_agents import IcmpAgents
from homeward.model.errors import AdapterError, LocalProtocolError
from homeward.model.inputs import AgentAdvertised
from homeward.ports.world import AgentDiscovery
from homeward.wire.agent_advertisement import encode_solicitation
from tests.contract.worlds import between_namespaces, worlds
from tests.unit.wire.vectors import V9_ADVERTISEMENT
from tests.world.fakes import FakeAgents
from tests.world.stations import CARE_OF, ROUTER, Stations, eventually

ALL_SYSTEMS = "224.0.0.1"
MOBILE_AGENTS = "224.0.0.11"
EVERYBODY = "255.255.255.255"
NO_LINK = 4711
NOBODY = IPv4Address("0.0.0.0")


def advertisement(destination: str = ALL_SYSTEMS, *, ttl: int = 1) -> bytes:
    return bytes(IP(src=str(ROUTER), dst=destination, ttl=ttl, proto=1) / V9_ADVERTISEMENT)


@dataclass(frozen=True, slots=True)
class Asked:
    """A solicitation as the link saw it."""

    source: IPv4Address
    destination: IPv4Address


class World(Protocol):
    """What the contract is tried in; `link` is a link with an agent, whose hardware address is `hardware`."""

    agents: AgentDiscovery
    link: int
    hardware: bytes

    def advertise(self, packet: bytes) -> None:
        """The agent sends a packet to all on its link."""

    async def asked(self) -> Asked:
        """The next solicitation on the link."""

    def cut(self) -> None:
        """The link is gone."""


class FakeWorld:
    link = 2
    hardware = b"\2\0\0\0\0\1"

    def __init__(self) -> None:
        self.agents = FakeAgents()

    def advertise(self, packet: bytes) -> None:
        self.agents.advertise(self.link, packet, self.hardware)

    async def asked(self) -> Asked:
        _, source, destination = self.agents.solicited.pop(0)
        return Asked(source, destination)

    def cut(self) -> None:
        self.agents.gone.add(self.link)
        self.agents.watched -= {self.link}


class RealWorld:
    def __init__(self, stations: Stations) -> None:
        self.stations = stations
        self.link = stations.link
        self.agents = IcmpAgents()
        self.wire = stations.listen()
        with stations.agent:
            self._speaker = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._speaker.bind(("lan0", 0x0800))
        self.hardware = self._speaker.getsockname()[4]

    def advertise(self, packet: bytes) -> None:
        self.speak(packet, "01:00:5e:00:00:01")

    def speak(self, packet: bytes, destination: str) -> None:
        frame = Ether(dst=destination, src=self.hardware.hex(":"), type=0x0800)
        self._speaker.send(bytes(frame) + packet)

    async def asked(self) -> Asked:
        def look() -> Ether | None:
            frames = [Ether(octets) for octets in self.wire.heard()]
            return next((frame for frame in frames if ICMP in frame and frame[ICMP].type == 10), None)

        frame = await eventually(look)
        assert frame[IP].ttl == 1
        assert bytes(frame[ICMP]) == encode_solicitation()
        return Asked(IPv4Address(frame[IP].src), IPv4Address(frame[IP].dst))

    def cut(self) -> None:
        self.stations.laptop.ip("link del eth0")

    async def close(self) -> None:
        self.agents.stop()
        self._speaker.close()
        self.wire.__exit__()


world = worlds(FakeWorld, lambda stations, _: RealWorld(stations))


@pytest.fixture
def heard(world: World) -> list[AgentAdvertised]:
    came: list[AgentAdvertised] = []
    world.agents.start(came.append)
    return came


async def test_an_advertisement_is_heard_whole_with_the_hardware_address_it_came_from(
    world: World, heard: list[AgentAdvertised]
) -> None:
    world.agents.watch(frozenset({world.link}))
    world.advertise(advertisement())
    came = (await eventually(lambda: heard))[0]
    assert came == AgentAdvertised(world.link, advertisement(), world.hardware)


async def test_what_travelled_too_far_is_reported_as_it_is(
    world: World, heard: list[AgentAdvertised]
) -> None:
    """R-116 is the core's to judge: it has the whole packet."""
    world.agents.watch(frozenset({world.link}))
    world.advertise(advertisement(ttl=64))
    assert (await eventually(lambda: heard))[0].packet[8] == 64


async def test_only_watched_links_are_heard(world: World, heard: list[AgentAdvertised]) -> None:
    world.agents.watch(frozenset())
    world.advertise(advertisement())
    await asyncio.sleep(0.02)
    world.agents.watch(frozenset({world.link, NO_LINK}))
    world.advertise(advertisement(EVERYBODY))
    await eventually(lambda: heard)
    world.agents.watch(frozenset())
    world.advertise(advertisement())
    await asyncio.sleep(0.02)
    assert [came.packet for came in heard] == [advertisement(EVERYBODY)]


@pytest.mark.rows("R-107", "R-111")
@pytest.mark.parametrize("source", [CARE_OF, NOBODY])
@pytest.mark.parametrize("destination", ["224.0.0.2", MOBILE_AGENTS, EVERYBODY])
async def test_agents_are_asked_from_the_address_that_was_given(
    world: World, heard: list[AgentAdvertised], source: IPv4Address, destination: str
) -> None:
    world.agents.solicit(world.link, source, IPv4Address(destination))
    assert await world.asked() == Asked(source, IPv4Address(destination))


async def test_a_link_that_is_gone_cannot_be_asked_and_is_not_missed(
    world: World, heard: list[AgentAdvertised]
) -> None:
    world.agents.watch(frozenset({world.link}))
    world.cut()
    with pytest.raises(AdapterError):
        world.agents.solicit(world.link, CARE_OF, IPv4Address(MOBILE_AGENTS))
    world.agents.watch(frozenset({world.link}))
    world.agents.watch(frozenset())


async def test_nothing_is_done_before_start_nor_after_stop(world: World) -> None:
    came: list[AgentAdvertised] = []
    for _ in range(2):
        with pytest.raises(LocalProtocolError):
            world.agents.watch(frozenset({world.link}))
        with pytest.raises(LocalProtocolError):
            world.agents.solicit(world.link, CARE_OF, IPv4Address(MOBILE_AGENTS))
        world.agents.start(came.append)
        world.agents.watch(frozenset({world.link}))
        world.agents.stop()
    world.advertise(advertisement())
    await asyncio.sleep(0.02)
    assert came == []


# --- what only the real one can get wrong ----------------------------------------------------------------------------


@pytest.fixture
async def real() -> AsyncIterator[RealWorld]:
    async with between_namespaces(RealWorld) as made:
        yield made


@pytest.mark.root
async def test_nothing_but_advertisements_wakes_us(real: RealWorld) -> None:
    came: list[AgentAdvertised] = []
    real.agents.start(came.append)
    real.agents.watch(frozenset({real.link}))
    advertised = advertisement()
    later_fragment = bytearray(advertised)
    later_fragment[6:8] = b"\0\2"
    others = [
        bytes(IP(src=str(ROUTER), dst=ALL_SYSTEMS, ttl=1) / ICMP(type=kind) / bytes(20))
        for kind in (0, 3, 5, 8, 10, 11)
    ]
    others += [advertised[:9] + b"\x11" + advertised[10:], bytes(later_fragment), b"\x45", b""]
    for packet in others:
        real.advertise(packet)
    real.speak(advertised, "02:00:00:00:00:77")  # to another host, by a switch that floods
    real.advertise(advertised)
    await eventually(lambda: came)
    await asyncio.sleep(0.02)
    assert [one.packet for one in came] == [advertised]


@pytest.mark.root
@pytest.mark.rows("R-111")
@pytest.mark.parametrize("group", [ALL_SYSTEMS, MOBILE_AGENTS])
async def test_both_groups_are_listened_to_and_nobody_hears_of_it(real: RealWorld, group: str) -> None:
    real.agents.start(lambda came: None)
    before = real.stations.laptop.ip("maddress show dev eth0")
    await asyncio.sleep(0.05)
    real.wire.heard()
    real.agents.watch(frozenset({real.link}))
    wanted = f"01:00:5e:00:00:{int(group.rsplit('.', 1)[1]):02x}"
    assert wanted in real.stations.laptop.ip("maddress show dev eth0")
    await asyncio.sleep(0.05)
    assert [frame for octets in real.wire.heard() if (frame := Ether(octets)).type == 0x0800] == []
    real.agents.watch(frozenset())
    assert real.stations.laptop.ip("maddress show dev eth0") == before
