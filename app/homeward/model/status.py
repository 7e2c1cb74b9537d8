# SPDX-License-Identifier: GPL-2.0-or-later
"""The one picture of the client that everything above the daemon shows. It carries deadlines, never countdowns."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from homeward.model.access import AccessMode
from homeward.model.health import HealthItem
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from homeward.model.vpn import VpnState

_NOTHING: Final = TrafficCounts()


class ClientState(Enum):
    """Where the client stands; one tray icon each."""

    DISCONNECTED = "disconnected"
    """The user has not asked for anything; the machine is as we found it."""
    WAITING_FOR_SECRET = "waiting-for-secret"  # noqa: S105 - a state, not a secret
    """Connect was asked for and a secret is missing (X-25)."""
    NO_NETWORK = "no-network"
    """No access link with an address."""
    DETECTING = "detecting"
    """A link is there and the verdict is not; traffic is held."""
    REGISTERING = "registering"
    """The verdict is there and the binding is not; traffic is held."""
    TRUSTED_C = "trusted-c"
    TRUSTED_F = "trusted-f"
    HOME = "home"
    OUTSIDE_MC = "outside-mc"
    BLOCKED = "blocked"
    """Outside without VPN, or the home agent refuses: traffic is held, `blocked` says why."""


class Trust(Enum):
    """The verdict about the present attachment."""

    UNKNOWN = "unknown"
    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


@dataclass(frozen=True, slots=True)
class Proof:
    """Why the present network is trusted, or why it is not, in values and in words."""

    text: str
    home_agent: IPv4Address | None = None
    spi: int | None = None
    algorithm: str = ""
    round_trip: float | None = None
    """Seconds from request to reply."""
    link: str = ""
    care_of_address: IPv4Address | None = None
    at: float | None = None
    """When the verdict fell, CLOCK_BOOTTIME."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why nothing passes, and whether the fence really holds."""

    cause: str
    fence_holds: bool


@dataclass(frozen=True, slots=True)
class RoamPhase:
    """One step of a roam, `at` seconds of CLOCK_BOOTTIME."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Roam:
    """One story from a change of attachment until a binding stands again."""

    serial: int
    link: str
    phases: tuple[RoamPhase, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class OtherLink:
    """A usable link that does not carry the home address, and what a probe that moves nothing said of it (X-26)."""

    name: str
    address: IPv4Address | None = None
    trust: Trust = Trust.UNKNOWN


@dataclass(frozen=True, slots=True)
class SecretNeeded:
    """A secret that the daemon waits for: which, for what, whose, and its fingerprint."""

    reference: str
    purpose: str
    owner: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """All that the tray, the window and the command line show; `revision` grows with every change."""

    revision: int = 0
    state: ClientState = ClientState.DISCONNECTED
    mode: AccessMode = AccessMode.NONE
    trust: Trust = Trust.UNKNOWN
    proof: Proof | None = None
    profile: str = ""
    home_address: IPv4Address | None = None
    home_agent: IPv4Address | None = None
    care_of_address: IPv4Address | None = None
    foreign_agent: IPv4Address | None = None
    """The foreign agent that the registration went through, in mode f or where one demands it."""
    udp_tunnel: bool = False
    """Whether the Mobile IP tunnel is one in UDP (RFC 3519)."""
    message: str = ""
    """What the home agent's last signed answer says to people (RFC 4917): to be shown, never to be acted on."""
    access_link: str = ""
    access_address: IPv4Address | None = None
    lifetime: int | None = None
    """Seconds that the home agent granted."""
    binding_expires: float | None = None
    """When the binding ends, CLOCK_BOOTTIME."""
    vpn: VpnState = VpnState.DOWN
    vpn_gateway: str = ""
    vpn_inner_address: IPv4Address | None = None
    vpn_mobike: bool | None = None
    vpn_cause: str = ""
    blocked: Blocked | None = None
    secrets_needed: tuple[SecretNeeded, ...] = ()
    health: tuple[HealthItem, ...] = ()
    other_links: tuple[OtherLink, ...] = ()
    roams: tuple[Roam, ...] = ()
    """The last few roams, newest last."""
    held_packets: int = 0
    dropped_packets: int = 0
    engine: TunnelEngine | None = None
    """What carries the home address's packets, None while they are held."""
    traffic: TrafficCounts = _NOTHING
    """What has been carried so far. It grows without a new revision: whoever wants to see it asks."""
