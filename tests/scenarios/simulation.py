# SPDX-License-Identifier: GPL-2.0-or-later
"""An enterprise in simulated time: our core on one side, our home agent's real decisions on the other.

Networks are inside or outside and have delays; the VPN engine is played from what strongSwan was measured to do (100 ms
roam delay, one round trip of path probing, two round trips to set up). Nothing here waits: hours cost milliseconds.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.agents.home_agent import AgentPolicy, HomeAgent, Node
from homeward.agents.ingress import TrustedNetworks
from homeward.agents.replay import floor_at
from homeward.core.coordinator import Coordinator
from homeward.model.access import AccessMode, ClearPath, Link, VpnPath
from homeward.model.effects import (
    ApplyPlan,
    CheckVpn,
    Effect,
    MoveVpn,
    ResolveGateway,
    SaveIdentification,
    SendRegistration,
    StartVpn,
    StopVpn,
)
from homeward.model.inputs import (
    DatagramReceived,
    DeadlinePassed,
    GatewayResolved,
    Input,
    LinksObserved,
    PlanApplied,
    VpnReported,
)
from homeward.model.instant import Instant
from homeward.model.plan import NetworkPlan, Tunnelled
from homeward.model.profile import GatewaySettings, HomeAgentSettings, Profile, SecretReference, Timers
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    Spi,
)
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot
from homeward.model.vpn import VpnAnswered, VpnEstablished, VpnFailed, VpnLost, VpnMoved, VpnReport
from homeward.wire import registration as codec

HOME_AGENT = IPv4Address("10.0.0.2")
HOME_ADDRESS = IPv4Address("10.77.0.10")
GATEWAY = IPv4Address("192.0.2.1")
ETHERNET = 2
START = 1_800_000_000.0
ROAM_DELAY = 0.1
KEY = bytes(range(32))


def association(key: bytes = KEY) -> MobilitySecurityAssociation:
    return MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(key))


def signed_again(octets: bytes, **changes: object) -> bytes:
    """The home agent's reply with other contents, as the holder of the key would sign it."""
    message = codec.decode(octets).message
    assert isinstance(message, RegistrationReply)
    return codec.encode_reply(replace(message, **changes), association())  # type: ignore[arg-type]


def without_tnc(octets: bytes) -> bytes:
    """What an agent that does not know trusted networks would have answered."""
    return signed_again(octets, trusted_networks_configured=False)


@dataclass
class Network:
    """A place to plug in: `delay` is one way to the home agent or the gateway, in seconds."""

    name: str
    subnet: str
    inside: bool
    delay: float = 0.01
    gateway_reachable: bool = True
    home_agent_reachable: bool | None = None
    hosts: int = 10

    @property
    def reaches_home_agent(self) -> bool:
        return self.inside if self.home_agent_reachable is None else self.home_agent_reachable

    def address(self) -> IPv4Interface:
        network = IPv4Network(self.subnet)
        return IPv4Interface(f"{network[self.hosts]}/{network.prefixlen}")

    def router(self) -> IPv4Address:
        return IPv4Network(self.subnet)[1]


def networks() -> dict[str, Network]:
    places = [
        Network("trust1", "10.1.1.0/24", inside=True),
        Network("trust2", "10.1.2.0/24", inside=True),
        Network("ext1", "198.51.100.0/24", inside=False),
        Network("ext2", "192.168.77.0/24", inside=False),
    ]
    return {place.name: place for place in places}


def make_profile(
    *, timers: Timers | None = None, keep_vpn_inside: bool = False, gateway: str | None = str(GATEWAY)
) -> Profile:
    reference = SecretReference("mn-ha", "")
    return Profile(
        "corp",
        "machine",
        HomeAgentSettings(HOME_AGENT, HOME_ADDRESS, 0x100, AuthenticationAlgorithm.HMAC_SHA256, reference),
        None
        if gateway is None
        else GatewaySettings(
            gateway, "mn@example.test", "gw.example.test", reference, (IPv4Network("10.0.0.0/8"),)
        ),
        timers=timers or Timers(),
        keep_vpn_inside=keep_vpn_inside,
    )


@dataclass
class Engine:
    """What the IKE engine and the gateway hold."""

    inner: IPv4Address | None = None
    local: IPv4Address | None = None
    attempt: int = 0
    works: bool = True
    pool: int = 5


