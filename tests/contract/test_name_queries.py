# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract of NameQueries, kept by the fake and by real datagrams between namespaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from homeward.adapters.dns_gateway import DnsGateway
from homeward.model.errors import Unavailable
from homeward.ports.world import NameQueries
from tests.contract.worlds import between_namespaces, worlds
from tests.world.fakes import FakeNameQueries
from tests.world.stations import ROUTER, Stations

NAME = "gw.example.test"
GATEWAYS = (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))


class World(Protocol):
    """What the contract is tried in."""

    queries: NameQueries
    link: int

    def know(self, name: str, *addresses: IPv4Address) -> None:
        """From now on the name has these addresses."""


class FakeWorld:
    link = 2

    def __init__(self) -> None:
        self.queries = FakeNameQueries()

    def know(self, name: str, *addresses: IPv4Address) -> None:
        self.queries.names[name] = addresses


class RealWorld:
    """`behaviour` has the server "answer", stay "silent", answer by an "alias", or "forge" other answers first."""

    def __init__(self, stations: Stations, root: Path) -> None:
        self.link = stations.link
        self.behaviour = "answer"
        self.asked: list[str] = []
        self._names: dict[str, tuple[IPv4Address, ...]] = {}
        (root / "etc").mkdir()
        self.resolv_conf = root / "etc/resolv.conf"
        self.resolv_conf.write_text(f"search example.test\nnameserver 127.0.0.53\nnameserver {ROUTER}\n")
        self.queries = DnsGateway(root=root, first_timeout=0.1)
        self._server = stations.udp(ROUTER, 53)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def know(self, name: str, *addresses: IPv4Address) -> None:
        self._names[name] = addresses

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            octets, client = await loop.sock_recvfrom(self._server, 4096)
            query = dns.message.from_wire(octets)
            name = query.question[0].name.to_text(omit_final_dot=True)
            self.asked.append(name)
            if self.behaviour == "silent":
                continue
            if self.behaviour == "forge":
                self._server.sendto(b"no DNS at all", client)
                forged = self._answer(query, name, IPv4Address("203.0.113.66"))
                forged.id ^= 1
                self._server.sendto(forged.to_wire(), client)
            self._server.sendto(self._answer(query, name, *self._names.get(name, ())).to_wire(), client)

    def _answer(self, query: dns.message.Message, name: str, *addresses: IPv4Address) -> dns.message.Message:
        answer = dns.message.make_response(query)
        if not addresses:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif self.behaviour == "alias":
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", "real.example.test."))
            answer.answer.append(
                dns.rrset.from_text("real.example.test.", 60, "IN", "A", *map(str, addresses))
            )
        else:
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "A", *map(str, addresses)))
        return answer

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._server.close()


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[RealWorld]:
    async with between_namespaces(lambda stations: RealWorld(stations, tmp_path)) as made:
        yield made


world = worlds(FakeWorld, RealWorld)


async def test_a_name_has_its_addresses(world: World) -> None:
    world.know(NAME, *GATEWAYS)
    assert set(await world.queries.resolve(NAME, world.link)) == set(GATEWAYS)


async def test_an_address_stands_for_itself(world: World) -> None:
    assert await world.queries.resolve("192.0.2.7", world.link) == (IPv4Address("192.0.2.7"),)


async def test_an_unknown_name_is_unavailable_and_says_who_was_asked(world: World) -> None:
    with pytest.raises(
        Unavailable, match=r"looking up nowhere.example.test.*\d+\.\d+\.\d+\.\d+: answered NXDOMAIN"
    ):
        await world.queries.resolve("nowhere.example.test", world.link)


@pytest.mark.root
async def test_a_name_is_never_completed(real: RealWorld) -> None:
    real.know("gw.example.test", *GATEWAYS)
    with pytest.raises(Unavailable):
        await real.queries.resolve("gw", real.link)
    assert set(real.asked) == {"gw"}


@pytest.mark.root
async def test_an_alias_is_followed(real: RealWorld) -> None:
    real.behaviour = "alias"
    real.know(NAME, *GATEWAYS)
    assert set(await real.queries.resolve(NAME, real.link)) == set(GATEWAYS)


@pytest.mark.root
async def test_answers_to_other_questions_are_passed_over(real: RealWorld) -> None:
    real.behaviour = "forge"
    real.know(NAME, *GATEWAYS)
    assert set(await real.queries.resolve(NAME, real.link)) == set(GATEWAYS)


@pytest.mark.root
async def test_a_silent_server_is_asked_again_and_then_named(real: RealWorld) -> None:
    real.behaviour = "silent"
    with pytest.raises(Unavailable, match=f"{ROUTER}: no answer"):
        await real.queries.resolve(NAME, real.link)
    assert len(real.asked) == 3


@pytest.mark.root
async def test_a_link_that_is_gone_is_unavailable(real: RealWorld) -> None:
    with pytest.raises(Unavailable, match=str(ROUTER)):
        await real.queries.resolve(NAME, 4711)


@pytest.mark.parametrize("name", ["", "a" * 64, "..", "a." * 130])
async def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not a host name"):
        await DnsGateway(root=tmp_path).resolve(name, 1)


async def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no name server"):
        await DnsGateway(root=tmp_path).resolve(NAME, socket.if_nametoindex("lo"))


@pytest.mark.root
@pytest.mark.parametrize("before", ["", f"nameserver {ROUTER + 7}\n"], ids=["none", "the network before's"])
async def test_name_servers_that_come_after_the_address_are_asked_at_once(
    real: RealWorld, before: str
) -> None:
    real.know(NAME, *GATEWAYS)
    real.queries = DnsGateway(root=real.resolv_conf.parent.parent, first_timeout=20.0)
    real.resolv_conf.write_text(before)
    asking = asyncio.create_task(real.queries.resolve(NAME, real.link))
    await asyncio.sleep(0.1)
    assert not asking.done()
    real.resolv_conf.write_text(f"nameserver {ROUTER}\n")
    async with asyncio.timeout(10):
        assert set(await asking) == set(GATEWAYS)
