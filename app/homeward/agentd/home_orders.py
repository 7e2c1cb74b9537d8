# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running home agent is asked and told over its control socket, and by SIGHUP."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping, Set
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any, Final, Protocol

from homeward import __version__
from homeward.adapters.boottime_clock import SteadyClock
from homeward.agentd.configuration import load
from homeward.agentd.control import Answer, Answers, OrderRefused, flag_in, text_in
from homeward.agentd.exposition import Figures, exposition
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.reloading import fixed_in_home_agent
from homeward.agentd.settings import ROLE, AgentSettings
from homeward.agents.agent_events import AgentInput, Drain, RevokeBinding, RevokeNode
from homeward.agents.bindings import Binding
from homeward.agents.home_agent import HomeAgent
from homeward.agents.nodes import NodeTable
from homeward.model.errors import HomewardError

log: Final = logging.getLogger("control")

FORMAT: Final = 1
"""Of what is answered: fields may be added to it, none changes its meaning."""

_PER_ANSWER: Final = 500
_STORE_GAUGES: Final = {
    "unsaved": "Memories that are not written down yet.",
    "well": "1 while what is accepted can be written down; else nothing is accepted.",
    "horizon": "Unix time up to which time stamps are refused after a loss of power.",
}
_STORE_COUNTERS: Final = {
    "records": "Memories written down.",
    "commits": "Batches of them.",
    "failed": "Writes that failed.",
}


class HomeDriver(Protocol):
    """What orders need of the driver."""

    @property
    def settings(self) -> AgentSettings: ...
    @property
    def agent(self) -> HomeAgent: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def clock(self) -> SteadyClock: ...
    @property
    def engine(self) -> str: ...
    def take(self, arrived: AgentInput) -> None: ...
    def adopt(self, settings: AgentSettings) -> None: ...
    def store_figures(self) -> Mapping[str, int | float | str | bool]: ...
    def traffic(self) -> Mapping[tuple[str, str], tuple[int, int]]: ...
    def back_up(self, to: Path) -> None: ...


