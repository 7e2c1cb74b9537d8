# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's laptop, and hard moves of its cable in which the new address is there in the same instant."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from homeward.bus.client import DaemonClient
from homeward.lab import keys, services
from homeward.lab.build import Builder
from homeward.lab.host import Host
from homeward.lab.measure import Arrival, outage
from homeward.lab.state import LabState
from homeward.lab.topology import (
    ACCESS_NETWORKS,
    CABLE,
    CORRESPONDENT,
    CORRESPONDENT_ADDRESS,
    LAPTOP,
    SWITCH,
    port_name,
)
from homeward.model.status import ClientState, StatusSnapshot
from tests.bench.handover import counter

Say = Callable[[str], None]

OFFICES: Final = ("trust1", "trust2")
ONE_WAY: Final = 0.010
"""Seconds between an office and the core, each way, where the network is slowed down."""
REST: Final = 1.5
"""Seconds after a move until nothing of it is under way any more."""

_PORT: Final = port_name(LAPTOP, CABLE)
_PATIENCE: Final = 20.0
_HOST_NUMBER: Final = 50
"""Of the laptop in each network: below what DHCP gives out."""


class Walk:
    """A laptop in a lab that stands, without a network at first."""

    def __init__(self, state: LabState) -> None:
        self.state = state
        self.laptop = Host(state, LAPTOP)
        self.correspondent = Host(state, CORRESPONDENT)
        self._switch = Host(state, SWITCH)
        self._address: str | None = None

    def slow_down(self) -> None:
        """Put ONE_WAY between each office and the core, in both directions."""
        for office in OFFICES:
            for host, link in (
                (Host(self.state, office), "uplink"),
                (self._switch, port_name(office, "uplink")),
            ):
                delay = f"{ONE_WAY * 1000:g}ms"
                host.run("tc", "qdisc", "add", "dev", link, "root", "netem", "delay", delay)

    # --- the cable ---

    def pull(self) -> None:
        """Out of the network: carrier, address and route go."""
        self._together(self._out())

    def arrive(self, network: str) -> None:
        """The new network's address and route, where the cable is in it already."""
        self._together(self._address_in(network))

    def plug(self, network: str) -> None:
        """The cable into a network; there is no address yet."""
        self._name_server(network)
        self._together([(self._switch, self._into(network))])

    def move(self, network: str) -> float:
        """Out of one network and into another, address and all; when it began, CLOCK_MONOTONIC."""
        self._name_server(network)
        orders = [*self._out(), (self._switch, self._into(network)), *self._address_in(network)]
        began = time.monotonic()
        self._together(orders)
        return began

    def address_in(self, network: str) -> IPv4Address:
        """The laptop's fixed address in that network."""
        return ACCESS_NETWORKS[network].prefix[_HOST_NUMBER]

    def forget_address(self) -> None:
        """Somebody else has taken the fixed address away."""
        self._address = None

    def _out(self) -> list[tuple[Host, tuple[str, ...]]]:
        gone = (f"route flush dev {CABLE}", f"addr del {self._address} dev {CABLE}") if self._address else ()
        self._address = None
        return [(self._switch, (f"link set {_PORT} down nomaster",)), (self.laptop, gone)]

    def _into(self, network: str) -> tuple[str, ...]:
        return (f"link set {_PORT} master {network} up",)

    def _address_in(self, network: str) -> list[tuple[Host, tuple[str, ...]]]:
        place = ACCESS_NETWORKS[network]
        self._address = f"{self.address_in(network)}/{place.prefix.prefixlen}"
        lines = (
            f"addr add {self._address} broadcast {place.prefix.broadcast_address} dev {CABLE}",
            f"route add default via {place.router} dev {CABLE}",
        )
        return [(self.laptop, lines)]

    def _name_server(self, network: str) -> None:
        """As DHCP would; with an address and no name server a client would look for one all the time."""
        line = f"nameserver {ACCESS_NETWORKS[network].router}\n"
        self.laptop.run("tee", "/etc/resolv.conf", text=line)

    def _together(self, orders: list[tuple[Host, tuple[str, ...]]]) -> None:
        """One shell for all: nothing in it waits, so on the virtual clock all orders are carried out in one instant."""
        script = "set -e\n"
        for host, lines in orders:
            batch = "\n".join(lines)
            script += f"nsenter --target={host.pid} --net ip -batch - <<'END'\n{batch}\nEND\n"
        subprocess.run(["sh"], input=script, text=True, check=True)

    # --- the datagrams ---

    @contextmanager
    def counting(self, address: IPv4Address) -> Iterator[Counters]:
        """A datagram a millisecond each way between this address of the laptop and the correspondent, meanwhile."""
        yield from Counters(self, address).run()


