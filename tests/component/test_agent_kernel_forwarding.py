# SPDX-License-Identifier: GPL-2.0-or-later
"""A home agent's forwarding in this process, in another host: what of its tunnels stands in the kernel."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.adapters.kernel_tunnels import agent_tunnels
from homeward.adapters.kernel_tunnels.bpf import HashMap
from homeward.adapters.kernel_tunnels.entries import LEAVING
from homeward.agentd import kernel_forwarding
from homeward.agentd.forwarding import Forwarding
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.metrics import Metrics
from homeward.agentd.settings import AgentSettings
from homeward.agents.agent_events import Forward, StopForwarding
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.policy import AgentPolicy
from homeward.agents.tunnels import LINGER
from homeward.model.encapsulation import Encapsulation
from tests.component.agent_network import DEVICE, Namespace

pytestmark = pytest.mark.root

AGENT = IPv4Address("192.0.2.1")
HOME_NETWORK = IPv4Network("10.77.0.0/24")
NOWHERE = (0, 0)


@pytest.fixture
def host() -> Iterator[Namespace]:
    made = Namespace()
    made.ip("link add inside type veth peer name far")
    made.ip(f"address add {AGENT}/24 dev inside")
    made.ip("link set inside up")
    yield made
    made.close()


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> list[HashMap]:
    """Those of the life that runs: what leaves, and what arrives."""
    monkeypatch.delenv("HOMEWARD_ENGINES", raising=False)
    found: list[HashMap] = []

    class Known(HashMap):
        def __init__(self, name: str, **options: int) -> None:
            super().__init__(name, **options)  # type: ignore[arg-type]
            if len(found) == 2:
                found.clear()
            found.append(self)

    monkeypatch.setattr(agent_tunnels, "HashMap", Known)
    return found


def counted(maps: list[HashMap]) -> tuple[int, int]:
    leaving, arriving = maps
    return len(list(leaving.keys())), len(list(arriving.keys()))


def rooms(maps: list[HashMap]) -> list[int]:
    """How long a packet may be that leaves by each tunnel."""
    entries = [maps[0].get(key) or b"" for key in list(maps[0].keys())]
    return [int.from_bytes(entry[LEAVING.room : LEAVING.room + 2], sys.byteorder) for entry in entries]


@asynccontextmanager
async def forwarding(
    host: Namespace, *restored: Forward, network: IPv4Network | None = HOME_NETWORK
) -> AsyncIterator[Forwarding]:
    policy = AgentPolicy(AGENT, TrustedNetworks(frozenset({"inside"}), ()), nodes=())
    settings = AgentSettings(policy, home_network=network)

    def boot() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    with host.entered():
        made = Forwarding(settings, InsideLinks(frozenset({"inside"}), boot), metrics=Metrics(), boot=boot)
        made.start()
        try:
            made.restore(restored)
            yield made
        finally:
            made.stop()


def bound(number: int, at: int = 1, **changes: object) -> Forward:
    home = IPv4Address(int(HOME_NETWORK.network_address) + number)
    options = {"reverse_tunnel": True, "udp": True, "port": 4000, **changes}
    return Forward(home, IPv4Address(f"10.1.0.{at}"), **options)  # type: ignore[arg-type]


async def test_the_maps_follow_the_bindings(host: Namespace, maps: list[HashMap]) -> None:
    async with forwarding(host, bound(1), bound(2)) as made:
        assert counted(maps) == (2, 2)
        made.apply(bound(3))
        made.apply(bound(1, expires=1e9))  # renewed
        assert counted(maps) == (3, 3)
        made.apply(bound(1, at=2))  # moved; for two seconds packets come by both tunnels
        assert counted(maps) == (3, 4)
        made.apply(bound(1, at=3))  # moved again: not by three
        assert counted(maps) == (3, 4)
        made.apply(bound(1, at=2))  # and back
        assert counted(maps) == (3, 4)
        for change in (
            bound(2, reverse_tunnel=False),
            bound(3, port=None),
        ):
            made.apply(change)
        assert counted(maps) == (2, 3)  # of the third, what it had before lingers
        made.apply(StopForwarding(bound(1).home_address))
        assert counted(maps) == (1, 1)
        for udp, encapsulation in ((False, Encapsulation.GRE), (False, Encapsulation.MINIMAL)):
            made.apply(bound(2, udp=udp, port=None, encapsulation=encapsulation))
            assert counted(maps)[0] == 0
        await asyncio.sleep(LINGER + 0.4)
        assert counted(maps) == NOWHERE


async def test_maps_grow_when_there_are_more_tunnels(
    host: Namespace, maps: list[HashMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_forwarding, "_LEAST", 2)
    async with forwarding(host, network=None) as made:
        for number in range(1, 8):
            made.apply(bound(number))
            assert counted(maps) == (number, number)
        assert made.engine != "tun"
        routes = host.ip(f"route show dev {DEVICE}").splitlines()
        assert len(routes) == 7
        assert len({route.partition("encap")[2] for route in routes}) == 1
        for number in range(1, 8):
            made.apply(StopForwarding(bound(number).home_address))
        assert counted(maps) == NOWHERE
        assert host.ip(f"route show dev {DEVICE}") == ""


async def test_tunnels_that_were_left_make_room_first(
    host: Namespace, maps: list[HashMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_forwarding, "_LEAST", 2)  # which is room for eight
    async with forwarding(host, bound(1), bound(2), bound(3)) as made:
        before = tuple(maps)
        for at in (2, 3, 4):  # twelve tunnels, if none made room
            for number in (1, 2, 3):
                made.apply(bound(number, at=at))
        assert tuple(maps) == before
        assert counted(maps)[0] == 3
        assert counted(maps)[1] <= 8


async def test_settings_change_while_it_runs(host: Namespace, maps: list[HashMap]) -> None:
    async with forwarding(host, bound(1)) as made:
        before = tuple(maps)
        assert rooms(maps) == [1468]
        policy = AgentPolicy(AGENT, TrustedNetworks(frozenset({"inside"}), ()), nodes=())
        paths = ((IPv4Network("10.1.0.0/16"), 1300),)
        made.adopt(AgentSettings(policy, home_network=HOME_NETWORK, path_mtus=paths))
        assert tuple(maps) != before
        assert rooms(maps) == [1268]
        made.apply(bound(2))
        assert counted(maps) == (2, 2)
