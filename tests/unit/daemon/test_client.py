# SPDX-License-Identifier: GPL-2.0-or-later
"""Orders to the daemon in a world that does not play along: nothing opens that was closed, no claim is false."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from homeward.bus.errors import Failed
from homeward.daemon.client import Client
from homeward.daemon.secret_store import SecretStore
from homeward.daemon.settings import Profiles
from homeward.model.errors import AdapterError, IkeError, LinkError, PlanError, Unavailable
from homeward.model.journal import Journal
from homeward.model.plan import EMPTY_PLAN, Held
from homeward.model.secret import Secret
from homeward.model.status import ClientState
from tests.unit.daemon.laptop import Laptop, settle
from tests.unit.daemon.parts import (
    AAA,
    ALICE,
    FOREIGN,
    KEY,
    PSK,
    profile,
    with_assigned_home_address,
    with_foreign_agents,
)


class Served(Laptop):
    """A laptop with a daemon behind the bus."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.profiles = Profiles({"office": profile()})
        self.client = self.new_life()

    def new_life(self) -> Client:
        return Client(
            profiles=lambda: self.profiles,
            store=SecretStore(lambda: self.clock.now().boot),
            clock=self.clock,
            links=self.links,
            world=self.world(),
            entropy=lambda: 7,
            publish=lambda: None,
        )

    async def offer_secrets(self) -> None:
        await self.client.offer_secret("mn-ha", Secret(KEY), ALICE)
        await self.client.offer_secret("psk", Secret(PSK), ALICE)

    async def connect(self) -> None:
        await self.offer_secrets()
        await self.client.connect("office", ALICE)
        await settle()

    def killed(self) -> None:
        """As after kill -9 while connected: what was wanted is known, secrets are not."""
        self.until_reboot.journal = Journal(wanted="office")
        self.client = self.new_life()

    @property
    def state(self) -> ClientState:
        return self.client.snapshot().state


@pytest.fixture
async def laptop() -> AsyncIterator[Served]:
    made = Served()
    yield made
    made.engine.refuses = made.links.refuses = made.until_reboot.refuses = None
    await made.client.end(keep_block=False)


async def test_connect_that_fails_leaves_the_machine_open_and_can_be_repeated(laptop: Served) -> None:
    laptop.links.refuses = LinkError("reading the links", 12)
    with pytest.raises(Failed, match="reading the links"):
        await laptop.connect()
    assert laptop.plans.standing == EMPTY_PLAN
    assert laptop.state is ClientState.DISCONNECTED
    assert laptop.until_reboot.journal.wanted is None
    laptop.links.refuses = None
    await laptop.connect()
    assert laptop.plans.standing != EMPTY_PLAN


async def test_between_two_profiles_nothing_opens(laptop: Served) -> None:
    """In an opening the kernel answers tunnel packets in clear, quoting what was in them."""
    laptop.profiles = Profiles({"office": profile(), "branch": replace(profile(), name="branch")})
    await laptop.connect()
    before = len(laptop.plans.applied)
    await laptop.offer_secrets()
    await laptop.client.connect("branch", ALICE)
    await settle()
    assert laptop.client.snapshot().profile == "branch"
    between = laptop.plans.applied[before:]
    assert between, "the fence is the new profile's from the beginning"
    assert EMPTY_PLAN not in between
    assert laptop.until_reboot.journal.wanted == "branch"
    await laptop.client.disconnect(ALICE)
    assert laptop.plans.standing == EMPTY_PLAN


async def test_profile_in_place_of_another_waits_for_its_secret_behind_the_fence(laptop: Served) -> None:
    laptop.profiles = Profiles({"office": profile(), "branch": with_foreign_agents(profile())})
    await laptop.connect()
    await laptop.client.connect("branch", ALICE)
    assert laptop.state is ClientState.WAITING_FOR_SECRET
    assert laptop.client.snapshot().blocked is not None
    assert isinstance(laptop.plans.standing.traffic, Held)
    assert laptop.plans.standing != EMPTY_PLAN


async def test_life_killed_between_two_profiles_leaves_the_next_one_closed(laptop: Served) -> None:
    laptop.profiles = Profiles({"office": profile(), "branch": replace(profile(), name="branch")})
    await laptop.connect()
    wanted: list[str | None] = []
    save = laptop.until_reboot.save

    def watched(journal: Journal) -> None:
        wanted.append(journal.wanted)
        save(journal)

    laptop.until_reboot.save = watched  # type: ignore[method-assign]
    await laptop.offer_secrets()
    await laptop.client.connect("branch", ALICE)
    assert set(wanted) == {"branch"}


