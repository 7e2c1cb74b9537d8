# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the home agent is loaded: four hosts in network namespaces, and the processes in them.

correspondent 10.0.1.10 ── office  agent  inside 10.0.0.2 ── nodes, all of 10.200.0.0/16
                                           echo 10.0.2.2 ──┘
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from homeward.agentd.nodes_file import read_nodes
from homeward.model.errors import ProfileError
from homeward.model.names import REGISTRATION_PORT
from homeward.model.nat_traversal import UdpTunnelRequest
from homeward.model.registration import RegistrationReply, RegistrationRequest, RequestFlags
from homeward.wire import registration
from homeward.wire.identification import from_time
from tests.component.agent_network import ROOT, WITH_US, AgentProcess, Namespace

AGENT: Final = IPv4Address("10.0.0.2")
ECHO: Final = IPv4Address("10.0.2.2")
CORRESPONDENT: Final = IPv4Address("10.0.1.10")
CARE_OF: Final = "10.200.0.0/16"
HOMES: Final = "10.64.0.0/14"
FIRST_HOME: Final = IPv4Address("10.64.0.1")
FLOW_CARE_OF: Final = IPv4Address("10.200.255.250")

AGENT_CORE: Final = 0
LOAD_CORE: Final = 1
_STEP: Final = 0.001

CONFIGURATION: Final = f"""version = 1
address = "{AGENT}"
inside_interfaces = ["inside", "office"]
trusted_prefixes = ["{CARE_OF}"]
home_network = "{HOMES}"
nodes_file = "NODES"
store = "STORE"
lifetime_max = 65534
"""


