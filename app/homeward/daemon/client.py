# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as its users know it: connect, disconnect, reconnect, hand over a secret, look."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from homeward.bus.control import Caller
from homeward.bus.errors import Failed
from homeward.bus.messages import ProfileSummary
from homeward.daemon.driver import Driver
from homeward.daemon.executor import World, undo
from homeward.daemon.guard import find_profile, summarise
from homeward.daemon.secret_store import SecretStore
from homeward.daemon.settings import Profiles, known_home_address
from homeward.model.access import Link
from homeward.model.errors import AdapterError, HomewardError
from homeward.model.health import HealthItem, Severity
from homeward.model.plan import Fence, Held, NetworkPlan
from homeward.model.profile import Profile
from homeward.model.secret import Secret
from homeward.model.status import Blocked, ClientState, StatusSnapshot
from homeward.ports.world import Clock, Links

log = logging.getLogger("mip")

PROFILE_LOST = "profile-lost"
NOT_UNDONE = "not-undone"
WAITING = "Waiting for a secret: nothing leaves until it is there"


class Client:
    """One profile at most is connected. Orders follow one another; each leaves the machine in a state of its own.

    `publish` is called after every change of the snapshot.
    """

    def __init__(
        self,
        *,
        profiles: Callable[[], Profiles],
        store: SecretStore,
        clock: Clock,
        links: Links,
        world: World,
        entropy: Callable[[], int],
        publish: Callable[[], None],
    ) -> None:
        self._profiles = profiles
        self._store = store
        self._clock = clock
        self._links = links
        self._world = world
        self._entropy = entropy
        self._publish = publish
        self._profile: Profile | None = None
        self._driver: Driver | None = None
        self._fence_stands = False
        self._faults: dict[str, HealthItem] = {}
        self._order = asyncio.Lock()
        self._snapshot = StatusSnapshot()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends with the exception if the driver dies of an error of ours; traffic is then held."""

    # --- beginning and end of the daemon's life -----------------------------------------------------------------------

    async def resume(self) -> None:
        """After a start: go on where an earlier life was killed, or clean up what it left."""
        wanted, unreadable = self._world.journal.wanted, self._world.journal.unreadable
        if unreadable:
            self._stay_closed(f"what was connected last cannot be read: {unreadable}")
            return
        if wanted is None:
            await undo(self._world)  # its VPN too, which charon keeps up for it
            return
        log.warning("the last homewardd ended while “%s” was connected: going on", wanted)
        try:
            await self._begin(find_profile(self._profiles(), wanted), blocked=True)
        except HomewardError as error:
            self._stay_closed(f"“{wanted}” was connected and cannot be resumed: {error}")

    def _stay_closed(self, why: str) -> None:
        """What a life before left stands: opening now would be the leak that it prevents."""
        self._fence_stands = True
        self._fault(PROFILE_LOST, why, Severity.ALARM)
        self._draw()

    async def end(self, *, keep_block: bool) -> None:
        """Before the daemon ends: undo everything, or with `keep_block` leave the fence for the next life."""
        async with self._order:
            if not keep_block:
                await self._disconnect()
            elif self._driver is not None:
                await self._driver.stop(leave_plan=True)

    # --- orders -------------------------------------------------------------------------------------------------------

    async def connect(self, profile: str, caller: Caller) -> None:
        """Connect this profile; an order for the one that is connected changes nothing.

        Between another that is connected and this one nothing opens.
        """
        async with self._order:
            found = find_profile(self._profiles(), profile)
            if self._profile == found:
                if self._driver is None:
                    await self._start_driver(found)
                return
            await self._disconnect(in_favour_of=found)
            await self._begin(found, blocked=False)

    async def disconnect(self, caller: Caller) -> None:
        """VPN down, rules and fence away, secrets forgotten."""
        async with self._order:
            await self._disconnect()

    async def reconnect(self, caller: Caller) -> None:
        """A fresh verdict and a fresh VPN. Raises Failed when nothing is connected."""
        async with self._order:
            if self._profile is None:
                raise Failed("nothing is connected; `homeward connect` connects a profile")
            if self._driver is None:
                missing = ", ".join(f"“{need.reference}”" for need in self._store.needed(self._profile))
                raise Failed(
                    f"“{self._profile.name}” waits for its secret {missing}; unlock the keyring or enter it"
                )
            self._driver.reconnect()

    async def offer_secret(self, reference: str, secret: Secret, caller: Caller) -> None:
        """Take a secret over if its owner offers it and its fingerprint fits; SecretRefused."""
        try:
            await self._store.offer(reference, secret, caller, profiles=self._profiles().usable.values())
        finally:
            self._draw()
        async with self._order:
            if self._profile is not None and self._driver is None:
                await self._start_driver(self._profile)

    async def profiles(self) -> tuple[ProfileSummary, ...]:
        """All profiles, unusable ones with the reason."""
        return summarise(await asyncio.to_thread(self._profiles))

    def snapshot(self) -> StatusSnapshot:
        """The present picture, with what has been carried until now; never waits."""
        traffic = self._world.plans.traffic()
        if traffic != self._snapshot.traffic:
            self._snapshot = replace(self._snapshot, traffic=traffic)
        return self._snapshot

    def redraw(self) -> None:
        """Something changed that only the adapters know, such as what carries packets."""
        self._draw()

    # --- what an adapter noticed by itself ----------------------------------------------------------------------------

    def noticed(self, code: str, text: str) -> None:
        """An adapter found that somebody meddled with what we put up; `text` says what became of it."""
        log.warning("%s", text)
        if self._driver is not None:
            self._driver.fault(code, text)
        else:
            self._fault(code, text, Severity.WARNING)
            self._draw()

    def broken(self, error: BaseException) -> None:
        """An error of ours, in the driver or in what it relies on: nothing may flow that nobody steers."""
        self._world.plans.hold()
        if not self.failed.done():
            self.failed.set_exception(error)

    # --- how --------------------------------------------------------------------------------------------------------

    async def _begin(self, profile: Profile, *, blocked: bool) -> None:
        self._faults.clear()
        self._store.forget_alarms()
        self._world.journal.want(profile.name)
        self._profile = profile
        if blocked:
            await self._world.plans.apply(_closed(profile, await self._access_links()))
            self._fence_stands = True
        await self._start_driver(profile)

    async def _start_driver(self, profile: Profile) -> None:
        secrets = self._store.secrets_of(profile)
        if secrets is None:
            self._draw()
            return
        driver = Driver(
            profile,
            key=secrets.key,
            pre_shared_key=secrets.pre_shared_key,
            foreign_keys=secrets.foreign_keys,
            clock=self._clock,
            links=self._links,
            world=self._world,
            entropy=self._entropy,
            observer=lambda _snapshot: self._draw(),
            failed=self.broken,
        )
        self._driver = driver
        try:
            await driver.start()
        except AdapterError as error:
            if self._fence_stands:
                # What a killed life or another profile left closed stays so: the next Connect, or secret, tries again.
                self._driver = None
                await driver.stop(leave_plan=True)
                self._draw()
            else:
                await self._disconnect()
            raise Failed(f"“{profile.name}” could not be connected: {error}") from error
        self._draw()

    async def _disconnect(self, *, in_favour_of: Profile | None = None) -> None:
        driver = self._driver
        closing = in_favour_of if driver is not None or self._fence_stands else None
        self._profile = self._driver = None
        self._faults.clear()
        try:
            if driver is not None:
                await driver.stop(leave_plan=closing is not None)
            if closing is not None:
                await undo(self._world, then=_closed(closing, await self._access_links()))
            elif driver is None:
                await undo(self._world)
            self._fence_stands = closing is not None
        except AdapterError as error:
            self._fence_stands = True
            text = f"the network could not be left as it was found: {error}"
            self._fault(NOT_UNDONE, text, Severity.ALARM)
            raise Failed(f"{text}; try `homeward disconnect` again") from error
        finally:
            # What was offered for the next profile, in whatever order, is not to be asked for again.
            self._store.forget(but_for=in_favour_of)
            self._draw()
            # Not between two profiles: a life that is killed there would have the next one open.
            if in_favour_of is None:
                self._world.journal.want(None)

    async def _access_links(self) -> tuple[str, ...]:
        """Those that there are at this moment: without their names the fence has no second line."""
        pictures: list[tuple[Link, ...]] = []
        try:
            await self._links.start(pictures.append)
            await self._links.stop()
        except AdapterError as error:
            log.warning("the access links are not known, so only the fence's first line stands: %s", error)
        return tuple(sorted({link.name for picture in pictures for link in picture if link.access}))

    def _fault(self, code: str, text: str, severity: Severity) -> None:
        advice = "`homeward disconnect` lifts the block; mend the profile and connect again."
        self._faults[code] = HealthItem(code, severity, text, advice, self._clock.now().boot)

    def _draw(self) -> None:
        before = self._snapshot
        drawn = self._driver.snapshot() if self._driver is not None else self._idle()
        waiting, dropped = self._world.plans.counters()
        drawn = replace(
            drawn,
            revision=before.revision,
            health=(*self._store.health, *self._faults.values(), *drawn.health),
            held_packets=waiting,
            dropped_packets=dropped,
            engine=self._world.plans.engine(),
            traffic=before.traffic,
        )
        if drawn != before:
            self._snapshot = replace(drawn, revision=before.revision + 1)
            self._publish()

    def _idle(self) -> StatusSnapshot:
        profile = self._profile
        if profile is None:
            for code in (PROFILE_LOST, NOT_UNDONE):
                if code in self._faults:
                    blocked = Blocked(self._faults[code].text, self._fence_stands)
                    return StatusSnapshot(state=ClientState.BLOCKED, blocked=blocked)
            return StatusSnapshot()
        return StatusSnapshot(
            state=ClientState.WAITING_FOR_SECRET,
            profile=profile.name,
            home_address=known_home_address(profile),
            home_agent=profile.home_agent.address,
            vpn_gateway=profile.gateway.host if profile.gateway else "",
            blocked=Blocked(WAITING, self._fence_stands) if self._fence_stands else None,
            secrets_needed=self._store.needed(profile),
        )


def _closed(profile: Profile, access_links: tuple[str, ...]) -> NetworkPlan:
    """Everything held and fenced: all that can be done for a profile whose secrets are not there."""
    agent = profile.home_agent
    fence = Fence(agent.address, (), access_links, Held(), None)
    return NetworkPlan(known_home_address(profile), profile.destinations, Held(), fence)
