# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of Registrations, kept by the fake and by real sockets between namespaces."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import ClearPath, Path, VpnPath
from homeward.model.errors import AdapterError, LocalProtocolError
from homeward.model.inputs import DatagramReceived
from homeward.ports.world import Registrations
from tests.world.fakes import FakeRegistrations, SentRegistration
from tests.world.stations import AGENT, CARE_OF, INNER, FarEnd, Stations, eventually, take


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the home agent saw it."""

    octets: bytes
    source: IPv4Address
    port: int
    ttl: int


class World(Protocol):
    """What the contract is tried in."""

    registrations: Registrations
    clear: ClearPath
    vpn: VpnPath
    vpn_link: int

    async def request(self) -> Seen:
        """The next request at the home agent."""

    def reply(self, seen: Seen, octets: bytes, *, port: int = 434) -> None:
        """Send something back to where the request came from."""

    def cut(self) -> None:
        """Both paths are gone."""


class FakeWorld:
    vpn = VpnPath(INNER)
    clear = ClearPath(2, "eth0", CARE_OF)
    vpn_link = 99

    def __init__(self) -> None:
        self.registrations = FakeRegistrations()
        self._answered: dict[int, SentRegistration] = {}

    async def request(self) -> Seen:
        sent = self.registrations.sent.pop(0)
        assert sent.destination == AGENT
        self._answered[sent.port] = sent
        return Seen(sent.octets, sent.path.source, sent.port, sent.ttl)

    def reply(self, seen: Seen, octets: bytes, *, port: int = 434) -> None:
        self.registrations.arrive(self._answered[seen.port], octets, port=port)

    def cut(self) -> None:
        self.registrations.gone |= {self.clear, self.vpn}


class RealWorld:
    vpn = VpnPath(INNER)

    def __init__(self, stations: Stations) -> None:
        self.stations = stations
        self.clear = ClearPath(stations.link, "eth0", CARE_OF)
        self.far_end = FarEnd(stations.laptop, "ipsec0", INNER)
        self.vpn_link = socket.if_nametoindex("ipsec0")
        self.registrations = UdpRegistrations({INNER: "ipsec0"}.get)
        self._agent = {port: stations.udp(AGENT, port) for port in (434, 435)}

    async def request(self) -> Seen:
        return await eventually(lambda: self._from_clear() or self._from_vpn())

    def _from_clear(self) -> Seen | None:
        came = take(self._agent[434])
        return None if came is None else Seen(came.octets, came.source, came.port, came.ttl)

    def _from_vpn(self) -> Seen | None:
        octets = self.far_end.sent()
        if octets is None:
            return None
        packet = IP(octets)
        assert (packet.dst, packet[UDP].dport) == (str(AGENT), 434)
        return Seen(bytes(packet[UDP].payload), IPv4Address(packet.src), packet[UDP].sport, packet.ttl)

    def reply(self, seen: Seen, octets: bytes, *, port: int = 434) -> None:
        if seen.source == CARE_OF:
            self._agent[port].sendto(octets, (str(seen.source), seen.port))
        else:
            udp = UDP(sport=port, dport=seen.port) / Raw(octets)
            self.far_end.deliver(bytes(IP(src=str(AGENT), dst=str(seen.source)) / udp))

    def cut(self) -> None:
        self.stations.laptop.ip("link del eth0")
        self.far_end.close()
        self.stations.laptop.ip("link del ipsec0")

    def close(self) -> None:
        self.registrations.stop()
        for opened in self._agent.values():
            opened.close()
        try:
            self.far_end.close()
        except OSError:
            pass  # cut() closed it


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    with Stations() as stations:
        made = RealWorld(stations)
        yield made
        made.close()


@pytest.fixture
def arrived(world: World) -> list[DatagramReceived]:
    seen: list[DatagramReceived] = []
    world.registrations.start(seen.append)
    return seen


def paths(world: World) -> list[tuple[Path, int]]:
    return [(world.clear, world.clear.link_index), (world.vpn, world.vpn_link)]


@pytest.mark.rows("R-133", "R-136")
async def test_a_request_leaves_from_the_path_and_its_reply_is_reported_with_the_link(
    world: World, arrived: list[DatagramReceived]
) -> None:
    for path, link in paths(world):
        world.registrations.send(path, AGENT, b"request", ttl=33)
        seen = await world.request()
        assert (seen.octets, seen.source, seen.ttl) == (b"request", path.source, 33)
        world.reply(seen, b"reply")
        came = await eventually(lambda: arrived and arrived.pop())
        assert came == DatagramReceived(path, b"reply", AGENT, 434, link)


@pytest.mark.rows("R-135", "R-213")
async def test_each_datagram_has_the_ttl_it_was_given(world: World, arrived: list[DatagramReceived]) -> None:
    for ttl in (1, 64, 255):
        world.registrations.send(world.clear, AGENT, b"request", ttl=ttl)
        assert (await world.request()).ttl == ttl


async def test_a_path_keeps_its_port_and_shares_it_with_no_other(
    world: World, arrived: list[DatagramReceived]
) -> None:
    ports: dict[Path, set[int]] = {}
    for _ in range(3):
        for path, _ in paths(world):
            world.registrations.send(path, AGENT, b"request", ttl=64)
            ports.setdefault(path, set()).add((await world.request()).port)
    assert [len(kept) for kept in ports.values()] == [1, 1]
    assert len(set.union(*ports.values())) == 2


@pytest.mark.rows("R-136")
async def test_only_the_registration_port_is_heard(world: World, arrived: list[DatagramReceived]) -> None:
    world.registrations.send(world.clear, AGENT, b"request", ttl=64)
    seen = await world.request()
    world.reply(seen, b"from elsewhere", port=435)
    world.reply(seen, b"reply")
    await eventually(lambda: arrived)
    assert [came.octets for came in arrived] == [b"reply"]


async def test_a_path_that_is_not_retained_is_deaf(world: World, arrived: list[DatagramReceived]) -> None:
    world.registrations.send(world.clear, AGENT, b"request", ttl=64)
    world.registrations.send(world.vpn, AGENT, b"request", ttl=64)
    first, second = await world.request(), await world.request()
    clear, vpn = (first, second) if first.source == CARE_OF else (second, first)
    world.registrations.retain(frozenset({world.vpn}))
    world.reply(clear, b"too late")
    world.reply(vpn, b"in time")
    await eventually(lambda: arrived)
    assert [came.octets for came in arrived] == [b"in time"]


async def test_a_path_that_was_given_up_may_be_used_again(
    world: World, arrived: list[DatagramReceived]
) -> None:
    world.registrations.send(world.clear, AGENT, b"one", ttl=64)
    await world.request()
    world.registrations.retain(frozenset())
    world.registrations.send(world.clear, AGENT, b"two", ttl=64)
    seen = await world.request()
    world.reply(seen, b"reply")
    assert (await eventually(lambda: arrived))[0].octets == b"reply"


async def test_a_path_that_is_gone_is_an_adapter_error(world: World, arrived: list[DatagramReceived]) -> None:
    for path, _ in paths(world):
        world.registrations.send(path, AGENT, b"request", ttl=64)
        await world.request()
    world.cut()
    for path, _ in paths(world):
        with pytest.raises(AdapterError):
            world.registrations.send(path, AGENT, b"request", ttl=64)


async def test_nothing_is_sent_before_start_nor_after_stop(world: World) -> None:
    with pytest.raises(LocalProtocolError):
        world.registrations.send(world.clear, AGENT, b"request", ttl=64)
    world.registrations.start(lambda came: None)
    world.registrations.stop()
    with pytest.raises(LocalProtocolError):
        world.registrations.send(world.clear, AGENT, b"request", ttl=64)
