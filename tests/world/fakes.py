# SPDX-License-Identifier: GPL-2.0-or-later
"""Fakes of the ports in ports/world.py (VpnEngine's is in fakes_vpn): plain objects that a test pulls the strings of.

They keep the same contracts as the real adapters: tests/contract runs one suite on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from homeward.model.access import HomePath, Link, Path
from homeward.model.errors import (
    AdapterError,
    LinkError,
    LocalProtocolError,
    PlanError,
    Unavailable,
    WireError,
)
from homeward.model.inputs import AgentAdvertised, DatagramReceived
from homeward.model.instant import Instant
from homeward.model.journal import Journal
from homeward.model.names import REGISTRATION_PORT
from homeward.model.plan import EMPTY_PLAN, Held, NetworkPlan
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from homeward.wire.echo import decode_echo
from homeward.wire.udp_tunnel import decode_tunnel_data


class FakeClock:
    """A clock that stands still until it is moved. `boot` and `wall` in seconds."""

    def __init__(self, boot: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self.instant = Instant(boot, wall)
        self.slept = 0.0
        self._observer: Callable[[], None] | None = None

    def asleep(self) -> float:
        return self.slept

    def watch(self, observer: Callable[[], None] | None) -> None:
        self._observer = observer

    def now(self) -> Instant:
        return self.instant

    def advance(self, seconds: float) -> None:
        """Time passes on both clocks."""
        self.instant = Instant(self.instant.boot + seconds, self.instant.wall + seconds)

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.instant = replace(self.instant, wall=self.instant.wall + seconds)
        if self._observer is not None:
            self._observer()

    def sleep(self, seconds: float) -> None:
        """The machine sleeps, and wakes up."""
        self.slept += seconds
        self.advance(seconds)
        if self._observer is not None:
            self._observer()


class FakeLinks:
    """Links that are as the test says. Pictures that differ in nothing are not reported, as with the real ones."""

    def __init__(self, *links: Link) -> None:
        self.links = links
        self.refuses: AdapterError | None = None
        self._observer: Callable[[tuple[Link, ...]], None] | None = None

    async def start(self, observer: Callable[[tuple[Link, ...]], None]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self._observer = observer
        observer(self.links)

    async def stop(self) -> None:
        self._observer = None

    def set(self, *links: Link) -> None:
        """The world is like this now."""
        if links != self.links:
            self.links = links
            if self._observer is not None:
                self._observer(links)

    def change(self, name: str, **fields: object) -> None:
        """One link is different now."""
        self.set(*(replace(link, **fields) if link.name == name else link for link in self.links))  # type: ignore[arg-type]


class FakeAgents:
    """Agent discovery on links that a test speaks on. `gone` are links that are not there; `solicited` what left."""

    def __init__(self) -> None:
        self.watched: frozenset[int] = frozenset()
        self.solicited: list[tuple[int, IPv4Address, IPv4Address]] = []
        self.gone: set[int] = set()
        self._observer: Callable[[AgentAdvertised], None] | None = None

    def start(self, observer: Callable[[AgentAdvertised], None]) -> None:
        self._observer = observer

    def watch(self, links: frozenset[int]) -> None:
        if self._observer is None:
            raise LocalProtocolError("watch() before start()")
        self.watched = links - self.gone

    def solicit(self, link_index: int, source: IPv4Address, destination: IPv4Address) -> None:
        if self._observer is None:
            raise LocalProtocolError("solicit() before start()")
        if link_index in self.gone:
            raise LinkError("asking for mobility agents", 19)
        self.solicited.append((link_index, source, destination))

    def stop(self) -> None:
        self.watched = frozenset()
        self._observer = None

    def advertise(self, link_index: int, packet: bytes, hardware_address: bytes = b"\2\0\0\0\0\1") -> None:
        """An agent speaks on a link."""
        if link_index in self.watched and self._observer is not None:
            self._observer(AgentAdvertised(link_index, packet, hardware_address))


class FakeHomeLinks:
    """Remembers where the home address is announced; `events` says what happened, in order."""

    def __init__(self) -> None:
        self.announced: HomePath | None = None
        self.events: list[str] = []
        self.gone: set[int] = set()

    def announce(self, path: HomePath) -> None:
        self.announced = None
        if path.link_index in self.gone:
            raise LinkError(f"announcing {path.source} on {path.link_name}", 19)
        self.announced = path
        self.events.append("announce")

    def withdraw(self, path: HomePath) -> None:
        if self.announced == path:
            self.announced = None
            self.events.append("withdraw")

    def stop(self) -> None:
        self.announced = None


@dataclass(frozen=True, slots=True)
class SentRegistration:
    """A datagram that left; `port` is the path's own."""

    path: Path
    destination: IPv4Address
    octets: bytes
    ttl: int
    port: int


