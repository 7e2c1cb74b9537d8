# SPDX-License-Identifier: GPL-2.0-or-later
"""What the contract of VpnEngine is tried in: a laptop that can be moved, a gateway that can fall silent, an engine
that can die. One is made of two charons in namespaces, the other of nothing but Python (fakes_vpn)."""

import asyncio
import shutil
import tempfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Protocol, TypeVar

from homeward.adapters.strongswan.engine import StrongSwanEngine
from homeward.model.profile import GatewaySettings, SecretReference
from homeward.model.secret import Secret
from homeward.model.vpn import VpnReport
from homeward.ports.world import VpnEngine
from tests.world.two_charons import EXT1, EXT2, GATEWAY, Network, TwoCharons, missing

R = TypeVar("R", bound=VpnReport)

KEY = b"a pre-shared key of the tests \xc3\xa4\x00\x07"
NETWORKS = (IPv4Address("198.51.100.10"), IPv4Address("192.168.77.10"))
"""The laptop's address on the first access network, and on the second, which is behind a NAT."""

SETTINGS = GatewaySettings(
    host="gw.example.test",
    local_identity="laptop@example.test",
    remote_identity="gw.example.test",
    pre_shared_key=SecretReference("vpn", "unused here"),
    remote_networks=(IPv4Network("10.0.0.0/8"),),
)


class VpnWorld(Protocol):
    """The hands that reach into the world from outside."""

    gateway: IPv4Address

    def engine(self) -> VpnEngine:
        """An engine object, as a daemon that has just started makes one."""

    async def attach(self, number: int) -> IPv4Address:
        """Move the laptop to an access network, hard, and return its address there."""

    async def gateway_speaks(self, yes: bool) -> None:
        """Whether anything reaches the gateway."""

    async def gateway_forgets(self) -> None:
        """The gateway loses its SAs and tells nobody."""

    async def engine_runs(self, yes: bool) -> None:
        """Kill the IKE daemon without warning, or start it."""

    async def gateway_knows(self, key: bytes, *, mobike: bool = True) -> None:
        """The gateway's pre-shared key, and whether it speaks MOBIKE."""

    async def device(self, engine: VpnEngine, inner: IPv4Address) -> str | None:
        """The engine's tunnel_device, asked on the laptop."""

    async def close(self) -> None: ...


class RealVpnWorld:
    """Two charons."""

    gateway = GATEWAY

    def __init__(self) -> None:
        # A short path: it becomes a socket's address.
        self._folder = Path(tempfile.mkdtemp(prefix="hw-vpn-"))
        try:
            self.hosts = TwoCharons(self._folder)
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def engine(self) -> StrongSwanEngine:
        return StrongSwanEngine(str(self.hosts.laptop_charon.socket))

    async def attach(self, number: int) -> IPv4Address:
        network = self.network(number)
        await asyncio.to_thread(self.hosts.attach, network)
        return network.address.ip

    def network(self, number: int) -> Network:
        return (EXT1, EXT2)[number]

    async def gateway_speaks(self, yes: bool) -> None:
        await asyncio.to_thread(self.hosts.gateway_reachable, yes)

    async def gateway_forgets(self) -> None:
        await asyncio.to_thread(self.hosts.restart_gateway)

    async def engine_runs(self, yes: bool) -> None:
        charon = self.hosts.laptop_charon
        await asyncio.to_thread(charon.start if yes else charon.kill)

    async def gateway_knows(self, key: bytes, *, mobike: bool = True) -> None:
        await asyncio.to_thread(lambda: self.hosts.configure_gateway(key, mobike=mobike))

    async def device(self, engine: VpnEngine, inner: IPv4Address) -> str | None:
        return await asyncio.to_thread(self.hosts.laptop.inside, lambda: engine.tunnel_device(inner))

    async def close(self) -> None:
        await asyncio.to_thread(self.hosts.close)
        shutil.rmtree(self._folder, ignore_errors=True)


class Reports:
    """The observer: keeps every report, and lets a test wait for the next one of a kind."""

    def __init__(self, moment: float = 0.6) -> None:
        """After `moment` seconds what has not come is not going to."""
        self._moment = moment
        self.all: list[VpnReport] = []
        self.times: list[float] = []
        self._news = asyncio.Event()

    def __call__(self, report: VpnReport) -> None:
        self.all.append(report)
        self.times.append(asyncio.get_running_loop().time())
        self._news.set()

    def forget(self) -> None:
        """Start over: what was reported so far is of no interest any more."""
        self.all.clear()
        self.times.clear()

    def of(self, kind: type[R]) -> list[R]:
        return [report for report in self.all if isinstance(report, kind)]

    def when(self, report: VpnReport) -> float:
        """By the loop's clock, when this report came."""
        return self.times[[id(each) for each in self.all].index(id(report))]

    async def get(self, kind: type[R], *, within: float = 12.0) -> R:
        """The first report of this kind since the last `forget`; AssertionError with all others when none comes."""
        try:
            async with asyncio.timeout(within):
                while not self.of(kind):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {kind.__name__} within {within} s, only {self.all}") from None
        return self.of(kind)[0]

    async def stay_without(self, *kinds: type[VpnReport], during: float | None = None) -> None:
        """AssertionError when a report of one of these kinds comes, or has come."""
        await asyncio.sleep(self._moment if during is None else during)
        came = [report for report in self.all if isinstance(report, kinds)]
        assert not came, came


def why_no_charons() -> str:
    """Why the real world cannot be built here; empty when it can."""
    return missing()


def secret(key: bytes = KEY) -> Secret:
    return Secret(key)
