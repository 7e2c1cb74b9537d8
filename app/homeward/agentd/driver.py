# SPDX-License-Identifier: GPL-2.0-or-later
"""The process around the home agent's decisions: requests in, effects out in their order, one timer."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final, assert_never

from homeward.adapters.boottime_clock import SteadyClock
from homeward.agentd.companion import Companion
from homeward.agentd.forwarding import Forwarding
from homeward.agentd.home_link import HomeLink
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.listener import RequestListener, TunnelDatagram
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.settings import AgentSettings
from homeward.agents.agent_events import (
    AgentEffect,
    AgentInput,
    BindingChanged,
    Forward,
    ProxyHomeAddress,
    Refused,
    ReleaseHomeAddress,
    Remember,
    RequestArrived,
    RevocationEnded,
    SendReply,
    SendRevocation,
    StopForwarding,
)
from homeward.agents.bindings import Binding
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
        self._settings = settings
        self._clock = SteadyClock()
        self._metrics = Metrics()
        policy = settings.policy
        links = InsideLinks(policy.networks.interfaces, self._boot)
        self._agent = HomeAgent(policy, started=self._clock.now(), entropy=_entropy)
        self._links = links
        self._listener = RequestListener(links)
        self._forwarding = Forwarding(settings, links, metrics=self._metrics, boot=self._boot)
        self._home_link: HomeLink | None = None
        self.control: Companion | None = None
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
            self._listener.start(self._handle, self._take_data)
            self._forwarding.start()
            if self._settings.policy.home_link is not None:
                self._forwarding.routes.be_loose(self._settings.policy.home_link)
                self._home_link = HomeLink(
                    self._settings.policy.home_link,
                    self._settings.policy,
                    interval=self._settings.advertisement_interval,
                    clock=self._clock,
                )
                self._home_link.start()
            if self.control is not None:
                self.control.start()
            self._warn_about_policy()
            log.info(entry("ready", address=self._settings.policy.address, nodes=len(self._settings.policy.nodes)))
            await end.wait()
        finally:
            self._stop()
        return not lost

    @property
    def settings(self) -> AgentSettings:
        """Those in force."""
        return self._settings

    @property
    def agent(self) -> HomeAgent:
        """The decisions, to be looked at only."""
        return self._agent

    @property
    def metrics(self) -> Metrics:
        """What was counted."""
        return self._metrics

    @property
    def clock(self) -> SteadyClock:
        """Its clock."""
        return self._clock

    def take(self, arrived: AgentInput) -> None:
        """An order: what follows from it is carried out, and remembered, when this returns."""
        self._handle(arrived)

    def adopt(self, settings: AgentSettings) -> None:
        """Go by these from now on. ProfileError, and then nothing has changed."""
        self._carry_out(self._agent.adopt(settings.policy, self._clock.now()))
        self._settings = settings
        self._arm()

    def dump(self) -> None:
        """Write all bindings and counters into the log, as JSON."""
        now = self._boot()
        bindings = [_described(binding, now) for binding in self._agent.bindings()]
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
                case Remember():
                    pass  # there is no store yet
                case Forward() | StopForwarding():
                    self._apply(effect)
                case SendReply() | SendRevocation():
                    self._send(effect)
                case ProxyHomeAddress() | ReleaseHomeAddress():
                    self._tell_home_link(effect)
                case BindingChanged():
                    self._report(effect)
                case RevocationEnded():
                    code = "revocation-acknowledged" if effect.acknowledged else "revocation-unanswered"
                    self._metrics.counts[code] += 1
                    log.info(entry(code, home_address=effect.home_address, peer=effect.peer))
                case Refused():
                    self._complain(effect)
                case _:
                    assert_never(effect)

    def _take_data(self, arrived: TunnelDatagram) -> None:
        """Data of a tunnel in UDP. One that is half bound is shown to the agent, and may go through after that."""
        if self._forwarding.take_datagram(arrived):
            return
        self._handle(
            RequestArrived(
                arrived.octets,
                arrived.source,
                source_port=arrived.port,
                destination=arrived.destination,
                interface=self._links.name_of(arrived.link),
            )
        )
        self._forwarding.take_datagram(arrived)

    def _send(self, effect: SendReply | SendRevocation) -> None:
        what = "reply" if isinstance(effect, SendReply) else "revocation"
        try:
            self._listener.send(effect)
        except AdapterError as error:
            if self._metrics.count(f"{what}-failed", self._boot()) is not None:
                link_log.warning(entry(f"{what}-failed", cause=error))
        else:
            self._metrics.counts["replies" if what == "reply" else "revocations"] += 1

    def _tell_home_link(self, effect: ProxyHomeAddress | ReleaseHomeAddress) -> None:
        if self._home_link is None:  # not started yet, or stopped
            return
        if isinstance(effect, ProxyHomeAddress):
            self._home_link.proxy(effect.home_address)
        else:
            self._home_link.release(effect.home_address, effect.asked)

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
                encapsulation=binding.way.encapsulation.value,
                udp=_udp_end(binding),
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
        if self._home_link is not None:
            self._home_link.stop()
            self._home_link = None
        self._listener.stop()
        self._forwarding.stop()
        log.info(entry("stopped", bindings=self._agent.binding_count()))

    def _boot(self) -> float:
        return self._clock.now().boot


def _described(binding: Binding, now: float) -> dict[str, object]:
    return {
        "node": binding.node,
        "home_address": str(binding.home_address),
        "care_of_address": str(binding.care_of_address),
        "encapsulation": binding.way.encapsulation.value,
        "udp": _udp_end(binding),
        "lifetime": binding.lifetime,
        "remaining": binding.remaining(now),
        "reverse_tunnel": binding.reverse_tunnel,
        "co_located": binding.co_located,
    }


def _entropy() -> int:
    return secrets.randbits(64)


def _udp_end(binding: Binding) -> str | None:
    """The other end of a tunnel in UDP, None for other tunnels."""
    way = binding.way
    if not way.udp:
        return None
    return f"{way.endpoint}:{'half-bound' if way.port is None else way.port}"
