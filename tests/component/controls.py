# SPDX-License-Identifier: GPL-2.0-or-later
"""A Control whose answers a test writes, and everything that it was asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from homeward.bus.control import Caller, Control
from homeward.bus.messages import ProfileSummary
from homeward.bus.server import BusServer
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot


class ScriptedControl:
    """Raises `error` if there is one."""

    def __init__(self) -> None:
        self.shown = StatusSnapshot(revision=1)
        self.error: Exception | None = None
        self.calls: list[tuple[str, Caller]] = []
        self.secrets: dict[str, bytes] = {}
        self.listed: tuple[ProfileSummary, ...] = ()

    async def connect(self, profile: str, caller: Caller) -> None:
        self._note(f"connect {profile}", caller)

    async def disconnect(self, caller: Caller) -> None:
        self._note("disconnect", caller)

    async def reconnect(self, caller: Caller) -> None:
        self._note("reconnect", caller)

    async def offer_secret(self, reference: str, secret: Secret, caller: Caller) -> None:
        self._note(f"offer {reference}", caller)
        self.secrets[reference] = secret.reveal()

    async def profiles(self) -> tuple[ProfileSummary, ...]:
        return self.listed

    def snapshot(self) -> StatusSnapshot:
        return self.shown

    def change(self, **fields: Any) -> None:
        """The next snapshot."""
        self.shown = replace(self.shown, revision=self.shown.revision + 1, **fields)

    def _note(self, call: str, caller: Caller) -> None:
        self.calls.append((call, caller))
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def serving(control: Control, address: str, **options: Any) -> AsyncIterator[BusServer]:
    """The control on the bus."""
    server = BusServer(control, address, version="1.2.3", **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