class FakeRegistrations:
    """Registrations that a test answers. `gone` are paths that cannot send; `refuses` makes every send fail."""

    def __init__(self) -> None:
        self.sent: list[SentRegistration] = []
        self.gone: set[Path] = set()
        self.refuses: AdapterError | None = None
        self.on_sent: Callable[[SentRegistration], None] = lambda sent: None
        self._observer: Callable[[DatagramReceived], None] | None = None
        self._ports: dict[Path, int] = {}
        self._next_port = 40000

    def start(self, observer: Callable[[DatagramReceived], None]) -> None:
        self._observer = observer

    def send(self, path: Path, destination: IPv4Address, octets: bytes, *, ttl: int) -> None:
        if self._observer is None:
            raise LocalProtocolError("send() before start()")
        if self.refuses is not None:
            raise self.refuses
        if path in self.gone:
            self._ports.pop(path, None)
            raise Unavailable(f"sending a registration request from {path.source}", "the path is gone")
        if path not in self._ports:
            self._ports[path] = self._next_port
            self._next_port += 1
        sent = SentRegistration(path, destination, octets, ttl, self._ports[path])
        self.sent.append(sent)
        self.on_sent(sent)

    def retain(self, paths: frozenset[Path]) -> None:
        self._ports = {path: port for path, port in self._ports.items() if path in paths}

    def stop(self) -> None:
        self._ports.clear()
        self._observer = None

    def arrive(
        self,
        to: SentRegistration,
        octets: bytes,
        *,
        source: IPv4Address | None = None,
        port: int = REGISTRATION_PORT,
        link_index: int | None = None,
    ) -> None:
        """A datagram comes back to the socket that sent `to`; nothing is reported if that is closed."""
        if self._ports.get(to.path) != to.port or self._observer is None or port != REGISTRATION_PORT:
            return
        if octets[:1] == b"\4" and not _answers_keepalive(octets, source or to.destination):
            return  # data of the tunnel
        link = getattr(to.path, "link_index", 99) if link_index is None else link_index
        self._observer(DatagramReceived(to.path, octets, source or to.destination, port, link))


def _answers_keepalive(octets: bytes, source: IPv4Address) -> bool:
    try:
        echo = decode_echo(decode_tunnel_data(octets).payload)
    except WireError:
        return False
    return echo.is_reply and echo.source == source


class FakeNetworkPlans:
    """Remembers the plans. `fails_next` makes one apply() fail; `pause`, once cleared, makes apply() wait until set."""

    def __init__(self) -> None:
        self.applied: list[NetworkPlan] = []
        self.events: list[str] = []
        """What happened, in order: "hold", "apply" and "open"."""
        self.fails_next: PlanError | None = None
        self.pause = asyncio.Event()
        self.pause.set()
        self.waiting = 0
        self.dropped = 0
        self.carried = TrafficCounts()
        self._holds = 0
        self._is_open = False

    @property
    def standing(self) -> NetworkPlan:
        """The plan that the kernel would be in the state of."""
        return self.applied[-1] if self.applied else EMPTY_PLAN

    @property
    def is_open(self) -> bool:
        """Whether packets of the home address flow."""
        return self._is_open

    def hold(self) -> None:
        self._holds += 1
        self._is_open = False
        self.events.append("hold")

    async def apply(self, plan: NetworkPlan) -> None:
        holds = self._holds
        self.events.append("apply")
        await self.pause.wait()
        if self.fails_next is not None:
            failure, self.fails_next = self.fails_next, None
            self._is_open = False
            raise failure
        if not self.applied or plan != self.applied[-1]:
            self.applied.append(plan)
        tunnelled = plan.home_address is not None and not isinstance(plan.traffic, Held)
        if tunnelled and holds == self._holds and not self._is_open:
            self.events.append("open")
        self._is_open = tunnelled and holds == self._holds

    def engine(self) -> TunnelEngine | None:
        return TunnelEngine.TUN if self._is_open else None

    def traffic(self) -> TrafficCounts:
        return self.carried

    def counters(self) -> tuple[int, int]:
        return self.waiting, self.dropped


@dataclass(slots=True)
class FakeNameQueries:
    """Names with their addresses; `asked` are the questions that left."""

    names: dict[str, tuple[IPv4Address, ...]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def resolve(self, name: str, link_index: int) -> tuple[IPv4Address, ...]:
        try:
            return (IPv4Address(name),)
        except ValueError:
            pass
        self.asked.append((name, link_index))
        if name not in self.names:
            raise Unavailable(f"looking up {name}", "203.0.113.53: answered NXDOMAIN")
        return self.names[name]


class FakeJournals:
    """A journal in memory. `refuses` makes load() and save() fail."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal if journal is not None else Journal()
        self.refuses: AdapterError | None = None

    def load(self) -> Journal:
        if self.refuses is not None:
            raise self.refuses
        return self.journal

    def save(self, journal: Journal) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.journal = journal
