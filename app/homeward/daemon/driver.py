# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop around the core: facts in by one queue, effects out, one timer."""

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Address

from homeward.core.challenges import ForeignKeys
from homeward.core.coordinator import Coordinator
from homeward.daemon.executor import Executor, World, undo
from homeward.model.access import ClearPath, Link, Path, VpnPath
from homeward.model.errors import AdapterError
from homeward.model.inputs import (
    AgentAdvertised,
    DatagramReceived,
    DeadlinePassed,
    EffectFailed,
    Input,
    LinksObserved,
    ReconnectRequested,
    Resumed,
    VpnReported,
)
from homeward.model.journal import IdentificationState
from homeward.model.plan import Held
from homeward.model.profile import Profile
from homeward.model.registration import MobilitySecurityAssociation, Spi
from homeward.model.relay import AaaAssociation
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot
from homeward.model.vpn import VpnReport
from homeward.ports.world import Clock, Links

log = logging.getLogger("mip")

LONGEST_SLEEP = 10.0
"""The timer never sleeps longer, in seconds: asyncio's clock stands still during sleep, deadlines do not."""
MOST_WAITING = 16
"""Facts that may wait when a datagram comes; it is dropped if there are more. At most two answers are ever due, and
whoever floods us with others must not keep news of the links waiting behind them (R-64)."""
SUSPENDED = 1.0
"""So much more on CLOCK_BOOTTIME than on CLOCK_MONOTONIC, in seconds, means that the machine slept."""


