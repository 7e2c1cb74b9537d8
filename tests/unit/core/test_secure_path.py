# SPDX-License-Identifier: GPL-2.0-or-later
"""The VPN machine: every state against every report, the ones it ignores included."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.core.secure_path import SecurePath
from homeward.model.access import Attachment
from homeward.model.effects import CheckVpn, Effect, MoveVpn, ResolveGateway, StartVpn, StopVpn
from homeward.model.profile import GatewaySettings, SecretReference, Timers
from homeward.model.vpn import (
    EngineFound,
    EngineLost,
    VpnAnswered,
    VpnEstablished,
    VpnFailed,
    VpnLost,
    VpnMoved,
    VpnReport,
    VpnState,
)

HERE, ELSEWHERE = IPv4Address("198.51.100.10"), IPv4Address("203.0.113.7")
GATEWAY, INNER = IPv4Address("192.0.2.1"), IPv4Address("10.9.0.5")


def attachment(address: IPv4Address = HERE, serial: int = 1) -> Attachment:
    return Attachment(serial, 2, "eth0", address, gateway=None, mtu=1500)


def established(local: IPv4Address = HERE) -> VpnEstablished:
    return VpnEstablished(local, GATEWAY, INNER, mobike=True, behind_nat=False)


def make(host: str = "192.0.2.1") -> SecurePath:
    reference = SecretReference("psk", "")
    settings = GatewaySettings(host, "mn", "gw", reference, (IPv4Network("10.0.0.0/8"),))
    return SecurePath(settings, Timers())


def in_state(state: VpnState) -> SecurePath:
    path = make()
    if state is VpnState.NO_ENGINE:
        path.report(EngineLost("no charon"), 0.0)
        path.attach(attachment(), 0.0)
        return path
    if state is VpnState.DOWN:
        return path
    path.attach(attachment(), 0.0)
    if state is VpnState.WAITING:
        path.report(VpnFailed("gateway-unreachable", "no answer"), 0.0)
    if state in (VpnState.UP, VpnState.MOVING):
        path.report(established(), 0.0)
    if state is VpnState.MOVING:
        path.attach(attachment(ELSEWHERE, 2), 1.0)
    assert path.state is state
    return path


REPORTS: dict[str, VpnReport] = {
    "established here": established(),
    "established elsewhere": established(ELSEWHERE),
    "moved here": VpnMoved(HERE, GATEWAY),
    "moved elsewhere": VpnMoved(ELSEWHERE, GATEWAY),
    "answered here": VpnAnswered(HERE),
    "lost": VpnLost("deleted"),
    "failed": VpnFailed("authentication-failed", "wrong key"),
    "engine lost": EngineLost("crashed"),
    "engine found": EngineFound("5.9.8"),
}

D, C, U, M, W, N = (
    VpnState.DOWN,
    VpnState.CONNECTING,
    VpnState.UP,
    VpnState.MOVING,
    VpnState.WAITING,
    VpnState.NO_ENGINE,
)

# Per state: what each report leads to, in the order of REPORTS; * = the gateway has proved itself on this attachment.
TABLE = {
    D: [(U, 0), (U, 0), (D, 0), (D, 0), (D, 0), (D, 0), (D, 0), (N, 0), (D, 0)],
    C: [(U, 1), (U, 0), (C, 0), (C, 0), (C, 0), (W, 0), (W, 0), (N, 0), (C, 0)],
    U: [(U, 1), (U, 0), (U, 1), (U, 0), (U, 1), (W, 0), (W, 0), (N, 0), (U, 0)],
    M: [(U, 0), (U, 1), (M, 0), (U, 1), (M, 0), (W, 0), (W, 0), (N, 0), (M, 0)],
    W: [(U, 1), (U, 0), (W, 0), (W, 0), (W, 0), (W, 0), (W, 0), (N, 0), (W, 0)],
    N: [(U, 1), (U, 0), (N, 0), (N, 0), (N, 0), (N, 0), (N, 0), (N, 0), (C, 0)],
}


@pytest.mark.rows("R-265")
@pytest.mark.parametrize("state", TABLE, ids=lambda state: state.value)
@pytest.mark.parametrize("name", REPORTS)
def test_every_state_against_every_report(state: VpnState, name: str) -> None:
    path = in_state(state)
    step = path.report(REPORTS[name], 2.0)
    expected_state, proved = TABLE[state][list(REPORTS).index(name)]
    assert path.state is expected_state
    assert step.proved is bool(proved)
    assert (path.inner is not None) is (path.state in (U, M))


@pytest.mark.rows("R-28", "R-44")
@pytest.mark.parametrize(
    ("state", "effects"),
    [
        (D, (StartVpn(GATEWAY, ELSEWHERE),)),
        (C, (StopVpn("the access address changed before the VPN was up"), StartVpn(GATEWAY, ELSEWHERE))),
        (U, (MoveVpn(ELSEWHERE),)),
        (M, (CheckVpn(),)),
        (W, (StartVpn(GATEWAY, ELSEWHERE),)),
        (N, ()),
    ],
    ids=str,
)
def test_new_attachment_in_every_state(state: VpnState, effects: tuple[Effect, ...]) -> None:
    path = in_state(state)
    if state is M:
        path.report(VpnMoved(ELSEWHERE, GATEWAY), 1.5)
    assert path.attach(attachment(ELSEWHERE, 3), 2.0) == effects


@pytest.mark.rows("R-40")
@pytest.mark.parametrize("state", [C, U, M, W], ids=str)
def test_close_in_every_state_stops_and_wants_nothing_more(state: VpnState) -> None:
    path = in_state(state)
    assert path.close("trusted") == (StopVpn("trusted"),)
    assert path.state is D
    assert path.deadline is None
    assert path.report(VpnLost("deleted"), 3.0).effects == ()
    assert path.deadline is None


def test_answer_that_overtook_the_order_to_stop_is_stopped_again() -> None:
    path = in_state(C)
    path.close("trusted")
    assert path.report(established(), 1.0).effects == (StopVpn("the VPN is not needed here"),)
    assert path.state is D


def test_sa_that_the_engine_still_holds_is_adopted_and_checked() -> None:
    path = in_state(D)
    path.report(established(), 0.0)
    assert path.attach(attachment(), 1.0) == (CheckVpn(),)


def test_tries_back_off_and_never_end() -> None:
    path = in_state(C)
    pauses = []
    at = 0.0
    for _ in range(9):
        path.report(VpnFailed("gateway-unreachable", "no answer"), at)
        assert path.deadline is not None
        pauses.append(path.deadline - at)
        at = path.deadline
        assert path.deadline_passed(at) == (StartVpn(GATEWAY, HERE),)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_silent_gateway_after_a_move_gets_a_fresh_start() -> None:
    path = in_state(M)
    assert path.deadline == 1.0 + Timers().vpn_answer
    effects = path.deadline_passed(path.deadline)
    assert [type(effect) for effect in effects] == [StopVpn, StartVpn]


def test_name_is_resolved_and_after_two_failures_resolved_again() -> None:
    path = make("gw.example.test")
    assert path.attach(attachment(), 0.0) == (ResolveGateway("gw.example.test", 2),)
    assert path.resolved((GATEWAY,), "", 0.1) == (StartVpn(GATEWAY, HERE),)
    for at in (1.0, 10.0):
        path.report(VpnFailed("gateway-unreachable", "no answer"), at)
        assert path.deadline is not None
        effects = path.deadline_passed(path.deadline)
    assert effects == (ResolveGateway("gw.example.test", 2),)


def test_name_that_is_not_found_is_a_failure_with_its_cause() -> None:
    path = make("gw.example.test")
    path.attach(attachment(), 0.0)
    path.resolved((), "no such name", 0.1)
    assert (path.state, path.code, path.cause) == (W, "gateway-unknown", "no such name")


def test_no_link_ends_tries_but_keeps_the_sas() -> None:
    path = in_state(U)
    path.detach()
    assert (path.state, path.inner) == (U, INNER)
    path = in_state(W)
    path.detach()
    assert (path.state, path.deadline) == (D, None)
