# SPDX-License-Identifier: GPL-2.0-or-later
"""Between the bus and the screen: turns what the daemon says into `Seen`, and the user's wishes into calls. No Qt."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Final

from homeward import __version__
from homeward.bus.client import DaemonClient
from homeward.bus.errors import BusUnreachable, DaemonAbsent, Refused, ServiceError
from homeward.bus.messages import ProfileSummary
from homeward.gui.view_model import Action, Seen, Service
from homeward.model.errors import HomewardError
from homeward.model.health import HealthItem, Severity
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot

_log: Final = logging.getLogger("gui")

RETRY: Final = 10.0
"""Seconds between tries while the bus is away or the daemon refuses this session; otherwise nothing is polled."""


def boot_time() -> float:
    """Now, on the clock of the snapshot's deadlines: it counts sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Bridge:
    """Keeps `seen` true and calls `changed` after each change, on the event loop's thread."""

    def __init__(self, address: str | None, changed: Callable[[Seen], None], *, retry: float = RETRY) -> None:
        self._client = DaemonClient(address)
        self._changed = changed
        self._retry = retry
        self._tasks: set[asyncio.Task[None]] = set()
        self._notes: dict[str, HealthItem] = {}
        self._asking = False
        self._not_running = asyncio.Event()
        self._not_running.set()
        self.seen = Seen(own_version=__version__)

    async def start(self) -> None:
        """Begin to watch; a bus or a daemon that is not there is shown and waited for."""
        self._spawn(self._watch())

    async def stop(self) -> None:
        """Leave the bus. The connection that the daemon keeps stands."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    # --- the user's wishes ---

    def run(self, action: Action, profile: str = "") -> None:
        """Send a wish to the daemon; what comes of it shows in the next snapshot, a refusal as a note."""
        match action:
            case Action.CONNECT:
                self._spawn(self._wish("Connect", self._connect(profile)))
            case Action.RECONNECT:
                self._spawn(self._wish("Reconnect", self._client.reconnect()))
            case Action.DISCONNECT:
                self._spawn(self._wish("Disconnect", self._client.disconnect()))
            case Action.GIVE_SECRET | Action.DETAILS | Action.QUIT:
                raise ValueError(f"{action} is not the daemon's business")

    async def offer_secret(self, reference: str, secret: Secret) -> None:
        """Hand a secret over; raises what the client raises."""
        await self._client.offer_secret(reference, secret)

    def refresh(self) -> None:
        """The user is looking: read again what the daemon does not announce by itself."""
        if self.seen.service in {Service.RUNNING, Service.REFUSED} and not self._asking:
            self._spawn(self._ask())

    def note(self, item: HealthItem) -> None:
        """Show something that the tray noticed itself; one item per code."""
        self._notes[item.code] = item
        self._show(notes=tuple(self._notes.values()))

    def settle(self, code: str) -> None:
        """This is right again."""
        if self._notes.pop(code, None) is not None:
            self._show(notes=tuple(self._notes.values()))

    # --- inside ---

    async def _connect(self, profile: str) -> None:
        if not profile:  # chosen before the list of profiles had come
            usable = [summary.name for summary in await self._client.profiles() if not summary.problem]
            if not usable:
                raise ServiceError("there is no usable profile; put one into /etc/homeward/profiles.d")
            profile = usable[0]
        await self._client.connect(profile)

    async def _wish(self, name: str, call: Coroutine[None, None, None]) -> None:
        try:
            await call
        except HomewardError as error:
            self.note(_action_failed(name, error))
        else:
            self.settle("action-failed")

    async def _watch(self) -> None:
        while True:
            try:
                await self._client.watch(self._heard)
            except (BusUnreachable, DaemonAbsent) as error:
                _log.info("%s", error)
                self._gone()
                await asyncio.sleep(self._retry)
            else:
                break
        while True:
            # A daemon that comes back announces itself; one that refuses this session does not say when it would
            # not any more (the user switched back), so that one is asked now and then.
            await self._not_running.wait()
            await self._ask()
            await asyncio.sleep(self._retry)

    def _heard(self, snapshot: StatusSnapshot | None) -> None:
        if snapshot is None:
            self._gone()
            return
        first = self.seen.service is not Service.RUNNING
        self._show(service=Service.RUNNING, snapshot=snapshot)
        if first:
            self.refresh()

    def _gone(self) -> None:
        self._show(service=Service.ABSENT, snapshot=None, service_version="", profiles=None)

    async def _ask(self) -> None:
        """Version and profiles; and whether we are let in at all."""
        self._asking = True
        try:
            version = await self._client.version()
            summaries = await self._client.profiles()
            if self.seen.service is not Service.RUNNING:
                self._show(service=Service.RUNNING, snapshot=await self._client.status())
        except Refused as error:
            _log.info("refused: %s", error)
            self._show(service=Service.REFUSED, snapshot=None, profiles=None)
        except (DaemonAbsent, BusUnreachable):
            self._gone()
        except ServiceError as error:
            _log.warning("the daemon does not say what it has: %s", error)
        else:
            self._profiles(version, summaries)
        finally:
            self._asking = False

    def _profiles(self, version: str, summaries: Iterable[ProfileSummary]) -> None:
        summaries = tuple(summaries)
        usable = tuple(summary.name for summary in summaries if not summary.problem)
        for code in [code for code in self._notes if code.startswith("profile:")]:
            del self._notes[code]
        for summary in summaries:
            if summary.problem:
                self._notes[f"profile:{summary.name}"] = _bad_profile(summary)
        self._show(service_version=version, profiles=usable, notes=tuple(self._notes.values()))

    def _show(self, **changes: object) -> None:
        seen = replace(self.seen, **changes)  # type: ignore[arg-type]  # the callers above are all there is
        if seen.service is Service.RUNNING:
            self._not_running.clear()
        else:
            self._not_running.set()
        if seen != self.seen:
            self.seen = seen
            self._changed(seen)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of the tray failed", exc_info=task.exception())


def _action_failed(name: str, error: HomewardError) -> HealthItem:
    return HealthItem(
        code="action-failed",
        severity=Severity.WARNING,
        text=f"{name} was not carried out: {error}",
        advice="",
        since=boot_time(),
    )


def _bad_profile(summary: ProfileSummary) -> HealthItem:
    where = summary.file or "its file"
    return HealthItem(
        code=f"profile:{summary.name}",
        severity=Severity.WARNING,
        text=f"Profile “{summary.name}” cannot be used: {summary.problem}",
        advice=f"Mend {where}, or ask whoever gave it to you, then try again.",
        since=boot_time(),
    )
