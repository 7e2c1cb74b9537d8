# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything outside the core, as Protocols: one suite of contract tests runs on each fake and on each real adapter.

Observers are plain callables that the adapter calls on the event loop's thread; they must not raise. What the world
does is reported through them as Inputs; what the caller did wrong, or what the kernel refuses, is an AdapterError.
"""

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Protocol

from homeward.model.access import HomePath, Link, Path
from homeward.model.inputs import AgentAdvertised, DatagramReceived
from homeward.model.instant import Instant
from homeward.model.journal import Journal
from homeward.model.plan import NetworkPlan
from homeward.model.profile import GatewaySettings
from homeward.model.secret import Secret
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from homeward.model.vpn import VpnReport


class Clock(Protocol):
    """Reads both clocks, and tells when they leap."""

    def now(self) -> Instant: ...

    def asleep(self) -> float:
        """How many seconds the machine has slept since it was booted."""

    def watch(self, observer: Callable[[], None] | None) -> None:
        """Call `observer` the moment the machine wakes up or somebody sets the wall clock; None ends it."""


class Links(Protocol):
    """Watches the kernel's links and addresses."""

    async def start(self, observer: Callable[[tuple[Link, ...]], None]) -> None:
        """Call `observer` with the whole picture now and after every change (at most 5 ms after the last event of a
        batch). After an overflow the picture is read anew. Raises LinkError when the kernel refuses."""

    async def stop(self) -> None: ...


class AgentDiscovery(Protocol):
    """Router Advertisements and Solicitations on access links (RFC 5944 section 2)."""

    def start(self, observer: Callable[[AgentAdvertised], None]) -> None: ...

    def watch(self, links: frozenset[int]) -> None:
        """Hear the links with these indexes, and no others; one that is gone is passed over. Raises NotPermitted."""

    def solicit(self, link_index: int, source: IPv4Address, destination: IPv4Address) -> None:
        """Send one solicitation by this link, with a TTL of 1, from exactly this address (0.0.0.0 while there is
        none) to a group or to all. Raises LinkError when the link is not there, NotPermitted."""

    def stop(self) -> None: ...


class HomeLinks(Protocol):
    """ARP for the home address, on the home link alone (RFC 5944 section 4.6)."""

    def announce(self, path: HomePath) -> None:
        """Answer ARP for the home address on this link, and on no other, and say so by gratuitous ARP, a few times
        without waiting for it (R-190). Raises LinkError when the link is not there, NotPermitted."""

    def withdraw(self, path: HomePath) -> None:
        """Answer no more on this link from this moment on (R-189); never fails."""

    def stop(self) -> None:
        """Answer nowhere."""


class Registrations(Protocol):
    """UDP 434 sockets, one per path, kept as long as the path lives (RFC 3519 section 4.4).

    Data of a tunnel in UDP arrives there too and is not reported, but for echo replies from the home agent itself:
    the answers to keepalives (RFC 3519 section 4.9).
    """

    def start(self, observer: Callable[[DatagramReceived], None]) -> None: ...

    def send(self, path: Path, destination: IPv4Address, octets: bytes, *, ttl: int) -> None:
        """Send at once. But for the VPN's path the datagram never enters a tunnel or IPsec; where that cannot be
        promised (the XFRM bypass is refused) nothing is sent. On an agent's path the frame goes to its hardware
        address, whatever `destination` is. Raises LinkError, NotPermitted, Unavailable."""

    def retain(self, paths: frozenset[Path]) -> None:
        """Close the sockets of all other paths."""

    def stop(self) -> None: ...


class NetworkPlans(Protocol):
    """Brings the kernel into a wished state and remembers what it did, so that a later life can undo it."""

    def hold(self) -> None:
        """Hold the home address's packets from this very moment; never fails, never waits."""

    async def apply(self, plan: NetworkPlan) -> None:
        """Close, path, addresses, DNS, open: in this order, only what differs from the plan applied last.
        Applying the same plan twice changes nothing. The empty plan undoes everything, whoever's life it is from.
        Raises PlanError with the step that failed; traffic is then held."""

    def counters(self) -> tuple[int, int]:
        """Packets waiting and packets dropped from the holding queue."""

    def engine(self) -> TunnelEngine | None:
        """What carries packets at this moment, None while they are held."""

    def traffic(self) -> TrafficCounts:
        """What has been carried so far."""


class VpnEngine(Protocol):
    """The IKEv2 engine: a charon of our own that outlives us, driven over vici."""

    async def start(self, observer: Callable[[VpnReport], None]) -> None:
        """Find the engine and keep finding it; reports EngineFound and EngineLost, then what SAs it already holds."""

    async def configure(self, settings: GatewaySettings, gateway: IPv4Address, secret: Secret) -> None:
        """Load connection and secret, replacing earlier ones. Raises IkeError, Unavailable."""

    async def connect(self, source: IPv4Address) -> None:
        """Begin an IKE_SA and CHILD_SA; returns at once, the outcome is a report."""

    async def move(self, source: IPv4Address) -> None:
        """Connectivity changed: have MOBIKE move the SAs now, as far as the engine can be told."""

    async def check(self) -> None:
        """Ask the gateway for a sign of life over the present path; an answer is reported as VpnAnswered."""

    async def disconnect(self) -> None:
        """Delete our SAs; returns when the engine has taken the order, whether or not the gateway answers."""

    async def stop(self) -> None:
        """Stop watching; the SAs stay."""

    def tunnel_device(self, inner: IPv4Address) -> str | None:
        """Name of the device that carries the inner address (ipsec0 with user-space ESP), None if not found."""


class NameQueries(Protocol):
    """Looks a gateway's name up over one access link, by a marked socket of our own."""

    async def resolve(self, name: str, link_index: int) -> tuple[IPv4Address, ...]:
        """IPv4 addresses of `name`; raises Unavailable with what was tried."""


class Journals(Protocol):
    """What must outlive a crash: written atomically, never half."""

    def load(self) -> Journal:
        """The last saved journal; an empty one when there is none. Raises Unavailable when it cannot be understood."""

    def save(self, journal: Journal) -> None: ...
