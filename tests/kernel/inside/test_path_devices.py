# SPDX-License-Identifier: GPL-2.0-or-later
"""The fast path by links that are made of others, or have no MAC header: one connection each way, by the kernel."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from pathlib import Path

import pytest

from homeward.model.tunnel_engine import TunnelEngine
from tests.component.test_moving_connection import Scene, Transfer
from tests.kernel.inside.radios import give_radios
from tests.world.namespaces import Namespace
from tests.world.stations import CARE_OF, ROUTER, Stations

BPF, IPIP = TunnelEngine.BPF, TunnelEngine.IPIP
MADE_OF = {
    "bridge": ["link add eth0 type bridge", "link set wire0 master eth0 up"],
    "bond": ["link add eth0 type bond mode active-backup", "link set wire0 master eth0"],
    "vlan": ["link add link wire0 name eth0 type vlan id 7", "link set wire0 up"],
}


WITHOUT_MAC_HEADER = "no MAC header"
WIFI = "Wi-Fi"


def build(stations: Stations, between: Namespace, kind: str) -> None:
    """What was eth0 is a part of it now."""
    stations.laptop.batch("link set eth0 down", "link set eth0 name wire0")
    if kind == WITHOUT_MAC_HEADER:
        lay_tunnel(stations, between)
    elif kind == WIFI:
        give_radios((stations.laptop, "eth0"), (stations.agent, "air0"))
        stations.agent.batch(f"addr del {ROUTER}/24 dev lan0", f"addr add {ROUTER}/24 dev air0")
    else:
        stations.laptop.batch(*MADE_OF[kind])
    stations.laptop.batch(
        "link set eth0 up",
        "addr flush dev wire0",
        f"addr add {CARE_OF}/24 dev eth0",
        f"route replace default via {ROUTER} dev eth0",
    )
    if kind == "vlan":
        stations.agent.batch(
            f"addr del {ROUTER}/24 dev lan0",
            "link add link lan0 name lan7 type vlan id 7",
            "link set lan7 up",
            f"addr add {ROUTER}/24 dev lan7",
        )
    stations.link = socket.if_nametoindex("eth0")


def lay_tunnel(stations: Stations, between: Namespace) -> None:
    """Both ends of a GRE tunnel, whose packets travel where neither the laptop nor its fence is."""
    between.batch(
        "addr add 192.0.2.1/32 dev lo",
        "addr add 192.0.2.2/32 dev lo",
        "link add eth0 mtu 1500 type gre local 192.0.2.1 remote 192.0.2.2",
        "link add lan1 mtu 1500 type gre local 192.0.2.2 remote 192.0.2.1",
        f"link set eth0 netns {stations.laptop.path}",
        f"link set lan1 netns {stations.agent.path}",
    )
    stations.agent.batch(
        f"addr del {ROUTER}/24 dev lan0", "link set lan1 up", f"addr add {ROUTER}/24 dev lan1"
    )


KINDS = [*MADE_OF, WITHOUT_MAC_HEADER]
CASES = [pytest.param(BPF, kind, id=f"bpf-{kind}") for kind in [*KINDS, WIFI]]
# Wi-Fi once: a kernel has two radios, and they stay with the namespaces that they were given to.
CASES += [pytest.param(IPIP, kind, id=f"ipip-{kind}", marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize(("engine", "kind"), CASES)
async def test_a_connection_is_carried(tmp_path: Path, kind: str, engine: TunnelEngine) -> None:
    with closing(Namespace()) as between, Stations() as stations:
        build(stations, between, kind)
        scene = Scene(stations, tmp_path, udp=engine is BPF, engine=engine)
        await scene.apply(scene.clear)
        assert scene.tunnel.engine is engine
        transfer = Transfer()
        await transfer.open(stations)
        async with asyncio.timeout(20):
            while transfer.arrived < 200_000:  # noqa: ASYNC110 - what is waited for happens in the kernel
                await asyncio.sleep(0.01)
        assert await transfer.finish()
        assert (scene.tunnel.counted.sent, scene.tunnel.counted.received) == (0, 0)
        await scene.close()
