# SPDX-License-Identifier: GPL-2.0-or-later
from dataclasses import fields, replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.gui import phrases
from homeward.gui.view_model import Action, Icon, Seen, Service, TrayView, tray_view
from homeward.model.access import AccessMode
from homeward.model.health import HealthItem, Severity
from homeward.model.status import (
    Blocked,
    ClientState,
    OtherLink,
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
from tests.gui.scripted import (
    at_home,
    blocked,
    disconnected,
    outside,
    roam,
    through_agent,
    trusted,
    waiting,
)

NOW = 10_000.0
NEEDED = SecretNeeded("office-key", "the home agent's key", owner="alice", fingerprint="scrypt:00:11")


def view(
    snapshot: StatusSnapshot | None, *, now: float = NOW, user: str = "alice", **seen: object
) -> TrayView:
    values = {"service": Service.RUNNING, "profiles": ("office",), **seen}
    return tray_view(Seen(snapshot=snapshot, **values), now, user=user)  # type: ignore[arg-type]


def line(shown: TrayView, label: str) -> str:
    (value,) = [entry.value for entry in shown.lines if entry.label == label]
    return value


def labels(shown: TrayView) -> list[str]:
    return [entry.label for entry in shown.lines]


def action(shown: TrayView, wanted: Action):  # type: ignore[no-untyped-def]
    (found,) = [entry for entry in shown.actions if entry.action is wanted]
    return found


# --- one picture per state ---


@pytest.mark.parametrize(
    ("state", "icon"),
    [
        (ClientState.DISCONNECTED, Icon.DISCONNECTED),
        (ClientState.WAITING_FOR_SECRET, Icon.WAITING),
        (ClientState.NO_NETWORK, Icon.NO_NETWORK),
        (ClientState.DETECTING, Icon.DECIDING),
        (ClientState.REGISTERING, Icon.DECIDING),
        (ClientState.TRUSTED_C, Icon.TRUSTED_C),
        (ClientState.TRUSTED_F, Icon.TRUSTED_F),
        (ClientState.HOME, Icon.HOME),
        (ClientState.OUTSIDE_MC, Icon.OUTSIDE_MC),
        (ClientState.BLOCKED, Icon.BLOCKED),
    ],
)
def test_each_state_has_its_icon_and_a_title(state, icon):
    shown = view(StatusSnapshot(state=state))
    assert shown.icon is icon
    assert shown.title == phrases.STATES[state]
    assert shown.tooltip.startswith(f"Homeward: {shown.title}")


def test_the_table_of_states_is_complete():
    for state in ClientState:
        assert view(StatusSnapshot(state=state)).lines


def test_titles_of_different_states_differ():
    assert len({view(StatusSnapshot(state=state)).title for state in ClientState}) == len(ClientState)


def test_without_profiles_it_is_not_set_up_and_connect_is_off():
    shown = view(StatusSnapshot(), profiles=())
    assert (shown.icon, shown.title) == (Icon.NOT_SET_UP, "Not set up")
    assert "/etc/homeward/profiles.d" in line(shown, "Mode")
    assert not action(shown, Action.CONNECT).enabled


def test_unknown_profiles_are_not_the_same_as_none():
    assert view(StatusSnapshot(), profiles=None).icon is Icon.DISCONNECTED


# --- the daemon itself ---


def test_a_daemon_that_is_gone_is_told_with_the_command_that_starts_it():
    shown = view(None, service=Service.ABSENT)
    assert shown.icon is Icon.NO_SERVICE
    assert "systemctl start homewardd" in line(shown, "Service")
    assert not any(
        action(shown, wanted).enabled for wanted in (Action.CONNECT, Action.RECONNECT, Action.DISCONNECT)
    )
    assert action(shown, Action.QUIT).label == "Quit"


def test_an_old_snapshot_of_a_daemon_that_is_gone_is_not_shown():
    shown = view(trusted(NOW), service=Service.ABSENT)
    assert shown.icon is Icon.NO_SERVICE
    assert labels(shown) == ["Service"]
    assert not shown.roams


def test_a_daemon_that_refuses_this_session_is_told():
    shown = view(None, service=Service.REFUSED)
    assert shown.icon is Icon.ATTENTION
    assert "active local session" in line(shown, "Service")


def test_before_the_first_answer_nothing_alarming_is_shown():
    shown = view(None, service=Service.LOOKING)
    assert shown.icon is Icon.DISCONNECTED
    assert not shown.badge


@pytest.mark.parametrize(
    ("service", "own", "icon"),
    [
        ("1.2.0", "1.2.0", Icon.TRUSTED_C),
        ("1.3.0", "1.2.0", Icon.TRUSTED_C),
        ("2.0.0", "1.9.0", Icon.ATTENTION),
        ("0.2.0", "0.1.0", Icon.ATTENTION),
        ("0.1.1", "0.1.0", Icon.TRUSTED_C),
        ("", "1.0", Icon.TRUSTED_C),
        ("strange", "1.0", Icon.ATTENTION),
    ],
)
def test_versions_that_do_not_understand_each_other_need_attention(service, own, icon):
    assert view(trusted(NOW), service_version=service, own_version=own).icon is icon


def test_another_version_is_named_with_what_to_do_and_the_state_is_still_told():
    shown = view(trusted(NOW), service_version="2.0.0", own_version="1.9.0")
    (row,) = shown.health
    assert "2.0.0" in row.text
    assert "1.9.0" in row.text
    assert "systemctl restart homewardd" in row.advice
    assert "direct" in line(shown, "Mode")


# --- the lines ---


def test_the_proof_of_a_trusted_network_is_told_in_words():
    assert line(view(trusted(NOW)), "Trust") == (
        "Trusted: home agent 10.0.0.2 answered in 11 ms, signed with key 0x100 (HMAC-SHA-256),"
        " network listed as trusted"
    )


def test_all_lines_of_a_trusted_network():
    shown = view(trusted(NOW))
    assert labels(shown) == [
        "Mode", "Profile", "Trust", "Home address", "Care-of address", "Binding", "VPN",
    ]  # fmt: skip
    assert line(shown, "Mode") == "Trusted network, direct (c), on eth0"
    assert line(shown, "Home address") == "10.77.0.10"
    assert line(shown, "Care-of address") == "10.1.1.57"
    assert line(shown, "VPN") == "down"


def test_all_lines_of_a_foreign_network():
    shown = view(outside(NOW))
    assert line(shown, "Mode") == "Foreign network, Mobile IP inside the VPN (mc), on wlan0"
    assert line(shown, "Trust").startswith("Not trusted: the VPN gateway answered here")
    assert line(shown, "Care-of address") == "10.9.0.1 (inner address of the VPN, outside 192.168.77.23)"
    assert line(shown, "Binding") == "28:33 left of 30:00"
    assert line(shown, "VPN") == "up, gateway gw.example.test, inner address 10.9.0.1, moves along (MOBIKE)"


def test_mode_f_names_the_foreign_agent():
    shown = view(through_agent(NOW))
    assert line(shown, "Mode") == "Trusted network, through the foreign agent 10.1.3.1 (f), on eth0"
    assert line(shown, "Care-of address") == "10.1.3.1 (of the foreign agent 10.1.3.1)"
    assert line(shown, "Binding") == "30:00 left of 30:00"
    unnamed = view(replace(through_agent(NOW), foreign_agent=None))
    assert line(unnamed, "Mode") == "Trusted network, through a foreign agent (f), on eth0"


def test_an_agent_that_only_relays_is_named_beside_mode_c():
    relayed = replace(trusted(NOW), foreign_agent=IPv4Address("10.1.3.1"))
    assert line(view(relayed), "Mode") == (
        "Trusted network, direct (c), on eth0, registered through the foreign agent 10.1.3.1"
    )
    assert line(view(relayed), "Care-of address") == "10.1.1.57"


def test_at_home_nothing_is_bound_and_nothing_counts():
    shown = view(at_home(NOW))
    assert line(shown, "Mode") == "At home, no tunnel, on eth0"
    assert line(shown, "Care-of address") == "none, this is the home link"
    assert line(shown, "Binding") == "none, as nothing is bound at home"
    assert not shown.counts


def test_a_tunnel_in_udp_is_told_and_the_usual_one_is_not():
    assert "Tunnel" not in labels(view(trusted(NOW)))
    shown = view(replace(outside(NOW), udp_tunnel=True))
    assert line(shown, "Tunnel").startswith("in UDP, as an address translator is on the way")


@pytest.mark.rows("R-161")
def test_the_home_agents_words_are_quoted_and_change_nothing():
    evil = "Trusted: mode c\n\x1b[31m\u202e" + "x" * 5000
    before, shown = view(outside(NOW)), view(replace(outside(NOW), message=evil))
    words = line(shown, "Home agent says")
    assert words.startswith("“Trusted: mode c [31m x")
    assert words.endswith("…”")
    assert words.isprintable()
    assert len(words) <= 202
    others = [entry for entry in shown.lines if entry.label != "Home agent says"]
    assert others == list(before.lines)
    assert (shown.icon, shown.badge, shown.title, shown.tooltip) == (
        before.icon, before.badge, before.title, before.tooltip,
    )  # fmt: skip


@pytest.mark.rows("R-274")
def test_a_home_address_that_is_still_to_be_assigned_is_no_unknown_one():
    snapshot = replace(outside(NOW), home_address=None)
    assert line(view(snapshot), "Home address") == "the home agent has not assigned one yet"
    assert line(view(StatusSnapshot(state=ClientState.BLOCKED)), "Home address") == "unknown"


def test_a_proof_without_numbers_is_told_by_its_text():
    snapshot = replace(trusted(NOW), proof=Proof("answered the probe"))
    assert line(view(snapshot), "Trust") == "Trusted: answered the probe"


def test_a_verdict_without_any_proof_is_still_told():
    assert line(view(replace(trusted(NOW), proof=None)), "Trust") == "Trusted"
    assert line(view(StatusSnapshot(state=ClientState.DETECTING)), "Trust") == "Not decided"


def test_untrusted_is_never_shown_as_trusted_whatever_the_proof_holds():
    shown = view(replace(trusted(NOW), trust=Trust.UNTRUSTED))
    assert line(shown, "Trust").startswith("Not trusted")


def test_a_verdict_is_not_repeated():
    snapshot = replace(outside(NOW), proof=Proof("Not trusted: nobody answered"))
    assert line(view(snapshot), "Trust") == "Not trusted: nobody answered"


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (1800, "30:00 left of 30:00"),
        (1799.2, "30:00 left of 30:00"),
        (61, "1:01 left of 30:00"),
        (60, "1:00 left of 30:00"),
        (9.1, "0:10 left of 30:00"),
        (0.2, "0:01 left of 30:00"),
        (0, "expired, being renewed"),
        (-5, "expired, being renewed"),
    ],
)
def test_the_binding_counts_down_in_minutes_and_seconds(left, words):
    snapshot = replace(trusted(NOW), binding_expires=NOW + left)
    assert line(view(snapshot), "Binding") == words


