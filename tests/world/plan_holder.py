# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that carries a plan out and holds it until it is killed. Arguments: state directory, link, step to die in.

Steps are names of functions; at the call of the named one the process kills itself as `kill -9` would. With "udp" for a
step it lives, and its tunnel is in UDP, which the kernel carries.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from homeward.adapters import kernel_switches
from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.kernel_tunnels.shortcut import Shortcut
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.tunnel_device import TunnelDevice
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.model.access import ClearPath
from homeward.model.plan import EMPTY_PLAN, Fence, NetworkPlan, Tunnelled
from homeward.model.tunnel_engine import TunnelEngine
from tests.world.stations import AGENT, CARE_OF, HOME

STEPS = {
    "fence": (NftFence, "put_up"),
    "device": (TunnelDevice, "attach"),
    "switches": (KernelSwitches, "set_for"),
    "first switch": (kernel_switches, "_write"),
    "path": (TunnelDevice, "prepare"),
    "addresses": (NetlinkPlans, "_put_addresses"),
    "routes": (NetlinkPlans, "_put_routes"),
    "stale routes": (NetlinkPlans, "_drop_routes"),
    "open": (TunnelDevice, "open"),
    "undo device": (NetlinkPlans, "_delete_home_device"),
    "undo switches": (KernelSwitches, "restore"),
    "undo fence": (NftFence, "take_down"),
}


def the_plan(link: str, *, udp: bool = False) -> NetworkPlan:
    path = ClearPath(socket.if_nametoindex(link), link, CARE_OF)
    everything = (IPv4Network("0.0.0.0/0"),)
    traffic = Tunnelled(path, AGENT, 1468 if udp else 1480, udp=udp)
    return NetworkPlan(HOME, everything, traffic, Fence(AGENT, (), (link,), traffic, None))


def plans(state: Path, registrations: UdpRegistrations | None = None) -> NetlinkPlans:
    tunnel = TunnelDevice(datagrams=registrations, shortcut=Shortcut())
    return NetlinkPlans(tunnel, NftFence(), switches=KernelSwitches(state), tunnel_device=lambda inner: None)


def die_in(step: str) -> None:
    owner, name = STEPS[step]

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, die)


async def hold_in_udp(state: Path, link: str) -> None:
    registrations = UdpRegistrations(lambda inner: None)
    registrations.start(lambda reply: None)
    plan = the_plan(link, udp=True)
    assert isinstance(plan.traffic, Tunnelled)
    registrations.send(plan.traffic.path, AGENT, b"\1request", ttl=64)
    made = plans(state, registrations)
    await made.apply(plan)
    assert made.engine() is TunnelEngine.BPF
    print("ready", flush=True)
    await asyncio.sleep(3600)


async def hold(state: Path, link: str, step: str) -> None:
    if step == "udp":
        await hold_in_udp(state, link)
    if not step.startswith("undo"):
        if step:
            die_in(step)
        await plans(state).apply(the_plan(link))
        print("ready", flush=True)
    else:
        made = plans(state)
        await made.apply(the_plan(link))
        die_in(step)
        await made.apply(EMPTY_PLAN)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(hold(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
