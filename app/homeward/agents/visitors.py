# SPDX-License-Identifier: GPL-2.0-or-later
"""A foreign agent's visitor list, and the requests that wait for their replies (RFC 5944 3.7.1)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from ipaddress import IPv4Address

from homeward.agents.expiries import Expiries
from homeward.agents.offered_challenges import NodeKey
from homeward.model import lifetime as lifetimes
from homeward.model.encapsulation import Encapsulation
from homeward.model.registration import (
    Identification,
    MobilitySecurityAssociation,
    RegistrationRequest,
    ReplyCode,
)
from homeward.wire.identification import low32


@dataclass(frozen=True, slots=True)
class Visitor:
    """A mobile node whose packets we carry, for `lifetime` seconds from `since` (boot time).

    `agent_address` is where it knows us on `interface`. `encapsulating` is the delivery style of RFC 3024 5.2;
    without `reverse_tunnel` what it sends is routed like anybody's. `udp` says that the home agent tunnels in UDP,
    with `keepalive` seconds between keepalives (0: our own setting). `revocable_since` is the home agent's time stamp
    in the accepted reply where revocation was agreed on.
    """

    home_address: IPv4Address
    home_agent: IPv4Address
    _: KW_ONLY
    care_of_address: IPv4Address
    interface: str
    hardware_address: bytes = field(repr=False)
    agent_address: IPv4Address
    identification: Identification
    lifetime: int
    since: float
    reverse_tunnel: bool
    encapsulating: bool = False
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    udp: bool = False
    keepalive: int = 0
    nai: str | None = None
    revocable_since: int | None = None

    @property
    def expires(self) -> float | None:
        """Boot time at which it ends by itself; None for ever."""
        return lifetimes.ends_at(self.since, self.lifetime)

    def remaining(self, boot: float) -> int:
        """Whole seconds left, as a Lifetime field says it."""
        return lifetimes.remaining(self.since, self.lifetime, boot)


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that was relayed and not yet answered. `relayed` are the octets that went to the home agent.

    `mobile_foreign` signs what its sender is told, where we share a key. `denied_with` is what it is told when the time
    is over: 78, or worse if a reply came that proved nothing.
    """

    node: NodeKey
    request: RegistrationRequest
    _: KW_ONLY
    relayed: bytes = field(repr=False)
    care_of_address: IPv4Address
    source: IPv4Address
    source_port: int
    agent_address: IPv4Address
    hardware_address: bytes
    interface: str
    encapsulating: bool
    until: float
    with_foreign_home: bool
    with_revocation: bool
    mobile_foreign: MobilitySecurityAssociation | None
    challenge: bytes | None = None
    denied_with: ReplyCode = ReplyCode.FOREIGN_AGENT_REGISTRATION_TIMEOUT

    @property
    def key(self) -> tuple[NodeKey, int]:
        """What its reply is found by (R-209)."""
        return self.node, low32(self.request.identification)


class PendingRequests:
    """Waiting requests. One station has a few at most: a newer one of its own takes the place of its oldest."""

    def __init__(self, most: int, *, per_station: int) -> None:
        self._most = most
        self._per_station = per_station
        self._waiting: dict[tuple[NodeKey, int], PendingRequest] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[PendingRequest]:
        return iter(tuple(self._waiting.values()))

    @property
    def full(self) -> bool:
        """Whether another station's request finds no place."""
        return len(self._waiting) >= self._most

    def get(self, key: tuple[NodeKey, int]) -> PendingRequest | None:
        """The request that such a reply belongs to."""
        return self._waiting.get(key)

    def of_station(self, hardware_address: bytes) -> list[PendingRequest]:
        """The waiting requests of one station, the oldest first."""
        return [one for one in self._waiting.values() if one.hardware_address == hardware_address]

    def put(self, pending: PendingRequest) -> None:
        """Wait for this one, and no longer for the oldest of the same station where it has too many."""
        self._waiting.pop(pending.key, None)
        own = self.of_station(pending.hardware_address)
        if len(own) >= self._per_station:
            del self._waiting[own[0].key]
        self._waiting[pending.key] = pending

    def replace(self, pending: PendingRequest) -> None:
        """The same one with something learnt about it; it keeps its place."""
        self._waiting[pending.key] = pending

    def remove(self, pending: PendingRequest) -> None:
        """It is answered."""
        self._waiting.pop(pending.key, None)

    def overdue(self, boot: float) -> list[PendingRequest]:
        """Take out and return those that have waited long enough."""
        gone = [one for one in self._waiting.values() if one.until <= boot]
        for one in gone:
            del self._waiting[one.key]
        return gone

    def next_end(self) -> float | None:
        """Boot time at which the next one has waited long enough."""
        return min((one.until for one in self._waiting.values()), default=None)


class VisitorList:
    """All visitors by home address, and which of them ends next."""

    def __init__(self) -> None:
        self._visitors: dict[IPv4Address, Visitor] = {}
        self._stations: Counter[bytes] = Counter()
        self._expiries = Expiries(self._end_of)

    def __len__(self) -> int:
        return len(self._visitors)

    def __iter__(self) -> Iterator[Visitor]:
        return iter(tuple(self._visitors.values()))

    def get(self, home_address: IPv4Address) -> Visitor | None:
        """The visitor with this home address, if there is one."""
        return self._visitors.get(home_address)

    def put(self, visitor: Visitor) -> None:
        """Make this the only entry of its home address."""
        before = self.remove(visitor.home_address)
        self._visitors[visitor.home_address] = visitor
        self._stations[visitor.hardware_address] += 1
        ended = None if before is None else before.expires
        self._expiries.note(visitor.home_address, visitor.expires, before=ended)

    def remove(self, home_address: IPv4Address) -> Visitor | None:
        """Take the entry out and return it; None when there is none."""
        gone = self._visitors.pop(home_address, None)
        if gone is not None:
            self._stations[gone.hardware_address] -= 1
            if not self._stations[gone.hardware_address]:
                del self._stations[gone.hardware_address]
        return gone

    def is_station(self, hardware_address: bytes) -> bool:
        """Whether a visitor has this station."""
        return hardware_address in self._stations

    def next_expiry(self) -> float | None:
        """Boot time at which the next visitor ends, None when none ever does."""
        return self._expiries.next()

    def expire(self, boot: float) -> list[Visitor]:
        """Take out and return every visitor whose lifetime is over at `boot`."""
        gone: list[Visitor] = []
        while (home_address := self._expiries.due(boot)) is not None:
            visitor = self.remove(home_address)
            assert visitor is not None
            gone.append(visitor)
        return gone

    def _end_of(self, home_address: IPv4Address) -> float | None:
        visitor = self._visitors.get(home_address)
        return None if visitor is None else visitor.expires
