# SPDX-License-Identifier: GPL-2.0-or-later
"""What `homeward status` and its like print."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.bus.messages import ProfileSummary
from homeward.cli.picture import STATES, duration, profile_lines, status_line, status_lines
from homeward.model.access import AccessMode
from homeward.model.health import HealthItem, Severity
from homeward.model.status import Blocked, ClientState, Proof, SecretNeeded, StatusSnapshot, Trust
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from homeward.model.vpn import VpnState

OUTSIDE = StatusSnapshot(
    revision=3,
    state=ClientState.OUTSIDE_MC,
    mode=AccessMode.MC,
    trust=Trust.UNTRUSTED,
    proof=Proof("the gateway proved itself, the home agent did not answer"),
    profile="office",
    home_address=IPv4Address("10.77.0.10"),
    home_agent=IPv4Address("10.0.0.2"),
    care_of_address=IPv4Address("10.9.0.5"),
    access_link="eth0",
    access_address=IPv4Address("198.51.100.23"),
    lifetime=1800,
    binding_expires=2632.7,
    vpn=VpnState.UP,
    vpn_gateway="gw.example.test",
    vpn_inner_address=IPv4Address("10.9.0.5"),
    vpn_mobike=True,
)


def test_the_whole_picture() -> None:
    assert status_lines(OUTSIDE, 1000.0) == [
        "Homeward          outside, through the VPN (mode mc)",
        "Profile           office",
        "Trust             not trusted: the gateway proved itself, the home agent did not answer",
        "Home address      10.77.0.10 at home agent 10.0.0.2",
        "Care-of address   10.9.0.5",
        "Access link       eth0, 198.51.100.23",
        "Binding           27 min 12 s left of 30 min 0 s",
        "VPN               up, gateway gw.example.test, inner address 10.9.0.5, with MOBIKE",
    ]


def row(snapshot: StatusSnapshot, label: str) -> list[str]:
    return [line[18:] for line in status_lines(snapshot, 1000.0) if line.startswith(f"{label:<18}")]


INSIDE = replace(
    OUTSIDE,
    state=ClientState.TRUSTED_C,
    mode=AccessMode.C,
    trust=Trust.TRUSTED,
    care_of_address=IPv4Address("10.1.3.57"),
    vpn=VpnState.DOWN,
)
AGENT = IPv4Address("10.1.3.1")


def test_mode_f_names_the_foreign_agent() -> None:
    f = replace(
        INSIDE, state=ClientState.TRUSTED_F, mode=AccessMode.F, foreign_agent=AGENT, care_of_address=AGENT
    )
    assert row(f, "Homeward") == ["inside, through a foreign agent (mode f)"]
    assert row(f, "Care-of address") == ["10.1.3.1, of the foreign agent 10.1.3.1"]
    assert "foreign agent 10.1.3.1" in status_line(f, 1000.0)
    relayed = replace(INSIDE, foreign_agent=AGENT)
    assert row(relayed, "Care-of address") == ["10.1.3.57, registered through the foreign agent 10.1.3.1"]


def test_at_home_nothing_is_bound() -> None:
    home = replace(
        INSIDE, state=ClientState.HOME, mode=AccessMode.HOME, care_of_address=None, binding_expires=1060.0
    )
    assert row(home, "Homeward") == ["at home, on the home link"]
    assert row(home, "Care-of address") == ["none, this is the home link"]
    assert row(home, "Binding") == ["none, as nothing is bound at home"]
    assert "binding" not in status_line(home, 1000.0)


def test_a_tunnel_in_udp_is_told_and_the_usual_one_is_not() -> None:
    assert row(OUTSIDE, "Tunnel") == []
    translated = replace(OUTSIDE, udp_tunnel=True)
    assert row(translated, "Tunnel") == [
        "in UDP: an address translator is on the way, or the profile asks for it"
    ]
    assert "tunnel in UDP" in status_line(translated, 1000.0)


@pytest.mark.rows("R-161")
def test_the_home_agents_words_are_quoted_shortened_and_change_nothing_else() -> None:
    evil = "inside\x1b[2J\n\u202e" + "x" * 5000
    before, shown = status_lines(OUTSIDE, 1000.0), status_lines(replace(OUTSIDE, message=evil), 1000.0)
    (words,) = [line for line in shown if line not in before]
    assert words.startswith("Home agent says   “inside")
    assert words.isprintable()
    assert len(words) < 230
    assert [line for line in shown if line != words] == before
    assert status_line(replace(OUTSIDE, message=evil), 0.0) == status_line(OUTSIDE, 0.0)


@pytest.mark.rows("R-274")
def test_a_home_address_that_is_still_to_be_assigned() -> None:
    assert row(replace(OUTSIDE, home_address=None), "Home address") == [
        "not assigned yet at home agent 10.0.0.2"
    ]
    (line,) = profile_lines([ProfileSummary("office", "alice", gateway="gw")])
    assert line == "office            of alice, home address assigned, VPN gateway gw"


@pytest.mark.parametrize("engine", TunnelEngine)
def test_what_carries_packets_is_named_as_in_homeward_engines(engine: TunnelEngine) -> None:
    lines = status_lines(replace(OUTSIDE, engine=engine), 0.0)
    (carried,) = (line for line in lines if line.startswith("Carried by"))
    assert carried.endswith(f"({engine.value})")


@pytest.mark.parametrize(
    ("octets", "words"),
    [(999, "999 octets"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5 * 10**15, "5000.0 TB")],
)
def test_how_much_was_carried_is_told(octets: int, words: str) -> None:
    lines = status_lines(replace(OUTSIDE, traffic=TrafficCounts(7, octets, 8, 0)), 0.0)
    assert f"Carried           7 packets out ({words}), 8 in (0 octets)" in lines
    assert not any(line.startswith("Carried") for line in status_lines(OUTSIDE, 0.0))


def test_disconnected_is_short() -> None:
    (line,) = status_lines(StatusSnapshot(), 0.0)
    assert line.startswith("Homeward          disconnected")


def test_what_is_wrong_comes_last_the_gravest_first_and_says_what_to_do() -> None:
    ill = replace(
        OUTSIDE,
        state=ClientState.BLOCKED,
        blocked=Blocked("the home agent refuses the registration", fence_holds=True),
        secrets_needed=(
            SecretNeeded("psk", "the key shared with the VPN gateway gw", "alice", "scrypt:0:0"),
        ),
        health=(
            HealthItem("a", Severity.INFO, "a detail", "nothing to do", 0.0),
            HealthItem("b", Severity.ALARM, "bob offered a key", "ask who uses this machine", 0.0),
            HealthItem("c", Severity.WARNING, "the name was not found", "check the network", 0.0),
        ),
        held_packets=3,
        dropped_packets=4,
    )
    lines = status_lines(ill, 0.0)
    start = lines.index("")
    assert lines[start - 1] == "Held traffic      3 packets waiting, 4 dropped"
    assert lines[start + 1 :] == [
        "!  the home agent refuses the registration (the fence holds)",
        "!  The secret “psk” is missing: the key shared with the VPN gateway gw. It is alice's to supply.",
        "   Start homeward-tray, which takes it from the keyring, or run `homeward connect` in a terminal.",
        "!! bob offered a key",
        "   ask who uses this machine",
        "!  the name was not found",
        "   check the network",
        "-  a detail",
        "   nothing to do",
    ]
    open_fence = replace(ill, blocked=Blocked("why", fence_holds=False))
    assert "!! why (the fence does NOT hold, traffic may leak)" in status_lines(open_fence, 0.0)


@pytest.mark.parametrize("state", list(ClientState))
def test_every_state_has_words(state: ClientState) -> None:
    assert STATES[state]
    assert status_lines(replace(OUTSIDE, state=state), 0.0)


@pytest.mark.parametrize("vpn", list(VpnState))
@pytest.mark.parametrize("trust", list(Trust))
def test_every_vpn_state_and_verdict_has_words(vpn: VpnState, trust: Trust) -> None:
    assert "VPN" in status_line(replace(OUTSIDE, vpn=vpn, trust=trust), 0.0)


def test_one_line() -> None:
    assert status_line(OUTSIDE, 2600.0) == (
        "outside, through the VPN (mode mc) · "
        "not trusted: the gateway proved itself, the home agent did not answer · "
        "care-of 10.9.0.5 · binding 32 s left of 30 min 0 s · VPN up"
    )
    assert status_line(None, 0.0) == "homewardd is not running"


def test_a_binding_that_has_ended() -> None:
    assert "Binding           expired" in status_lines(OUTSIDE, 2632.7)
    assert "Binding           none" in status_lines(replace(OUTSIDE, binding_expires=None), 0.0)


def test_nothing_from_elsewhere_steers_the_terminal() -> None:
    evil = "\x1b[2J\x07\n\u202e"
    poisoned = replace(
        OUTSIDE,
        vpn_cause=evil,
        access_link=evil,
        proof=Proof(evil),
        health=(HealthItem("a", Severity.INFO, evil, evil, 0.0),),
    )
    profiles = [ProfileSummary(evil, evil), ProfileSummary("x", problem=evil)]
    for line in (*status_lines(poisoned, 0.0), status_line(poisoned, 0.0), *profile_lines(profiles)):
        assert line.isprintable(), repr(line)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7261, "2 h 1 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_profiles() -> None:
    profiles = [
        ProfileSummary("bad", file="/p/bad.toml", problem="/p/bad.toml: one\n/p/bad.toml: two"),
        ProfileSummary("office", "alice", home_address=IPv4Address("10.77.0.10"), gateway="gw"),
        ProfileSummary("plain", "machine", home_address=IPv4Address("10.77.0.11")),
    ]
    assert profile_lines(profiles) == [
        "bad               cannot be used:",
        "  /p/bad.toml: one",
        "  /p/bad.toml: two",
        "office            of alice, home address 10.77.0.10, VPN gateway gw",
        "plain             of machine, home address 10.77.0.11, no VPN",
    ]


def test_verdict_is_not_said_twice() -> None:
    sentence = "Trusted: home agent 10.0.0.2 answered in 11 ms, signed with key 0x100 (HMAC-SHA-256)"
    snapshot = StatusSnapshot(state=ClientState.TRUSTED_C, trust=Trust.TRUSTED, proof=Proof(sentence))
    row = next(line for line in status_lines(snapshot, 0.0) if line.startswith("Trust"))
    assert row == f"Trust             t{sentence[1:]}"
