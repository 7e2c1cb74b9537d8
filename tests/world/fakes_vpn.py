# SPDX-License-Identifier: GPL-2.0-or-later
"""A VpnEngine without an engine: it keeps the same contract as the real one, in milliseconds and without root.

`FakeVpnWorld` is the laptop's network and the gateway, `FakeVpnEngine` the adapter. As with the real ones, the SAs
belong to the world and outlive the engine object.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from homeward.model.errors import IkeError, Unavailable
from homeward.model.profile import GatewaySettings
from homeward.model.secret import Secret
from homeward.model.vpn import (
    EngineFound,
    EngineLost,
    VpnAnswered,
    VpnEstablished,
    VpnFailed,
    VpnLost,
    VpnMoved,
    VpnReport,
)
from homeward.ports.world import VpnEngine

ROUND_TRIP = 0.002
ROAM_DELAY = 0.010
"""Seconds; charon's is 0.1."""
PATIENCE = 0.05
"""Seconds after which a silent gateway is given up; charon's configuration says 6.6."""


@dataclass(frozen=True, slots=True)
class FakeSa:
    """An SA as both ends know it."""

    local: IPv4Address
    inner: IPv4Address
    mobike: bool


class FakeVpnWorld:
    """A laptop, two access networks, a gateway and an IKE daemon, all of them attributes."""

    gateway = IPv4Address("192.0.2.1")
    networks = (IPv4Address("198.51.100.10"), IPv4Address("192.168.77.10"))

    def __init__(self) -> None:
        self.local = self.networks[0]
        self.speaks = True
        self.running = True
        self.key = b""
        self.mobike = True
        self.inner = IPv4Address("10.9.0.1")
        self.sa: FakeSa | None = None
        self.known: FakeSa | None = None
        """The SA as the gateway knows it."""
        self.engines: list[FakeVpnEngine] = []

    def engine(self) -> "FakeVpnEngine":
        return FakeVpnEngine(self)

    @property
    def behind_nat(self) -> bool:
        return self.local == self.networks[1]

    async def attach(self, number: int) -> IPv4Address:
        self.local = self.networks[number]
        for engine in self.engines:
            engine.address_changed()
        return self.local

    async def gateway_speaks(self, yes: bool) -> None:
        self.speaks = yes

    async def gateway_forgets(self) -> None:
        self.known = None

    async def engine_runs(self, yes: bool) -> None:
        self.running = yes
        if not yes:
            self.sa = None
        for engine in self.engines:
            engine.engine_changed()

    async def gateway_knows(self, key: bytes, *, mobike: bool = True) -> None:
        self.key, self.mobike = key, mobike

    async def device(self, engine: VpnEngine, inner: IPv4Address) -> str | None:
        return engine.tunnel_device(inner)

    async def close(self) -> None:
        for engine in self.engines:
            await engine.stop()


class FakeVpnEngine:
    """VpnEngine over a FakeVpnWorld."""

    def __init__(self, world: FakeVpnWorld) -> None:
        self._world = world
        self._observer: Callable[[VpnReport], None] = lambda report: None
        self._wish: tuple[GatewaySettings, bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.orders: list[str] = []
        """What was asked of it, for tests of the daemon."""

    async def start(self, observer: Callable[[VpnReport], None]) -> None:
        self._observer = observer
        self._world.engines.append(self)
        self.engine_changed()

    async def configure(self, settings: GatewaySettings, gateway: IPv4Address, secret: Secret) -> None:
        self.orders.append("configure")
        self._wish = (settings, secret.reveal())
        if not self._world.running:
            raise Unavailable("reach the IKE service", "charon is not running")

    async def connect(self, source: IPv4Address) -> None:
        self.orders.append(f"connect {source}")
        if self._wish is None:
            raise IkeError("connect", "no gateway has been configured")
        self._cancel()
        if not self._world.running:
            self._observer(VpnFailed("engine-missing", "charon is not running"))
            return
        self._begin(self._connect(self._wish[1]))

    async def move(self, source: IPv4Address) -> None:
        self.orders.append(f"move {source}")
        sa = self._world.sa
        if sa is not None and not sa.mobike and sa.local != source and self._wish is not None:
            self._begin(self._connect(self._wish[1]))

    async def check(self) -> None:
        self.orders.append("check")
        if self._world.sa is not None:
            self._begin(self._check(self._world.sa))

    async def disconnect(self) -> None:
        self.orders.append("disconnect")
        self._cancel()
        if self._world.speaks:
            self._world.known = None
        self._world.sa = None

    async def stop(self) -> None:
        self._cancel()
        if self in self._world.engines:
            self._world.engines.remove(self)

    def tunnel_device(self, inner: IPv4Address) -> str | None:
        sa = self._world.sa
        return "ipsec0" if sa is not None and sa.inner == inner else None

    # --- the world's side ---

    def engine_changed(self) -> None:
        if not self._world.running:
            self._cancel()
            self._observer(EngineLost("charon is not running"))
            return
        self._observer(EngineFound("fake 1.0"))
        if self._world.sa is not None:
            self._observer(self._established(replace(self._world.sa, mobike=True)))

    def address_changed(self) -> None:
        sa = self._world.sa
        if sa is not None and sa.mobike and sa.local != self._world.local:
            self._cancel()
            self._begin(self._roam(sa))

    async def _connect(self, key: bytes) -> None:
        await asyncio.sleep(2 * ROUND_TRIP)
        if not self._world.speaks:
            await asyncio.sleep(PATIENCE)
            self._observer(
                VpnFailed("gateway-unreachable", f"no answer from the gateway {self._world.gateway}")
            )
        elif key != self._world.key:
            self._observer(
                VpnFailed("authentication-failed", "the gateway did not accept the pre-shared key")
            )
        else:
            sa = FakeSa(self._world.local, self._world.inner, self._world.mobike)
            self._world.sa = self._world.known = sa
            self._observer(self._established(sa))

    async def _roam(self, sa: FakeSa) -> None:
        await asyncio.sleep(ROAM_DELAY + ROUND_TRIP)
        if await self._answers(sa):
            moved = replace(sa, local=self._world.local)
            self._world.sa = self._world.known = moved
            self._observer(VpnMoved(moved.local, self._world.gateway))

    async def _check(self, sa: FakeSa) -> None:
        await asyncio.sleep(ROUND_TRIP)
        if await self._answers(sa):
            self._observer(VpnAnswered(sa.local))

    async def _answers(self, sa: FakeSa) -> bool:
        if self._world.speaks and self._world.known == sa:
            return True
        await asyncio.sleep(PATIENCE)
        self._world.sa = None
        self._observer(VpnLost(f"the gateway {self._world.gateway} no longer answers"))
        return False

    def _established(self, sa: FakeSa) -> VpnEstablished:
        return VpnEstablished(
            local=sa.local,
            remote=self._world.gateway,
            inner=sa.inner,
            mobike=sa.mobike,
            behind_nat=self._world.behind_nat,
        )

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
