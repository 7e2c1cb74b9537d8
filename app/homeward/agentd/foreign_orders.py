# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running foreign agent is asked over its control socket, and what it says to a new configuration."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from homeward import __version__
from homeward.agentd.configuration import load
from homeward.agentd.control import Answer, Answers, OrderRefused
from homeward.agentd.exposition import Figures, exposition
from homeward.agentd.foreign_driver import ForeignDriver, described
from homeward.agentd.foreign_settings import ROLE, ForeignSettings
from homeward.agentd.home_orders import FORMAT, described_sources
from homeward.agentd.log import entry
from homeward.agentd.reloading import fixed_in_foreign_agent
from homeward.model.errors import HomewardError

log: Final = logging.getLogger("control")

_PER_ANSWER: Final = 500


class ForeignOrders:
    """Obeys."""

    def __init__(self, driver: ForeignDriver) -> None:
        self._driver = driver
        self._started = driver.clock.now()
        self._changing = asyncio.Lock()

    async def obey(self, order: str, fields: Mapping[str, Any]) -> Answers:
        """The answers to one order. OrderRefused, ProfileError where it is not carried out."""
        match order:
            case "status":
                return (self.status(),)
            case "visitors":
                return self._visitors()
            case "metrics":
                return ({"text": self.metrics_text()},)
            case "reload":
                async with self._changing:
                    return (await self.reload(),)
        raise OrderRefused(f"a foreign agent knows no order {order[:40]!r}")

    def status(self) -> Answer:
        """Everything at a glance."""
        driver = self._driver
        policy = driver.settings.policy
        return {
            "format": FORMAT,
            "role": ROLE,
            "version": __version__,
            "process": os.getpid(),
            "configuration": str(driver.settings.source),
            "care_of_addresses": [str(each) for each in policy.care_of_addresses],
            "links": {link.interface: str(link.address) for link in policy.links},
            "started": round(self._started.wall, 3),
            "uptime": round(driver.clock.now().boot - self._started.boot, 3),
            "engine": driver.engine,
            "visitors": len(driver.agent.visitors()),
            "visitors_max": policy.visitors_max,
            "pending": driver.agent.pending_count(),
            "busy": driver.agent.is_busy,
            "replies": {str(code): number for code, number in sorted(driver.metrics.replies.items())},
            "violations": driver.metrics.violations(),
            "sources": described_sources(driver.metrics),
        }

    def metrics_place(self) -> Path | None:
        """Where the figures are to be written."""
        return self._driver.settings.metrics_file

    def metrics_text(self) -> str:
        """The figures in the text format of Prometheus."""
        driver = self._driver
        return exposition(
            Figures(
                ROLE,
                engine=driver.engine,
                started=self._started.wall,
                metrics=driver.metrics,
                gauges={
                    "visitors": ("Visitors whose packets are carried.", len(driver.agent.visitors())),
                    "pending": ("Requests that wait for their replies.", driver.agent.pending_count()),
                    "busy": ("1 while somebody new would be refused.", int(driver.agent.is_busy)),
                },
            )
        )

    async def reload(self) -> Answer:
        """Read the configuration again, all of it, before anything changes. ProfileError, OrderRefused: nothing did."""
        before = self._driver.settings
        if before.source is None:
            raise OrderRefused("this agent was not started from a file")
        try:
            after = await asyncio.to_thread(load, before.source)
            if not isinstance(after, ForeignSettings):
                raise OrderRefused("the file is a home agent's now: another role needs a restart")
            fixed = fixed_in_foreign_agent(before, after)
            if fixed:
                raise OrderRefused(
                    f"{', '.join(fixed)} cannot change in a running agent; "
                    "`systemctl restart homeward-agent` does it, and visitors register anew"
                )
            self._driver.adopt(after)
        except HomewardError as error:
            log.error(entry("reload-refused", cause=error))
            raise
        log.info(entry("reloaded", visitors=len(self._driver.agent.visitors())))
        return {"visitors": len(self._driver.agent.visitors())}

    def _visitors(self) -> Iterator[Answer]:
        now = self._driver.clock.now().boot
        rest = iter(self._driver.agent.visitors())
        while part := [described(each, now) for each in islice(rest, _PER_ANSWER)]:
            yield {"format": FORMAT, "visitors": part}
        yield {"format": FORMAT, "visitors": []}
