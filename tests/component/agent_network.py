# SPDX-License-Identifier: GPL-2.0-or-later
"""Four hosts in network namespaces: a mobile node and a correspondent, and a home agent behind the same router.

    node 10.1.1.50 ── router ── inside 10.0.0.2 agent
                          │  └── outside 192.0.2.2 agent
    correspondent 10.0.1.10

Nothing has a name outside these namespaces, and they end with the processes that hold them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.world.namespaces import entered, loopback_up

ROOT = Path(__file__).resolve().parents[2]
AGENT = IPv4Address("10.0.0.2")
AGENT_OUTSIDE = IPv4Address("192.0.2.2")
CARE_OF = IPv4Address("10.1.1.50")
SECOND_CARE_OF = IPv4Address("10.1.1.51")
UNTRUSTED = IPv4Address("10.2.2.50")
PEER = IPv4Address("10.0.1.10")
HOME = IPv4Address("10.77.0.10")
OTHER_HOME = IPv4Address("10.78.0.11")
DEVICE = "homeward-ha0"

WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it ends when we do, even if we are killed."""


class Namespace:
    """A host: a network namespace and the process that holds it."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [*WITH_US, "unshare", "--net", "--kill-child", "sleep", "600"], start_new_session=True
        )
        own = os.stat("/proc/self/ns/net").st_ino
        deadline = time.monotonic() + 5
        while os.stat(f"/proc/{self._holder.pid}/ns/net").st_ino == own:
            assert time.monotonic() < deadline, "unshare made no namespace"
            time.sleep(0.005)
        self.pid = self._holder.pid
        with self.entered():
            loopback_up()

    def command(self, *words: str) -> list[str]:
        """The words of a command that runs in this host."""
        return ["nsenter", f"--target={self.pid}", "--net", "--", *words]

    def run(self, *words: str) -> str:
        """Run a command in this host; its output."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def ip(self, arguments: str) -> str:
        """Run `ip` in this host."""
        return self.run("ip", *arguments.split())

    def batch(self, *lines: str) -> None:
        """Run several `ip` commands as one process in this host."""
        argv = self.command("ip", "-batch", "-")
        done = subprocess.run(argv, input="\n".join(lines), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{lines}: {done.stderr}"

    def setting(self, name: str, value: str) -> None:
        """Write a kernel setting of this host."""
        with self.entered():
            (Path("/proc/sys/net") / name).write_text(value)

    def entered(self) -> AbstractContextManager[None]:
        """Sockets that are made within belong to this host."""
        return entered(f"/proc/{self.pid}/ns/net")

    def close(self) -> None:
        """End the host."""
        self._holder.kill()
        self._holder.wait()


class AgentNetwork:
    """The four hosts, cabled and addressed; `more` are further addresses of the mobile node's host."""

    def __init__(self, *more: IPv4Address) -> None:
        self._more = more
        self.node, self.peer, self.agent, self.router = (Namespace() for _ in range(4))
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        self.router.batch(
            *self._cable(self.node, "lan", "to-node", "10.1.1.1/24"),
            *self._cable(self.peer, "lan", "to-peer", "10.0.1.1/24"),
            *self._cable(self.agent, "inside", "to-inside", "10.0.0.1/24"),
            *self._cable(self.agent, "outside", "to-outside", "192.0.2.1/24"),
            *(f"route add {network} via {AGENT}" for network in ("10.77.0.0/24", "10.79.0.0/24", OTHER_HOME)),
            f"route add {UNTRUSTED} via {CARE_OF}",
        )
        self.router.setting("ipv4/ip_forward", "1")
        addresses = [f"{address}/24" for address in (CARE_OF, SECOND_CARE_OF, *self._more)]
        addresses.append(f"{UNTRUSTED}/32")
        self.node.batch(
            "link set dev lan up",
            *(f"address add {address} dev lan" for address in addresses),
            "route add default via 10.1.1.1",
        )
        self.peer.batch(
            "link set dev lan up", f"address add {PEER}/24 dev lan", "route add default via 10.0.1.1"
        )
        self.agent.batch(
            "link set dev inside up",
            "link set dev outside up",
            f"address add {AGENT}/24 dev inside",
            f"address add {AGENT_OUTSIDE}/24 dev outside",
            "route add default via 10.0.0.1",
        )
        for host, links in (
            (self.agent, ("inside", "outside")),
            (self.router, ("to-node", "to-inside", "to-outside")),
        ):
            for link in ("all", "default", *links):
                host.setting(f"ipv4/conf/{link}/rp_filter", "0")

    @staticmethod
    def _cable(host: Namespace, name: str, router_name: str, router_address: str) -> tuple[str, ...]:
        """What the router does for a cable to a host."""
        return (
            f"link add {router_name} type veth peer name {name} netns {host.pid}",
            f"address add {router_address} dev {router_name}",
            f"link set dev {router_name} up",
        )

    def add_home_link(self, station: Namespace, address: str, agent_address: str) -> None:
        """A link `home` of the agent's host, with another host at its other end, whose `lan` it is."""
        self.agent.ip(f"link add home type veth peer name lan netns {station.pid}")
        self.agent.ip(f"address add {agent_address}/24 dev home")
        self.agent.ip("link set dev home up")
        station.ip(f"address add {address}/24 dev lan")
        station.ip("link set dev lan up")
        station.ip(f"route add default via {agent_address}")

    def close(self) -> None:
        """Take all hosts down."""
        for host in (self.node, self.peer, self.agent, self.router):
            host.close()


def agent_environment(log: Path) -> dict[str, str]:
    """What an agent with this log file is started with: folders of its own beside it, for its socket and its store."""
    own = {"RUNTIME_DIRECTORY": f"{log}.run", "STATE_DIRECTORY": f"{log}.state"}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT / "app")}