def test_a_long_lifetime_shows_hours():
    assert line(view(trusted(NOW, lifetime=36_000)), "Binding") == "10:00:00 left of 10:00:00"


def test_a_binding_without_end_is_not_counted():
    snapshot = replace(trusted(NOW), lifetime=0xFFFF, binding_expires=None)
    shown = view(snapshot)
    assert line(shown, "Binding") == "stands, without end"
    assert not shown.counts


def test_only_a_binding_makes_the_view_count():
    assert view(trusted(NOW)).counts
    assert not view(disconnected()).counts
    assert not view(blocked(NOW)).counts
    assert not view(trusted(NOW), service=Service.ABSENT).counts


def test_held_traffic_is_told_with_cause_and_numbers():
    shown = view(blocked(NOW))
    assert line(shown, "Held") == (
        "the VPN gateway gw.example.test does not answer; no program's data leaves this machine meanwhile"
    )
    assert line(shown, "Waiting packets") == "17, 3 dropped"
    assert "gw.example.test does not answer" in shown.tooltip


@pytest.mark.parametrize("engine", TunnelEngine)
def test_what_carries_packets_is_named(engine):
    assert line(view(replace(trusted(NOW), engine=engine)), "Carried by").endswith(f"({engine.value})")


def test_a_fence_that_does_not_hold_is_told_loudly():
    snapshot = replace(blocked(NOW), blocked=Blocked("nft is missing", fence_holds=False))
    assert "does NOT hold" in line(view(snapshot), "Held")


