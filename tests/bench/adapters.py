# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev bench adapters`: how soon links are seen to change, and how soon TCP goes on when its path does."""

import asyncio
import time
from pathlib import Path
from typing import Final

from homeward.adapters.tunnel_device import set_mtu
from homeward.model.plan import Held
from tests.bench.figures import Figures, Row
from tests.bench.handover.walk import Say
from tests.component.test_moving_connection import Scene, Transfer
from tests.contract.test_links import Pictures, RealWorld
from tests.world.namespaces import Namespace
from tests.world.stations import Stations, eventually

TOLD: Final = 5.0
GOES_ON: Final = 50.0
_CHANGES: Final = 20
_MOVES: Final = 3


async def _changes_told() -> list[float]:
    """Milliseconds from each change to the picture that shows it."""
    here, there = Namespace(), Namespace()
    try:
        with here:
            world = RealWorld(here, there)
            pictures = Pictures()
            world.lend()
            await world.links.start(pictures)
            took = [await _told(pictures, mtu) for mtu in range(1400, 1400 + _CHANGES)]
            await world.links.stop()
    finally:
        here.close()
        there.close()
    return took


async def _told(pictures: Pictures, mtu: int) -> float:
    set_mtu("eth0", mtu)
    done = time.perf_counter()
    await eventually(lambda: pictures.eth0 and pictures.eth0.mtu == mtu)
    return (pictures.at[-1] - done) * 1000


async def _pauses(folder: Path) -> tuple[list[float], list[float]]:
    """Milliseconds from each opened gate to the next octet of one connection: into the VPN, and out of it."""
    narrower: list[float] = []
    wider: list[float] = []
    with Stations() as stations:
        scene = Scene(stations, folder)
        await scene.apply(scene.clear)
        transfer = Transfer()
        await transfer.open(stations)
        for pauses, traffic in ((narrower, scene.inside_vpn), (wider, scene.clear)) * _MOVES:
            await asyncio.sleep(0.3)
            scene.plans.hold()
            await scene.apply(Held())
            await asyncio.sleep(0.1)
            await scene.apply(traffic)
            pauses.append(await transfer.first_octet_after(time.perf_counter()) * 1000)
        whole = await transfer.finish()
        await scene.close()
    assert whole, "octets were lost or changed"
    return narrower, wider


def measure(folder: Path, say: Say) -> Figures:
    """Both, one after the other."""
    told = asyncio.run(_changes_told())
    say("links were changed")
    narrower, wider = asyncio.run(_pauses(folder))
    say("a connection was moved")
    return Figures(
        (
            Row("a change of a link is told after", round(min(told), 2), "ms", TOLD),
            Row("TCP goes on after its path became narrower", round(min(narrower), 2), "ms", GOES_ON),
            Row("TCP goes on after its path became wider", round(min(wider), 2), "ms", GOES_ON),
        )
    )
