# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles, people and secrets for the tests of this folder and of the bus."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from homeward.bus.control import Caller
from homeward.daemon.fingerprint import SALT_OCTETS, fingerprint
from homeward.model.profile import GatewaySettings, HomeAgentSettings, Profile, SecretReference
from homeward.model.registration import AuthenticationAlgorithm
from homeward.model.secret import Secret

KEY = b"\x17mobility-key-of-alice-7731"
PSK = b"pre-shared-key-of-alice-4492"
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
