# SPDX-License-Identifier: GPL-2.0-or-later
"""The bridge against a real service on a private bus; no Qt."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from homeward import __version__
from homeward.bus.errors import Refused
from homeward.bus.messages import ProfileSummary
from homeward.gui.bridge import Bridge
from homeward.gui.view_model import Action, Icon, Seen, Service, tray_view
from homeward.model.health import Severity
from homeward.model.secret import Secret
from homeward.model.status import ClientState
from tests.gui.scripted import ScriptedDaemon, boot, disconnected, trusted, waiting
from tests.gui.session import PrivateBus, until


@asynccontextmanager
async def bridged(address: str) -> AsyncIterator[tuple[Bridge, list[Seen]]]:
    shown: list[Seen] = []
    bridge = Bridge(address, shown.append, retry=0.05)
    await bridge.start()
    try:
        yield bridge, shown
    finally:
        await bridge.stop()


async def test_the_snapshot_reaches_the_screen(bus):
    async with ScriptedDaemon(bus) as daemon, bridged(bus) as (bridge, shown):
        daemon.show(trusted())
        await until(
            lambda: bridge.seen.snapshot and bridge.seen.snapshot.state is ClientState.TRUSTED_C, "snapshot"
        )
        assert bridge.seen.service is Service.RUNNING
        assert shown[-1] == bridge.seen
        assert tray_view(bridge.seen, boot()).icon is Icon.TRUSTED_C


async def test_version_and_profiles_are_asked_for_at_the_first_sight(bus):
    async with ScriptedDaemon(bus), bridged(bus) as (bridge, _):
        await until(lambda: bridge.seen.profiles is not None, "profiles")
        assert bridge.seen.profiles == ("office",)
        assert bridge.seen.service_version == __version__


async def test_another_version_is_seen(bus):
    async with ScriptedDaemon(bus, version="99.0"), bridged(bus) as (bridge, _):
        await until(lambda: bridge.seen.service_version == "99.0", "version")
        assert tray_view(bridge.seen, boot()).title == "Tray and service do not match"


async def test_no_daemon_yet_is_shown_and_waited_for(bus):
    async with bridged(bus) as (bridge, _):
        await until(lambda: bridge.seen.service is Service.ABSENT, "absence")
        async with ScriptedDaemon(bus):
            await until(lambda: bridge.seen.service is Service.RUNNING, "daemon")


async def test_a_daemon_that_goes_and_comes_back_is_shown(bus):
    async with bridged(bus) as (bridge, _):
        async with ScriptedDaemon(bus) as daemon:
            daemon.show(trusted())
            await until(
                lambda: bridge.seen.snapshot and bridge.seen.snapshot.state is ClientState.TRUSTED_C,
                "snapshot",
            )
        await until(lambda: bridge.seen.service is Service.ABSENT, "absence")
        assert bridge.seen.snapshot is None
        async with ScriptedDaemon(bus, version="99.0"):
            # Its revisions begin anew, and so must ours.
            await until(lambda: bridge.seen.service_version == "99.0", "the next daemon")
            assert bridge.seen.snapshot is not None
            assert bridge.seen.snapshot.state is ClientState.DISCONNECTED


async def test_no_bus_yet_is_shown_and_waited_for(tmp_path):
    folder = tmp_path / "late"
    async with bridged(f"unix:path={folder}/socket") as (bridge, _):
        await until(lambda: bridge.seen.service is Service.ABSENT, "absence")
        with PrivateBus(folder) as address:
            async with ScriptedDaemon(address):
                await until(lambda: bridge.seen.service is Service.RUNNING, "daemon")


@pytest.mark.parametrize(
    ("action", "profile", "call"),
    [
        (Action.CONNECT, "office", ("connect", "office")),
        (Action.CONNECT, "", ("connect", "office")),
        (Action.RECONNECT, "", ("reconnect", "")),
        (Action.DISCONNECT, "", ("disconnect", "")),
    ],
)
async def test_wishes_reach_the_daemon(bus, action, profile, call):
    async with ScriptedDaemon(bus) as daemon, bridged(bus) as (bridge, _):
        await until(lambda: bridge.seen.service is Service.RUNNING, "daemon")
        bridge.run(action, profile)
        await until(lambda: daemon.calls == [call], "call")
        assert not bridge.seen.notes


async def test_connect_without_any_profile_says_what_to_do(bus):
    async with ScriptedDaemon(bus) as daemon, bridged(bus) as (bridge, _):
        daemon.summaries = ()
        await until(lambda: bridge.seen.service is Service.RUNNING, "daemon")
        bridge.run(Action.CONNECT)
        await until(lambda: bridge.seen.notes, "note")
        assert "/etc/homeward/profiles.d" in bridge.seen.notes[0].text
        assert not daemon.calls


async def test_a_refused_wish_is_shown_until_the_next_one_is_granted(bus):
    async with ScriptedDaemon(bus) as daemon, bridged(bus) as (bridge, _):
        await until(lambda: bridge.seen.service is Service.RUNNING, "daemon")
        daemon.refusal = Refused("only root and the user of the active session may do that")
        bridge.run(Action.DISCONNECT)
        await until(lambda: bridge.seen.notes, "note")
        (note,) = bridge.seen.notes
        assert note.severity is Severity.WARNING
        assert note.text.startswith("Disconnect was not carried out: only root")
        daemon.refusal = None
        bridge.run(Action.DISCONNECT)
        await until(lambda: not bridge.seen.notes, "the note to go")


async def test_a_wish_without_a_daemon_is_answered(bus):
    async with bridged(bus) as (bridge, _):
        await until(lambda: bridge.seen.service is Service.ABSENT, "absence")
        bridge.run(Action.RECONNECT)
        await until(lambda: bridge.seen.notes, "note")
        assert "systemctl start homewardd" in bridge.seen.notes[0].text


async def test_an_unusable_profile_is_shown_with_its_problem_and_cannot_be_connected(bus):
    async with ScriptedDaemon(bus) as daemon, bridged(bus) as (bridge, _):
        daemon.summaries = (
            ProfileSummary("office"),
            ProfileSummary(
                "typo", file="/etc/homeward/profiles.d/typo.toml", problem="unknown key home_agnet"
            ),
        )
        bridge.refresh()
        await until(lambda: bridge.seen.notes, "note")
        assert bridge.seen.profiles == ("office",)
        assert "unknown key home_agnet" in bridge.seen.notes[0].text
        assert "/etc/homeward/profiles.d/typo.toml" in bridge.seen.notes[0].advice
        daemon.summaries = (ProfileSummary("office"), ProfileSummary("typo"))
        bridge.refresh()
        await until(lambda: bridge.seen.profiles == ("office", "typo"), "the mended profile")
        assert not bridge.seen.notes


async def test_secrets_pass_to_the_daemon(bus):
    async with ScriptedDaemon(bus) as daemon, bridged(bus) as (bridge, _):
        daemon.show(waiting())
        await until(lambda: bridge.seen.service is Service.RUNNING, "daemon")
        await bridge.offer_secret("office-key", Secret(b"0123456789abcdef"))
        assert daemon.offered == {"office-key": b"0123456789abcdef"}


async def test_the_same_picture_is_drawn_once(bus):
    async with ScriptedDaemon(bus) as daemon, bridged(bus) as (bridge, shown):
        await until(lambda: bridge.seen.profiles is not None, "profiles")
        before = len(shown)
        bridge.refresh()
        daemon.show(replace(disconnected(), held_packets=1))
        await until(lambda: bridge.seen.snapshot and bridge.seen.snapshot.held_packets == 1, "snapshot")
        assert len(shown) == before + 1


async def test_actions_of_the_tray_itself_are_not_sent(bus):
    async with bridged(bus) as (bridge, _):
        with pytest.raises(ValueError, match="not the daemon's business"):
            bridge.run(Action.QUIT)
