# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting the lab's applications (traffic.py) on laptop and correspondent, and reading what they saw."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from homeward.lab.errors import LabError
from homeward.lab.host import Host, program
from homeward.lab.measure import Arrival, Departure
from homeward.lab.state import LabState
from homeward.lab.topology import CORRESPONDENT, CORRESPONDENT_ADDRESS, LAPTOP
from homeward.lab.traffic import RECORD

_SECONDS_TO_START: Final = 5.0


@dataclass(frozen=True, slots=True)
class Connections:
    """How the two TCP connections ended: bytes at the receiver, whether both ends hashed the same, errors seen."""

    up_bytes: int
    down_bytes: int
    sha256_equal: bool
    resets: int
    errors: tuple[str, ...]


class Applications:
    """The applications that run between an address of the laptop and the correspondent."""

    def __init__(self, state: LabState, address: IPv4Address) -> None:
        self._laptop = Host(state, LAPTOP)
        self._correspondent = Host(state, CORRESPONDENT)
        self._state = state
        self._address = address

    def start_tcp(self) -> None:
        """Open both connections; LabError when they do not come about."""
        self._start(self._correspondent, "tcp-server", "--bind", str(CORRESPONDENT_ADDRESS))
        self._wait_for_listener()
        self._start(self._laptop, "tcp-client", *self._from_laptop())
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self.progress():
            if self._laptop.services().get("tcp-client") is not None or time.monotonic() > deadline:
                log = self._state.log(LAPTOP, "tcp-client").read_text()
                raise LabError(f"no TCP connection from {self._address}: {log.strip()[-300:]}")
            time.sleep(0.02)

    def start_udp(self) -> None:
        """Start the numbered datagrams in both directions."""
        self._start(
            self._correspondent, "udp", "--bind", str(CORRESPONDENT_ADDRESS), "--peer", str(self._address)
        )
        self._start(self._laptop, "udp", *self._from_laptop())

    def rest(self) -> None:
        """Have all of them stop where they are; what they have open stays open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Wake them again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        self._laptop.signal(number, "tcp-client", "udp")
        self._correspondent.signal(number, "tcp-server", "udp")

    def progress(self) -> list[dict[str, Any]]:
        """What the correspondent has sent and received so far: `{"t","up","down"}`, oldest first."""
        return [each for each in self._lines(CORRESPONDENT, "tcp-server") if "t" in each]

    def stop_udp(self) -> None:
        """End the datagrams on both sides; what is on the way at this moment counts for no stage."""
        for host in (self._laptop, self._correspondent):
            host.stop("udp")

    def finish_tcp(self, *, seconds: float = 10.0) -> Connections:
        """End both connections in order, wait so long for the last octet, compare."""
        deadline = time.monotonic() + seconds
        self._laptop.stop("tcp-client", signal.SIGTERM, grace=seconds)
        while self._correspondent.services().get("tcp-server") is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._correspondent.stop("tcp-server", signal.SIGKILL)
        here, there = self._final(LAPTOP, "tcp-client"), self._final(CORRESPONDENT, "tcp-server")
        return _compare(here, there)

    def arrivals(self, direction: str) -> list[Arrival]:
        """The datagrams that arrived, in the order of arrival; direction is `up` or `down`, seen from the laptop."""
        host = CORRESPONDENT if direction == "up" else LAPTOP
        return [Arrival(int(a), b, c) for a, b, c in self._records(host, "udp")]

    def departures(self, direction: str) -> list[Departure]:
        """The datagrams that were sent in that direction."""
        host = LAPTOP if direction == "up" else CORRESPONDENT
        return [Departure(int(a), b, int(c)) for a, b, c in self._records(host, "udp.sent")]

    # --- files ---

    def _from_laptop(self) -> tuple[str, ...]:
        return ("--bind", str(self._address), "--peer", str(CORRESPONDENT_ADDRESS))

    def _start(self, host: Host, role: str, *arguments: str) -> None:
        folder = self._state.run(host.name) / "traffic"
        folder.mkdir(exist_ok=True)
        for old in (role, f"{role}.sent"):
            (folder / old).unlink(missing_ok=True)
        host.start(role, *program("traffic.py"), role, *arguments, "--out", f"/run/traffic/{role}")

    def _wait_for_listener(self) -> None:
        deadline = time.monotonic() + _SECONDS_TO_START
        while "LISTEN" not in self._correspondent.run("ss", "-Hltn", "sport = 5001").stdout:
            if time.monotonic() > deadline:
                raise LabError("the correspondent's TCP server does not start")
            time.sleep(0.02)

    def _lines(self, host: str, role: str) -> Iterator[dict[str, Any]]:
        path = self._state.run(host) / "traffic" / role
        text = path.read_text() if path.exists() else ""
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # the last line may be half written
                return

    def _final(self, host: str, role: str) -> dict[str, Any]:
        return next((each["final"] for each in self._lines(host, role) if "final" in each), {})

    def _records(self, host: str, name: str) -> Iterator[tuple[float, float, float]]:
        path = self._state.run(host) / "traffic" / name
        data = path.read_bytes() if path.exists() else b""
        return RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size])


def _compare(laptop: dict[str, Any], correspondent: dict[str, Any]) -> Connections:
    equal = bool(laptop and correspondent)
    errors = [] if equal else ["a connection did not end in time"]
    for direction in ("up", "down"):
        ends = [end[direction] for end in (laptop, correspondent) if direction in end]
        errors += [f"{direction}: {end['error']}" for end in ends if end["error"]]
        equal = equal and len({(end["bytes"], end["sha256"]) for end in ends}) == 1
    return Connections(
        up_bytes=correspondent.get("up", {}).get("bytes", 0),
        down_bytes=laptop.get("down", {}).get("bytes", 0),
        sha256_equal=equal,
        resets=len(errors),
        errors=tuple(errors),
    )