class Hosts:
    """The hosts, and one agent after another in its own. `nodes` is the file with so many nodes."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.nodes = folder / "nodes"
        self.load_hosts, self.agent_host, self.echo_host, self.office = (Namespace() for _ in range(4))
        try:
            self._cable(self.agent_host, "inside", f"{AGENT}/24", self.load_hosts, "to-agent", "10.0.0.1/24")
            self._cable(self.agent_host, "office", "10.0.1.2/24", self.office, "lan", f"{CORRESPONDENT}/24")
            self._cable(self.echo_host, "inside", f"{ECHO}/24", self.load_hosts, "to-echo", "10.0.2.1/24")
            self.load_hosts.ip(f"route add local {CARE_OF} dev lo")
            self.agent_host.ip(f"route add {CARE_OF} via 10.0.0.1")
            self.echo_host.ip(f"route add {CARE_OF} via 10.0.2.1")
            self.office.ip("route add default via 10.0.1.2")
            self._load("--write-nodes", str(self.nodes), "--count-nodes", str(count), "--home", HOMES)
        except BaseException:
            self.close()
            raise
        self.config = folder / "agent.toml"
        text = CONFIGURATION.replace("NODES", str(self.nodes)).replace(
            "STORE", str(folder / "state" / "store")
        )
        self.config.write_text(text)
        self.config.chmod(0o644)

    @staticmethod
    def _cable(one: Namespace, name: str, address: str, other: Namespace, there: str, its: str) -> None:
        one.ip(f"link add {name} type veth peer name {there} netns {other.pid}")
        for host, link, own in ((one, name, address), (other, there, its)):
            host.ip(f"address add {own} dev {link}")
            host.ip(f"link set dev {link} up")
            for each in ("all", link):
                host.setting(f"ipv4/conf/{each}/rp_filter", "0")

    def start(self) -> AgentProcess:
        """An agent, on its processor."""
        process = AgentProcess(self.agent_host, self.config, self.folder / "log")
        os.sched_setaffinity(process.pid, {AGENT_CORE})
        return process

    @contextmanager
    def echo(self) -> Iterator[None]:
        """The peer, on the same processor."""
        script = str(Path(__file__).with_name("echo.py"))
        words = [*WITH_US, sys.executable, script, str(self.nodes)]
        process = subprocess.Popen(self.echo_host.command(*words), stdout=subprocess.PIPE)
        os.sched_setaffinity(process.pid, {AGENT_CORE})
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()
            process.communicate()

    def load(self, *words: str, agent: IPv4Address = AGENT) -> dict[str, Any]:
        """What `homeward-lab load` found."""
        options = ["--agent", str(agent), "--nodes", str(self.nodes), "--care-of", CARE_OF]
        found: dict[str, Any] = json.loads(self._load(*options, "--core", str(LOAD_CORE), "--json", *words))
        return found

    def _load(self, *words: str) -> str:
        argv = [*WITH_US, sys.executable, "-m", "homeward.lab.main", "load", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "app")}
        done = subprocess.run(
            self.load_hosts.command(*argv), capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode not in (0, 1) or not done.stdout:
            raise ProfileError(f"homeward-lab load: {done.stderr}")
        return done.stdout

    def close(self) -> None:
        for host in (self.load_hosts, self.agent_host, self.echo_host, self.office):
            host.close()


class Flow:
    """A datagram a millisecond from the correspondent to one home address; how many did not reach its tunnel's end.

    The node asks for a tunnel in UDP: that is what the kernel carries on every machine, with `ipip` or without.
    """

    def __init__(self, hosts: Hosts) -> None:
        with hosts.office.entered():
            self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with hosts.load_hosts.entered():
            self._tunnel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tunnel.bind((str(FLOW_CARE_OF), 0))
        self._tunnel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._tunnel.settimeout(0.3)
        self._node = next(iter(read_nodes(hosts.nodes)))
        self._sent = 0
        self._arrived: set[bytes] = set()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._take)]

    def __enter__(self) -> Flow:
        self._register()
        for each in self._threads:
            each.start()
        return self

    def _register(self) -> None:
        request = RegistrationRequest(
            1800,
            FIRST_HOME,
            home_agent=AGENT,
            care_of_address=FLOW_CARE_OF,
            identification=from_time(time.time(), 0),
            flags=RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL,
            udp_tunnel=UdpTunnelRequest(force=True),
        )
        octets = registration.encode_request(request, self._node.association)
        self._tunnel.sendto(octets, (str(AGENT), REGISTRATION_PORT))
        reply = registration.decode(self._tunnel.recv(2048)).message
        assert isinstance(reply, RegistrationReply)
        assert reply.is_success, reply

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for each in self._threads:
            each.join()
        self._sender.close()
        self._tunnel.close()

    @property
    def lost(self) -> int:
        """Of all that were sent."""
        return self._sent - len(self._arrived)

    @property
    def sent(self) -> int:
        return self._sent

    def _send(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            try:
                self._sender.sendto(self._sent.to_bytes(8, "big"), (str(FIRST_HOME), 7000))
            except OSError:
                pass  # nobody forwards: it is lost
            self._sent += 1
            due += _STEP
            time.sleep(max(0.0, due - time.monotonic()))

    def _take(self) -> None:
        while True:
            try:
                self._arrived.add(self._tunnel.recv(2048)[-8:])
            except TimeoutError:
                if self._end.is_set():
                    return


def process_megabytes(pid: int) -> float:
    """The process's share of memory: what is shared with others is divided among them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ProfileError("the kernel does not tell the process's share of memory")


def locked_megabytes(pid: int) -> float:
    """What the kernel holds for the process's BPF maps and programs."""
    locked: dict[str, int] = {}
    for each in Path(f"/proc/{pid}/fdinfo").iterdir():
        fields = dict(line.split(":\t", 1) for line in each.read_text().splitlines() if ":\t" in line)
        if "memlock" in fields:
            locked[fields.get("map_id") or fields.get("prog_id") or each.name] = int(fields["memlock"])
    return sum(locked.values()) / (1 << 20)


def slab_megabytes() -> float:
    """What the whole kernel has in small pieces: routes, sockets, neighbours."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("SUnreclaim:"):
            return int(line.split()[1]) / 1024
    return 0.0


def end_standing(process: AgentProcess) -> None:
    """Stop the agent so that its data path goes on."""
    os.kill(process.pid, signal.SIGUSR2)
    process.wait()
