# SPDX-License-Identifier: GPL-2.0-or-later
"""Root and whoever sits at the machine may act; everybody else is refused and told why."""

import logging
from collections.abc import Callable

import pytest

from homeward.bus.control import Caller
from homeward.bus.errors import BadProfile, NoSuchProfile, Refused
from homeward.bus.messages import ProfileSummary
from homeward.daemon.guard import GuardedControl, find_profile, summarise
from homeward.daemon.permissions import Permissions, require_may_use
from homeward.daemon.settings import ProfileFault, Profiles
from homeward.model.errors import Unavailable
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot
from tests.unit.daemon.parts import ALICE, BOB, ROOT, profile

NAMES = {1001: "alice", 1002: "bob"}


class FixedSessions:
    def __init__(self, *users: int, gone: bool = False) -> None:
        self.users, self.gone = users, gone

    async def active_local_users(self) -> frozenset[int]:
        if self.gone:
            raise Unavailable("ask systemd-logind for the active session", "nobody there")
        return frozenset(self.users)


class Recorder:
    """A Control that writes down what reached it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Caller]] = []

    async def connect(self, profile: str, caller: Caller) -> None:
        self.calls.append((f"connect {profile}", caller))

    async def disconnect(self, caller: Caller) -> None:
        self.calls.append(("disconnect", caller))

    async def reconnect(self, caller: Caller) -> None:
        self.calls.append(("reconnect", caller))

    async def offer_secret(self, reference: str, secret: Secret, caller: Caller) -> None:
        self.calls.append((f"offer {reference}", caller))

    async def profiles(self) -> tuple[ProfileSummary, ...]:
        return ()

    def snapshot(self) -> StatusSnapshot:
        return StatusSnapshot(revision=7)


PROFILES = Profiles(
    {"office": profile(owner="alice"), "kiosk": profile("kiosk", owner="machine")},
    {"office": "/p/office.toml", "kiosk": "/p/kiosk.toml"},
    (ProfileFault("broken", "/p/broken.toml", "/p/broken.toml: spi: found 3"),),
)


def guarded(sessions: FixedSessions) -> tuple[GuardedControl, Recorder]:
    inner = Recorder()
    permissions = Permissions(sessions, name_of=lambda uid: NAMES.get(uid, str(uid)))
    return GuardedControl(inner, permissions, lambda: PROFILES), inner


ACTS: dict[str, Callable[[GuardedControl, Caller], object]] = {
    "connect kiosk": lambda control, caller: control.connect("kiosk", caller),
    "disconnect": lambda control, caller: control.disconnect(caller),
    "reconnect": lambda control, caller: control.reconnect(caller),
}


@pytest.mark.parametrize("act", ACTS)
async def test_who_may_act(act: str) -> None:
    control, inner = guarded(FixedSessions(ALICE.uid))
    await ACTS[act](control, ROOT)  # type: ignore[misc]
    await ACTS[act](control, ALICE)  # type: ignore[misc]
    with pytest.raises(
        Refused, match=r"bob \(user id 1002\) may not .*\(that is alice\)\. Log in at the machine"
    ):
        await ACTS[act](control, BOB)  # type: ignore[misc]
    assert inner.calls == [(act, ROOT), (act, ALICE)]


async def test_switching_users_switches_who_may() -> None:
    sessions = FixedSessions(ALICE.uid)
    control, _inner = guarded(sessions)
    await control.reconnect(ALICE)
    sessions.users = (BOB.uid,)
    await control.reconnect(BOB)
    with pytest.raises(Refused, match="that is bob"):
        await control.reconnect(ALICE)
    sessions.users = ()
    with pytest.raises(Refused, match="nobody is logged in at the machine itself"):
        await control.reconnect(BOB)


async def test_without_logind_only_root_may() -> None:
    control, inner = guarded(FixedSessions(gone=True))
    await control.disconnect(ROOT)
    with pytest.raises(
        Refused, match=r"only root may while systemd-logind cannot say .*nobody there.*Use sudo"
    ):
        await control.disconnect(ALICE)
    assert len(inner.calls) == 1


async def test_somebody_elses_profile() -> None:
    control, inner = guarded(FixedSessions(BOB.uid))
    await control.connect("kiosk", BOB)
    with pytest.raises(Refused, match="it belongs to alice"):
        await control.connect("office", BOB)
    await control.connect("office", ROOT)
    assert [call for call, _caller in inner.calls] == ["connect kiosk", "connect office"]
    require_may_use(ALICE, PROFILES.usable["office"])


async def test_a_name_is_looked_up_after_the_permission() -> None:
    control, _inner = guarded(FixedSessions(ALICE.uid))
    with pytest.raises(Refused):
        await control.connect("nothing", BOB)
    with pytest.raises(NoSuchProfile, match=r"usable are: kiosk, office\..*\n/p/broken\.toml: spi: found 3"):
        await control.connect("nothing", ALICE)
    with pytest.raises(BadProfile, match=r"/p/broken\.toml: spi: found 3"):
        await control.connect("broken", ALICE)


async def test_reading_and_offering_pass() -> None:
    control, inner = guarded(FixedSessions(gone=True))
    assert control.snapshot().revision == 7
    assert await control.profiles() == ()
    await control.offer_secret("mn-ha", Secret(b"x"), BOB)  # the store judges it
    assert inner.calls == [("offer mn-ha", BOB)]


async def test_a_refused_caller_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    control, _inner = guarded(FixedSessions(ALICE.uid))
    for _ in range(50):
        with pytest.raises(Refused):
            await control.disconnect(BOB)
    assert len(caplog.records) == 1


def test_summaries() -> None:
    assert find_profile(PROFILES, "office").owner == "alice"
    broken, kiosk, office = summarise(PROFILES)
    assert (broken.name, broken.problem) == ("broken", "/p/broken.toml: spi: found 3")
    assert (kiosk.name, kiosk.owner, kiosk.problem) == ("kiosk", "machine", "")
    assert (office.file, office.gateway) == ("/p/office.toml", "gw.example.test")
