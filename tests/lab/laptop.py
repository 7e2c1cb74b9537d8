# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's laptop as its user has it: the command line, the cable, and what its network looks like from inside."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from homeward.bus.client import DaemonClient
from homeward.lab import keys, services
from homeward.lab.access import Cable
from homeward.lab.build import laptop_addresses
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import LAPTOP
from homeward.model.names import BUS_NAME
from homeward.model.status import ClientState, StatusSnapshot

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds until what must happen counts as never happening; the machine is shared, and no test is about speed."""

HASTY = """
[timers]
probe_timeout = 1
probe_transmissions = 1
vpn_retry = 0.5
"""
"""For a profile that asks the home agent once and for a second, so that nobody waits 15 s for silence."""
PATIENT = """
[timers]
probe_timeout = 60
probe_transmissions = 1
"""
"""For a profile that asks once and waits for a minute, so that all forgeries answer the same request."""

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# Everything that a connected profile could change, and nothing that changes by itself, as IPv6's own addresses do.
_LOOK = """
exec 2>/dev/null
echo "== rules"; ip rule; ip -6 rule
echo "== routes"; ip route show table all | grep -v "^local fe80"
echo "== links"; ip -brief link
echo "== addresses"; ip -brief -4 address
echo "== ruleset"; nft --stateless list ruleset
echo "== settings"; grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/ip_forward |
grep -v stable_secret
exit 0
"""


def eventually(look: Callable[[], T | None], told: str, *, seconds: float = PATIENCE) -> T:
    """What `look` finds, as soon as it finds something true; a failure, with what was `told`, after that time."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, told
        time.sleep(0.02)
    return found


def reason(snapshot: StatusSnapshot, code: str) -> str:
    """The text of the health item with this code; empty when there is none."""
    return next((item.text for item in snapshot.health if item.code == code), "")


@contextmanager
def network_of(host: Host) -> Iterator[None]:
    """This thread is in the host's network meanwhile: sockets opened here are the host's, and stay so."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(f"/proc/{host.pid}/ns/net")
        try:
            yield
        finally:
            _enter(f"/proc/self/fd/{home}")
    finally:
        os.close(home)


def _enter(namespace: str) -> None:
    with open(namespace, "rb") as file:
        if _libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True, slots=True)
class Told:
    """What a command answered: its exit status, and both outputs."""

    status: int
    out: str
    err: str


class Status:
    """Every status that the daemon has told, from a connection to its bus that outlives daemons."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._changed = threading.Condition()
        self._seen: list[StatusSnapshot | None] = []
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run)
        ready: Future[None] = Future()
        self._ready = ready
        self._thread.start()
        ready.result(PATIENCE)

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set_result, None)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._watch())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _watch(self) -> None:
        async with DaemonClient(self._address) as client:
            self._client = client
            await client.watch(self._hear)
            self._ready.set_result(None)
            await self._stop

    def _hear(self, snapshot: StatusSnapshot | None) -> None:
        with self._changed:
            self._seen.append(snapshot)
            self._changed.notify_all()

    def disconnect(self) -> None:
        """Order it by this connection, which costs less than a process; root's."""
        asyncio.run_coroutine_threadsafe(self._client.disconnect(), self._loop).result(PATIENCE)

    @property
    def now(self) -> StatusSnapshot | None:
        """The last one; None while there is no daemon."""
        return self._seen[-1] if self._seen else None

    def mark(self) -> int:
        """This moment, for `since`."""
        return len(self._seen)

    def since(self, mark: int) -> list[StatusSnapshot]:
        """All that was told from that moment on, the one that held at that moment included."""
        with self._changed:
            return [each for each in self._seen[max(mark - 1, 0) :] if each is not None]

    def until(
        self, wanted: Callable[[StatusSnapshot], object], told: str, *, seconds: float = PATIENCE
    ) -> StatusSnapshot:
        """The present status if it is as wanted, else the first one that is."""
        with self._changed:
            read = max(len(self._seen) - 1, 0)
            deadline = time.monotonic() + seconds
            while True:
                for snapshot in self._seen[read:]:
                    if snapshot is not None and wanted(snapshot):
                        return snapshot
                read = len(self._seen)
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"never: {told}. The last status: {self.now}")


