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


@dataclass(frozen=True, slots=True)
class VpnPath:
    """Through the VPN, from the tunnel inner address (VPN-TIA)."""

    source: IPv4Address


Path = ClearPath | VpnPath