@dataclass
class World:
    """The laptop, the networks and the home agent. `drop` decides the fate of each registration message."""

    profile: Profile = field(default_factory=make_profile)
    agent_clock_ahead: float = 0.0
    agent_prefixes: tuple[str, ...] = ("10.1.0.0/16", "10.9.0.0/24")
    seed: int = 1
    key: bytes = KEY

    def __post_init__(self) -> None:
        self.now = 1000.0
        self.wall_offset = START - 1000.0
        self.places = networks()
        self.place: Network | None = None
        self.carrier_changes = 0
        self.random = random.Random(self.seed)
        self.drop: Callable[[str], bool] = lambda _direction: False
        self.engine = Engine()
        self.agent_up = True
        self.vouches = True
        self.agent = self.new_agent()
        self.core = Coordinator(
            self.profile, association(self.key), entropy=lambda: self.random.getrandbits(32)
        )
        self.plans: list[tuple[float, NetworkPlan]] = []
        self.sent: list[tuple[float, SendRegistration]] = []
        self.effects: list[tuple[float, Effect]] = []
        self.at_agent: list[tuple[float, str]] = []
        self.applied: NetworkPlan | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.feed(LinksObserved(self._links()))

    def new_agent(self, *, refuses_for: float | None = None) -> HomeAgent:
        """A home agent that knows nothing of what was; for so many seconds it accepts nothing at all."""
        networks_trusted = TrustedNetworks(
            frozenset({"inside"}), tuple(IPv4Network(prefix) for prefix in self.agent_prefixes)
        )
        policy = AgentPolicy(
            HOME_AGENT, networks_trusted, nodes=(Node("laptop", HOME_ADDRESS, association()),)
        )
        wall = self.wall() + self.agent_clock_ahead
        floor = "started" if refuses_for is None else floor_at(Instant(self.now, wall + refuses_for))
        return HomeAgent(policy, started=Instant(self.now, wall - 1000.0), floor=floor)

    # --- what a test does -------------------------------------------------------------------------------------------

    def plug(self, name: str) -> None:
        """A hard move: the old link is gone before the new one comes, with an address at once."""
        self.unplug()
        self.place = self.places[name]
        self.carrier_changes += 1
        self.feed(LinksObserved(self._links()))

    def unplug(self) -> None:
        if self.place is not None:
            self.place = None
            self.carrier_changes += 1
            self.feed(LinksObserved(self._links()))

    def run(self, seconds: float) -> None:
        """Let time pass; every event and deadline happens at its moment."""
        end = self.now + seconds
        for _ in range(100_000):
            deadline = self.core.next_deadline()
            event = self._events[0][0] if self._events else None
            moments = [moment for moment in (deadline, event) if moment is not None]
            nearest = min(moments, default=None)
            if nearest is None or nearest > end:
                self.now = end
                return
            self.now = max(self.now, nearest)
            if event is not None and event <= self.now:
                heapq.heappop(self._events)[2]()
                continue
            self.feed(DeadlinePassed())
            after = self.core.next_deadline()
            assert after is None or after > self.now or self._events, (
                "a deadline that is not used up spins for ever"
            )
        raise AssertionError("time does not pass")

    def status(self) -> StatusSnapshot:
        return self.core.snapshot()

    def mode(self) -> AccessMode:
        return self.core.snapshot().mode

    def wall(self) -> float:
        return self.now + self.wall_offset

    def bound_to(self) -> str | None:
        """The care-of address that the home agent holds."""
        bindings = self.agent.bindings()
        return str(bindings[0].care_of_address) if bindings else None

    def feed(self, fact: Input) -> None:
        step = self.core.handle(fact, Instant(self.now, self.wall()))
        for effect in step.effects:
            self.effects.append((self.now, effect))
            self._carry_out(effect)

    # --- how the world reacts ---------------------------------------------------------------------------------------

    def later(self, delay: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, what))

    def _links(self) -> tuple[Link, ...]:
        place = self.place
        return (
            Link(
                ETHERNET,
                "eth0",
                access=True,
                why="Ethernet",
                carrier=place is not None,
                addresses=(place.address(),) if place else (),
                gateway=place.router() if place else None,
                metric=100 if place else None,
                carrier_changes=self.carrier_changes,
            ),
            Link(
                3,
                "docker0",
                access=False,
                why="a bridge",
                carrier=True,
                addresses=(IPv4Interface("172.17.0.1/16"),),
            ),
        )

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case ApplyPlan(plan, number):
                self.plans.append((self.now, plan))
                self._check_never_in_the_open(plan)
                self.later(0.005, lambda: self._applied(plan, number))
            case SendRegistration():
                self.sent.append((self.now, effect))
                self._route(effect)
            case StartVpn(gateway, source):
                self._start_vpn(gateway, source)
            case MoveVpn(source):
                self._move_vpn(source)
            case CheckVpn():
                self._check_vpn()
            case StopVpn():
                self.engine.attempt += 1
                self.engine.inner = self.engine.local = None
            case ResolveGateway(name, _):
                self.later(0.02, lambda: self.feed(GatewayResolved(name, (GATEWAY,))))
            case SaveIdentification():
                pass

    def _check_never_in_the_open(self, plan: NetworkPlan) -> None:
        """The invariant of the whole program: in clear only inside, and only from the address of this very place."""
        traffic = plan.traffic
        if isinstance(traffic, Tunnelled) and isinstance(traffic.path, ClearPath):
            assert self.place is not None, "clear traffic without a network"
            assert self.place.inside, f"clear traffic on {self.place.name}"
            assert traffic.path.source == self.place.address().ip

    def _applied(self, plan: NetworkPlan, number: int) -> None:
        self.applied = plan
        self.feed(PlanApplied(number))

    def _route(self, effect: SendRegistration) -> None:
        place = self.place
        if place is None or self.drop("request"):
            return
        match effect.path:
            case ClearPath(_, _, source):
                if place.reaches_home_agent and source == place.address().ip:
                    self.later(place.delay, lambda: self._at_agent(effect, place, source))
            case VpnPath(source):
                if source == self.engine.inner and place.gateway_reachable:
                    self.later(2 * place.delay, lambda: self._at_agent(effect, place, source))

    def _at_agent(self, effect: SendRegistration, place: Network, source: IPv4Address) -> None:
        self.at_agent.append((self.now, str(source)))
        if not self.agent_up:
            return
        arrived = RequestArrived(
            effect.octets, source, source_port=40000, destination=HOME_AGENT, interface="inside"
        )
        instant = Instant(self.now, self.wall() + self.agent_clock_ahead)
        for answer in self.agent.handle(arrived, instant):
            if isinstance(answer, SendReply) and not self.drop("reply"):
                octets = answer.octets if self.vouches else without_tnc(answer.octets)
                self.later(place.delay, partial(self.deliver, effect, octets, place))

    def deliver(self, request: SendRegistration, octets: bytes, place: Network | None) -> None:
        """A reply reaches the socket that its request left from, if the laptop is still in that place."""
        if place is not self.place:
            return
        index = ETHERNET if isinstance(request.path, ClearPath) else 9
        self.feed(DatagramReceived(request.path, octets, HOME_AGENT, 434, index))

    def _report(self, report: VpnReport) -> None:
        self.feed(VpnReported(report))

    def _start_vpn(self, gateway: IPv4Address, source: IPv4Address) -> None:
        engine, place = self.engine, self.place
        engine.attempt += 1
        attempt = engine.attempt

        def finish() -> None:
            if engine.attempt != attempt:
                return
            if place is self.place and place is not None and place.gateway_reachable and engine.works:
                engine.inner, engine.local = IPv4Address(f"10.9.0.{engine.pool}"), source
                self._report(VpnEstablished(source, gateway, engine.inner, mobike=True, behind_nat=False))
            else:
                self._report(VpnFailed("gateway-unreachable", "the gateway did not answer"))

        reachable = place is not None and place.gateway_reachable and engine.works
        self.later(4 * place.delay if reachable and place else 8.0, finish)

    def _move_vpn(self, source: IPv4Address) -> None:
        engine, place, attempt = self.engine, self.place, self.engine.attempt

        def answered() -> None:
            if (
                engine.attempt == attempt
                and place is self.place
                and place is not None
                and place.gateway_reachable
            ):
                engine.local = source
                self._report(VpnMoved(source, GATEWAY))

        self.later(ROAM_DELAY + 2 * (place.delay if place else 0), answered)

    def _check_vpn(self) -> None:
        engine, place, attempt = self.engine, self.place, self.engine.attempt

        def answered() -> None:
            alive = engine.attempt == attempt and engine.works and engine.local is not None
            if (
                alive
                and engine.local
                and place is self.place
                and place is not None
                and place.gateway_reachable
            ):
                self._report(VpnAnswered(engine.local))

        self.later(2 * (place.delay if place else 0), answered)

    def lose_vpn(self) -> None:
        """The gateway forgets us."""
        self.engine.inner = self.engine.local = None
        self.engine.attempt += 1
        self._report(VpnLost("the gateway deleted the SA"))
