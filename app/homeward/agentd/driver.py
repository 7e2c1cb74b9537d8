# SPDX-License-Identifier: GPL-2.0-or-later
"""The process around the home agent's decisions: requests in, effects out in their order, one timer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final, assert_never

from homeward.adapters.boottime_clock import BoottimeClock
from homeward.agentd.forwarding import Forwarding
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.listener import RequestListener
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.settings import AgentSettings
from homeward.agents.agent_events import (
    AgentEffect,
    AgentInput,
    BindingChanged,
    Forward,
    Refused,
    SendReply,
    StopForwarding,
)
from homeward.agents.home_agent import HomeAgent
from homeward.model.errors import AdapterError
from homeward.model.inputs import DeadlinePassed

log: Final = logging.getLogger("mip")
link_log: Final = logging.getLogger("links")

_LONGEST_SLEEP: Final = 30.0
"""Lifetimes run on while the machine sleeps and asyncio's clock does not: look at least this often, in seconds."""
_SOONEST: Final = 0.001
_RETRY: Final = 1.0


class AgentDriver:
    """One running home agent."""

    def __init__(self, settings: AgentSettings) -> None:
        self._clock = BoottimeClock()
        self._metrics = Metrics()
        policy = settings.policy
        self._policy = policy
        links = InsideLinks(policy.networks.interfaces, self._boot)
        self._agent = HomeAgent(policy, started=self._clock.now())
        self._listener = RequestListener(links)
        self._forwarding = Forwarding(
            policy.address,
            links,
            home_network=settings.home_network,
            metrics=self._metrics,
            boot=self._boot,
        )
        self._unapplied: dict[IPv4Address, Forward | StopForwarding] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, end: asyncio.Event) -> bool:
        """Serve until `end` is set; False when the device was taken away and the agent could not go on.

        Raises AdapterErrors and OSErrors when it cannot begin, with nothing left behind.
        """
        lost = False

        def device_lost() -> None:
            nonlocal lost
            lost = True
            end.set()

        self._forwarding.on_lost = device_lost
        try:
            # The port first: whoever has it already keeps its device.
            self._listener.start(self._handle)
            self._forwarding.start()
            self._warn_about_policy()
            log.info(entry("ready", address=self._policy.address, nodes=len(self._policy.nodes)))
            await end.wait()
        finally:
            self._stop()
        return not lost

    def dump(self) -> None:
        """Write all bindings and counters into the log, as JSON."""
        now = self._boot()
        bindings = [
            {
                "node": binding.node,
                "home_address": str(binding.home_address),
                "care_of_address": str(binding.care_of_address),
                "lifetime": binding.lifetime,
                "remaining": binding.remaining(now),
                "reverse_tunnel": binding.reverse_tunnel,
                "co_located": binding.co_located,
            }
            for binding in self._agent.bindings()
        ]
        counters = dict(sorted(self._metrics.counts.items()))
        log.info("bindings %s", json.dumps({"bindings": bindings, "counters": counters}))

    def _handle(self, arrived: AgentInput) -> None:
        at = self._clock.now()
        if isinstance(arrived, DeadlinePassed):
            self._timer = None
        self._retry_forwarding()
        self._carry_out(self._agent.handle(arrived, at))
        self._arm()

    def _carry_out(self, effects: Iterable[AgentEffect]) -> None:
        for effect in effects:
            match effect:
                case Forward() | StopForwarding():
                    self._apply(effect)
                case SendReply():
                    self._reply(effect)
                case BindingChanged():
                    self._report(effect)
                case Refused():
                    self._complain(effect)
                case _:
                    assert_never(effect)

    def _reply(self, effect: SendReply) -> None:
        try:
            self._listener.send(effect)
        except AdapterError as error:
            if self._metrics.count("reply-failed", self._boot()) is not None:
                link_log.warning(entry("reply-failed", cause=error))
        else:
            self._metrics.counts["replies"] += 1

    def _apply(self, change: Forward | StopForwarding) -> None:
        self._unapplied.pop(change.home_address, None)
        try:
            self._forwarding.apply(change)
        except AdapterError as error:
            self._unapplied[change.home_address] = change
            if self._metrics.count("forwarding-failed", self._boot()) is not None:
                link_log.error(entry("forwarding-failed", home_address=change.home_address, cause=error))

    def _retry_forwarding(self) -> None:
        for change in list(self._unapplied.values()):
            self._apply(change)

    def _report(self, effect: BindingChanged) -> None:
        binding = effect.binding
        self._metrics.counts[f"binding-{effect.change.value}"] += 1
        log.info(
            entry(
                f"binding-{effect.change.value}",
                node=binding.node,
                home_address=binding.home_address,
                care_of_address=binding.care_of_address,
                lifetime=binding.lifetime,
                reverse_tunnel="yes" if binding.reverse_tunnel else "no",
                bindings=self._agent.binding_count(),
            )
        )

    def _complain(self, effect: Refused) -> None:
        unlogged = self._metrics.count(effect.finding.value, self._boot())
        if unlogged is not None:
            log.warning(
                entry(
                    effect.finding.value,
                    source=effect.source,
                    home_address=effect.home_address,
                    code=None if effect.code is None else int(effect.code),
                    text=effect.text,
                    unlogged=unlogged or None,
                )
            )

    def _arm(self) -> None:
        deadline = self._agent.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = [] if deadline is None else [max(_SOONEST, deadline - self._boot())]
        if self._unapplied:
            waits.append(_RETRY)
        if waits:
            wait = min(*waits, _LONGEST_SLEEP)
            self._timer = asyncio.get_running_loop().call_later(wait, self._handle, DeadlinePassed())

    def _warn_about_policy(self) -> None:
        networks = self._policy.networks
        if not networks.interfaces or not networks.prefixes:
            log.warning(
                entry(
                    "trusts-nobody", text="without inside interfaces and trusted prefixes nobody is answered"
                )
            )

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._listener.stop()
        self._forwarding.stop()
        log.info(entry("stopped", bindings=self._agent.binding_count()))

    def _boot(self) -> float:
        return self._clock.now().boot
