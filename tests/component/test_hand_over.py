# SPDX-License-Identifier: GPL-2.0-or-later
"""A hand-over between two trusted networks while an application sends all the time, for each engine.

From the moment that it has returned nothing leaves by the old link; on the new one nothing is missing; and what is
still in flight on the old one comes in for two seconds, and then no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from homeward.model.access import ClearPath
from homeward.model.plan import Tunnelled
from homeward.model.tunnel_engine import TunnelEngine
from homeward.wire.socket_options import SO_RCVBUFFORCE
from tests.world.namespaces import cable
from tests.world.stations import AGENT, HOME, PEER, Stations, eventually
from tests.world.ways import Ways, application, heard, in_ip, in_udp, to_application

pytestmark = pytest.mark.root

BPF, TUN = TunnelEngine.BPF, TunnelEngine.TUN
SECOND = IPv4Address("10.1.2.10")
ACCESS_LINKS = ("eth0", "eth1")
MUCH = 256 << 20
STEADY, AS_FAST_AS_IT_CAN = "0.0005", "0"
SENDER = """
import signal, socket, struct, sys, time
goes_on = True
def end(*_):
    global goes_on
    goes_on = False
signal.signal(signal.SIGTERM, end)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind((sys.argv[1], 0))
pause, number = float(sys.argv[3]), 0
print("ready", flush=True)
while goes_on:
    sender.sendto(struct.pack("!I", number), (sys.argv[2], 9))
    number += 1
    if pause:
        time.sleep(pause)
print(number, flush=True)
"""


class Networks(Ways):
    """A laptop with two cables, each in a network of its own, and a tunnel by either: `kind` is "udp" or "ip-in-ip"."""

    def __init__(self, stations: Stations, state: Path, engine: TunnelEngine, kind: str) -> None:
        cable(stations.laptop, "eth1", stations.agent, "lan1")
        stations.laptop.ip(f"addr add {SECOND}/24 dev eth1")
        stations.laptop.ip("route add default via 10.1.2.1 dev eth1 metric 200")
        stations.agent.ip("addr add 10.1.2.1/24 dev lan1")
        super().__init__(stations, state, engine)
        self.kind = kind
        self.second = ClearPath(socket.if_nametoindex("eth1"), "eth1", SECOND)
        shown = {
            path: stations.laptop.ip(f"-br link show {path.link_name}") for path in (self.clear, self.second)
        }
        self._hardware = {path: words.split()[2] for path, words in shown.items()}
        self.cables = {
            path: Capture(stations, f"lan{at}") for at, path in enumerate((self.clear, self.second))
        }

    def close(self) -> None:
        super().close()
        for each in self.cables.values():
            each.close()

    async def move_to(self, path: ClearPath) -> None:
        room = 1468 if self.kind == "udp" else 1480
        await self.apply(Tunnelled(path, AGENT, room, udp=self.kind == "udp"), access_links=ACCESS_LINKS)

    async def carried(self) -> None:
        """Wait until the engine that is meant has the packets."""
        await eventually(lambda: self.tunnel.engine is self.engine)

    def bring(self, path: ClearPath, packet: Packet) -> None:
        """A packet for the home address comes out of the tunnel to this network."""
        if self.kind == "udp":
            wrapped = in_udp(packet, self.ports.get(path, 9), destination=path.source)
        else:
            wrapped = in_ip(packet, destination=path.source)
        self.put_on_cable(path, wrapped)

    def put_on_cable(self, path: ClearPath, packet: Packet) -> None:
        """A packet comes in by this network's cable."""
        self.cables[path].inject(bytes(Ether(dst=self._hardware[path], type=0x0800)) + bytes(packet))


