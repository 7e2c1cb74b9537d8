# SPDX-License-Identifier: GPL-2.0-or-later
"""An office in three network namespaces, and the ways from its laptop to a correspondent that are compared.

    laptop 10.1.1.10 ── 10.1.1.1 home agent 10.0.0.2 ── 10.0.1.10 correspondent

Each way has an office of its own, all of the same kind: the tunnel's packets take the same cables as those of raw veth.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from homeward.agentd.settings import AGENT_DEVICE
from homeward.bus.client import DaemonClient
from homeward.bus.fingerprint import SALT_OCTETS, fingerprint
from homeward.model.access import AccessMode
from homeward.model.names import HOME_DEVICE
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot
from homeward.model.tunnel_engine import TunnelEngine
from tests.bench.throughput import flows
from tests.world.buses import PrivateBus
from tests.world.namespaces import Namespace, cable

ENGINES: Final = "HOMEWARD_ENGINES"
"""The variable by which both programs are told which engines they may use."""

CARE_OF: Final = IPv4Address("10.1.1.10")
HOME: Final = IPv4Address("10.77.0.10")
AGENT: Final = IPv4Address("10.0.0.2")
PEER: Final = IPv4Address("10.0.1.10")

_ROOT: Final = Path(__file__).resolve().parents[3]
_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
_PATIENCE: Final = 20.0
_SPI: Final = 0x100
_ALGORITHM: Final = "hmac-sha256"
_KEY_NAME: Final = "mn-ha"


class Failed(Exception):
    """Something cannot be measured; the message says what and why."""


class Office:
    """The three hosts, cabled and addressed, and in two of them a program that sends and takes."""

    def __init__(self) -> None:
        self.laptop, self.agent, self.correspondent = (Namespace() for _ in range(3))
        cable(self.laptop, "eth0", self.agent, "lan0")
        cable(self.correspondent, "eth0", self.agent, "lan1")
        for host in (self.laptop, self.agent, self.correspondent):
            host.sysctl("ipv6/conf/all/disable_ipv6", "1")
        self.laptop.batch(f"addr add {CARE_OF}/24 dev eth0", "route add default via 10.1.1.1")
        self.correspondent.batch(f"addr add {PEER}/24 dev eth0", "route add default via 10.0.1.1")
        self.agent.batch(
            "addr add 10.1.1.1/24 dev lan0", "addr add 10.0.1.1/24 dev lan1", f"addr add {AGENT}/32 dev lo"
        )
        self.agent.sysctl("ipv4/ip_forward", "1")
        self.at_laptop = Hand(self.laptop)
        self.at_correspondent = Hand(self.correspondent)

    def close(self) -> None:
        """Take everything down."""
        self.at_laptop.close()
        self.at_correspondent.close()
        for host in (self.laptop, self.agent, self.correspondent):
            host.close()


class Hand:
    """The program that sends and takes in a host."""

    def __init__(self, host: Namespace) -> None:
        command = host.command(*_WITH_US, sys.executable, "-I", "-S", flows.__file__)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def tell(self, order: str, **words: object) -> None:
        """Give an order; `answer` waits for what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"order": order, **words}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What came of the order before; Failed."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            raise Failed("nothing more was heard of a transfer")
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "it has ended"}')
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Way:
    """A way between `laptop_address` in the laptop and the correspondent, in an office of its own."""

    name: str
    laptop_address: IPv4Address

    def __init__(self) -> None:
        self.office = Office()

    @property
    def processes(self) -> tuple[int, ...]:
        """The programs that carry the packets, or say how they are carried."""
        return ()

    def check(self, octets: Mapping[str, int]) -> None:
        """Whether so many octets of TCP up and down really went this way; Failed."""

    def close(self) -> None:
        """Take it down."""
        self.office.close()


class RawVeth(Way):
    """No tunnel."""

    name = "raw veth"
    laptop_address = CARE_OF


class PlainIpip(Way):
    """The kernel's `ipip` devices, as an administrator makes them by hand."""

    name = "plain ipip"
    laptop_address = HOME

    def __init__(self) -> None:
        super().__init__()
        self.office.laptop.batch(
            f"link add tunnel type ipip local {CARE_OF} remote {AGENT}",
            f"addr add {HOME}/32 dev tunnel",
            "link set tunnel up",
            f"route add {PEER}/32 dev tunnel src {HOME}",
        )
        self.office.agent.batch(
            f"link add tunnel type ipip local {AGENT} remote {CARE_OF}",
            "link set tunnel up",
            f"route add {HOME}/32 dev tunnel",
        )


