# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole wished state of the kernel; adapters carry out the difference to what they applied last."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from homeward.model.access import AgentPath, ClearPath, HomePath, Path, VpnPath
from homeward.model.encapsulation import Encapsulation


@dataclass(frozen=True, slots=True)
class Held:
    """Packets of the home address wait in a bounded queue; the application sees delay, never an error."""


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """Packets of the home address go to the home agent in a tunnel along `path` (RFC 2003, reverse tunnel RFC 3024).

    With `udp` the tunnel is MIP Tunnel Data from the very socket of the path's registrations (RFC 3519 section 4.4).
    """

    path: ClearPath | VpnPath
    home_agent: IPv4Address
    mtu: int
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    udp: bool = False


@dataclass(frozen=True, slots=True)
class ViaAgent:
    """Mode f: packets of the home address go as they are to the foreign agent, which tunnels them (RFC 3024 5.1).

    With `encapsulating` they go to it inside IP-in-IP, home address to agent (RFC 3024 section 5.2).
    """

    path: AgentPath
    mtu: int
    encapsulating: bool = False


@dataclass(frozen=True, slots=True)
class AtHome:
    """Packets of the home address go as they are onto the home link, which knows it by ARP (RFC 5944 section 4.2.1)."""

    path: HomePath
    mtu: int


Traffic = Held | Tunnelled | ViaAgent | AtHome


@dataclass(frozen=True, slots=True)
class Fence:
    """What may leave and enter besides the home device's own traffic; everything else is dropped (docs/security.md).

    Always allowed: loopback, DHCP, ARP, router solicitation, registration (MARK_REGISTRATION, UDP 434 to
    `home_agent`), IKE and ESP-in-UDP (MARK_IKE, to `gateways`), the name query (MARK_NAME_QUERY): by mark, whatever the
    link, so that a link that appears needs no new rule before its probe leaves. `access_links` are the links that get
    the netdev egress chain as a second line. `traffic` is the one way on which packets of the home address may pass.
    `foreign_agent` is the agent that may be asked to relay a registration, `home_link` the link on which the home
    address may be heard in ARP and may register itself; both only once the network is proved trusted.
    """

    home_agent: IPv4Address
    gateways: tuple[IPv4Address, ...]
    access_links: tuple[str, ...]
    traffic: Traffic
    vpn_inner_address: IPv4Address | None
    foreign_agent: AgentPath | None = None
    home_link: HomePath | None = None

    @property
    def path(self) -> Path | None:
        """The path of the traffic, None while it is held."""
        return None if isinstance(self.traffic, Held) else self.traffic.path


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
