# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole daemon behind a real bus: guard, client, driver, executor and core; only what lies outside it is a fake.

The home agent's answers are those of our own home agent's decisions.
"""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.agents.home_agent import AgentPolicy, HomeAgent, Node
from homeward.agents.ingress import TrustedNetworks
from homeward.bus.client import DaemonClient
from homeward.bus.server import BusServer
from homeward.daemon.client import Client
from homeward.daemon.executor import World
from homeward.daemon.guard import GuardedControl
from homeward.daemon.journal_keeper import JournalKeeper
from homeward.daemon.permissions import Permissions
from homeward.daemon.secret_store import SecretStore
from homeward.daemon.settings import ProfileFault, Profiles
from homeward.model.access import ClearPath, VpnPath
from homeward.model.errors import PlanError
from homeward.model.instant import Instant
from homeward.model.plan import NetworkPlan
from homeward.model.profile import Profile
from homeward.model.registration import MobilitySecurityAssociation, Spi
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot
from tests.unit.daemon.laptop import AGENT, ETHERNET, Laptop
from tests.unit.daemon.parts import KEY, PSK, profile
from tests.world.fakes import FakeJournals, FakeNetworkPlans, SentRegistration

OWNER = pwd.getpwuid(os.getuid()).pw_name
INSIDE = replace(ETHERNET, addresses=(IPv4Interface("10.1.1.10/24"),), gateway=IPv4Address("10.1.1.1"))
OUTSIDE = ETHERNET
SECRETS = {"mn-ha": KEY, "psk": PSK}


def office(name: str = "office") -> Profile:
    """A profile of the user who runs the tests; all of them have the same keys."""
    return profile(name, OWNER)


class _Sessions:
    """Whoever runs the tests sits at the machine."""

    async def active_local_users(self) -> frozenset[int]:
        return frozenset({os.getuid()})


class RefusingPlans(FakeNetworkPlans):
    """A kernel that refuses every plan as long as `refuses` is set."""

    refuses: PlanError | None = None

    async def apply(self, plan: NetworkPlan) -> None:
        if self.refuses is not None:
            self.hold()
            raise self.refuses
        await super().apply(plan)


@dataclass
class Enterprise(Laptop):
    """The fakes, and a home agent that hears what is sent from inside, and what comes through the VPN."""

    plans: RefusingPlans = field(default_factory=RefusingPlans)
    state: FakeJournals = field(default_factory=FakeJournals)
    """Survives the daemon, as /var/lib does."""
    agent: HomeAgent = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = office().home_agent
        association = MobilitySecurityAssociation(Spi(settings.spi), settings.algorithm, key=Secret(KEY))
        prefixes = (IPv4Network("10.1.0.0/16"), IPv4Network("10.9.0.0/24"))
        policy = AgentPolicy(
            AGENT,
            TrustedNetworks(frozenset({"inside"}), prefixes),
            nodes=(Node("laptop", settings.home_address, association),),
        )
        now = self.clock.now()
        self.agent = HomeAgent(policy, started=Instant(now.boot - 60, now.wall - 60))
        self.registrations.on_sent = self._sent

    def world(self) -> World:
        return replace(super().world(), journal=JournalKeeper(self.state, self.until_reboot))

    def plug(self, *links: object) -> None:
        """The laptop is here now: INSIDE, OUTSIDE or nowhere."""
        self.links.set(*links)  # type: ignore[arg-type]

    def _sent(self, sent: SentRegistration) -> None:
        match sent.path:
            case ClearPath(_, _, source):
                arrives = source in IPv4Network("10.1.0.0/16")
            case VpnPath():
                arrives = self.vpn_world.sa is not None
        if not arrives:
            return
        request = RequestArrived(
            sent.octets, sent.path.source, source_port=sent.port, destination=AGENT, interface="inside"
        )
        for effect in self.agent.handle(request, self.clock.now()):
            if isinstance(effect, SendReply):
                loop = asyncio.get_running_loop()
                loop.call_soon(lambda octets=effect.octets: self.registrations.arrive(sent, octets))


class WholeDaemon:
    """The daemon's lives, one after the other, and a client on the same bus that watches and gives orders."""

    def __init__(self, address: str, laptop: Enterprise) -> None:
        self._address = address
        self.laptop = laptop
        self.profiles = Profiles({"office": office()})
        self.told: list[StatusSnapshot | None] = []
        self.bus = DaemonClient(address)
        self._server: BusServer | None = None
        self._client: Client | None = None

    async def begin(self) -> None:
        """A life begins, as homewardd does it."""
        laptop = self.laptop
        client = Client(
            profiles=lambda: self.profiles,
            store=SecretStore(lambda: laptop.clock.now().boot),
            clock=laptop.clock,
            links=laptop.links,
            world=laptop.world(),
            entropy=lambda: int.from_bytes(os.urandom(4)),
            publish=self._publish,
        )
        guard = GuardedControl(client, Permissions(_Sessions()), lambda: self.profiles)
        await client.resume()
        self._client = client
        self._server = BusServer(guard, self._address, version="1")
        await self._server.start()

    async def be_killed(self) -> None:
        """It is gone at once: nothing is undone, and its engine object with it; the VPN belongs to charon."""
        assert self._server is not None
        assert self._client is not None
        await self._server.stop()
        await self._client.end(keep_block=True)
        self._server = self._client = None
        self.laptop.engine = type(self.laptop.engine)(self.laptop.vpn_world)

    async def end(self) -> None:
        """SIGTERM, if it lives."""
        if self._client is not None and self._server is not None:
            await self._client.end(keep_block=False)
            await self._server.stop()

    def _publish(self) -> None:
        if self._server is not None:
            self._server.publish()

    # --- what its user does ---

    async def offer(self, *names: str) -> None:
        for name in names or SECRETS:
            await self.bus.offer_secret(name, Secret(SECRETS[name]))

    async def connect(self) -> None:
        """With everything that is needed for it."""
        await self.offer()
        await self.bus.connect("office")

    @property
    def now(self) -> StatusSnapshot | None:
        return self.told[-1] if self.told else None

    async def until(self, wanted: Callable[[StatusSnapshot], object]) -> StatusSnapshot:
        """The present status if it is as wanted, else the first that is."""
        read = max(len(self.told) - 1, 0)
        try:
            async with asyncio.timeout(10):
                while True:
                    for snapshot in self.told[read:]:
                        if snapshot is not None and wanted(snapshot):
                            return snapshot
                    read = len(self.told)
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"it has not come to that: {self.now}") from None

    def add_profile(self, name: str) -> None:
        """Another one, of the same keys."""
        self.profiles = Profiles({**self.profiles.usable, name: office(name)})

    @contextmanager
    def without_profile(self, name: str, fault: str = "") -> Iterator[None]:
        """Meanwhile the profile is gone, or its file has this fault."""
        before = self.profiles
        usable = {key: each for key, each in before.usable.items() if key != name}
        faults = (ProfileFault(name, f"/p/{name}.toml", fault),) if fault else ()
        self.profiles = Profiles(usable, faults=faults)
        try:
            yield
        finally:
            self.profiles = before
