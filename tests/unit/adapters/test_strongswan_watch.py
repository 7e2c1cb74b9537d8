# SPDX-License-Identifier: GPL-2.0-or-later
"""A charon that misbehaves: that hangs, or says what nobody understands. The daemon goes on, and says what is wrong."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeward.adapters.strongswan import ViciConnection, watch
from homeward.adapters.strongswan.commands import Commands
from homeward.adapters.strongswan.engine import StrongSwanEngine
from homeward.adapters.strongswan.reports import associations
from homeward.adapters.strongswan.watch import Found, Happened
from homeward.model.errors import IkeError, Unavailable
from homeward.model.vpn import EngineFound, EngineLost, VpnReport


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[str]:
    """A socket that takes connections and never says a word, as of a charon that was stopped or is stuck."""
    path = str(tmp_path / "charon.vici")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        yield path


async def test_charon_that_hangs_does_not_hold_up_the_start(
    hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "GREETING_LIMIT", 0.1)
    reports: list[VpnReport] = []
    engine = StrongSwanEngine(hanging)
    async with asyncio.timeout(5):
        await engine.start(reports.append)
    assert reports == [EngineLost("charon does not answer")]
    async with asyncio.timeout(5):
        await engine.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "charon-events"]


def test_charon_whose_socket_is_full_does_not_answer(hanging: str) -> None:
    waiting = [ViciConnection(hanging, timeout=0.01) for _ in range(17)]  # one more than it lets wait
    with pytest.raises(Unavailable, match="charon does not answer"):
        ViciConnection(hanging, timeout=0.01)
    for each in waiting:
        each.close()


ODD = {"homeward-1": {"local-host": "fe80::1", "remote-host": "192.0.2.1"}}


@pytest.mark.parametrize(
    "section",
    [ODD["homeward-1"], {}, {"local-host": "%any", "remote-host": "%any", "child-sas": "none"}],
    ids=str,
)
def test_association_that_is_not_understood_is_an_error_of_charons(section: dict[str, object]) -> None:
    with pytest.raises(IkeError, match="read what charon says"):
        associations({"homeward-1": section})


async def test_event_that_is_not_understood_does_not_deafen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def standing(_: Commands) -> tuple[()]:
        return ()

    monkeypatch.setattr(Commands, "standing", standing)
    reports: list[VpnReport] = []
    engine = StrongSwanEngine(str(tmp_path / "nowhere"))
    await engine.start(reports.append)
    for news in (Happened("child-updown", {"up": "yes", **ODD}), Found("charon 5.9.8")):
        engine._tell(news)
    async with asyncio.timeout(5):
        while EngineFound("charon 5.9.8") not in reports:  # noqa: ASYNC110 - the engine says nothing else
            await asyncio.sleep(0.01)
    await engine.stop()