def test_disconnected_shows_no_lines_that_mean_nothing():
    assert labels(view(disconnected())) == ["Mode", "Profile", "Home address"]


def test_no_address_yet_names_what_the_network_gave():
    snapshot = StatusSnapshot(state=ClientState.DETECTING, access_address=IPv4Address("10.1.1.9"))
    assert line(view(snapshot), "Care-of address") == "none yet (this network gave 10.1.1.9)"


@pytest.mark.parametrize(
    ("vpn", "words"),
    [
        (VpnState.DOWN, "down: gone"),
        (VpnState.CONNECTING, "connecting to gw: gone"),
        (VpnState.UP, "up, gateway gw"),
        (VpnState.MOVING, "moving to gw, waiting for the gateway's answer"),
        (VpnState.WAITING, "failed to gw: gone; tries go on"),
        (VpnState.NO_ENGINE, "the IKE service does not answer: gone"),
    ],
)
def test_each_state_of_the_vpn_is_told(vpn, words):
    snapshot = StatusSnapshot(state=ClientState.DETECTING, vpn=vpn, vpn_gateway="gw", vpn_cause="gone")
    assert line(view(snapshot), "VPN") == words


@pytest.mark.parametrize(("mobike", "word"), [(True, "moves along"), (False, "cannot move"), (None, "")])
def test_whether_the_vpn_can_move_is_told(mobike, word):
    assert word in line(view(replace(outside(NOW), vpn_mobike=mobike)), "VPN")


