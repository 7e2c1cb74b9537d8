# SPDX-License-Identifier: GPL-2.0-or-later
"""What homewardd works in a hand-over, on the real clock: processor time, whole tables asked for, processes started.

A move here has two halves with a pause between, as where DHCP takes its time: the old network is lost and homewardd
comes to rest; then the new address is set. The second half ends when the first packet leaves in the tunnel. Some more
moves are made in one instant, without the pause.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import AGENT_ADDRESS, CABLE, CORRESPONDENT_ADDRESS, HOME_ADDRESS
from tests.bench.handover.walk import OFFICES, Say, Walk, Watch, connected, lab
from tests.lab.laptop import network_of

MOVES: Final = 5
TRACED: Final = 2
_REST: Final = 1.0
_ETH_P_ALL: Final = 3  # what leaves is shown to nobody who asks for less
_ETH_P_IP: Final = 0x0800
_PACKET_OUTGOING: Final = 4
_IN_IP: Final = 4
_PATIENCE: Final = 20.0
_TRACER: Final = (
    "strace", "-f", "-qq", "-yy", "-ttt", "-X", "raw",
    "-e", "trace=sendto,sendmsg,sendmmsg,write,writev,clone,clone3,fork,vfork",
)  # fmt: skip
_MESSAGE: Final = re.compile(r"nlmsg_type=[^,]+, nlmsg_flags=(0x[0-9a-f]+)")
_DUMP: Final = 0x300
_CREATE: Final = 0x400
_FLAGS: Final = re.compile(r"flags=(0x[0-9a-f]+)")
_CLONE_THREAD: Final = 0x10000


@dataclass(frozen=True, slots=True)
class Half:
    """One move. Processor time in milliseconds: until the network was lost, and until the gate opened in the new one.

    `seconds` is by the clock, from the new address to the gate; `began`, `address`, `gate` are of the wall clock.
    """

    lost: float
    work: float
    took: float
    began: float
    address: float
    gate: float


@dataclass(frozen=True, slots=True)
class Work:
    """What was found: the moves, and of others how many dumps (from the address on, and in all) and processes.

    `at_once` is the processor time, in milliseconds, of moves in one instant.
    """

    moves: tuple[Half, ...]
    at_once: tuple[float, ...]
    dumps: tuple[int, ...]
    dumps_in_all: tuple[int, ...]
    processes: tuple[int, ...]


def daemon(laptop: Host) -> int:
    """homewardd's process number, as it is seen from outside its host."""
    space = (Path("/proc") / str(laptop.pid) / "ns" / "pid").stat().st_ino
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            inside = (folder / "ns" / "pid").stat().st_ino == space
            if inside and b"homeward.daemon.main" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError("homewardd does not run")


def worked(process: int) -> float:
    """What a process and all its threads have had of the processors, user and system, in seconds to the nanosecond."""
    return time.clock_gettime(
        (~process << 3) | 2
    )  # CPUCLOCK_SCHED of that process, as clock_getcpuclockid(3) has it


class Gate:
    """Sees the first packet that leaves in the tunnel with a care-of address, and takes the time, and homewardd's."""

    def __init__(self, laptop: Host, process: int, care_of: IPv4Address) -> None:
        self._process = process
        self._ends_of_tunnel = care_of.packed + AGENT_ADDRESS.packed
        with network_of(laptop):
            kind = socket.SOCK_DGRAM
            self._tap = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
            self._tap.bind((CABLE, _ETH_P_ALL))
        self._tap.settimeout(0.2)
        self._opened = threading.Event()
        self._ends = False
        self.at, self.wall, self.worked = 0.0, 0.0, 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ends:
            try:
                packet, address = self._tap.recvfrom(0xFFFF)
            except TimeoutError:
                continue
            if (
                address[2] == _PACKET_OUTGOING
                and packet[9] == _IN_IP
                and packet[16:20] == AGENT_ADDRESS.packed
            ):
                self.worked, self.at, self.wall = worked(self._process), time.monotonic(), time.time()
                self._opened.set()
                return

    @property
    def seen(self) -> bool:
        return self._opened.is_set()

    def wait(self) -> None:
        """Until it was seen; AssertionError when it is not."""
        seen = self._opened.wait(_PATIENCE)
        self.close()
        assert seen, "nothing left in the tunnel"

    def close(self) -> None:
        self._ends = True
        self._thread.join()
        self._tap.close()


