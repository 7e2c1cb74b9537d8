# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole wished state of the kernel; adapters carry out the difference to what they applied last."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from homeward.model.access import ClearPath, VpnPath


@dataclass(frozen=True, slots=True)
class Held:
    """Packets of the home address wait in a bounded queue; the application sees delay, never an error."""


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """Packets of the home address go IP-in-IP to the home agent along `path` (RFC 2003, reverse tunnel RFC 3024)."""

    path: ClearPath | VpnPath
    home_agent: IPv4Address
    mtu: int


Traffic = Held | Tunnelled


@dataclass(frozen=True, slots=True)
class Fence:
    """What may leave and enter besides the home device's own traffic; everything else is dropped (docs/security.md).

    Always allowed: loopback, DHCP, ARP, router solicitation, registration (MARK_REGISTRATION, UDP 434 to
    `home_agent`), IKE and ESP-in-UDP (MARK_IKE, to `gateways`), the name query (MARK_NAME_QUERY): by mark, whatever the
    link, so that a link that appears needs no new rule before its probe leaves. `access_links` are the links that get
    the netdev egress chain as a second line; `tunnel` is the one path on which IP-in-IP with the home agent may pass,
    None while held.
    """

    home_agent: IPv4Address
    gateways: tuple[IPv4Address, ...]
    access_links: tuple[str, ...]
    tunnel: ClearPath | VpnPath | None
    vpn_inner_address: IPv4Address | None


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """The wished state as a whole; `EMPTY_PLAN` is the machine as we found it.

    `destinations` are the prefixes that applications reach from the home address (0.0.0.0/0 by default).
    """

    home_address: IPv4Address | None = None
    destinations: tuple[IPv4Network, ...] = ()
    traffic: Traffic = Held()
    fence: Fence | None = None


EMPTY_PLAN = NetworkPlan()