class HomeOrders:
    """Obeys, one order at a time where something changes."""

    def __init__(self, driver: HomeDriver) -> None:
        self._driver = driver
        self._started = driver.clock.now()
        self._draining = False
        self._changing = asyncio.Lock()

    async def obey(self, order: str, fields: Mapping[str, Any]) -> Answers:
        """The answers to one order. OrderRefused, ProfileError, AdapterError where it is not carried out."""
        match order:
            case "status":
                return (self.status(),)
            case "bindings":
                return self._bindings()
            case "metrics":
                return ({"text": self.metrics_text()},)
            case "revoke":
                return (self._revoke(_address_in(fields)),)
            case "backup":
                return (await self._back_up(Path(text_in(fields, "file"))),)
        async with self._changing:
            match order:
                case "reload":
                    return (await self.reload(),)
                case "revoke-node":
                    return (self._revoke_node(text_in(fields, "name")),)
                case "drain":
                    return (await self._drain(on=flag_in(fields, "on"), revoke=flag_in(fields, "revoke")),)
        raise OrderRefused(f"a home agent knows no order {order[:40]!r}")

    def status(self) -> Answer:
        """Everything at a glance."""
        driver = self._driver
        policy, census = driver.settings.policy, driver.settings.census
        return {
            "format": FORMAT,
            "role": ROLE,
            "version": __version__,
            "process": os.getpid(),
            "configuration": str(driver.settings.source),
            "address": str(policy.address),
            "started": round(self._started.wall, 3),
            "uptime": round(driver.clock.now().boot - self._started.boot, 3),
            "engine": driver.engine,
            "nodes": census.nodes,
            "keys": census.keys,
            "keys_retired": len(census.retired),
            "bindings": driver.agent.binding_count(),
            "draining": self._draining,
            "replies": {str(code): number for code, number in sorted(driver.metrics.replies.items())},
            "violations": driver.metrics.violations(),
            "sources": described_sources(driver.metrics),
            "store": dict(driver.store_figures()),
        }

    def metrics_place(self) -> Path | None:
        """Where the figures are to be written."""
        return self._driver.settings.metrics_file

    def metrics_text(self) -> str:
        """The figures in the text format of Prometheus."""
        driver = self._driver
        store = driver.store_figures()
        return exposition(
            Figures(
                ROLE,
                engine=driver.engine,
                started=self._started.wall,
                metrics=driver.metrics,
                gauges={
                    "bindings": ("Bindings that stand.", driver.agent.binding_count()),
                    "keys": ("Security associations of mobile nodes.", driver.settings.census.keys),
                    "draining": ("1 while no new binding is made.", int(self._draining)),
                    **_figures(store, _STORE_GAUGES),
                },
                counters=_figures(store, _STORE_COUNTERS),
                traffic=driver.traffic(),
            )
        )

    async def reload(self) -> Answer:
        """Read the configuration again, all of it, before anything changes. ProfileError, OrderRefused: nothing did."""
        before = self._driver.settings
        if before.source is None:
            raise OrderRefused("this agent was not started from a file")
        try:
            after = await asyncio.to_thread(load, before.source)
            if not isinstance(after, AgentSettings):
                raise OrderRefused("the file is a foreign agent's now: another role needs a restart")
            fixed = fixed_in_home_agent(before, after)
            if fixed:
                raise OrderRefused(
                    f"{', '.join(fixed)} cannot change in a running agent; "
                    "`systemctl restart homeward-agent` does it and keeps the bindings"
                )
            self._driver.adopt(after)
        except HomewardError as error:
            log.error(entry("reload-refused", cause=error))
            raise
        told = {
            "nodes": after.census.nodes,
            "keys": after.census.keys,
            "keys_before": before.census.keys,
            "bindings": self._driver.agent.binding_count(),
        }
        log.info(entry("reloaded", **told))
        return told

    def _bindings(self) -> Iterator[Answer]:
        agent, now = self._driver.agent, self._driver.clock.now().boot
        retired = self._driver.settings.census.retired
        addresses = agent.home_addresses()
        for start in range(0, len(addresses), _PER_ANSWER):
            found = map(agent.binding, map(IPv4Address, addresses[start : start + _PER_ANSWER]))
            part = [
                described(each, now, retired) for each in found if each is not None
            ]  # it may have ended meanwhile
            yield {"format": FORMAT, "bindings": part}
        yield {"format": FORMAT, "bindings": []}

    def _revoke(self, address: IPv4Address) -> Answer:
        before = self._driver.agent.binding_count()
        if self._driver.agent.binding(address) is None:
            raise OrderRefused(f"there is no binding of {address}; `homeward-agent bindings` lists them")
        self._driver.take(RevokeBinding(address))
        return {"ended": before - self._driver.agent.binding_count()}

    def _revoke_node(self, name: str) -> Answer:
        before = self._driver.agent.binding_count()
        nodes = self._driver.settings.policy.nodes
        known = (
            len(nodes.called(name))
            if isinstance(nodes, NodeTable)
            else sum(each.name == name for each in nodes)
        )
        self._driver.take(RevokeNode(name))
        ended = before - self._driver.agent.binding_count()
        log.warning(entry("node-revoked", node=name, keys=known, bindings_ended=ended))
        return {"keys": known, "bindings_ended": ended}

    async def _drain(self, *, on: bool, revoke: bool) -> Answer:
        self._driver.take(Drain(on))
        self._draining = on
        before = self._driver.agent.binding_count()
        if on and revoke:
            for number in self._driver.agent.home_addresses():
                self._driver.take(RevokeBinding(IPv4Address(number)))
                await asyncio.sleep(0)  # packets and requests first
        left = self._driver.agent.binding_count()
        log.info(entry("draining" if on else "not-draining", ended=before - left, bindings=left))
        return {"draining": on, "ended": before - left, "bindings": left}

    async def _back_up(self, place: Path) -> Answer:
        await asyncio.to_thread(self._driver.back_up, place)
        return {"file": str(place)}


def _figures(store: Mapping[str, object], texts: Mapping[str, str]) -> dict[str, tuple[str, float]]:
    found = {key: store[key] for key in texts if key in store}
    return {
        f"store_{key}": (texts[key], value) for key, value in found.items() if isinstance(value, int | float)
    }


def described(binding: Binding, now: float, retired: Set[tuple[str, int]]) -> dict[str, object]:
    """A binding as commands show it; `remaining` in seconds, `udp` the other end of a tunnel in UDP."""
    way = binding.way
    return {
        "node": binding.node,
        "home_address": str(binding.home_address),
        "care_of_address": str(binding.care_of_address),
        "spi": int(binding.spi),
        "retired": (binding.node, int(binding.spi)) in retired,
        "encapsulation": way.encapsulation.value,
        "udp": f"{way.endpoint}:{'half-bound' if way.port is None else way.port}" if way.udp else None,
        "lifetime": binding.lifetime,
        "remaining": binding.remaining(now),
        "reverse_tunnel": binding.reverse_tunnel,
        "co_located": binding.co_located,
    }


def described_sources(metrics: Metrics) -> list[dict[str, object]]:
    """Where violations come from, the busiest first."""
    return [
        {"kind": kind, "prefix": str(prefix), "at_least": number}
        for kind, prefix, number in metrics.sources()
    ]


def _address_in(fields: Mapping[str, Any]) -> IPv4Address:
    word = text_in(fields, "address")
    try:
        return IPv4Address(word)
    except AddressValueError:
        raise OrderRefused(f"{word[:40]!r} is not an IPv4 address") from None