class AgentProcess:
    """A real homeward-agent in the agent's host."""

    def __init__(self, host: Namespace, config: Path, log: Path) -> None:
        self._log = log
        self._log_end = log.stat().st_size if log.exists() else 0
        environment = agent_environment(log)
        command = host.command(
            *WITH_US, sys.executable, "-m", "homeward.agentd.main", "--config", str(config)
        )
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def text(self) -> str:
        """What this process has logged so far."""
        return self._log.read_bytes()[self._log_end :].decode()

    def wait_for(self, word: str, *, times: int = 1) -> str:
        """Wait until the log says this; the line that does. In a guest's kernel a start takes 13 s and more."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = [line for line in self.text().splitlines() if word in line]
            if len(lines) >= times:
                return lines[times - 1]
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the agent never said {word!r}:\n{self.text()}")

    def dump(self) -> dict[str, Any]:
        """What the agent tells about itself on SIGUSR1."""
        marker = " mip bindings "
        seen = self.text().count(marker)
        self._process.send_signal(signal.SIGUSR1)
        line = self.wait_for(marker, times=seen + 1)
        found: dict[str, Any] = json.loads(line.split(marker, 1)[1])
        return found

    def counter(self, code: str) -> int:
        """How often something happened."""
        return int(self.dump()["counters"].get(code, 0))

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self._process.terminate()
        return self._process.wait(10)

    def stop_standing(self) -> int:
        """Ask it to end and to leave the data path to the next life; its exit status."""
        self._process.send_signal(signal.SIGUSR2)
        return self._process.wait(10)

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self._process.kill()
        self._process.wait(10)

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        return self._process.wait(15)


def udp(host: Namespace, address: IPv4Address) -> socket.socket:
    """A UDP socket of a host, with a time limit."""
    with host.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((str(address), 0))
    made.settimeout(3.0)
    return made


def raw(host: Namespace, protocol: int, address: IPv4Address) -> socket.socket:
    """A raw socket of a host, with a time limit; it is given and gives payloads behind an IP header."""
    with host.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    made.bind((str(address), 0))
    made.settimeout(3.0)
    return made
