# SPDX-License-Identifier: GPL-2.0-or-later
"""What the core wants done; names in the imperative."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from homeward.model.access import Path
from homeward.model.plan import NetworkPlan


@dataclass(frozen=True, slots=True)
class SendRegistration:
    """Send a registration message from the path's own socket, to UDP port 434 of `destination`, with this TTL."""

    path: Path
    destination: IPv4Address
    octets: bytes
    ttl: int


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
    | ApplyPlan
    | ResolveGateway
    | StartVpn
    | MoveVpn
    | CheckVpn
    | StopVpn
    | SaveIdentification
)
