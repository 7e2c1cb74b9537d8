# SPDX-License-Identifier: GPL-2.0-or-later
"""The fence's watch over itself: whoever touches it, at whatever moment, it comes back."""

import asyncio
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from homeward.adapters.nftables.fence import NftFence
from homeward.model.errors import PlanError
from homeward.model.plan import Fence, Held

FENCE = Fence(IPv4Address("10.0.0.2"), (), (), Held(), None)
HOME = IPv4Address("10.77.0.10")
OURS, THEIRS = 1234, 4321
NEW_TABLE, DELETED_TABLE = 0, 2


class ScriptedNft:
    """The kernel's side: rulesets that were loaded, and news that a test puts in, as from other programs."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.news: list[tuple[int, int]] = []
        self.after_run: list[list[tuple[int, int]]] = []
        """What others do right after each of the next transactions."""
        self.fails = 0

    def run(self, commands: str) -> None:
        if self.fails:
            self.fails -= 1
            raise PlanError("putting up the fence", "out of memory")
        self.loaded.append(commands)
        self.news.append((NEW_TABLE, OURS))
        if self.after_run:
            self.news += self.after_run.pop(0)

    def close(self) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> ScriptedNft:
    return ScriptedNft()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
async def fence(kernel: ScriptedNft, told: list[str], monkeypatch: pytest.MonkeyPatch) -> NftFence:
    def news(_fence: NftFence) -> Iterator[tuple[int, int]]:
        while kernel.news:
            yield kernel.news.pop(0)

    monkeypatch.setattr(NftFence, "_news", news)
    monkeypatch.setattr("homeward.adapters.nftables.fence.RESTORE_PAUSE", 0.01)
    made = NftFence()
    made._nft = kernel  # type: ignore[assignment]
    made._watch = object()  # type: ignore[assignment]
    made.on_tampered = told.append
    made.put_up(FENCE, HOME)
    return made


async def test_our_own_change_is_no_alarm(fence: NftFence, kernel: ScriptedNft, told: list[str]) -> None:
    fence._look()
    await asyncio.sleep(0)
    assert (len(kernel.loaded), told) == (1, [])


async def test_what_was_flushed_comes_back_at_once(
    fence: NftFence, kernel: ScriptedNft, told: list[str]
) -> None:
    kernel.news = [(DELETED_TABLE, THEIRS), (DELETED_TABLE, THEIRS)]
    fence._look()
    await asyncio.sleep(0)
    assert len(kernel.loaded) == 2
    assert told == ["another program changed the firewall; it was put back"]


async def test_flush_right_after_the_fence_was_put_back_is_seen(fence: NftFence, kernel: ScriptedNft) -> None:
    """Scripts flush twice: the second one's news came with those of our own repair."""
    kernel.news = [(DELETED_TABLE, THEIRS)]
    kernel.after_run = [[(DELETED_TABLE, THEIRS)]]
    fence._look()
    await asyncio.sleep(0.005)
    assert len(kernel.loaded) == 3


async def test_flush_right_after_a_new_fence_is_seen(fence: NftFence, kernel: ScriptedNft) -> None:
    kernel.after_run = [[(DELETED_TABLE, THEIRS)]]
    fence.put_up(Fence(IPv4Address("10.0.0.3"), (), (), Held(), None), HOME)
    await asyncio.sleep(0.005)
    assert len(kernel.loaded) == 3
    assert "10.0.0.3" in kernel.loaded[2]


async def test_fence_that_could_not_be_put_back_is_tried_again(
    fence: NftFence, kernel: ScriptedNft, told: list[str]
) -> None:
    kernel.fails = 3
    kernel.news = [(DELETED_TABLE, THEIRS)]
    fence._look()
    await asyncio.sleep(0.1)
    assert len(kernel.loaded) == 2
    assert "could not be put back" in told[0]
    assert told[-1] == "another program changed the firewall; it was put back"


async def test_fence_taken_down_meanwhile_stays_down(fence: NftFence, kernel: ScriptedNft) -> None:
    kernel.fails = 1
    kernel.news = [(DELETED_TABLE, THEIRS)]
    fence._look()
    fence.take_down()
    loaded = len(kernel.loaded)
    await asyncio.sleep(0.05)
    assert len(kernel.loaded) == loaded