class Laptop:
    """One lab's laptop."""

    def __init__(self, lab: LabState, status: Status) -> None:
        self.lab = lab
        self.status = status
        self.host = Host(lab, LAPTOP)
        self._cable = Cable(lab)

    # --- what its user does ---

    def homeward(self, *words: str, given: str = "", bus: str | None = None) -> Told:
        """Run the command line; `given` is its standard input, which is no terminal."""
        done = subprocess.run(
            [sys.executable, "-m", "homeward.cli.main", *words],
            input=given,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(sys.path), "HOMEWARD_BUS": bus or address_of(self.lab)},
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        return Told(done.returncode, done.stdout, done.stderr)

    def connect(self, profile: str = services.PROFILE, *, wait: float = 20, **secrets: str) -> Told:
        """`homeward connect` with both secrets; `mobility` and `pre_shared` (hex:… or text:…) replace the lab's own."""
        return self.homeward(
            "connect", profile, "--secrets-fd", "0", "--wait", str(wait), given=self.secrets(**secrets)
        )

    def secrets(self, *, mobility: str = "", pre_shared: str = "") -> str:
        """What `--secrets-fd` reads: the lab's own secrets but for those that are named."""
        mobility = mobility or (self.lab.keys / keys.MOBILITY_KEY).read_text().strip()
        pre_shared = pre_shared or (self.lab.keys / keys.PRE_SHARED_KEY).read_text().strip()
        return f"{keys.MOBILITY_KEY}={mobility}\n{keys.PRE_SHARED_KEY}={pre_shared}\n"

    def disconnect(self) -> None:
        self.status.disconnect()
        self.status.until(lambda now: now.state is ClientState.DISCONNECTED, "disconnected")

    def plug(self, network: str) -> IPv4Address:
        """Move the cable and wait for the address there."""
        self._cable.plug(network)
        eventually(lambda: laptop_addresses(self.lab), f"no address in {network}")
        return self.address()

    def plug_without_address(self, network: str) -> None:
        """Move the cable and do not wait."""
        self._cable.plug(network)

    def unplug(self) -> None:
        self._cable.unplug()

    # --- what its administrator does ---

    def write_profile(self, name: str, changes: Mapping[str, str] | None = None, *, more: str = "") -> None:
        """A copy of the lab's profile under another name, with these texts replaced and `more` at its end."""
        text = self.host.run("cat", _path(services.PROFILE)).stdout
        for old, new in {f'name = "{services.PROFILE}"': f'name = "{name}"', **(changes or {})}.items():
            assert old in text, f"{old!r} is not in the lab's profile"
            text = text.replace(old, new)
        self.host.run("tee", _path(name), text=text + more)

    def remove_profile(self, name: str) -> None:
        self.host.run("rm", _path(name))

    def start_daemon(self) -> None:
        """Start homewardd and wait until it serves; nothing if it runs."""
        if self.host.services()["homewardd"] is not None:
            services.start_daemon(self.lab)
            services.wait_for_name(self.host, "homewardd", BUS_NAME)
        self.status.until(lambda now: True, "a status")

    def kill(self, service: str, number: int = signal.SIGKILL) -> None:
        """End a service by a signal and wait for its end."""
        self.host.stop(service, number, grace=20)

    def start_charon(self) -> None:
        services.start_engine(self.lab)

    # --- what its network looks like ---

    def address(self) -> IPv4Address:
        """What it has on its cable."""
        return IPv4Address(laptop_addresses(self.lab)[0])

    def network(self) -> dict[str, str]:
        """Rules, routes, links, addresses, ruleset and settings, each as text; equal when nothing has changed."""
        sections = self.host.run("sh", "-c", _LOOK).stdout.split("== ")[1:]
        return {name: text for name, _, text in (section.partition("\n") for section in sections)}

    def inner_address(self) -> IPv4Address:
        """The one that the VPN gave."""
        address = self.status.until(lambda now: now.vpn_inner_address, "an inner address").vpn_inner_address
        assert address is not None
        return address

    def blocks(self) -> bool:
        """Whether the deliberate block stands: the fence, the home device, and the rule that leads everything to it."""
        seen = self.network()
        return (
            "table inet homeward" in seen["ruleset"]
            and "policy drop" in seen["ruleset"]
            and "homeward0" in seen["links"]
            and "209:\tnot from all fwmark 0x48570000/0xffff0000 lookup 434" in seen["rules"]
        )


def address_of(lab: LabState) -> str:
    """The laptop's bus, as it is reached from outside."""
    return f"unix:path={lab.short()}/hosts/{LAPTOP}/run/{services.SYSTEM_BUS}"


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What of a laptop's network has changed, line by line, in words."""
    found = []
    for aspect in before:
        old, new = before[aspect].splitlines(), after[aspect].splitlines()
        found += [f"{aspect}: gone: {line.strip()}" for line in old if line not in new]
        found += [f"{aspect}: came: {line.strip()}" for line in new if line not in old]
    return found


def _path(profile: str) -> str:
    return str(Path("/etc/homeward/profiles.d", f"{profile}.toml"))