class Capture:
    """The home address's packets that leave by one cable: the numbers in them."""

    def __init__(self, stations: Stations, device: str) -> None:
        with stations.agent:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._socket.bind((device, 0x0800))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, MUCH)
        self._socket.setblocking(False)

    def inject(self, frame: bytes) -> None:
        self._socket.send(frame)

    def numbers(self) -> list[int]:
        """Those that have come since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (*_, kind, _, _) = self._socket.recvfrom(2048)
                if kind != socket.PACKET_OUTGOING and HOME.packed + PEER.packed in frame:
                    found.append(int.from_bytes(frame[-4:], "big"))
        return found

    def close(self) -> None:
        self._socket.close()


class Sender:
    """An application in a process of its own, which numbers its packets."""

    def __init__(self, pause: str) -> None:
        words = [sys.executable, "-c", SENDER, str(HOME), str(PEER), pause]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> int:
        """How many it has sent."""
        self._process.terminate()
        said, _ = self._process.communicate()
        return int(said)

    def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


@contextlib.contextmanager
def sending(pause: str) -> Iterator[Sender]:
    sender = Sender(pause)
    try:
        yield sender
    finally:
        sender.close()


@pytest.fixture
async def networks(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Networks]:
    engine, kind = request.param
    with Stations() as stations:
        made = Networks(stations, tmp_path, engine, kind)
        yield made
        await made.shut()


by_each_engine = pytest.mark.parametrize(
    "networks",
    [
        pytest.param((BPF, "udp"), id="bpf"),
        pytest.param((TUN, "ip-in-ip"), id="tun"),
        pytest.param((TUN, "udp"), id="tun-udp", marks=pytest.mark.slow),
    ],
    indirect=True,
)


@pytest.mark.rows("R-64", "R-151")
@by_each_engine
async def test_every_packet_leaves_once_by_the_old_link_before_and_by_the_new_one_after(
    networks: Networks,
) -> None:
    old, new = networks.cables[networks.clear], networks.cables[networks.second]
    await networks.move_to(networks.clear)
    with sending(STEADY) as sender:
        await networks.carried()
        await asyncio.sleep(0.1)
        await networks.move_to(networks.second)
        before = old.numbers()
        await networks.carried()
        await asyncio.sleep(0.1)
        assert old.numbers() == []
        count = sender.end()
    await asyncio.sleep(0.05)
    after = new.numbers()
    assert old.numbers() == []
    assert min(len(before), len(after)) > 20
    assert before == list(range(len(before)))
    assert sorted(after) == list(range(len(before), count))
    assert networks.plans.counters() == (0, 0)


@pytest.mark.rows("R-64")
@by_each_engine
async def test_however_fast_an_application_sends_nothing_leaves_by_the_old_link_any_more(
    networks: Networks,
) -> None:
    await move_while_it_sends(networks, AS_FAST_AS_IT_CAN)


async def move_while_it_sends(networks: Networks, pause: str) -> None:
    """There and back, several times. What the queue does not hold is dropped by it, and nothing is sent twice."""
    paths = [networks.clear, networks.second] * 3
    seen: list[int] = []
    await networks.move_to(paths[0])
    with sending(pause):
        for here, there in pairwise(paths):
            await networks.carried()
            await asyncio.sleep(0.05)
            await networks.move_to(there)
            left = networks.cables[here].numbers()
            await networks.carried()
            await asyncio.sleep(0.05)
            first = networks.cables[there].numbers()  # what waited, and what overtook it
            await asyncio.sleep(0.05)
            later = networks.cables[there].numbers()
            assert networks.cables[here].numbers() == []
            assert min(len(left), len(first), len(later)) > 20
            if networks.engine is BPF:  # the process does not keep pace with it
                assert later == list(range(later[0], later[-1] + 1))
            seen += left + first + later
    assert len(set(seen)) == len(seen)


@pytest.mark.rows("R-151")
@by_each_engine
async def test_what_is_in_flight_on_the_old_link_comes_in_for_two_seconds_and_no_longer(
    networks: Networks,
) -> None:
    old, new = networks.clear, networks.second
    await networks.move_to(old)
    await networks.carried()
    with application(HOME) as receiver:

        async def comes(path: ClearPath) -> bool:
            networks.bring(path, to_application(receiver, b"data"))
            return await heard(receiver) == [b"data"]

        assert await comes(old)
        assert not await comes(new), "not yet agreed on"
        moved = time.monotonic()
        await networks.move_to(new)
        opened = time.monotonic()
        await networks.carried()
        assert await comes(old)
        assert await comes(new)
        await asyncio.sleep(moved + 1.7 - time.monotonic())
        assert await comes(old)
        await asyncio.sleep(opened + 2.1 - time.monotonic())
        assert not await comes(old)
        assert await comes(new)


@pytest.mark.rows("R-64")
@by_each_engine
async def test_what_is_still_taken_from_the_old_link_is_judged_as_before(networks: Networks) -> None:
    """By its own link alone, and from the home agent alone."""
    await networks.move_to(networks.clear)
    await networks.move_to(networks.second)
    with application(HOME) as receiver:
        packet = to_application(receiver, b"forged")
        if networks.kind == "udp":
            port = networks.ports[networks.clear]
            right = in_udp(packet, port)
            forged = [in_udp(packet, port, source="10.1.1.66"), in_udp(packet, port, sport=435)]
        else:
            right = in_ip(packet)
            forged = [in_ip(packet, source="10.1.1.66")]
        for each in forged:
            networks.inject(each)
        networks.put_on_cable(networks.second, right)
        assert await heard(receiver) == []
        networks.bring(networks.clear, to_application(receiver, b"genuine"))
        assert await heard(receiver) == [b"genuine"]
