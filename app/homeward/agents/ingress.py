# SPDX-License-Identifier: GPL-2.0-or-later
"""Which requests come from inside: whom a home agent answers at all, and to whom it says so (RFC 5265 section 4.3)."""

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network


class Origin(Enum):
    """Where a request came from, as far as the agent itself can see."""

    INSIDE = "inside"
    WRONG_INTERFACE = "it came in by an interface that is not inside"
    WRONG_SOURCE = "its source address lies in no trusted prefix"


@dataclass(frozen=True, slots=True)
class TrustedNetworks:
    """The inside, as configured. All empty, as by default, trusts and answers nobody (R-93).

    `nats` are source addresses of address translators inside; there are none unless somebody lists them.
    """

    interfaces: frozenset[str] = frozenset()
    prefixes: tuple[IPv4Network, ...] = ()
    nats: frozenset[IPv4Address] = frozenset()
    _masks: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    """The prefixes as numbers, since every datagram is held against them: mask and network address."""

    def __post_init__(self) -> None:
        masks = tuple((int(each.netmask), int(each.network_address)) for each in self.prefixes)
        object.__setattr__(self, "_masks", masks)

    def origin(self, source: IPv4Address, interface: str) -> Origin:
        """Both must be inside: a source address alone can be forged from outside, where the interface cannot."""
        if interface not in self.interfaces:
            return Origin.WRONG_INTERFACE
        return Origin.INSIDE if self.covers(source) else Origin.WRONG_SOURCE

    def is_inside(self, source: int, interface: str) -> bool:
        """Whether that is the origin, of a source address as a number: for each of many requests."""
        return interface in self.interfaces and self._covers(source)

    def covers(self, address: IPv4Address) -> bool:
        """Whether an address lies in a trusted prefix."""
        return self._covers(int(address))

    def _covers(self, number: int) -> bool:
        for mask, network in self._masks:  # noqa: SIM110 - a generator costs more than the whole loop
            if number & mask == network:
                return True
        return False

    def is_nat(self, source: IPv4Address) -> bool:
        """Whether it is the address of a translator that somebody listed."""
        return bool(self.nats) and source in self.nats

    def vouches(self, source: IPv4Address, interface: str, *, care_of_address: IPv4Address) -> bool:
        """Whether a reply may carry Trusted Networks Configured (X-28).

        A foothold inside can relay a request that was sent outside. Then the reply is genuine and the place is wrong,
        but the care-of address, which the request's authenticator covers, is not where the request came from.
        """
        if self.origin(source, interface) is not Origin.INSIDE:
            return False
        return source == care_of_address or self.is_nat(source)
