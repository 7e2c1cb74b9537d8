# SPDX-License-Identifier: GPL-2.0-or-later
"""A profile: whom to trust, by which key, and how to reach them. It carries references to secrets, never secrets."""

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from homeward.model.encapsulation import Encapsulation
from homeward.model.registration import AuthenticationAlgorithm


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Names a secret in its owner's keyring and says by fingerprint which one it must be."""

    reference: str
    fingerprint: str


class ReplayStyle(Enum):
    """How the home agent tells a fresh request from a recorded one (RFC 5944 section 5.7)."""

    TIMESTAMPS = "timestamps"
    NONCES = "nonces"


class ForeignAgentUse(Enum):
    """When registrations go through a foreign agent of a proved trusted network; elsewhere they never do (R-14)."""

    NEVER = "never"
    WHEN_REQUIRED = "when-required"
    """Only where an agent demands it (R bit): it relays, and the care-of address stays our own."""
    PREFER = "prefer"
    """Mode f wherever an agent offers a care-of address."""


ASSIGNED: IPv4Address = IPv4Address("0.0.0.0")
"""As a home address: the home agent assigns one to the network access identifier (R-274)."""


@dataclass(frozen=True, slots=True)
class HomeAgentSettings:
    """The internal home agent and the security association shared with it (RFC 5944 section 1.6).

    `home_network` is the prefix of the home link, by which it is recognised; None for a virtual home network, where
    the mobile node is always away (R-127).
    """

    address: IPv4Address
    home_address: IPv4Address
    spi: int
    algorithm: AuthenticationAlgorithm
    key: SecretReference
    nai: str | None = None
    home_network: IPv4Network | None = None
    replay: ReplayStyle = ReplayStyle.TIMESTAMPS
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP


@dataclass(frozen=True, slots=True)
class ForeignAgentSettings:
    """What is shared with a foreign agent (MN-FA), or with the server that it asks (MN-AAA; `agent` is then None)."""

    agent: IPv4Address | None
    spi: int
    algorithm: AuthenticationAlgorithm
    key: SecretReference


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The VPN gateway: `host` is a name or an address; pre-shared key authentication."""

    host: str
    local_identity: str
    remote_identity: str
    pre_shared_key: SecretReference
    remote_networks: tuple[IPv4Network, ...]
    proposals: tuple[str, ...] = ("aes128gcm16-prfsha256-curve25519", "default")
    esp_proposals: tuple[str, ...] = ("aes128gcm16", "default")


@dataclass(frozen=True, slots=True)
class Timers:
    """The timers of requirements.md section K, in seconds; RFC 5265 section 3.2.4 and RFC 5944 section 3.6.3."""

    lifetime: int = 1800
    monitor: float = 60.0
    """T_MONITOR: without a successful registration for this long, a trusted network is trusted no longer."""
    monitor_grace: float = 10.0
    probe_timeout: float = 1.0
    """First retransmission timeout, doubled each time; never below one second (R-163)."""
    probe_transmissions: int = 4
    proof_max_age: float = 2.0
    vpn_retry: float = 2.0
    """First pause before another try at the gateway, doubled up to vpn_retry_max."""
    vpn_retry_max: float = 60.0
    vpn_answer: float = 10.0
    """How long an existing VPN may stay silent on a new attachment before a fresh one is started beside it."""
    keepalive: int = 110
    """Seconds between keepalives of a tunnel in UDP where the home agent names none (RFC 3519 section 4.9)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything the mobility core needs to know, besides the secrets. `owner` is a user name or "machine"."""

    name: str
    owner: str
    home_agent: HomeAgentSettings
    gateway: GatewaySettings | None
    destinations: tuple[IPv4Network, ...] = (IPv4Network("0.0.0.0/0"),)
    timers: Timers = field(default_factory=Timers)
    keep_vpn_inside: bool = False
    nat_inside: bool = False
    """Whether an address translator inside is expected: only then is its report no alarm (X-28)."""
    force_udp: bool = False
    """Ask for a tunnel in UDP without a translator too, as where a firewall lets only UDP through (R-234)."""
    use_foreign_agents: ForeignAgentUse = ForeignAgentUse.WHEN_REQUIRED
    foreign_agents: tuple[ForeignAgentSettings, ...] = ()
    ask_not_on: tuple[IPv4Network, ...] = ()
    """Networks on which the home agent is never asked in clear; they count as outside (RFC 5266 section 5, R-51)."""