def test_long_lines_are_wrapped_for_the_menu_and_nothing_is_lost():
    (entry,) = [entry for entry in view(trusted(NOW)).lines if entry.label == "Trust"]
    assert all(len(piece) <= 64 for piece in entry.menu_texts)
    assert " ".join(piece.strip() for piece in entry.menu_texts) == entry.text
    assert len(entry.menu_texts) > 1


def test_words_from_the_network_stay_on_one_line():
    snapshot = replace(
        blocked(NOW), blocked=Blocked("evil\n\x1b[31m\u202egateway\r\n" + "x" * 5000, fence_holds=True)
    )
    shown = view(snapshot)
    for text in (shown.tooltip, line(shown, "Held")):
        assert text.isprintable()
        assert len(text) <= 300


# --- secrets ---


def test_a_missing_secret_is_named_with_purpose_and_owner():
    shown = view(waiting(NEEDED))
    assert shown.icon is Icon.WAITING
    assert line(shown, "Needed") == "secret “office-key” for the home agent's key, owner alice"


def test_only_the_owner_is_offered_to_give_the_secret():
    assert action(view(waiting(NEEDED), user="alice"), Action.GIVE_SECRET).enabled
    assert Action.GIVE_SECRET not in [entry.action for entry in view(waiting(NEEDED), user="bob").actions]


# --- actions ---


def test_connect_is_offered_when_disconnected_and_the_others_are_not():
    shown = view(disconnected())
    assert [(entry.label, entry.enabled) for entry in shown.actions] == [
        ("Connect", True),
        ("Reconnect", False),
        ("Disconnect", False),
        ("Details…", True),
        ("Quit", True),
    ]