async def test_foreign_agents_keys_are_waited_for_like_the_others(laptop: Served) -> None:
    laptop.profiles = Profiles({"office": with_foreign_agents(profile())})
    await laptop.connect()
    assert laptop.state is ClientState.WAITING_FOR_SECRET
    assert [one.reference for one in laptop.client.snapshot().secrets_needed] == ["mn-fa", "mn-aaa"]
    await laptop.client.offer_secret("mn-fa", Secret(FOREIGN), ALICE)
    assert laptop.state is ClientState.WAITING_FOR_SECRET
    await laptop.client.offer_secret("mn-aaa", Secret(AAA), ALICE)
    await settle()
    assert laptop.state not in (ClientState.WAITING_FOR_SECRET, ClientState.DISCONNECTED)


async def test_a_home_address_that_is_still_to_be_assigned_is_not_shown(laptop: Served) -> None:
    laptop.profiles = Profiles({"office": with_assigned_home_address(profile())})
    await laptop.client.connect("office", ALICE)
    assert laptop.state is ClientState.WAITING_FOR_SECRET
    assert laptop.client.snapshot().home_address is None
    (summary,) = await laptop.client.profiles()
    assert summary.home_address is None


async def test_block_of_a_killed_life_stands_though_the_links_cannot_be_watched(laptop: Served) -> None:
    laptop.killed()
    await laptop.client.resume()
    assert isinstance(laptop.plans.standing.traffic, Held)
    laptop.links.refuses = LinkError("reading the links", 12)
    with pytest.raises(Failed):
        await laptop.offer_secrets()
    assert laptop.plans.standing != EMPTY_PLAN
    assert laptop.until_reboot.journal.wanted == "office"
    laptop.links.refuses = None
    await laptop.client.connect("office", ALICE)
    await settle()
    assert laptop.state not in (ClientState.WAITING_FOR_SECRET, ClientState.DISCONNECTED)


async def test_profile_that_is_gone_keeps_the_block_until_disconnect(laptop: Served) -> None:
    laptop.killed()
    laptop.profiles = Profiles()
    await laptop.client.resume()
    assert laptop.state is ClientState.BLOCKED
    assert "apply" not in laptop.plans.events
    await laptop.client.disconnect(ALICE)
    assert laptop.state is ClientState.DISCONNECTED
    assert laptop.plans.events == ["apply"]


async def test_what_was_connected_and_cannot_be_read_keeps_the_block(laptop: Served) -> None:
    """As after an upgrade that does not understand the old file: to be closed for nothing beats a leak."""
    laptop.until_reboot.refuses = Unavailable("read the journal", "it is of version 2")
    laptop.client = laptop.new_life()
    laptop.until_reboot.refuses = None
    await laptop.client.resume()
    assert laptop.state is ClientState.BLOCKED
    assert "it is of version 2" in laptop.client.snapshot().health[0].text
    assert "apply" not in laptop.plans.events
    await laptop.client.disconnect(ALICE)
    assert laptop.state is ClientState.DISCONNECTED


async def test_what_cannot_be_undone_is_said_and_can_be_tried_again(laptop: Served) -> None:
    await laptop.connect()
    laptop.plans.fails_next = PlanError("removing the routing rules", 1)
    with pytest.raises(Failed, match="homeward disconnect"):
        await laptop.client.disconnect(ALICE)
    blocked = laptop.client.snapshot().blocked
    assert laptop.state is ClientState.BLOCKED
    assert blocked is not None
    assert blocked.fence_holds
    assert "removing the routing rules" in blocked.cause
    assert len(laptop.client._store.needed(profile())) == 2, "the secrets are forgotten all the same"
    await laptop.client.disconnect(ALICE)
    assert laptop.state is ClientState.DISCONNECTED
    assert laptop.plans.standing == EMPTY_PLAN


@pytest.mark.parametrize("error", [IkeError("list-sas", "no"), Unavailable("disconnect", "charon hangs")])
async def test_engine_that_refuses_keeps_nobody_from_disconnecting(
    laptop: Served, error: AdapterError
) -> None:
    await laptop.connect()
    laptop.engine.refuses = error
    await laptop.client.disconnect(ALICE)
    assert laptop.state is ClientState.DISCONNECTED
    assert laptop.plans.standing == EMPTY_PLAN


async def test_disk_that_refuses_keeps_no_secret_in_memory(laptop: Served) -> None:
    await laptop.connect()
    laptop.until_reboot.refuses = Unavailable("write the journal", "no space left")
    with pytest.raises(Unavailable):
        await laptop.client.disconnect(ALICE)
    assert len(laptop.client._store.needed(profile())) == 2
    assert laptop.plans.standing == EMPTY_PLAN


async def test_error_of_ours_ends_the_daemon_with_traffic_held(laptop: Served) -> None:
    await laptop.connect()

    async def broken(plan: object) -> None:
        raise RuntimeError("a bug of ours")

    apply, laptop.plans.apply = laptop.plans.apply, broken  # type: ignore[assignment, method-assign]
    laptop.links.set()  # no access link is left for the fence to name: another plan
    await settle()
    assert isinstance(laptop.client.failed.exception(), RuntimeError)
    assert not laptop.plans.is_open
    laptop.plans.apply = apply  # type: ignore[method-assign]
