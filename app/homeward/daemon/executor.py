# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries the core's effects out through the adapters, and turns what becomes of them into inputs.

What protects or tells the time of a hand-over happens at once: holding traffic, the request in clear, leaving ARP for
the home address to others. Plans follow one another in a queue; a request by any other path, the home address's
announcement and every order to the IKE engine wait for the plan that was wished before them, because the fence lets
them pass only from then on.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import assert_never

from homeward.daemon.journal_keeper import JournalKeeper
from homeward.model.access import ClearPath, HomePath
from homeward.model.effects import (
    AnnounceHomeAddress,
    ApplyPlan,
    CheckVpn,
    Effect,
    MoveVpn,
    ResolveGateway,
    SaveIdentification,
    SendRegistration,
    SendSolicitation,
    StartVpn,
    StopVpn,
    WithdrawHomeAddress,
)
from homeward.model.errors import AdapterError, PlanError, Unavailable
from homeward.model.inputs import EffectFailed, GatewayResolved, Input, PlanApplied, VpnReported
from homeward.model.plan import EMPTY_PLAN, Held, NetworkPlan
from homeward.model.profile import GatewaySettings
from homeward.model.secret import Secret
from homeward.model.vpn import VpnFailed
from homeward.ports.world import (
    AgentDiscovery,
    HomeLinks,
    NameQueries,
    NetworkPlans,
    Registrations,
    VpnEngine,
)

log = logging.getLogger("plan")
link_log = logging.getLogger("links")
ike_log = logging.getLogger("ike")

VpnOrder = StartVpn | MoveVpn | CheckVpn | StopVpn


@dataclass(frozen=True, slots=True)
class World:
    """The adapters that effects are carried out with."""

    registrations: Registrations
    plans: NetworkPlans
    vpn: VpnEngine
    names: NameQueries
    journal: JournalKeeper
    agents: AgentDiscovery
    home_links: HomeLinks


async def undo(world: World, *, then: NetworkPlan = EMPTY_PLAN) -> None:
    """Leave the machine as it was found, or in the state of `then`, whoever's life the traces are from. PlanError."""
    try:
        await world.vpn.disconnect()
    except AdapterError as error:
        ike_log.warning("the VPN could not be ended: %s", error)
    finally:
        await world.plans.apply(then)


