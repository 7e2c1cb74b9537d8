# SPDX-License-Identifier: GPL-2.0-or-later
"""A profile: whom to trust, by which key, and how to reach them. It carries references to secrets, never secrets."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from homeward.model.registration import AuthenticationAlgorithm


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Names a secret in its owner's keyring and says by fingerprint which one it must be."""

    reference: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class HomeAgentSettings:
    """The internal home agent and the security association shared with it (RFC 5944 section 1.6)."""

    address: IPv4Address
    home_address: IPv4Address
    spi: int
    algorithm: AuthenticationAlgorithm
    key: SecretReference
    nai: str | None = None


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