async def _move(walk: Walk, watch: Watch, process: int, network: str) -> Half:
    before, began = worked(process), time.time()
    walk.pull()
    walk.plug(network)
    await asyncio.sleep(_REST)
    lost = worked(process) - before
    with network_of(walk.laptop):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.bind((str(HOME_ADDRESS), 0))
        gate = Gate(walk.laptop, process, walk.address_in(network))
        try:
            # One packet that waits for the gate: it is what shows that it is open.
            sender.sendto(struct.pack("!d", time.monotonic()), (str(CORRESPONDENT_ADDRESS), 9))
            before, at, address = worked(process), time.monotonic(), time.time()
            walk.arrive(network)
            await asyncio.to_thread(gate.wait)
        finally:
            gate.close()
    await watch.trusted_with(walk.address_in(network))
    await asyncio.sleep(_REST)
    return Half(lost * 1e3, (gate.worked - before) * 1e3, (gate.at - at) * 1e3, began, address, gate.wall)


async def _move_at_once(walk: Walk, watch: Watch, process: int, network: str) -> float:
    """Homewardd's time from the pulled cable to the open gate, in milliseconds, where all happens in one instant."""
    with network_of(walk.laptop):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.bind((str(HOME_ADDRESS), 0))
        gate = Gate(walk.laptop, process, walk.address_in(network))
        try:
            before = worked(process)
            walk.move(network)
            while not gate.seen:
                sender.sendto(b"waits", (str(CORRESPONDENT_ADDRESS), 9))
                await asyncio.sleep(0.005)
            gate.wait()
        finally:
            gate.close()
    await watch.trusted_with(walk.address_in(network))
    await asyncio.sleep(_REST)
    return (gate.worked - before) * 1e3


@contextmanager
def _traced(process: int, out: Path) -> Iterator[None]:
    """strace on all threads meanwhile; in the process's network, or it would not know which netlink a socket speaks."""
    argv = ["nsenter", f"--net=/proc/{process}/ns/net", *_TRACER, "-o", str(out), "-p", str(process)]
    tracer = subprocess.Popen(argv)
    try:
        deadline = time.monotonic() + _PATIENCE
        while "TracerPid:\t0" in Path(f"/proc/{process}/status").read_text():
            alive = tracer.poll() is None and time.monotonic() < deadline
            assert alive, "strace cannot look at homewardd"
            time.sleep(0.02)
        time.sleep(0.5)
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def requests(lines: Iterator[str] | list[str]) -> Iterator[tuple[float, str]]:
    """When a dump was asked for, or a process made, in the output of strace."""
    for line in lines:
        _, moment, call = line.split(maxsplit=2)
        if call.startswith(("fork(", "vfork(")):
            yield float(moment), "process"
        elif call.startswith("clone"):
            flags = _FLAGS.search(call)
            if flags is None or not int(flags[1], 16) & _CLONE_THREAD:
                yield float(moment), "process"
        elif "<NETLINK:" in call:
            for flags in _MESSAGE.finditer(call):
                # In a request that makes something these bits mean "replace" and "only if there is none".
                if int(flags[1], 16) & (_DUMP | _CREATE) == _DUMP:
                    yield float(moment), "dump"


async def _measure(state: LabState, folder: Path, say: Say) -> Work:
    walk = Walk(state)
    networks = [OFFICES[number % 2] for number in range(2 + 2 * MOVES + TRACED)]
    async with connected(state) as (client, watch):
        process = daemon(walk.laptop)
        for _ in range(2):  # the first of anything takes longer, and is no hand-over
            await _move(walk, watch, process, networks.pop())
        moves = [await _move(walk, watch, process, networks.pop()) for _ in range(MOVES)]
        say(f"homewardd worked {', '.join(f'{move.work:.1f}' for move in moves)} ms")
        at_once = [await _move_at_once(walk, watch, process, networks.pop()) for _ in range(MOVES)]
        traced = []
        out = folder / "strace"
        with _traced(process, out):
            while networks:
                traced.append(await _move(walk, watch, process, networks.pop()))
        await client.disconnect()
    seen = list(requests(out.read_text().splitlines()))
    return Work(
        tuple(moves),
        tuple(at_once),
        tuple(_count(seen, "dump", move.address, move.gate) for move in traced),
        tuple(_count(seen, "dump", move.began, move.gate) for move in traced),
        tuple(_count(seen, "process", move.began, move.gate) for move in traced),
    )


def _count(seen: list[tuple[float, str]], what: str, since: float, until: float) -> int:
    return sum(kind == what and since <= moment <= until for moment, kind in seen)


def measure(folder: Path, say: Say) -> Work:
    """Build a lab on this machine, move, and take it down."""
    with lab(folder / "lab", say) as state:
        return asyncio.run(_measure(state, folder, say))
