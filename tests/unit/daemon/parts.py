# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles, people and secrets for the tests of this folder and of the bus."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from homeward.bus.control import Caller
from homeward.bus.fingerprint import SALT_OCTETS, fingerprint
from homeward.model.profile import (
    ASSIGNED,
    ForeignAgentSettings,
    GatewaySettings,
    HomeAgentSettings,
    Profile,
    SecretReference,
)
from homeward.model.registration import AuthenticationAlgorithm
from homeward.model.secret import Secret

KEY = b"\x17mobility-key-of-alice-7731"
PSK = b"pre-shared-key-of-alice-4492"
FOREIGN = b"key of the foreign agents, 5512"
AAA = b"key of the server behind them, 9"
WRONG = b"nobody's key, twenty octets and more"

ROOT = Caller(0, ":1.1", "root")
ALICE = Caller(1001, ":1.2", "alice")
BOB = Caller(1002, ":1.3", "bob")


def reference(name: str, secret: bytes, salt: int = 1) -> SecretReference:
    return SecretReference(name, fingerprint(Secret(secret), bytes([salt]) * SALT_OCTETS))


def profile(name: str = "office", owner: str = "alice", *, vpn: bool = True) -> Profile:
    gateway = GatewaySettings(
        "gw.example.test",
        "laptop@example.test",
        remote_identity="gw.example.test",
        pre_shared_key=reference("psk", PSK, salt=2),
        remote_networks=(IPv4Network("10.0.0.0/8"),),
    )
    agent = HomeAgentSettings(
        IPv4Address("10.0.0.2"),
        IPv4Address("10.77.0.10"),
        spi=256,
        algorithm=AuthenticationAlgorithm.HMAC_SHA256,
        key=reference("mn-ha", KEY),
    )
    return Profile(name, owner, home_agent=agent, gateway=gateway if vpn else None)


def with_key(base: Profile, key: SecretReference) -> Profile:
    return replace(base, home_agent=replace(base.home_agent, key=key))


def with_foreign_agents(base: Profile) -> Profile:
    """Two foreign agents that share one key, and the server that others ask."""
    shared, md5 = reference("mn-fa", FOREIGN), AuthenticationAlgorithm.HMAC_MD5
    agents = (
        ForeignAgentSettings(IPv4Address("10.1.3.1"), 512, algorithm=md5, key=shared),
        ForeignAgentSettings(IPv4Address("10.1.4.1"), 513, algorithm=md5, key=shared),
        ForeignAgentSettings(None, 768, algorithm=md5, key=reference("mn-aaa", AAA, salt=3)),
    )
    return replace(base, foreign_agents=agents)


def with_assigned_home_address(base: Profile) -> Profile:
    """The home agent assigns the home address."""
    agent = replace(base.home_agent, home_address=ASSIGNED, nai="laptop@example.test")
    return replace(base, home_agent=agent)
