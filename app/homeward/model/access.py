# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the laptop is attached: links, attachments and the access modes of RFC 5266 section 3.1."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface


class AccessMode(Enum):
    """How the home address is reached (RFC 5266 section 3.1)."""

    HOME = "home"
    """On the home link: no tunnel."""
    C = "c"
    """Trusted network, co-located care-of address."""
    F = "f"
    """Trusted network, foreign agent care-of address."""
    MC = "mc"
    """Untrusted network: Mobile IPv4 inside a MOBIKE-capable VPN."""
    NONE = "none"
    """The home address cannot be reached at present."""


@dataclass(frozen=True, slots=True)
class Link:
    """One network link as the kernel describes it.

    `access` says whether it really is an access link; `why` says in words what made us think so. Tunnels, bridges,
    WireGuard, containers' links and our own devices never are: a probe over them could be answered from inside.
    `metric` is that of the default route through it (lower is preferred), None without a default route.
    """

    index: int
    name: str
    access: bool
    why: str
    carrier: bool
    mtu: int = 1500
    addresses: tuple[IPv4Interface, ...] = ()
    gateway: IPv4Address | None = None
    metric: int | None = None
    carrier_changes: int = 0
    """How often the carrier came or went: shows a flap that fell between two looks (IFLA_CARRIER_CHANGES)."""
    station: str = ""
    """What tells two networks on the same link apart when addresses do not: gateway MAC or BSSID, where known."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One stay on one link: a new value of `serial` for every change of connectivity (R-63, R-64).

    Proof of trust belongs to an attachment and dies with it.
    """

    serial: int
    link_index: int
    link_name: str
    care_of_address: IPv4Address
    gateway: IPv4Address | None
    mtu: int


@dataclass(frozen=True, slots=True)
class ClearPath:
    """Straight out of an access link, never through any tunnel (RFC 5266 section 3.4)."""

    link_index: int
    link_name: str
    source: IPv4Address

    @property
    def care_of_address(self) -> IPv4Address:
        """The co-located one."""
        return self.source


@dataclass(frozen=True, slots=True)
class AgentPath:
    """In clear to a foreign agent of the access link, which relays to the home agent (RFC 5944 section 3.6.1.1).

    `agent` and `hardware_address` are the source addresses of its advertisement: frames go there, nobody is asked by
    ARP. `source` is the home address (0.0.0.0 while there is none) for a foreign agent's care-of address; it is the
    care-of address itself where the agent only relays, because it demands that (R bit, R-117).
    """

    link_index: int
    link_name: str
    source: IPv4Address
    agent: IPv4Address
    hardware_address: bytes
    care_of_address: IPv4Address

    @property
    def is_co_located(self) -> bool:
        """Whether the care-of address is the mobile node's own, and only the registration goes through the agent."""
        return self.source == self.care_of_address


@dataclass(frozen=True, slots=True)
class HomePath:
    """Out of the home link, from the home address itself: no tunnel and no care-of address (RFC 5944 section 4.2.1)."""

    link_index: int
    link_name: str
    source: IPv4Address

    @property
    def care_of_address(self) -> IPv4Address:
        """The home address: what a deregistration of all bindings names (R-143)."""
        return self.source


@dataclass(frozen=True, slots=True)
class VpnPath:
    """Through the VPN, from the tunnel inner address (VPN-TIA)."""

    source: IPv4Address

    @property
    def care_of_address(self) -> IPv4Address:
        """The tunnel inner address."""
        return self.source


Path = ClearPath | AgentPath | HomePath | VpnPath