class Executor:
    """Effects of one connected profile. `feed` takes the inputs that they lead to, `failed` an error of ours."""

    def __init__(
        self,
        world: World,
        feed: Callable[[Input], None],
        *,
        gateway: GatewaySettings | None,
        pre_shared_key: Secret | None,
        home_agent: str,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._world = world
        self._feed = feed
        self._gateway = gateway
        self._pre_shared_key = pre_shared_key
        self._home_agent = home_agent
        self._failed = failed
        self._newest_plan = 0
        self._configured: object = None
        self._plans: asyncio.Queue[ApplyPlan | SendRegistration | AnnounceHomeAddress] = asyncio.Queue()
        self._home: HomePath | None = None
        self._orders: asyncio.Queue[tuple[VpnOrder, int]] = asyncio.Queue()
        self._done = 0
        self._done_changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to work the queues off."""
        self._spawn(self._work_plans())
        self._spawn(self._work_orders())

    async def stop(self) -> None:
        """Stop working; what is queued is dropped, what is under way ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def carry_out(self, effects: tuple[Effect, ...]) -> None:
        """Begin all effects in their order; never waits."""
        for effect in effects:
            match effect:
                case ApplyPlan(plan, number):
                    self._newest_plan = number
                    if isinstance(plan.traffic, Held):
                        self._world.plans.hold()
                    self._plans.put_nowait(effect)
                case SendRegistration(ClearPath()):
                    self._send(effect)
                case SendRegistration():
                    self._plans.put_nowait(effect)
                case SendSolicitation():
                    self._solicit(effect)
                case AnnounceHomeAddress(path):
                    self._home = path
                    self._plans.put_nowait(effect)
                case WithdrawHomeAddress(path):
                    self._withdraw(path)
                case StartVpn() | MoveVpn() | CheckVpn() | StopVpn():
                    self._orders.put_nowait((effect, self._newest_plan))
                case ResolveGateway():
                    self._spawn(self._resolve(effect))
                case SaveIdentification(spi, last, offset):
                    self._world.journal.identification(self._home_agent, spi, last=last, offset=offset)
                case _:
                    assert_never(effect)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A worker that dies of an error of ours would leave plans or orders undone for ever, without a word."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _send(self, effect: SendRegistration) -> None:
        try:
            self._world.registrations.send(effect.path, effect.destination, effect.octets, ttl=effect.ttl)
        except AdapterError as error:
            self._feed(EffectFailed("registration-not-sent", f"The registration could not be sent: {error}"))

    def _solicit(self, effect: SendSolicitation) -> None:
        try:
            self._world.agents.solicit(effect.link_index, effect.source, effect.destination)
        except AdapterError as error:
            # Another follows, and most networks have no agent: nothing that the user would have to know.
            link_log.info("%s on %s", error, effect.link_name)

    def _withdraw(self, path: HomePath) -> None:
        if self._home == path:  # What still waits to be announced must not be, afterwards.
            self._home = None
        self._world.home_links.withdraw(path)

    def _announce(self, path: HomePath) -> None:
        if path != self._home:
            return
        try:
            self._world.home_links.announce(path)
        except AdapterError as error:
            cause = f"The home address could not be announced on the home link: {error}"
            self._feed(EffectFailed("home-not-announced", cause))

    async def _work_plans(self) -> None:
        while True:
            work = await self._plans.get()
            match work:
                case SendRegistration():
                    self._send(work)
                    continue
                case AnnounceHomeAddress(path):
                    self._announce(path)
                    continue
            if work.number == self._newest_plan:  # A superseded plan must not open what a newer one closes.
                await self._apply(work)
            self._done = work.number
            self._done_changed.set()

    async def _apply(self, work: ApplyPlan) -> None:
        try:
            await self._world.plans.apply(work.plan)
        except (PlanError, AdapterError) as error:
            log.error("plan %d failed: %s", work.number, error)
            self._feed(EffectFailed("plan-failed", f"The network could not be set up: {error}"))
            return
        log.info("plan %d applied: %s", work.number, work.plan.traffic)
        self._feed(PlanApplied(work.number))

    async def _work_orders(self) -> None:
        while True:
            order, after = await self._orders.get()
            while self._done < after:
                self._done_changed.clear()
                await self._done_changed.wait()
            try:
                await self._give(order)
            except Unavailable as error:
                # It may just have been slow: whether it is lost, and found again, the engine's own watch reports.
                ike_log.warning("%s", error)
                self._configured = None
                self._feed(VpnReported(VpnFailed("engine-missing", str(error))))
            except AdapterError as error:
                ike_log.warning("%s", error)
                self._feed(VpnReported(VpnFailed("gateway-refused", str(error))))

    async def _give(self, order: VpnOrder) -> None:
        vpn = self._world.vpn
        match order:
            case StartVpn(gateway, source):
                if self._gateway is None or self._pre_shared_key is None:
                    return
                if self._configured != gateway:
                    await vpn.configure(self._gateway, gateway, self._pre_shared_key)
                    self._configured = gateway
                await vpn.connect(source)
            case MoveVpn(source):
                await vpn.move(source)
            case CheckVpn():
                await vpn.check()
            case StopVpn(why):
                ike_log.info("VPN stopped: %s", why)
                await vpn.disconnect()
            case _:
                assert_never(order)

    async def _resolve(self, effect: ResolveGateway) -> None:
        try:
            addresses = await self._world.names.resolve(effect.name, effect.link_index)
        except AdapterError as error:
            self._feed(GatewayResolved(effect.name, (), str(error)))
        else:
            self._feed(GatewayResolved(effect.name, addresses))
