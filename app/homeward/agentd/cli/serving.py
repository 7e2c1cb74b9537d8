# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-agent run: the agent itself, with its control socket, its metrics file and its signals."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from pathlib import Path
from typing import Final

from homeward.agentd.cli.outcome import FAILED, OK
from homeward.agentd.configuration import Settings, load, role_of
from homeward.agentd.control import ControlSocket
from homeward.agentd.driver import AgentDriver
from homeward.agentd.foreign_driver import ForeignDriver
from homeward.agentd.foreign_orders import ForeignOrders
from homeward.agentd.foreign_settings import ForeignSettings
from homeward.agentd.home_orders import HomeOrders
from homeward.agentd.log import entry, start_logging
from homeward.agentd.metrics_file import MetricsFile
from homeward.agentd.systemd_notice import tell
from homeward.model.errors import AdapterError, HomewardError, NotPermitted

log: Final = logging.getLogger("mip")


def run(config: Path) -> int:
    """Serve until a signal ends it. ProfileError where the configuration is wrong."""
    gc.disable()  # until it runs: a hundred thousand nodes are no garbage
    settings = load(config)
    gc.enable()
    gc.freeze()  # nor need they be looked through again and again
    start_logging()
    try:
        return asyncio.run(_serve(settings))
    except (AdapterError, OSError) as error:
        log.error(entry("cannot-work", cause=error, advice=_advice(error, role_of(settings))))
        return FAILED


class _Companions:
    """Control socket and metrics file of one agent."""

    def __init__(self, settings: Settings, orders: HomeOrders | ForeignOrders) -> None:
        self._control = None if settings.control is None else ControlSocket(settings.control, orders)
        self._metrics = MetricsFile(orders.metrics_place, orders.metrics_text)

    def start(self) -> None:
        if self._control is not None:
            self._control.start()
        self._metrics.start()
        tell("READY=1")

    def stop(self) -> None:
        tell("STOPPING=1")
        self._metrics.stop()
        if self._control is not None:
            self._control.stop()


async def _serve(settings: Settings) -> int:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    driver: AgentDriver | ForeignDriver
    orders: HomeOrders | ForeignOrders
    if isinstance(settings, ForeignSettings):
        driver = ForeignDriver(settings)
        orders = ForeignOrders(driver)
    else:
        driver = AgentDriver(settings)
        orders = HomeOrders(driver)
        loop.add_signal_handler(signal.SIGUSR2, driver.stop_standing)
    driver.control = _Companions(settings, orders)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(orders))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    if isinstance(settings, ForeignSettings):
        loop.add_signal_handler(signal.SIGUSR2, end.set)  # of a foreign agent nothing can stand without it
    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGUSR1, driver.dump)
    return OK if await driver.run(end) else FAILED


async def _reload(orders: HomeOrders | ForeignOrders) -> None:
    tell("RELOADING=1", clock=True)
    try:
        await orders.obey("reload", {})
    except HomewardError:
        pass  # it is in the log, and nothing has changed
    finally:
        tell("READY=1")


def _advice(error: AdapterError | OSError, role: str) -> str:
    if isinstance(error, NotPermitted | PermissionError):
        return "run it as root, in a network namespace whose settings it may change"
    if "EADDRINUSE" in str(error) or "EBUSY" in str(error):
        return f"is another {role} agent running here?"
    return "see that the interfaces and addresses of the configuration are there: homeward-agent check"
