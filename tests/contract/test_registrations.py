# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of Registrations, kept by the fake and by real sockets between namespaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Protocol

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import AgentPath, ClearPath, HomePath, Path, VpnPath
from homeward.model.errors import AdapterError, LocalProtocolError
from homeward.model.inputs import DatagramReceived
from homeward.ports.world import Registrations
from homeward.wire.echo import Echo, encode_echo
from homeward.wire.udp_tunnel import wrap
from tests.contract.worlds import between_namespaces, worlds
from tests.world.fakes import FakeRegistrations, SentRegistration
from tests.world.stations import AGENT, CARE_OF, HOME, INNER, PEER, ROUTER, FarEnd, Stations, eventually, take

FOREIGN_AGENT = IPv4Address("192.0.2.77")
"""On no network that the laptop has a route to: its frames find it by its hardware address alone."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the home agent, or the foreign agent, saw it."""

    octets: bytes
    source: IPv4Address
    port: int
    ttl: int
    at: IPv4Address = AGENT


class World(Protocol):
    """What the contract is tried in."""

    registrations: Registrations
    clear: ClearPath
    vpn: VpnPath
    by_agent: AgentPath
    at_home: HomePath
    vpn_link: int

    async def request(self) -> Seen:
        """The next request at either agent."""

    def reply(self, seen: Seen, octets: bytes, *, port: int = 434) -> None:
        """Send something back to where the request came from."""

    def cut(self) -> None:
        """All paths are gone."""


class FakeWorld:
    vpn = VpnPath(INNER)
    clear = ClearPath(2, "eth0", CARE_OF)
    by_agent = AgentPath(2, "eth0", HOME, FOREIGN_AGENT, b"\2\0\0\0\0\1", FOREIGN_AGENT)
    at_home = HomePath(2, "eth0", HOME)
    vpn_link = 99

    def __init__(self) -> None:
        self.registrations = FakeRegistrations()
        self._answered: dict[int, SentRegistration] = {}

    async def request(self) -> Seen:
        sent = self.registrations.sent.pop(0)
        self._answered[sent.port] = sent
        return Seen(sent.octets, sent.path.source, sent.port, sent.ttl, sent.destination)

    def reply(self, seen: Seen, octets: bytes, *, port: int = 434) -> None:
        if seen.port != 434:
            self.registrations.arrive(self._answered[seen.port], octets, port=port)
            return
        asked = next(each for each in self._answered.values() if each.path.source == seen.source)
        if octets[0] == 7:
            self.registrations.arrive(asked, octets, port=port)

    def cut(self) -> None:
        self.registrations.gone |= {self.clear, self.vpn, self.by_agent, self.at_home}


class RealWorld:
    vpn = VpnPath(INNER)

    def __init__(self, stations: Stations) -> None:
        self.stations = stations
        self.clear = ClearPath(stations.link, "eth0", CARE_OF)
        self.far_end = FarEnd(stations.laptop, "ipsec0", INNER)
        self.vpn_link = socket.if_nametoindex("ipsec0")
        self.registrations = UdpRegistrations({INNER: "ipsec0"}.get)
        stations.laptop.ip(f"addr add {HOME}/32 dev lo")
        stations.agent.ip(f"addr add {FOREIGN_AGENT}/32 dev lo")
        self.hardware = bytes.fromhex(stations.agent.ip("-br link show lan0").split()[2].replace(":", ""))
        self.by_agent = AgentPath(stations.link, "eth0", HOME, FOREIGN_AGENT, self.hardware, FOREIGN_AGENT)
        self.at_home = HomePath(stations.link, "eth0", HOME)
        own = stations.laptop.ip("-br link show eth0").split()[2]
        stations.agent.ip(f"neigh add {HOME} lladdr {own} dev lan0 nud permanent")
        stations.agent.ip(f"route add {HOME}/32 dev lan0")
        self._agents = {
            (at, port): stations.udp(at, port) for at in (AGENT, FOREIGN_AGENT) for port in (434, 435)
        }

    async def request(self) -> Seen:
        return await eventually(lambda: self._from_clear() or self._from_vpn())

    def _from_clear(self) -> Seen | None:
        for at in (AGENT, FOREIGN_AGENT):
            came = take(self._agents[at, 434])
            if came is not None:
                return Seen(came.octets, came.source, came.port, came.ttl, at)
        return None

    def _from_vpn(self) -> Seen | None:
        octets = self.far_end.sent()
        if octets is None:
            return None
        packet = IP(octets)
        assert (packet.dst, packet[UDP].dport) == (str(AGENT), 434)
        return Seen(bytes(packet[UDP].payload), IPv4Address(packet.src), packet[UDP].sport, packet.ttl)

    def reply(self, seen: Seen, octets: bytes, *, port: int = 434) -> None:
        if seen.source != INNER:
            self._agents[seen.at, port].sendto(octets, (str(seen.source), seen.port))
        else:
            udp = UDP(sport=port, dport=seen.port) / Raw(octets)
            self.far_end.deliver(bytes(IP(src=str(AGENT), dst=str(seen.source)) / udp))

    def cut(self) -> None:
        self.stations.laptop.ip("link del eth0")
        self.far_end.close()
        self.stations.laptop.ip("link del ipsec0")

    async def close(self) -> None:
        self.registrations.stop()
        for opened in self._agents.values():
            opened.close()
        try:
            self.far_end.close()
        except OSError:
            pass  # cut() closed it


