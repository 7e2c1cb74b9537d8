# SPDX-License-Identifier: GPL-2.0-or-later
"""The order in which effects are carried out: what is done at once, and what waits for a plan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.daemon.executor import Executor
from homeward.model.access import AgentPath, ClearPath, HomePath, Path
from homeward.model.effects import (
    AnnounceHomeAddress,
    ApplyPlan,
    SendRegistration,
    SendSolicitation,
    WithdrawHomeAddress,
)
from homeward.model.inputs import EffectFailed, Input
from homeward.model.plan import Fence, Held, NetworkPlan
from tests.unit.daemon.laptop import AGENT, CARE_OF, Laptop, settle

HOME = IPv4Address("10.77.0.10")
FOREIGN_AGENT = IPv4Address("10.1.3.1")
CLEAR = ClearPath(2, "eth0", CARE_OF)
AT_HOME = HomePath(2, "eth0", HOME)
BY_AGENT = AgentPath(2, "eth0", HOME, FOREIGN_AGENT, b"\2\0\0\0\0\1", FOREIGN_AGENT)
GROUP = IPv4Address("224.0.0.11")
SOLICITATION = SendSolicitation(2, "eth0", CARE_OF, GROUP)


def plan(number: int, *, home_link: HomePath | None = None) -> ApplyPlan:
    fence = Fence(AGENT, (), ("eth0",), Held(), None, home_link=home_link)
    return ApplyPlan(NetworkPlan(HOME, (IPv4Network("0.0.0.0/0"),), Held(), fence), number)


def request(path: Path) -> SendRegistration:
    return SendRegistration(path, AGENT, b"request", 255)


class Executing(Laptop):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.fed: list[Input] = []
        self.failures: list[BaseException] = []
        self.registrations.start(self.fed.append)
        self.agents.start(self.fed.append)
        self.executor = Executor(
            self.world(),
            self.fed.append,
            gateway=None,
            pre_shared_key=None,
            home_agent=str(AGENT),
            failed=self.failures.append,
        )

    @property
    def sent(self) -> list[Path]:
        return [sent.path for sent in self.registrations.sent]


@pytest.fixture
async def laptop() -> AsyncIterator[Executing]:
    made = Executing()
    made.executor.start()
    yield made
    await made.executor.stop()
    assert made.failures == []


async def test_agents_are_asked_at_once_whatever_plan_is_under_way(laptop: Executing) -> None:
    laptop.plans.pause.clear()
    laptop.executor.carry_out((plan(1), SOLICITATION))
    assert laptop.agents.solicited == [(2, CARE_OF, GROUP)]


async def test_a_solicitation_that_cannot_be_sent_is_not_worth_a_word_to_the_user(laptop: Executing) -> None:
    laptop.agents.gone.add(2)
    laptop.executor.carry_out((SOLICITATION,))
    assert laptop.fed == []


@pytest.mark.parametrize("path", [BY_AGENT, AT_HOME])
async def test_a_request_that_the_fence_must_let_pass_waits_for_its_plan(
    laptop: Executing, path: Path
) -> None:
    laptop.plans.pause.clear()
    laptop.executor.carry_out((plan(1), request(path), request(CLEAR)))
    await settle()
    assert laptop.sent == [CLEAR]
    laptop.plans.pause.set()
    await settle()
    assert laptop.sent == [CLEAR, path]


@pytest.mark.rows("R-190")
async def test_the_home_address_is_announced_after_the_plan_and_before_the_request(laptop: Executing) -> None:
    laptop.plans.pause.clear()
    laptop.registrations.on_sent = lambda sent: laptop.home_links.events.append("request")
    laptop.executor.carry_out((plan(1, home_link=AT_HOME), AnnounceHomeAddress(AT_HOME), request(AT_HOME)))
    await settle()
    assert laptop.home_links.events == []
    laptop.plans.pause.set()
    await settle()
    assert laptop.home_links.events == ["announce", "request"]


@pytest.mark.rows("R-189")
async def test_leaving_home_withdraws_the_home_address_before_the_request_leaves(laptop: Executing) -> None:
    laptop.executor.carry_out((plan(1, home_link=AT_HOME), AnnounceHomeAddress(AT_HOME)))
    await settle()
    laptop.plans.pause.clear()
    laptop.registrations.on_sent = lambda sent: laptop.home_links.events.append("request")
    laptop.executor.carry_out((WithdrawHomeAddress(AT_HOME), plan(2), request(CLEAR)))
    assert laptop.home_links.events == ["announce", "withdraw", "request"]


@pytest.mark.rows("R-189")
async def test_what_still_waits_to_be_announced_is_not_once_it_is_withdrawn(laptop: Executing) -> None:
    laptop.plans.pause.clear()
    laptop.executor.carry_out((plan(1, home_link=AT_HOME), AnnounceHomeAddress(AT_HOME)))
    await settle()
    laptop.executor.carry_out((WithdrawHomeAddress(AT_HOME), plan(2)))
    laptop.plans.pause.set()
    await settle()
    assert laptop.home_links.events == []
    assert laptop.home_links.announced is None


async def test_an_announcement_that_fails_is_told(laptop: Executing) -> None:
    laptop.home_links.gone.add(2)
    laptop.executor.carry_out((AnnounceHomeAddress(AT_HOME),))
    await settle()
    (failed,) = laptop.fed
    assert isinstance(failed, EffectFailed)
    assert failed.code == "home-not-announced"


async def test_a_superseded_plan_does_not_keep_a_request_from_leaving(laptop: Executing) -> None:
    laptop.plans.pause.clear()
    laptop.executor.carry_out((plan(1), request(BY_AGENT)))
    await asyncio.sleep(0)
    laptop.executor.carry_out((plan(2), plan(3)))
    laptop.plans.pause.set()
    await settle()
    assert laptop.sent == [BY_AGENT]