class Driver:
    """One connected profile at work. `observer` gets every new snapshot.

    `foreign_keys` are those of the profile's foreign agents, in their order.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        key: Secret,
        pre_shared_key: Secret | None,
        foreign_keys: tuple[Secret, ...] = (),
        clock: Clock,
        links: Links,
        world: World,
        entropy: Callable[[], int],
        observer: Callable[[StatusSnapshot], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        agent = profile.home_agent
        association = MobilitySecurityAssociation(Spi(agent.spi), agent.algorithm, key=key)
        restored: IdentificationState | None = world.journal.identification_for(str(agent.address), agent.spi)
        self._core = Coordinator(
            profile,
            association,
            entropy=entropy,
            restored=restored,
            foreign_keys=_foreign_keys(profile, foreign_keys),
        )
        self._clock = clock
        self._links = links
        self._world = world
        self._observer = observer
        self._failed = failed
        self._executor = Executor(
            world,
            self.feed,
            gateway=profile.gateway,
            pre_shared_key=pre_shared_key,
            home_agent=str(agent.address),
            failed=failed,
        )
        self._inputs: asyncio.Queue[Input] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._logged: tuple[str, str, str] | None = None
        self._slept = clock.asleep()

    def feed(self, fact: Input) -> None:
        """Take in a fact, from the event loop's thread."""
        self._inputs.put_nowait(fact)

    async def start(self) -> None:
        """Watch the world and begin. Raises AdapterError when the kernel refuses to be watched."""
        self._executor.start()
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)
        self._clock.watch(self._notice_sleep)
        self._world.registrations.start(self._datagram)
        self._world.agents.start(self._advertised)
        await self._world.vpn.start(self._report)
        await self._links.start(self._observe)

    async def stop(self, *, leave_plan: bool = False) -> None:
        """End: VPN down and the machine as we found it, or with `leave_plan` just stop working. Raises AdapterError."""
        self._world.plans.hold()  # From here on nobody watches the links.
        self._world.home_links.stop()
        self._world.agents.stop()
        self._clock.watch(None)
        await self._links.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._executor.stop()
        self._world.registrations.stop()
        try:
            if not leave_plan:
                await undo(self._world)
        finally:
            await self._world.vpn.stop()
            await self._world.journal.flush()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def reconnect(self) -> None:
        """The user asks for a fresh verdict and a fresh VPN."""
        self.feed(ReconnectRequested())

    def snapshot(self) -> StatusSnapshot:
        """The present picture."""
        return self._core.snapshot()

    def _observe(self, links: tuple[Link, ...]) -> None:
        # Heard before the core knows of the link: an agent may answer the first solicitation at once.
        try:
            self._world.agents.watch(frozenset(link.index for link in links if link.access and link.carrier))
        except AdapterError as error:
            log.warning("%s", error)
        self.feed(LinksObserved(links))

    def _datagram(self, datagram: DatagramReceived) -> None:
        if self._inputs.qsize() < MOST_WAITING:
            self.feed(datagram)

    def _advertised(self, advertisement: AgentAdvertised) -> None:
        # Half of the room is kept for answers: advertisements come again, and anybody on the link can make them up.
        if self._inputs.qsize() < MOST_WAITING // 2:
            self.feed(advertisement)

    def _report(self, report: VpnReport) -> None:
        self.feed(VpnReported(report))

    def fault(self, code: str, cause: str) -> None:
        """An adapter noticed something by itself, such as a removed fence."""
        self.feed(EffectFailed(code, cause))

    async def _run(self) -> None:
        while True:
            try:
                # Not wait_for(): in Python 3.11 it loses a cancellation that comes together with a fact.
                async with asyncio.timeout(self._sleep()):
                    fact = await self._inputs.get()
            except TimeoutError:
                self._notice_sleep()
                if not self._inputs.empty():
                    continue  # That it slept is to be known before anything that time has made due.
            else:
                self._handle(fact)
            self._handle_deadline()

    def _sleep(self) -> float:
        deadline = self._core.next_deadline()
        if deadline is None:
            return LONGEST_SLEEP
        return min(max(deadline - self._clock.now().boot, 0.0), LONGEST_SLEEP)

    def _handle_deadline(self) -> None:
        deadline = self._core.next_deadline()
        if deadline is not None and self._clock.now().boot >= deadline:
            self._handle(DeadlinePassed())

    def _notice_sleep(self) -> None:
        """What was proved before the machine slept proves nothing now, and must not wait for a timer that slept too."""
        slept = self._clock.asleep() - self._slept
        if slept > SUSPENDED:
            log.info("the machine slept for %.0f s", slept)
            self._slept += slept
            self._world.plans.hold()
            self.feed(Resumed())

    def _handle(self, fact: Input) -> None:
        step = self._core.handle(fact, self._clock.now())
        self._executor.carry_out(step.effects)
        if step.changed:
            snapshot = self._core.snapshot()
            self._retain_sockets()
            standing = (snapshot.state.value, snapshot.mode.value, snapshot.trust.value)
            # A forged datagram changes the snapshot too, and must not fill the log.
            if standing != self._logged:
                self._logged = standing
                log.info("%s, mode %s, trust %s", *standing)
            self._observer(snapshot)

    def _retain_sockets(self) -> None:
        """Sockets of links and inner addresses that are gone are closed; the others keep their ports (R-230)."""
        core = self._core
        paths: set[Path] = set(core.other_links.paths)
        paths.update(series.path for series in core.registrar.series)
        attachment = core.attachments.current
        if attachment is not None:
            paths.add(ClearPath(attachment.link_index, attachment.link_name, attachment.care_of_address))
        inner = core.snapshot().vpn_inner_address
        if inner is not None:
            paths.add(VpnPath(inner))
        if core.registrar.binding is not None:
            paths.add(core.registrar.binding.path)
        if core.plan is not None and not isinstance(core.plan.traffic, Held):
            paths.add(core.plan.traffic.path)
        self._world.registrations.retain(frozenset(paths))


def _foreign_keys(profile: Profile, keys: tuple[Secret, ...]) -> ForeignKeys:
    agents: dict[IPv4Address, MobilitySecurityAssociation] = {}
    server: AaaAssociation | None = None
    for settings, key in zip(profile.foreign_agents, keys, strict=True):
        if settings.agent is None:
            server = AaaAssociation(Spi(settings.spi), key=key)
        else:
            agents[settings.agent] = MobilitySecurityAssociation(
                Spi(settings.spi), settings.algorithm, key=key
            )
    return ForeignKeys(agents, server)