world = worlds(FakeWorld, lambda stations, _: RealWorld(stations))


@pytest.fixture
def arrived(world: World) -> list[DatagramReceived]:
    seen: list[DatagramReceived] = []
    world.registrations.start(seen.append)
    return seen


def paths(world: World) -> list[tuple[Path, int, IPv4Address]]:
    """Each kind of path, the link that it leads by, and the agent that is asked along it."""
    link = world.clear.link_index
    return [
        (world.clear, link, AGENT),
        (world.vpn, world.vpn_link, AGENT),
        (world.by_agent, link, FOREIGN_AGENT),
        (world.at_home, link, AGENT),
    ]


@pytest.mark.rows("R-133", "R-134", "R-136", "R-143")
async def test_a_request_leaves_from_the_path_and_its_reply_is_reported_with_the_link(
    world: World, arrived: list[DatagramReceived]
) -> None:
    for path, link, agent in paths(world):
        world.registrations.send(path, agent, b"request", ttl=33)
        seen = await world.request()
        assert (seen.octets, seen.source, seen.ttl, seen.at) == (b"request", path.source, 33, agent)
        world.reply(seen, b"reply")
        came = await eventually(lambda: arrived and arrived.pop())
        assert came == DatagramReceived(path, b"reply", agent, 434, link)


@pytest.mark.rows("R-135", "R-213")
async def test_each_datagram_has_the_ttl_it_was_given(world: World, arrived: list[DatagramReceived]) -> None:
    for path, _, agent in paths(world):
        for ttl in (1, 64, 255):
            world.registrations.send(path, agent, b"request", ttl=ttl)
            assert (await world.request()).ttl == ttl


@pytest.mark.rows("R-280")
async def test_at_port_434_revocations_are_heard_and_nothing_else(
    world: World, arrived: list[DatagramReceived]
) -> None:
    for path, link in ((world.clear, world.clear.link_index), (world.vpn, world.vpn_link)):
        world.registrations.send(path, AGENT, b"request", ttl=64)
        seen = replace(await world.request(), port=434)
        await asyncio.sleep(0)
        world.reply(seen, b"\3 a reply")
        world.reply(seen, b"\7 a revocation", port=435)
        world.reply(seen, b"\7 a revocation")
        await eventually(lambda: arrived)
        assert arrived == [DatagramReceived(path, b"\7 a revocation", AGENT, 434, link)]
        arrived.clear()


@pytest.mark.rows("R-230")
async def test_a_path_keeps_its_port_and_shares_it_with_no_other(
    world: World, arrived: list[DatagramReceived]
) -> None:
    ports: dict[Path, set[int]] = {}
    for _ in range(3):
        for path, _, agent in paths(world):
            world.registrations.send(path, agent, b"request", ttl=64)
            ports.setdefault(path, set()).add((await world.request()).port)
    assert [len(kept) for kept in ports.values()] == [1, 1, 1, 1]
    assert len(set.union(*ports.values())) == 4


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
    for path, _, agent in paths(world):
        world.registrations.send(path, agent, b"request", ttl=64)
        await world.request()
    world.cut()
    for path, _, agent in paths(world):
        with pytest.raises(AdapterError):
            world.registrations.send(path, agent, b"request", ttl=64)


@pytest.mark.rows("R-237")
async def test_of_tunnel_data_only_the_home_agents_echo_replies_are_reported(
    world: World, arrived: list[DatagramReceived]
) -> None:
    world.registrations.send(world.clear, AGENT, b"request", ttl=255)
    seen = await world.request()
    request = Echo(HOME, AGENT, 7, 1)
    reply = wrap(encode_echo(request.answer()))
    others = [
        wrap(encode_echo(Echo(AGENT, HOME, 7, 1))),  # a question, not an answer
        wrap(encode_echo(Echo(HOME, PEER, 7, 1).answer())),  # somebody else's answer
        wrap(encode_echo(request.answer())[:-1] + b"\x55"),
        wrap(bytes(IP(src=str(PEER), dst=str(HOME)) / UDP(sport=9, dport=9))),
        b"\4",
        b"\4\4\0\0",
    ]
    for octets in (*others, reply):
        world.reply(seen, octets)
    await eventually(lambda: arrived)
    assert [came.octets for came in arrived] == [reply]


