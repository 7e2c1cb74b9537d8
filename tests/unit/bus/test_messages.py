# SPDX-License-Identifier: GPL-2.0-or-later
"""The snapshot on its way: what arrives, and what a reader of another age makes of it (S19)."""

import json
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from dbus_fast import Variant

from homeward.bus.messages import (
    VERSION_SKEW,
    ProfileSummary,
    profile_from_bus,
    profile_to_bus,
    snapshot_from_bus,
    snapshot_from_plain,
    snapshot_to_bus,
    snapshot_to_plain,
)
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
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from homeward.model.vpn import VpnState

FULL = StatusSnapshot(
    revision=2**40,
    state=ClientState.OUTSIDE_MC,
    mode=AccessMode.MC,
    trust=Trust.UNTRUSTED,
    proof=Proof(
        "the gateway proved itself and the home agent did not",
        home_agent=IPv4Address("10.0.0.2"),
        spi=256,
        algorithm="hmac-sha256",
        round_trip=0.02,
        link="eth0",
        care_of_address=IPv4Address("10.9.0.5"),
        at=1234.5,
    ),
    profile="office",
    home_address=IPv4Address("10.77.0.10"),
    home_agent=IPv4Address("10.0.0.2"),
    care_of_address=IPv4Address("10.9.0.5"),
    access_link="eth0",
    access_address=IPv4Address("198.51.100.23"),
    lifetime=1800,
    binding_expires=3034.5,
    vpn=VpnState.UP,
    vpn_gateway="gw.example.test",
    vpn_inner_address=IPv4Address("10.9.0.5"),
    vpn_mobike=False,
    vpn_cause="",
    blocked=Blocked("because", fence_holds=True),
    secrets_needed=(SecretNeeded("psk", "for the gateway", "alice", "scrypt:00:00"),),
    health=(HealthItem("code", Severity.ALARM, "text", "advice", 1.0),),
    roams=(
        Roam(3, "eth0", (RoamPhase("detected", 1.0), RoamPhase("bound", 2.5)), True),
        Roam(4, "eth1", (), False),
    ),
    held_packets=3,
    dropped_packets=4,
    engine=TunnelEngine.BPF,
    traffic=TrafficCounts(1, 2, 3, 4),
)


@pytest.mark.parametrize("snapshot", [StatusSnapshot(), FULL])
def test_round_trip(snapshot: StatusSnapshot) -> None:
    assert snapshot_from_plain(json.loads(json.dumps(snapshot_to_plain(snapshot)))) == snapshot
    assert snapshot_from_bus(snapshot_to_bus(snapshot)) == snapshot


def test_signatures_on_the_bus() -> None:
    body = snapshot_to_bus(FULL)
    assert {key: body[key].signature for key in ("revision", "state", "binding_expires", "vpn_mobike")} == {
        "revision": "x",
        "state": "s",
        "binding_expires": "d",
        "vpn_mobike": "b",
    }
    assert body["proof"].signature == "a{sv}"
    assert body["health"].signature == "av"
    assert body["home_address"].value == "10.77.0.10"


def test_what_is_not_there_is_left_out_on_the_bus_and_null_in_json() -> None:
    assert "proof" not in snapshot_to_bus(StatusSnapshot())
    assert snapshot_to_plain(StatusSnapshot())["proof"] is None


def test_unknown_keys_are_ignored_everywhere() -> None:
    plain = snapshot_to_plain(FULL)
    plain["later"] = {"x": [1]}
    plain["proof"]["later"] = 1
    plain["roams"][0]["phases"][0]["later"] = None
    assert snapshot_from_plain(plain) == FULL
    body = snapshot_to_bus(FULL) | {"later": Variant("(is)", [1, "x"]), "more": Variant("ah", [])}
    assert snapshot_from_bus(body) == FULL


@pytest.mark.parametrize(
    ("change", "wished"),
    [
        ({"mode": "teleport"}, replace(FULL, mode=AccessMode.NONE)),
        ({"trust": 7}, replace(FULL, trust=Trust.UNKNOWN)),
        ({"vpn": None}, replace(FULL, vpn=VpnState.DOWN)),
        ({"home_address": "::1"}, replace(FULL, home_address=None)),
        ({"home_address": 5}, replace(FULL, home_address=None)),
        ({"lifetime": "long"}, replace(FULL, lifetime=None)),
        ({"lifetime": True}, replace(FULL, lifetime=None)),
        ({"binding_expires": 7}, replace(FULL, binding_expires=7.0)),
        ({"revision": 1.5}, replace(FULL, revision=0)),
        ({"profile": ["x"]}, replace(FULL, profile="")),
        ({"proof": "yes"}, replace(FULL, proof=None)),
        ({"proof": {"spi": 1}}, replace(FULL, proof=None)),
        ({"health": "ill"}, replace(FULL, health=())),
        ({"health": [1, {}, {"code": "c"}]}, replace(FULL, health=())),
        ({"secrets_needed": {}}, replace(FULL, secrets_needed=())),
    ],
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(
    change: dict[str, Any], wished: StatusSnapshot
) -> None:
    assert snapshot_from_plain(snapshot_to_plain(FULL) | change) == wished


def test_a_complaint_of_unknown_severity_is_still_shown() -> None:
    plain = snapshot_to_plain(FULL)
    plain["health"][0]["severity"] = "catastrophe"
    assert snapshot_from_plain(plain).health[0].severity is Severity.WARNING


def test_a_state_from_the_future_is_never_shown_as_something_safe() -> None:
    seen = snapshot_from_plain(snapshot_to_plain(FULL) | {"state": "portal"})
    assert seen.state is ClientState.BLOCKED
    assert seen.blocked is not None
    assert not seen.blocked.fence_holds
    assert "“portal”" in seen.blocked.cause
    assert seen.health[0].code == VERSION_SKEW
    assert seen.health[1:] == FULL.health


def test_odd_texts_and_numbers_still_travel() -> None:
    odd = replace(FULL, access_link="wl\0an\udcff", vpn_cause="\x1b[2J", binding_expires=float("inf"))
    seen = snapshot_from_bus(snapshot_to_bus(odd))
    assert seen.access_link == "wl\N{REPLACEMENT CHARACTER}an?"
    assert seen.vpn_cause == "\x1b[2J"  # carried as it is; who prints it makes it printable
    assert seen.binding_expires is None
    json.dumps(snapshot_to_plain(odd), allow_nan=False).encode("utf-8")


def test_a_secret_has_no_place_in_a_snapshot() -> None:
    for field in ("profile", "proof", "blocked"):
        with pytest.raises(TypeError, match="Secret has no place"):
            snapshot_to_plain(replace(FULL, **{field: Secret(b"x")}))  # type: ignore[arg-type]


def test_profiles() -> None:
    summary = ProfileSummary("office", "alice", "/etc/x.toml", "bad", IPv4Address("10.77.0.10"), "gw")
    assert profile_from_bus(profile_to_bus(summary)) == summary
    assert profile_from_bus({}) == ProfileSummary("")