@pytest.mark.parametrize("state", [state for state in ClientState if state is not ClientState.DISCONNECTED])
def test_in_every_other_state_reconnect_and_disconnect_are_offered(state):
    shown = view(StatusSnapshot(state=state))
    assert not action(shown, Action.CONNECT).enabled
    assert action(shown, Action.RECONNECT).enabled
    assert action(shown, Action.DISCONNECT).enabled
    assert action(shown, Action.QUIT).label == "Quit (the connection stays)"


def test_one_profile_is_meant_by_connect():
    assert action(view(disconnected()), Action.CONNECT).profile == "office"


def test_several_profiles_have_an_entry_each():
    shown = view(disconnected(), profiles=("lab", "office"))
    assert [(entry.label, entry.profile) for entry in shown.actions if entry.action is Action.CONNECT] == [
        ("Connect lab", "lab"),
        ("Connect office", "office"),
    ]


# --- health and roams ---


def item(severity: Severity, text: str = "Something", code: str = "code") -> HealthItem:
    return HealthItem(code, severity, text, "Do this.", NOW)


@pytest.mark.parametrize(
    ("severity", "badge"), [(Severity.INFO, False), (Severity.WARNING, True), (Severity.ALARM, True)]
)
def test_what_is_wrong_puts_a_badge_on_the_state_and_stays_the_state(severity, badge):
    shown = view(replace(trusted(NOW), health=(item(severity),)))
    assert (shown.icon, shown.badge) == (Icon.TRUSTED_C, badge)
    assert [(row.text, row.advice) for row in shown.health] == [("Something", "Do this.")]


def test_what_is_wrong_while_disconnected_is_an_icon_of_its_own():
    shown = view(replace(disconnected(), health=(item(Severity.ALARM),)))
    assert (shown.icon, shown.badge) == (Icon.ATTENTION, False)
    assert "Something" in shown.tooltip


def test_icons_that_call_by_themselves_carry_no_badge():
    assert not view(blocked(NOW)).badge


def test_the_trays_own_findings_stand_beside_the_daemons():
    shown = view(
        replace(trusted(NOW), health=(item(Severity.INFO),)), notes=(item(Severity.WARNING, "Keyring"),)
    )
    assert [row.text for row in shown.health] == ["Keyring", "Something"]


def test_an_item_without_words_is_not_shown_as_nothing():
    (row,) = view(replace(trusted(NOW), health=(item(Severity.ALARM, "\n"),))).health
    assert row.text == "code"


def test_roams_are_told_newest_first_with_their_milliseconds():
    snapshot = replace(trusted(NOW), roams=(roam(1, 100.0, "eth0", 0.012), roam(2, 200.0, "wlan0", 0.25)))
    first, second = view(snapshot).roams
    assert (first.title, first.total) == ("Roam 2 on wlan0", "250 ms")
    assert first.steps == "asked 1.0 ms, verdict 175 ms, registered 200 ms"
    assert (second.title, second.total) == ("Roam 1 on eth0", "12 ms")


def test_a_roam_that_goes_on_has_no_total():
    going = Roam(3, "", (RoamPhase("link", 5.0), RoamPhase("probe", 5.002)), finished=False)
    (row,) = view(replace(trusted(NOW), roams=(going,))).roams
    assert (row.title, row.total, row.steps) == ("Roam 3", "not over", "asked 2.0 ms")


def test_a_roam_without_phases_is_shown():
    (row,) = view(replace(trusted(NOW), roams=(Roam(1, "eth0", (), finished=True),))).roams
    assert (row.total, row.steps) == ("not over", "just begun")


def test_other_links_are_named_with_what_was_learnt():
    others = (OtherLink("wlan0", IPv4Address("10.1.2.77"), Trust.TRUSTED), OtherLink("eth1"))
    lines = view(replace(trusted(NOW), other_links=others)).lines
    assert [line.text for line in lines if line.label == "Other link"] == [
        "Other link: wlan0 (10.1.2.77): a trusted network",
        "Other link: eth1: not asked yet",
    ]


