# SPDX-License-Identifier: GPL-2.0-or-later
"""A fence of which only the sets' elements change: the same as if put up anew; and put up anew if need be."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.adapters.nftables.fence import NftFence
from homeward.model.access import ClearPath
from homeward.model.encapsulation import Encapsulation
from homeward.model.plan import Fence, Held, Tunnelled
from tests.world.namespaces import Namespace, namespaces

pytestmark = pytest.mark.root

AGENT = IPv4Address("10.0.0.2")
HOME = IPv4Address("10.77.0.10")
HELD = Fence(AGENT, (IPv4Address("192.0.2.1"),), ("eth0",), Held(), None)
FIRST = Tunnelled(ClearPath(2, "eth0", IPv4Address("10.1.1.50")), AGENT, 1480)
SECOND = Tunnelled(ClearPath(2, "eth0", IPv4Address("10.1.2.50")), AGENT, 1480)
BY_GRE = replace(SECOND, encapsulation=Encapsulation.GRE)


class Watched(NftFence):
    """Notes how often the whole fence was put up, and what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = 0
        self.told: list[str] = []
        self.on_tampered = self.told.append

    def _run(self, commands: str) -> None:
        self.whole += 1
        super()._run(commands)


@pytest.fixture
async def here() -> AsyncIterator[Namespace]:
    with namespaces(1) as (made,):
        made.ip("link add eth0 type veth peer name far")
        with made:
            yield made


@pytest.fixture
async def fence(here: Namespace) -> AsyncIterator[Watched]:
    made = Watched()
    made.put_up(HELD, HOME)
    yield made
    made.close()


def by_another_program(commands: str) -> None:
    subprocess.run(["nft", commands], check=True)


def ruleset() -> str:
    """What stands, without the time that elements have left."""
    text = subprocess.run(
        ["nft", "--stateless", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout
    return "\n".join(line.partition(" expires ")[0].rstrip(" }") for line in text.splitlines())


@pytest.mark.parametrize("traffic", [FIRST, SECOND, BY_GRE])
async def test_a_move_between_trusted_networks_exchanges_elements_and_all_else_stands(
    fence: Watched, traffic: Tunnelled
) -> None:
    fence.put_up(replace(HELD, traffic=FIRST), HOME)
    fence.put_up(HELD, HOME)
    fence.put_up(replace(HELD, traffic=traffic), HOME, lingering=FIRST)
    assert fence.whole == 1
    exchanged = ruleset()
    assert str(traffic.path.source) in exchanged
    anew = NftFence()
    anew.put_up(replace(HELD, traffic=traffic), HOME, lingering=FIRST)
    anew.close()
    assert ruleset() == exchanged


async def test_holding_empties_the_sets(fence: Watched) -> None:
    empty = ruleset()
    fence.put_up(replace(HELD, traffic=FIRST), HOME)
    assert ruleset() != empty
    fence.put_up(HELD, HOME)
    assert ruleset() == empty
    assert fence.whole == 1


async def test_a_fence_that_was_flushed_is_put_up_as_a_whole(fence: Watched) -> None:
    by_another_program("flush ruleset")
    fence.put_up(replace(HELD, traffic=FIRST), HOME)
    assert "policy drop" in ruleset()
    assert str(FIRST.path.source) in ruleset()
    assert fence.told == ["another program changed the firewall; it was put back"]


async def test_our_own_exchange_is_no_alarm(fence: Watched) -> None:
    for traffic in (FIRST, Held(), SECOND):
        fence.put_up(replace(HELD, traffic=traffic), HOME)
        fence._look()
    assert fence.whole == 1
    assert not fence.told


async def test_somebody_elses_element_is_taken_out(fence: Watched) -> None:
    """A hole that another program would make."""
    fence.put_up(replace(HELD, traffic=FIRST), HOME)
    by_another_program('add element inet homeward leaving { "eth0" . 10.1.1.50 . 203.0.113.9 . 4 }')
    fence._look()
    assert "203.0.113.9" not in ruleset()
    assert fence.told


async def test_other_rules_than_those_that_stand_are_put_up_as_a_whole(fence: Watched) -> None:
    fence.put_up(replace(HELD, gateways=(), traffic=FIRST), HOME)
    assert fence.whole == 2
    assert "4500" not in ruleset()