async def test_nothing_is_sent_before_start_nor_after_stop(world: World) -> None:
    with pytest.raises(LocalProtocolError):
        world.registrations.send(world.clear, AGENT, b"request", ttl=64)
    world.registrations.start(lambda came: None)
    world.registrations.stop()
    with pytest.raises(LocalProtocolError):
        world.registrations.send(world.clear, AGENT, b"request", ttl=64)


# --- what only the real one can get wrong ----------------------------------------------------------------------------


@pytest.fixture
async def real() -> AsyncIterator[RealWorld]:
    async with between_namespaces(RealWorld) as made:
        made.registrations.start(lambda came: None)
        yield made


def requests(frames: list[bytes]) -> list[Ether]:
    return [frame for octets in frames if UDP in (frame := Ether(octets)) and frame[UDP].dport == 434]


@pytest.mark.root
@pytest.mark.rows("R-134", "R-183")
@pytest.mark.parametrize(
    ("source", "destination", "ttl"),
    [
        (HOME, FOREIGN_AGENT, 255),
        (HOME, IPv4Address("224.0.0.11"), 1),
        (IPv4Address("0.0.0.0"), FOREIGN_AGENT, 255),
        (CARE_OF, ROUTER, 255),
    ],
)
async def test_a_foreign_agent_gets_a_frame_of_its_own_and_nobody_is_asked_for_it(
    real: RealWorld, source: IPv4Address, destination: IPv4Address, ttl: int
) -> None:
    real.stations.laptop.ip("neigh flush all")
    care_of = CARE_OF if source == CARE_OF else FOREIGN_AGENT
    path = AgentPath(real.stations.link, "eth0", source, FOREIGN_AGENT, real.hardware, care_of)
    with real.stations.listen() as wire:
        real.registrations.send(path, destination, b"request", ttl=ttl)
        frames = wire.heard()
    (frame,) = requests(frames)
    assert (frame.dst, frame[IP].src, frame[IP].dst, frame[IP].ttl) == (
        real.hardware.hex(":"),
        str(source),
        str(destination),
        ttl,
    )
    assert [one for octets in frames if ARP in (one := Ether(octets)) and one[ARP].op == 1] == []


@pytest.mark.root
async def test_an_agent_without_a_hardware_address_is_no_path(real: RealWorld) -> None:
    path = AgentPath(real.stations.link, "eth0", HOME, FOREIGN_AGENT, b"", FOREIGN_AGENT)
    with real.stations.listen() as wire:
        with pytest.raises(AdapterError):
            real.registrations.send(path, FOREIGN_AGENT, b"request", ttl=255)
        assert requests(wire.heard()) == []


@pytest.mark.root
@pytest.mark.rows("R-230")
async def test_a_tunnel_keeps_the_port_of_its_registrations_until_it_lets_go(real: RealWorld) -> None:
    told: list[tuple[DatagramReceived, int]] = []
    real.registrations.on_tunnel_data = lambda came, service: told.append((came, service))
    real.registrations.send(real.clear, AGENT, b"request", ttl=255)
    port = (await real.request()).port
    channel = real.registrations.lease(real.clear, AGENT)
    real.registrations.retain(frozenset())
    channel.send(b"\4\4\0\0data", 0xB8)
    seen = await real.request()
    assert (seen.octets, seen.port, seen.ttl) == (b"\4\4\0\0data", port, 64)
    real.reply(seen, b"\4\4\0\0back")
    await eventually(lambda: told)
    assert told == [(DatagramReceived(real.clear, b"\4\4\0\0back", AGENT, 434, real.clear.link_index), 0)]
    real.registrations.release(real.clear)
    with pytest.raises(OSError, match="path is gone"):
        channel.send(b"\4\4\0\0data", 0)
    with pytest.raises(AdapterError):
        real.registrations.lease(real.clear, AGENT)


@pytest.mark.root
async def test_a_tunnel_follows_when_a_device_of_the_same_name_takes_the_place_of_the_first(
    real: RealWorld,
) -> None:
    real.registrations.send(real.vpn, AGENT, b"request", ttl=255)
    await real.request()
    channel = real.registrations.lease(real.vpn, AGENT)
    real.far_end.close()
    real.stations.laptop.ip("link del ipsec0")
    with pytest.raises(OSError):
        channel.send(b"\4\4\0\0lost", 0)
    real.far_end = FarEnd(real.stations.laptop, "ipsec0", INNER)
    real.registrations.send(real.vpn, AGENT, b"request", ttl=255)
    await real.request()
    channel.send(b"\4\4\0\0data", 0)
    assert (await real.request()).octets == b"\4\4\0\0data"
