# SPDX-License-Identifier: GPL-2.0-or-later
"""What a hand-over waits for, on the virtual clock.

Run inside the guest as `python -m tests.bench.handover.waiting FOLDER`; leaves waiting.json in the folder, which is the
host's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import platform
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from homeward.lab.access import Cable
from homeward.lab.host import Host, program
from homeward.lab.state import LabState
from homeward.lab.topology import ACCESS_NETWORKS, AGENT_ADDRESS, CABLE, HOME_ADDRESS
from tests.bench.handover.peers import StrongSwan, WireGuard
from tests.bench.handover.walk import OFFICES, REST, Say, Walk, Watch, connected, lab

MOVES: Final = 3
RESULT: Final = "waiting.json"
_WATCHER: Final = "link-watch"

Silence = tuple[float | None, float | None]
"""Up and down, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What was found. `dhcp` is how long a DHCP client took to have an address, in milliseconds."""

    kernel: str
    round_trip: float | None
    ours: list[Silence]
    ours_with_dhcp: Silence
    dhcp: float | None
    peers: dict[str, list[Silence]]


def read(folder: Path) -> Waiting:
    """What a run in the guest has left."""
    return Waiting(**json.loads((folder / RESULT).read_text()))


async def _measure(state: LabState, say: Say) -> Waiting:
    walk = Walk(state)
    walk.slow_down()
    networks = itertools.cycle(OFFICES)
    async with connected(state) as (client, watch):
        # Both once before, so that routers and home agent know each other's hardware addresses as they would.
        for _ in OFFICES:
            await _move_in(walk, watch, next(networks))
        round_trip = _ping(walk)
        with walk.counting(HOME_ADDRESS) as counters:
            began = []
            for _ in range(MOVES):
                began.append(await _move_in(walk, watch, next(networks)))
            pulled, address_at = await _dhcp_move(walk, watch, next(networks))
            ended = time.monotonic()
        ours = [counters.silences(since, until) for since, until in _stages([*began, pulled])]
        with_dhcp = counters.silences(pulled, ended)
        say("Homeward's moves are made")
        await client.disconnect()
    walk.laptop.stop("homewardd")
    walk.laptop.stop("dhcp", signal.SIGKILL)
    walk.laptop.ip(f"addr flush dev {CABLE} scope global")
    peers = _peers(state, walk, networks, say)
    dhcp = None if address_at is None else round((address_at - pulled) * 1000, 2)
    return Waiting(platform.release(), round_trip, ours, with_dhcp, dhcp, peers)


def _stages(moments: list[float]) -> Iterator[tuple[float, float]]:
    return itertools.pairwise(moments)


async def _move_in(walk: Walk, watch: Watch, network: str) -> float:
    began = walk.move(network)
    await watch.trusted_with(walk.address_in(network))
    await asyncio.sleep(REST)
    return began


async def _dhcp_move(walk: Walk, watch: Watch, network: str) -> tuple[float, float | None]:
    """One move as a user has it: when the cable was out, and when the address and its route were there."""
    walk.laptop.start(_WATCHER, *program("link_watch.py"), CABLE)
    await asyncio.sleep(0.5)
    prefix = ACCESS_NETWORKS[network].prefix
    pulled = await asyncio.to_thread(lambda: Cable(walk.state).plug(network).pulled)
    walk.forget_address()
    await watch.until(
        lambda now: now.care_of_address is not None and now.care_of_address in prefix, "moved with DHCP"
    )
    await asyncio.sleep(REST)
    address_at, here = None, False
    for line in walk.state.log(walk.laptop.name, _WATCHER).read_text().splitlines():
        _, moment, event, *about = line.split()
        if event == "address" and IPv4Address(about[0]) in prefix:
            here = True
        elif event == "route" and here and address_at is None:
            address_at = float(moment)
    return pulled, address_at


def _ping(walk: Walk) -> float | None:
    """The median round trip from an office's router, which is the laptop's way, to the home agent; milliseconds."""
    said = Host(walk.state, OFFICES[0]).run("ping", "-c", "3", "-i", "0.2", str(AGENT_ADDRESS)).stdout
    times = sorted(float(each) for each in re.findall(r"time=([\d.]+)", said))
    return times[len(times) // 2] if times else None


def _peers(state: LabState, walk: Walk, networks: Iterator[str], say: Say) -> dict[str, list[Silence]]:
    network = next(networks)
    walk.move(network)
    found = {}
    for peer in (WireGuard(state, walk.address_in(network)), StrongSwan(state)):
        with walk.counting(peer.start()) as counters:
            began = []
            for _ in range(MOVES):
                began.append(walk.move(next(networks)))
                time.sleep(REST)
            began.append(time.monotonic())
        found[peer.name] = [counters.silences(since, until) for since, until in _stages(began)]
        peer.stop()
        say(f"{peer.name} has moved")
    return found


def _say(line: str) -> None:
    print(f"{time.monotonic():9.3f}  {line}", flush=True)


def main(folder: Path) -> None:
    """Measure and write."""
    with lab(Path("/run/bench"), _say) as state:
        try:
            found = asyncio.run(_measure(state, _say))
        except BaseException:
            for log in sorted((state.host("laptop") / "log").glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
            raise
    (folder / RESULT).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
