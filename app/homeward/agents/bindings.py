# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobility binding list of a home agent: one care-of address for each home address (RFC 5944 section 3.8.1)."""

import heapq
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address

from homeward.model.encapsulation import Encapsulation
from homeward.model.registration import LIFETIME_INFINITE, Identification, MobilitySecurityAssociation, Spi
from homeward.wire.extensions import ExtensionType

_HEAP_SLACK = 64


@dataclass(frozen=True, slots=True)
class Way:
    """How packets get to a care-of address: the outer end of the tunnel, and what the tunnel is made of.

    `endpoint` is the care-of address, or the address of the NAT that hides it. With `udp` the tunnel ends at `port`
    there, which is None as long as the tunnel is half bound (RFC 3519 section 4.6).
    """

    endpoint: IPv4Address
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    _: KW_ONLY
    udp: bool = False
    port: int | None = None


@dataclass(frozen=True, slots=True)
class RevocationPeer:
    """Who announced that it understands revocation of this binding, and how to talk to it (RFC 3543 section 3.2).

    `protection` is MN-HA for a mobile node itself, FA-HA for its foreign agent. `announced` is the time stamp that it
    was told, `heard` its own; `inform` says whether the I bit was agreed on.
    """

    address: IPv4Address
    port: int
    association: MobilitySecurityAssociation
    _: KW_ONLY
    protection: ExtensionType
    announced: int
    heard: int
    inform: bool = False

    @property
    def is_foreign_agent(self) -> bool:
        """Whether it is the foreign agent, not the mobile node itself."""
        return self.protection is ExtensionType.FOREIGN_HOME_AUTHENTICATION


@dataclass(frozen=True, slots=True)
class Binding:
    """A home address is reachable at a care-of address, for `lifetime` seconds from `since` (boot time).

    `way` is how its packets get there. `reverse_tunnel` says whether the mobile node asked for one (T bit); without it
    nothing of its is decapsulated. `spi` names the association that it rests on. `co_located` is the D bit: the mobile
    node itself, not a foreign agent, is the tunnel's other end.
    """

    home_address: IPv4Address
    care_of_address: IPv4Address
    _: KW_ONLY
    node: str
    spi: Spi
    identification: Identification
    lifetime: int
    since: float
    reverse_tunnel: bool
    co_located: bool
    way: Way
    revocation: RevocationPeer | None = None

    @property
    def expires(self) -> float | None:
        """Boot time at which it ends by itself; None for ever."""
        return None if self.lifetime == LIFETIME_INFINITE else self.since + self.lifetime

    def remaining(self, boot: float) -> int:
        """Whole seconds left, as a Lifetime field says it; never more than was granted."""
        if self.lifetime == LIFETIME_INFINITE:
            return LIFETIME_INFINITE
        return max(0, int(self.since + self.lifetime - boot))


class BindingTable:
    """All bindings, and which of them ends next; every operation takes at most logarithmic time."""

    def __init__(self) -> None:
        self._bindings: dict[IPv4Address, Binding] = {}
        self._expiries: list[tuple[float, IPv4Address]] = []

    def __len__(self) -> int:
        return len(self._bindings)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings.values())

    def get(self, home_address: IPv4Address) -> Binding | None:
        """The binding of a home address, if there is one."""
        return self._bindings.get(home_address)

    def put(self, binding: Binding) -> None:
        """Make this the only binding of its home address."""
        self._bindings[binding.home_address] = binding
        if binding.expires is not None:
            heapq.heappush(self._expiries, (binding.expires, binding.home_address))
        # Each renewal leaves its predecessor's entry behind; throw those away before they outnumber the bindings.
        if len(self._expiries) > 2 * len(self._bindings) + _HEAP_SLACK:
            live = [(each.expires, each.home_address) for each in self if each.expires is not None]
            heapq.heapify(live)
            self._expiries = live

    def remove(self, home_address: IPv4Address) -> Binding | None:
        """Take the binding out and return it; None when there is none."""
        return self._bindings.pop(home_address, None)

    def next_expiry(self) -> float | None:
        """Boot time at which the next binding ends, None when none ever does."""
        while self._expiries and not self._is_current(self._expiries[0]):
            heapq.heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def expire(self, boot: float) -> list[Binding]:
        """Take out and return every binding whose lifetime is over at `boot`."""
        gone: list[Binding] = []
        while (due := self.next_expiry()) is not None and due <= boot:
            _, home_address = heapq.heappop(self._expiries)
            gone.append(self._bindings.pop(home_address))
        return gone

    def _is_current(self, entry: tuple[float, IPv4Address]) -> bool:
        expires, home_address = entry
        binding = self._bindings.get(home_address)
        return binding is not None and binding.expires == expires
