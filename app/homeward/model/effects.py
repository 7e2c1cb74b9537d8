# SPDX-License-Identifier: GPL-2.0-or-later
"""What the core wants done; names in the imperative."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from homeward.model.access import HomePath, Path
from homeward.model.plan import NetworkPlan


@dataclass(frozen=True, slots=True)
class SendRegistration:
    """Send a registration message from the path's own socket, to UDP port 434 of `destination`, with this TTL.

    Keepalives of a tunnel in UDP go the same way, since their source port is the tunnel (RFC 3519 section 4.9).
    """

    path: Path
    destination: IPv4Address
    octets: bytes
    ttl: int


@dataclass(frozen=True, slots=True)
class SendSolicitation:
    """Ask the mobility agents of this link to advertise, from the link's own address (RFC 5944 section 2.4).

    `destination` is all routers (224.0.0.2), all mobility agents (224.0.0.11), or the limited broadcast address.
    """

    link_index: int
    link_name: str
    source: IPv4Address
    destination: IPv4Address


@dataclass(frozen=True, slots=True)
class AnnounceHomeAddress:
    """Answer ARP for the home address on the home link, and say so by gratuitous ARP (RFC 5944 section 4.6, R-190).

    Carried out after the plan that was wished before it, and before any request that follows it.
    """

    path: HomePath


@dataclass(frozen=True, slots=True)
class WithdrawHomeAddress:
    """Answer ARP for the home address no more, at once, before anything that follows is sent (R-189)."""

    path: HomePath


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """Bring the kernel into this state; answered by PlanApplied(number) or EffectFailed."""

    plan: NetworkPlan
    number: int


@dataclass(frozen=True, slots=True)
class ResolveGateway:
    """Look the gateway's name up over this access link, over our own marked socket."""

    name: str
    link_index: int


@dataclass(frozen=True, slots=True)
class StartVpn:
    """Bring up an IKE_SA and CHILD_SA to this gateway from `source`."""

    gateway: IPv4Address
    source: IPv4Address


@dataclass(frozen=True, slots=True)
class MoveVpn:
    """Connectivity changed: let MOBIKE move the SAs to the new address now (RFC 5266 section 3.4, R-33)."""

    source: IPv4Address


@dataclass(frozen=True, slots=True)
class CheckVpn:
    """Ask the gateway for a sign of life on an unchanged path (a CHILD_SA rekey, X-24)."""


@dataclass(frozen=True, slots=True)
class StopVpn:
    """Delete the SAs; `why` goes to the log."""

    why: str


@dataclass(frozen=True, slots=True)
class SaveIdentification:
    """Remember, over restarts, the highest Identification used and the clock offset learnt (R-172, R-174)."""

    spi: int
    last: int
    offset: float


Effect = (
    SendRegistration
    | SendSolicitation
    | AnnounceHomeAddress
    | WithdrawHomeAddress
    | ApplyPlan
    | ResolveGateway
    | StartVpn
    | MoveVpn
    | CheckVpn
    | StopVpn
    | SaveIdentification
)