class Counters:
    """Both ends of the datagrams; what came can be read after the end."""

    def __init__(self, walk: Walk, address: IPv4Address) -> None:
        self._walk = walk
        self._ends = (
            (walk.laptop, address, CORRESPONDENT_ADDRESS),
            (walk.correspondent, CORRESPONDENT_ADDRESS, address),
        )

    def run(self) -> Iterator[Counters]:
        """Start, yield once, stop. The laptop begins: whoever carries it learns the way back from that."""
        argv = (sys.executable, "-I", "-S", counter.__file__)
        for host, own, other in self._ends:
            host.start("counter", *argv, str(own), str(other), "/run/counter")
            time.sleep(0.5)
        try:
            yield self
        finally:
            for host, _, _ in self._ends:
                host.stop("counter")

    def silences(self, began: float, until: float) -> tuple[float | None, float | None]:
        """The longest silence that a move then caused, up and down, in milliseconds; None: it did not end."""
        found = []
        for host in (self._walk.correspondent, self._walk.laptop):
            octets = (self._walk.state.run(host.name) / "counter").read_bytes()
            came = [Arrival(int(a), b, c) for a, b, c in counter.RECORD.iter_unpack(octets)]
            seconds = outage(came, began, until)
            found.append(None if seconds is None else round(seconds * 1000, 2))
        return found[0], found[1]


class Watch:
    """What homewardd says of itself."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.latest: StatusSnapshot | None = None

    def __call__(self, snapshot: StatusSnapshot | None) -> None:
        self.latest = snapshot
        self._changed.set()

    async def until(self, wanted: Callable[[StatusSnapshot], bool], told: str) -> None:
        """Wait for such a status; AssertionError when it does not come."""
        async with asyncio.timeout(_PATIENCE):
            while self.latest is None or not wanted(self.latest):
                self._changed.clear()
                await self._changed.wait()
        assert self.latest is not None, told

    async def trusted_with(self, address: IPv4Address) -> None:
        """Wait until the binding stands with this care-of address, in mode c."""
        await self.until(
            lambda now: now.state is ClientState.TRUSTED_C and now.care_of_address == address,
            f"trusted with {address}",
        )


@contextmanager
def lab(folder: Path, say: Say) -> Iterator[LabState]:
    """A lab, and its end."""
    state = LabState("bench", folder)
    builder = Builder(state, say)
    builder.up()
    try:
        yield state
    finally:
        builder.down()


@asynccontextmanager
async def connected(state: LabState) -> AsyncIterator[tuple[DaemonClient, Watch]]:
    """homewardd at work with the lab's profile, without a network as yet."""
    address = f"unix:path={state.short()}/hosts/{LAPTOP}/run/{services.SYSTEM_BUS}"
    watch = Watch()
    async with DaemonClient(address) as client:
        await client.watch(watch)
        await client.connect(services.PROFILE)
        drawn = keys.read(state)
        for reference, secret in (
            (keys.MOBILITY_KEY, drawn.mobility),
            (keys.PRE_SHARED_KEY, drawn.pre_shared),
        ):
            await client.offer_secret(reference, secret)
        await watch.until(lambda now: now.state is ClientState.NO_NETWORK, "ready to roam")
        yield client, watch
