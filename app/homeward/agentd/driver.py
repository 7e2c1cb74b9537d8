# SPDX-License-Identifier: GPL-2.0-or-later
"""The process around the home agent's decisions: requests in, effects out in their order, one timer."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import secrets
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from homeward.adapters.boottime_clock import SteadyClock
from homeward.adapters.sqlite_agent_store import SqliteAgentStore
from homeward.agentd.companion import Companion
from homeward.agentd.doer import Doer, udp_end
from homeward.agentd.forwarding import Forwarding
from homeward.agentd.home_link import HomeLink
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.kernel_forwarding import Traffic
from homeward.agentd.listener import RequestListener, TunnelDatagram
from homeward.agentd.log import entry
from homeward.agentd.memory_keeper import MemoryKeeper
from homeward.agentd.metrics import Metrics
from homeward.agentd.settings import AgentSettings
from homeward.agents.agent_events import (
    AgentEffect,
    AgentInput,
    Forward,
    PlainGrant,
    ProxyHomeAddress,
    Remember,
    RequestArrived,
    SendReply,
    StopForwarding,
)
from homeward.agents.bindings import Binding
from homeward.agents.grants import consequences
from homeward.agents.home_agent import HomeAgent
from homeward.model.inputs import DeadlinePassed

log: Final = logging.getLogger("mip")

_LONGEST_SLEEP: Final = 30.0
"""Lifetimes run on while the machine sleeps and asyncio's clock does not: look at least this often, in seconds."""
_SOONEST: Final = 0.001
_RETRY: Final = 1.0
_YOUNG: Final = (5000, 10, 1000)
"""Garbage is looked for when so many values are more than before: a batch of requests has fewer, and leaves none that
is in a cycle. Looking at all of 100,000 bindings takes 0.1 s, at 5,000 values 2 ms."""