class Homeward(Way):
    """homewardd and homeward-agent as they are, with a registration between them, by one engine alone."""

    laptop_address = HOME

    def __init__(self, folder: Path, engine: str, *, udp: bool = False) -> None:
        self.name = f"{engine}, {'MIP-UDP' if udp else 'IP-in-IP'}"
        self._engine = TunnelEngine(engine)
        self._udp = udp
        super().__init__()
        self._folder = folder / self.name.replace(", ", "-")
        self._folder.mkdir()
        self._key = Secret(secrets.token_bytes(32))
        self._bus = PrivateBus()
        self._programs: list[subprocess.Popen[bytes]] = []
        try:
            self._bus.start()
            self._start_agent()
            self._start_client()
            self._taken_before = self._taken_from_devices()
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> tuple[int, ...]:
        return tuple(program.pid for program in self._programs)

    def check(self, octets: Mapping[str, int]) -> None:
        """By what passed the two TUN devices."""
        for direction, taken in self._taken_from_devices().items():
            share = (taken - self._taken_before[direction]) / octets[direction]
            if (share > 0.5) is not (self._engine is TunnelEngine.TUN):
                raise Failed(f"{share:.0%} of what went {direction} passed the TUN device")

    def close(self) -> None:
        for program in reversed(self._programs):
            program.terminate()
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
        self._bus.remove()
        super().close()

    def _taken_from_devices(self) -> dict[str, int]:
        """Octets that the client's program and the agent's have taken from their devices: what went the slow path."""
        return {
            "up": _sent(self.office.laptop, HOME_DEVICE),
            "down": _sent(self.office.agent, AGENT_DEVICE),
        }

    def _start_agent(self) -> None:
        key, configuration = self._folder / "laptop.key", self._folder / "agent.toml"
        key.write_text(self._key.reveal().hex() + "\n")
        key.chmod(0o600)
        configuration.write_text(
            f"""\
version = 1
address = "{AGENT}"
inside_interfaces = ["lan0"]
trusted_prefixes = ["10.1.0.0/16"]
home_network = "10.77.0.0/24"
[[node]]
name = "laptop"
home_address = "{HOME}"
spi = {_SPI}
algorithm = "{_ALGORITHM}"
key_file = "{key.name}"
"""
        )
        self._start(self.office.agent, "homeward.agentd.main", "--config", str(configuration))
        self._wait("the home agent", lambda: " ready " in self._said("homeward.agentd.main"))

    def _start_client(self) -> None:
        profiles = self._folder / "profiles"
        profiles.mkdir()
        (profiles / "bench.toml").write_text(
            f"""\
version = 1
name = "bench"
owner = "machine"
[home_agent]
address = "{AGENT}"
home_address = "{HOME}"
spi = {_SPI}
algorithm = "{_ALGORITHM}"
key = {{ secret = "{_KEY_NAME}", fingerprint = "{fingerprint(self._key, secrets.token_bytes(SALT_OCTETS))}" }}
[policy]
force_udp = {json.dumps(self._udp)}
"""
        )
        places = [f"--{name}={self._folder / name}" for name in ("state", "runtime", "vici")]
        words = (f"--bus={self._bus.address}", f"--config={profiles}", *places)
        self._start(self.office.laptop, "homeward.daemon.main", *words)
        self._wait("homewardd", lambda: " is ready" in self._said("homeward.daemon.main"))
        asyncio.run(self._connect())

    async def _connect(self) -> None:
        told: list[StatusSnapshot | None] = []
        async with DaemonClient(self._bus.address) as client:
            await client.watch(told.append)
            await client.connect("bench")
            await client.offer_secret(_KEY_NAME, self._key)
            end = time.monotonic() + _PATIENCE
            while not told or told[-1] is None or told[-1].mode is not AccessMode.C:
                if time.monotonic() > end:
                    raise Failed(f"{self.name}: the laptop never became trusted:\n{self._all_said()}")
                await asyncio.sleep(0.02)
            if told[-1].engine is not self._engine:
                raise Failed(f"{self.name}: by its status homewardd has another engine, {told[-1].engine}")

    def _start(self, host: Namespace, module: str, *words: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(_ROOT / "app"),
            ENGINES: self._engine.value,
            "RUNTIME_DIRECTORY": str(self._folder),
            "STATE_DIRECTORY": str(self._folder),
        }
        command = host.command(*_WITH_US, sys.executable, "-m", module, *words)
        with (self._folder / module).open("wb") as log:
            self._programs.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))

    def _said(self, module: str) -> str:
        return (self._folder / module).read_text(errors="replace")

    def _all_said(self) -> str:
        return "\n".join(self._said(file.name) for file in sorted(self._folder.glob("homeward.*")))

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        end = time.monotonic() + _PATIENCE
        while not done():
            if self._programs[-1].poll() is not None or time.monotonic() > end:
                raise Failed(f"{self.name}: {what} does not start:\n{self._all_said()}")
            time.sleep(0.02)


@contextmanager
def opened(ways: Iterable[Callable[[], Way]], failed: list[str]) -> Iterator[list[Way]]:
    """Those of the ways that can be built; the others are told of in `failed`."""
    with ExitStack() as stack:
        stand = []
        for way in ways:
            try:
                stand.append(stack.enter_context(closing(way())))
            except Failed as failure:
                failed.append(str(failure))
        yield stand


def _sent(host: Namespace, device: str) -> int:
    """Octets that left by a device."""
    (found,) = json.loads(host.ip(f"-s -j link show {device}"))
    octets: int = found["stats64"]["tx"]["bytes"]
    return octets
