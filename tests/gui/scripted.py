# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that says what a test tells it to, on the real bus interface."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from homeward import __version__
from homeward.bus.control import Caller
from homeward.bus.errors import SecretRefused
from homeward.bus.messages import ProfileSummary
from homeward.bus.server import BusServer
from homeward.model.access import AccessMode
from homeward.model.health import HealthItem, Severity
from homeward.model.secret import Secret
from homeward.model.status import (
    Blocked,
    ClientState,
    Proof,
    Roam,
    RoamPhase,
    SecretNeeded,
    StatusSnapshot,
    Trust,
)
from homeward.model.vpn import VpnState

HOME_ADDRESS = IPv4Address("10.77.0.10")
HOME_AGENT = IPv4Address("10.0.0.2")


def boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def disconnected() -> StatusSnapshot:
    return StatusSnapshot(profile="office", home_address=HOME_ADDRESS, home_agent=HOME_AGENT)


def trusted(now: float | None = None, *, lifetime: int = 1800) -> StatusSnapshot:
    now = boot() if now is None else now
    care_of = IPv4Address("10.1.1.57")
    return replace(
        disconnected(),
        state=ClientState.TRUSTED_C,
        mode=AccessMode.C,
        trust=Trust.TRUSTED,
        proof=Proof(
            "proved",
            home_agent=HOME_AGENT,
            spi=0x100,
            algorithm="hmac-sha256",
            round_trip=0.011,
            link="eth0",
            care_of_address=care_of,
            at=now - 12,
        ),
        care_of_address=care_of,
        access_link="eth0",
        access_address=care_of,
        lifetime=lifetime,
        binding_expires=now + lifetime,
        roams=(roam(1, now - 500, "eth0", 0.012), roam(2, now - 12, "eth0", 0.031)),
    )


def outside(now: float | None = None) -> StatusSnapshot:
    now = boot() if now is None else now
    return replace(
        disconnected(),
        state=ClientState.OUTSIDE_MC,
        mode=AccessMode.MC,
        trust=Trust.UNTRUSTED,
        proof=Proof(
            "Not trusted: the VPN gateway answered here and the home agent has not,"
            " so this network is treated as outside",
            at=now - 3,
        ),
        care_of_address=IPv4Address("10.9.0.1"),
        access_link="wlan0",
        access_address=IPv4Address("192.168.77.23"),
        lifetime=1800,
        binding_expires=now + 1712.4,
        vpn=VpnState.UP,
        vpn_gateway="gw.example.test",
        vpn_inner_address=IPv4Address("10.9.0.1"),
        vpn_mobike=True,
        roams=(
            roam(1, now - 500, "eth0", 0.012),
            roam(2, now - 120, "eth0", 0.031),
            roam(3, now - 3, "wlan0", 0.214),
        ),
    )


def through_agent(now: float | None = None) -> StatusSnapshot:
    return replace(
        trusted(now),
        state=ClientState.TRUSTED_F,
        mode=AccessMode.F,
        care_of_address=IPv4Address("10.1.3.1"),
        foreign_agent=IPv4Address("10.1.3.1"),
        access_address=IPv4Address("10.1.3.57"),
    )


def at_home(now: float | None = None) -> StatusSnapshot:
    return replace(
        trusted(now),
        state=ClientState.HOME,
        mode=AccessMode.HOME,
        care_of_address=None,
        lifetime=None,
        access_address=IPv4Address("10.77.0.57"),
    )


def blocked(now: float | None = None) -> StatusSnapshot:
    now = boot() if now is None else now
    return replace(
        disconnected(),
        state=ClientState.BLOCKED,
        trust=Trust.UNTRUSTED,
        proof=Proof("Not trusted: nobody answered"),
        access_link="wlan0",
        blocked=Blocked("the VPN gateway gw.example.test does not answer", fence_holds=True),
        vpn=VpnState.WAITING,
        vpn_gateway="gw.example.test",
        vpn_cause="no answer to IKE_SA_INIT",
        held_packets=17,
        dropped_packets=3,
        health=(
            HealthItem(
                "gateway-unreachable",
                Severity.WARNING,
                "The VPN gateway gw.example.test does not answer",
                "Check that this network reaches the Internet (a sign-in page?). Tries go on by themselves.",
                now - 4,
            ),
        ),
    )


def waiting(*needed: SecretNeeded) -> StatusSnapshot:
    return replace(disconnected(), state=ClientState.WAITING_FOR_SECRET, secrets_needed=needed)


def roam(serial: int, at: float, link: str, open_after: float) -> Roam:
    steps = (("link", 0.0), ("probe", 0.001), ("verdict", open_after * 0.7), ("registered", open_after * 0.8))
    phases = (*(RoamPhase(name, at + after) for name, after in steps), RoamPhase("open", at + open_after))
    return Roam(serial, link, phases, finished=True)


class ScriptedDaemon:
    """Serves whatever `show` was given last, and writes down what it was asked."""

    def __init__(self, address: str, *, version: str = __version__) -> None:
        self._snapshot = disconnected()
        self._revision = 0
        self._server = BusServer(self, address, version=version)
        self.calls: list[tuple[str, str]] = []
        self.offered: dict[str, bytes] = {}
        self.wanted: dict[str, bytes] = {}
        """Reference -> the octets that are the right ones; others are refused."""
        self.refusal: Exception | None = None
        self.summaries = (ProfileSummary("office", owner="machine", home_address=HOME_ADDRESS),)

    async def __aenter__(self) -> ScriptedDaemon:
        await self._server.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._server.stop()

    def show(self, snapshot: StatusSnapshot) -> None:
        self._revision += 1
        self._snapshot = replace(snapshot, revision=self._revision)
        self._server.publish()

    # --- Control ---

    def snapshot(self) -> StatusSnapshot:
        return self._snapshot

    async def connect(self, profile: str, caller: Caller) -> None:
        self._called("connect", profile)

    async def disconnect(self, caller: Caller) -> None:
        self._called("disconnect", "")

    async def reconnect(self, caller: Caller) -> None:
        self._called("reconnect", "")

    async def offer_secret(self, reference: str, secret: Secret, caller: Caller) -> None:
        octets = secret.reveal()
        self._called("offer_secret", reference)
        if self.wanted.get(reference, octets) != octets:
            raise SecretRefused(f"secret {reference} does not have the fingerprint that the profile expects")
        self.offered[reference] = octets
        left = tuple(need for need in self._snapshot.secrets_needed if need.reference != reference)
        self.show(replace(self._snapshot, secrets_needed=left))

    async def profiles(self) -> tuple[ProfileSummary, ...]:
        return self.summaries

    def _called(self, name: str, argument: str) -> None:
        self.calls.append((name, argument))
        if self.refusal is not None:
            raise self.refusal