class AgentDriver:
    """One running home agent."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._clock = SteadyClock()
        self._metrics = Metrics()
        policy = settings.policy
        links = InsideLinks(policy.networks.interfaces, self._boot)
        self._agent: HomeAgent | None = None
        self._links = links
        self._listener = RequestListener(links)
        self._forwarding = Forwarding(settings, links, metrics=self._metrics, boot=self._boot)
        self._keeper = MemoryKeeper(
            None if settings.store is None else SqliteAgentStore(settings.store),
            clock=self._clock.now,
            metrics=self._metrics,
            tolerance=policy.timestamp_tolerance,
        )
        self._doer = Doer(
            self._listener,
            self._forwarding,
            metrics=self._metrics,
            boot=self._boot,
            binding_count=lambda: self.agent.binding_count(),
        )
        self.control: Companion | None = None
        """Set before run(): started when everything else is ready, and stopped before it."""
        self._waiting: dict[IPv4Address, list[AgentEffect]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0
        self._end: asyncio.Event | None = None
        self._standing = False

    async def run(self, end: asyncio.Event) -> bool:
        """Serve until `end` is set; False when the device was taken away and the agent could not go on.

        Raises AdapterErrors and OSErrors when it cannot begin, with nothing left behind.
        """
        lost = False

        def device_lost() -> None:
            nonlocal lost
            lost = True
            end.set()

        self._end = end
        self._forwarding.on_lost = device_lost
        self._keeper.on_recovered = self._recovered
        policy = self._settings.policy
        gc.disable()  # what is read and restored is no garbage, and looking for some takes a tenth of the time
        try:
            # The port first: whoever has it already keeps its device. Nothing is read from it before we wait below.
            self._listener.start(self._take_requests, self._take_data)
            floor = self._keeper.open()
            self._agent = HomeAgent(policy, started=self._clock.now(), entropy=_entropy, floor=floor)
            self._forwarding.start()
            if policy.home_link is not None:
                self._forwarding.routes.be_loose(policy.home_link)
                self._doer.home_link = HomeLink(
                    policy.home_link,
                    policy,
                    interval=self._settings.advertisement_interval,
                    clock=self._clock,
                )
                self._doer.home_link.start()
            self._restore(self._agent)
            if self.control is not None:
                self.control.start()
            self._warn_about_policy()
            bindings = self._agent.binding_count()
            gc.freeze()  # what was read and restored stays
            gc.set_threshold(*_YOUNG)
            gc.enable()
            log.info(entry("ready", address=policy.address, nodes=len(policy.nodes), bindings=bindings))
            await end.wait()
        finally:
            gc.enable()
            self._stop()
        return not lost

    def stop_standing(self) -> None:
        """End, and leave the kernel's data path as it is: the next life takes it over."""
        self._standing = True
        if self._end is not None:
            self._end.set()

    @property
    def settings(self) -> AgentSettings:
        """Those in force."""
        return self._settings

    @property
    def agent(self) -> HomeAgent:
        """The decisions, to be looked at only, and while it runs."""
        assert self._agent is not None
        return self._agent

    @property
    def metrics(self) -> Metrics:
        """What was counted."""
        return self._metrics

    @property
    def clock(self) -> SteadyClock:
        """Its clock."""
        return self._clock

    @property
    def engine(self) -> str:
        """What carries the tunnels' packets."""
        return self._forwarding.engine

    def take(self, arrived: AgentInput) -> None:
        """An order: what follows from it is carried out, and remembered, when this returns."""
        self._finish(self.agent.handle(arrived, self._clock.now()), is_order=True)

    def adopt(self, settings: AgentSettings) -> None:
        """Go by these from now on. ProfileError, and then nothing has changed."""
        effects = self.agent.adopt(settings.policy, self._clock.now())
        self._settings = settings
        self._keeper.tolerance = settings.policy.timestamp_tolerance
        self._finish(effects, is_order=True)
        self._forwarding.adopt(settings)

    def traffic(self) -> Traffic:
        """Packets and octets that the kernel carried past us, by direction ("in", "out") and engine."""
        return self._forwarding.traffic()

    def back_up(self, to: Path) -> None:
        """Write a consistent copy of the store into a file that is empty or not there. From any thread; Unavailable."""
        self._keeper.back_up(to)

    def store_figures(self) -> dict[str, int | float | str | bool]:
        """How it stands about what is kept."""
        return {"file": str(self._settings.store or "none"), **self._keeper.figures()}

    def dump(self) -> None:
        """Write all bindings and counters into the log, as JSON."""
        now = self._boot()
        bindings = [_described(binding, now) for binding in self.agent.bindings()]
        counters = dict(sorted(self._metrics.counts.items()))
        traffic = {f"{way}-{engine}": packets for (way, engine), (packets, _) in self.traffic().items()}
        told = {"bindings": bindings, "counters": counters, "engine": self.engine, "traffic": traffic}
        log.info("bindings %s", json.dumps(told))

    # --- inputs ---

    def _restore(self, agent: HomeAgent) -> None:
        """Go on where the life before was ended. Raises AdapterErrors."""
        changes: list[Forward] = []
        for effect in agent.restore(self._keeper.memories(), self._clock.now()):
            match effect:
                case Remember(memory):
                    self._keeper.note(memory)
                case Forward():
                    changes.append(effect)
                case _:
                    self._doer.carry_out((effect,))
        self._keeper.start()
        self._forwarding.restore(changes)
        self._arm()

    def _take_requests(self, batch: Sequence[RequestArrived]) -> None:
        """One moment, one commit, then the forwarding and the replies of all of them."""
        at = self._clock.now()
        if not self._keeper.may_accept(at):
            self._metrics.counts["request-not-remembered"] += len(batch)
            return
        effects: list[AgentEffect] = []
        try:
            effects.extend(self.agent.handle_all(batch, at))
        finally:
            self._finish(effects)  # also what was decided before one of them failed

    def _take_data(self, arrived: TunnelDatagram) -> None:
        """Data of a tunnel in UDP. One that is half bound is shown to the agent, and may go through after that."""
        if self._forwarding.take_datagram(arrived):
            return
        request = RequestArrived(
            arrived.octets,
            arrived.source,
            source_port=arrived.port,
            destination=arrived.destination,
            interface=self._links.name_of(arrived.link),
        )
        self._take_requests((request,))
        self._forwarding.take_datagram(arrived)

    def _tick(self) -> None:
        self._timer = None
        self._doer.retry()
        self._finish(self.agent.handle(DeadlinePassed(), self._clock.now()))

    # --- effects ---

    def _finish(self, effects: Iterable[AgentEffect], *, is_order: bool = False) -> None:
        """Make durable what is to be remembered, and only then do anything that others can see.

        What ends a binding is done in any case: packets of a node that is trusted no more wait for no disk.
        """
        rest: list[AgentEffect] = []
        for effect in effects:
            if type(effect) is Remember:
                self._keeper.note(effect.memory)
                continue
            if type(effect) is PlainGrant:
                self._keeper.note(effect.memory)
            rest.append(effect)
        if self._keeper.commit():
            if self._waiting:
                self._recovered()
            self._doer.carry_out(rest)
        else:
            self._doer.carry_out(self._without_memory(rest))
            if is_order:
                log.warning(
                    entry("order-not-remembered", text="a crash before the store works again undoes it")
                )
        self._arm()

    def _without_memory(self, effects: Iterable[AgentEffect]) -> Iterator[AgentEffect]:
        """What may be done although a crash would undo it. Whoever asked is not answered, and asks again."""
        spelled_out = (
            each
            for effect in effects
            for each in (consequences(effect) if isinstance(effect, PlainGrant) else (effect,))
        )
        for effect in spelled_out:
            match effect:
                case Forward() | ProxyHomeAddress():
                    self._waiting.setdefault(effect.home_address, []).append(effect)
                case StopForwarding():
                    self._waiting.pop(effect.home_address, None)
                    yield effect
                case SendReply():
                    self._metrics.counts["reply-not-remembered"] += 1
                case _:
                    yield effect

    def _recovered(self) -> None:
        """The store works again: bindings that were made when it failed are as good as any other."""
        waiting, self._waiting = self._waiting, {}
        for effects in waiting.values():
            self._doer.carry_out(effects)
        self._arm()

    # --- time, and the ends ---

    def _arm(self) -> None:
        """Have one timer run until the next deadline; most batches leave it as it is."""
        has_failed = self._doer.has_failed
        if self._timer is not None and not has_failed and not self.agent.may_need_before(self._armed):
            return
        now = self._boot()
        deadline = min(self.agent.next_deadline() or math.inf, now + _LONGEST_SLEEP)
        if has_failed:
            deadline = min(deadline, now + _RETRY)
        if self._timer is not None:
            if self._armed <= deadline:  # it comes early at worst
                return
            self._timer.cancel()
        self._armed = deadline
        self._timer = asyncio.get_running_loop().call_later(max(_SOONEST, deadline - now), self._tick)

    def _warn_about_policy(self) -> None:
        networks = self._settings.policy.networks
        if not networks.interfaces or not networks.prefixes:
            log.warning(
                entry(
                    "trusts-nobody", text="without inside interfaces and trusted prefixes nobody is answered"
                )
            )

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.control is not None:
            self.control.stop()
        if self._doer.home_link is not None:
            self._doer.home_link.stop(farewell=not self._standing)
            self._doer.home_link = None
        self._listener.stop()
        try:
            self._keeper.stop()
        finally:
            self._forwarding.stop(keep=self._standing)
        bindings = 0 if self._agent is None else self._agent.binding_count()
        log.info(entry("stopped", bindings=bindings, standing="yes" if self._standing else None))

    def _boot(self) -> float:
        return self._clock.boot()


def _described(binding: Binding, now: float) -> dict[str, object]:
    return {
        "node": binding.node,
        "home_address": str(binding.home_address),
        "care_of_address": str(binding.care_of_address),
        "encapsulation": binding.way.encapsulation.value,
        "udp": udp_end(binding),
        "lifetime": binding.lifetime,
        "remaining": binding.remaining(now),
        "reverse_tunnel": binding.reverse_tunnel,
        "co_located": binding.co_located,
    }


def _entropy() -> int:
    return secrets.randbits(64)