# --- whatever comes ---

_texts = st.text(max_size=40)
_addresses = st.none() | st.builds(IPv4Address, st.integers(0, 2**32 - 1))
_numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(-10, 10**6).map(float)
_items = st.builds(HealthItem, _texts, st.sampled_from(Severity), _texts, _texts, st.floats())
_roams = st.builds(
    Roam,
    st.integers(),
    _texts,
    st.lists(st.builds(RoamPhase, _texts, st.floats()), max_size=4).map(tuple),
    st.booleans(),
)
_needs = st.builds(SecretNeeded, _texts, _texts, _texts, _texts)
_others = st.builds(OtherLink, _texts, _addresses, st.sampled_from(Trust))
_snapshots = st.builds(
    StatusSnapshot,
    revision=st.integers(),
    state=st.sampled_from(ClientState),
    mode=st.sampled_from(AccessMode),
    trust=st.sampled_from(Trust),
    proof=st.none()
    | st.builds(
        Proof, _texts, _addresses, st.none() | st.integers(), _texts, _numbers, _texts, _addresses, _numbers
    ),
    profile=_texts,
    home_address=_addresses,
    home_agent=_addresses,
    care_of_address=_addresses,
    foreign_agent=_addresses,
    udp_tunnel=st.booleans(),
    message=_texts,
    access_link=_texts,
    access_address=_addresses,
    lifetime=st.none() | st.integers(-1, 0xFFFF),
    binding_expires=_numbers,
    vpn=st.sampled_from(VpnState),
    vpn_gateway=_texts,
    vpn_inner_address=_addresses,
    vpn_mobike=st.none() | st.booleans(),
    vpn_cause=_texts,
    blocked=st.none() | st.builds(Blocked, _texts, st.booleans()),
    secrets_needed=st.lists(_needs, max_size=2).map(tuple),
    health=st.lists(_items, max_size=2).map(tuple),
    roams=st.lists(_roams, max_size=2).map(tuple),
    other_links=st.lists(_others, max_size=2).map(tuple),
    held_packets=st.integers(),
    dropped_packets=st.integers(),
    engine=st.none() | st.sampled_from(TunnelEngine),
    traffic=st.builds(TrafficCounts, *[st.integers()] * 4),
)
_seen = st.builds(
    Seen,
    service=st.sampled_from(Service),
    snapshot=st.none() | _snapshots,
    service_version=_texts,
    own_version=_texts,
    profiles=st.none() | st.lists(_texts, max_size=3).map(tuple),
    notes=st.lists(_items, max_size=2).map(tuple),
)


def test_the_strategy_makes_every_field():
    assert {field.name for field in fields(StatusSnapshot)} == set(_snapshots.wrapped_strategy.kwargs)


@given(_seen, st.floats(), _texts)
def test_nothing_raises_and_nothing_is_empty(seen, now, user):
    shown = tray_view(seen, now, user=user)
    texts = [shown.title, shown.tooltip]
    for entry in shown.lines:
        texts += [entry.label, entry.value, entry.text, *entry.menu_texts]
    texts += [entry.label for entry in shown.actions]
    texts += [row.text for row in shown.health]
    for row in shown.roams:
        texts += [row.title, row.total, row.steps]
    assert shown.lines
    for text in texts:
        assert text.strip()
        assert text.isprintable()
    assert [entry.action for entry in shown.actions][-2:] == [Action.DETAILS, Action.QUIT]


@given(_seen, st.floats(allow_nan=False))
def test_green_is_shown_only_for_a_state_that_is_trusted(seen, now):
    shown = tray_view(seen, now)
    if shown.icon in {Icon.TRUSTED_C, Icon.TRUSTED_F, Icon.HOME}:
        assert seen.service is Service.RUNNING
        assert seen.snapshot is not None
        assert seen.snapshot.state in {ClientState.TRUSTED_C, ClientState.TRUSTED_F, ClientState.HOME}
