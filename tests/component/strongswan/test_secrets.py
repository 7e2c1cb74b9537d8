# SPDX-License-Identifier: GPL-2.0-or-later
"""The pre-shared key stays where it belongs."""

import base64
import logging
from pathlib import Path

import pytest

from homeward.adapters.strongswan.engine import StrongSwanEngine
from homeward.model.vpn import (
    VpnAnswered,
    VpnFailed,
    VpnMoved,
)
from tests.component.strongswan.steps import connected
from tests.world.two_charons import LAPTOP_CONFIGURATION
from tests.world.vpn_worlds import KEY, NETWORKS, SETTINGS, RealVpnWorld, Reports, secret

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]


def spellings(key: bytes) -> list[bytes]:
    """What the key looks like in a log: as it is, in hexadecimal, in base64, and in charon's own dumps."""
    dumped = " ".join(f"{octet:02X}" for octet in key[:16])
    readable = key.split(b"\xc3")[0]
    return [
        readable,
        key.hex().encode(),
        key.hex().upper().encode(),
        base64.b64encode(key)[:40],
        dumped.encode(),
    ]


def given_away(octets: bytes) -> list[bytes]:
    return [spelling for spelling in spellings(KEY) if spelling in octets]


async def test_the_key_is_in_no_log_no_argument_and_no_file(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await connected(world, engine, reports)
    await engine.check()
    await reports.get(VpnAnswered)
    await engine.move(await world.attach(1))
    await reports.get(VpnMoved)
    await engine.configure(SETTINGS, world.gateway, secret(b"a wrong one"))
    await engine.connect(NETWORKS[1])
    await reports.get(VpnFailed)
    assert given_away(caplog.text.encode()) == []
    assert given_away(repr(reports.all).encode()) == []
    hosts = world.hosts
    assert given_away(hosts.laptop_charon.log.read_bytes()) == []
    process = Path(f"/proc/{hosts.laptop_charon.pid}")
    for name in ("cmdline", "environ"):
        assert given_away((process / name).read_bytes()) == []
    for path in hosts.laptop.run_folder.parent.rglob("*"):
        if path.is_file():
            assert given_away(path.read_bytes()) == [], path


async def test_the_search_for_the_key_finds_it_in_a_charon_that_talks_too_much(
    world: RealVpnWorld, reports: Reports
) -> None:
    charon = world.hosts.laptop_charon
    talkative = LAPTOP_CONFIGURATION.read_text().replace("default = 1\n", "default = 4\n")
    configuration = charon.log.with_name("talkative.conf")
    configuration.write_text(talkative)
    await world.engine_runs(False)
    charon.configuration = configuration
    await world.engine_runs(True)
    engine = world.engine()
    await engine.start(reports)
    try:
        await connected(world, engine, reports)
    finally:
        await engine.stop()
    assert given_away(charon.log.read_bytes())
