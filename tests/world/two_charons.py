# SPDX-License-Identifier: GPL-2.0-or-later
"""A laptop, a router with a NAT and a VPN gateway in unnamed namespaces, with a private charon at both ends.

ext1 198.51.100.0/24 and ext2 192.168.77.0/24 (behind NAT, public side 203.0.113.2) are two bridges of the router; the
laptop has one cable, moved between them. The gateway is 192.0.2.1, its inside address 10.0.0.1.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, TypeVar

import vici

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

CHARON = "/usr/lib/ipsec/charon"
GATEWAY = IPv4Address("192.0.2.1")
INSIDE = IPv4Address("10.0.0.1")
LAPTOP_CONFIGURATION = Path(__file__).parents[2] / "resources" / "charon" / "strongswan.conf"

GATEWAY_CONFIGURATION = """
charon {
    load = openssl random nonce kdf kernel-libipsec kernel-netlink socket-default vici
    plugins {
        vici {
            socket = unix:///run/charon.vici
        }
    }
    filelog {
        stderr {
            default = 1
            time_format = %H:%M:%S
            time_add_ms = yes
            flush_line = yes
        }
    }
}
"""

NAT = """
table ip nat {
    chain out {
        type nat hook postrouting priority 100
        oifname dmz ip saddr 192.168.77.0/24 snat to 203.0.113.2
    }
    chain wall {
        type filter hook forward priority 0
    }
}
"""


def missing() -> str:
    """Why these hosts cannot be built here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path(CHARON).exists():
        return f"needs {CHARON} (package strongswan-charon)"
    if not Path("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so").exists():
        return "needs kernel-libipsec (package libcharon-extra-plugins)"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    return ""


@dataclass(frozen=True, slots=True)
class Network:
    """One access network: its bridge, the laptop's address there, the router's, and what the gateway sees."""

    bridge: str
    address: IPv4Interface
    router: IPv4Interface


EXT1 = Network("ext1", IPv4Interface("198.51.100.10/24"), IPv4Interface("198.51.100.1/24"))
EXT2 = Network("ext2", IPv4Interface("192.168.77.10/24"), IPv4Interface("192.168.77.1/24"))


class Host:
    """One host: net, mount and pid namespaces that end with its first process; /run is a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.run_folder = folder / name / "run"
        self.run_folder.mkdir(parents=True)
        ready = self.run_folder / "ready"
        script = f"mount --bind {self.run_folder} /run && ip link set lo up && touch {ready} && exec sleep infinity"
        self._holder = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                script,
            ]
        )
        deadline = time.monotonic() + 10
        while not ready.exists():
            if self._holder.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start")
            time.sleep(0.01)
        self.pid = _child(self._holder.pid)

    def enter(self, *spaces: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", *spaces, "--"]

    def ip(self, *lines: str) -> None:
        """Apply a batch of `ip` commands."""
        argv = [*self.enter("--net"), "ip", "-batch", "-"]
        subprocess.run(argv, input="\n".join(lines) + "\n", text=True, check=True, timeout=10)

    def run(self, *argv: str, check: bool = True, text: str = "") -> str:
        """Run a command inside and return what it printed."""
        spaces = ("--net", "--mount", "--pid")
        done = subprocess.run(
            [*self.enter(*spaces), *argv], input=text, text=True, capture_output=True, check=False, timeout=20
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(argv)}: {done.stderr}{done.stdout}")
        return done.stdout

    def inside(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, called by a thread that is in this host's network namespace."""
        answers: list[T] = []

        def step_in() -> None:
            with open(f"/proc/{self.pid}/ns/net", "rb") as namespace:
                if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            answers.append(ask())

        # A thread of its own: it never comes back to the namespace that it came from.
        thread = threading.Thread(target=step_in)
        thread.start()
        thread.join()
        return answers[0]

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Charon:
    """One host's IKE daemon; its log goes to a file, as the lab's does."""

    def __init__(self, host: Host, configuration: Path) -> None:
        self._host = host
        self.configuration = configuration
        self.log = host.run_folder.parent / "charon.log"
        self.socket = host.run_folder / "charon.vici"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._host.enter("--net", "--mount", "--pid"), CHARON],
                env={"STRONGSWAN_CONF": str(self.configuration), "PATH": os.environ["PATH"]},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), self.session() as session:
                session.version()
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"charon on {self._host.name} did not start: {self.log.read_text()}")
            time.sleep(0.02)

    @contextlib.contextmanager
    def session(self) -> Iterator[vici.Session]:
        """A vici session of the test's own."""
        with _connected(self.socket) as connection:
            yield vici.Session(connection)

    def sas(self) -> list[tuple[str, dict[str, Any]]]:
        """Its IKE_SAs as vici lists them."""
        with self.session() as session:
            return [(name, sa) for each in session.list_sas() for name, sa in each.items()]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return _child(self._process.pid)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait(timeout=5)
        self._process = None

    def freeze(self, yes: bool) -> None:
        """Have it hang, or go on; nsenter stops and goes on with its child."""
        assert self._process is not None
        for pid in (self.pid, self._process.pid):
            os.kill(pid, signal.SIGSTOP if yes else signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, RuntimeError):
                os.kill(self.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


@dataclass(frozen=True, slots=True)
class _GatewaySide:
    """What the gateway is told over vici; an empty `pool` means that it has no inner addresses to give."""

    secret: bytes
    proposals: tuple[str, ...] = ("aes128gcm16-prfsha256-curve25519", "default")
    esp_proposals: tuple[str, ...] = ("aes128gcm16", "default")
    mobike: bool = True
    pool: str = "10.9.0.0/24"
    networks: str = "10.0.0.0/8"

    def connection(self) -> dict[str, Any]:
        return {
            "version": "2",
            "local_addrs": [str(GATEWAY)],
            "pools": ["inner"] if self.pool else [],
            "mobike": "yes" if self.mobike else "no",
            "proposals": list(self.proposals),
            "local": {"auth": "psk", "id": "gw.example.test"},
            "remote": {"auth": "psk"},
            "children": {"inside": {"local_ts": [self.networks], "esp_proposals": list(self.esp_proposals)}},
        }


class TwoCharons:
    """The whole small world; `close()` ends every process and with them every namespace."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self.laptop, self.router, self.gateway = (
                self._stack.enter_context(contextlib.closing(Host(name, folder)))
                for name in ("laptop", "router", "gateway")
            )
            self._wire()
            self._side: _GatewaySide | None = None
            configuration = folder / "gateway" / "strongswan.conf"
            configuration.write_text(GATEWAY_CONFIGURATION)
            self.laptop_charon = Charon(self.laptop, LAPTOP_CONFIGURATION)
            self.gateway_charon = Charon(self.gateway, configuration)
            for charon in (self.gateway_charon, self.laptop_charon):
                self._stack.callback(charon.stop)
                charon.start()
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def _wire(self) -> None:
        router = self.router
        router.ip(
            "link add ext1 type bridge",
            "link add ext2 type bridge",
            f"link add cable type veth peer name eth0 netns {self.laptop.pid}",
            f"link add dmz type veth peer name eth0 netns {self.gateway.pid}",
            f"address add {EXT1.router} dev ext1",
            f"address add {EXT2.router} dev ext2",
            "address add 192.0.2.254/24 dev dmz",
            "address add 203.0.113.2/32 dev lo",
            *(f"link set {name} up" for name in ("ext1", "ext2", "cable", "dmz")),
        )
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        router.run("nft", "-f", "-", text=NAT)
        self.gateway.ip(
            f"address add {GATEWAY}/24 dev eth0",
            f"address add {INSIDE}/32 dev lo",
            "link set eth0 up",
            "route add default via 192.0.2.254",
        )
        self.laptop.ip("link set eth0 up")

    # --- the laptop's cable ---

    def attach(self, network: Network) -> None:
        """Move the cable and change the address, as one hard move: the old address goes first."""
        self.router.ip(f"link set cable master {network.bridge}")
        self.laptop.ip(
            "address flush dev eth0 scope global",
            f"address add {network.address} dev eth0",
            # Without `dev` the kernel would ask the rules for the router, and find the home device.
            f"route replace default via {network.router.ip} dev eth0",
        )

    def gateway_reachable(self, yes: bool) -> None:
        """Whether anything from the access networks gets through to the gateway, and back."""
        self.router.run("nft", "flush chain ip nat wall")
        if not yes:
            self.router.run("nft", "add rule ip nat wall drop")

    # --- the gateway's side ---

    def configure_gateway(self, secret: bytes, **changes: Any) -> None:
        """Load the gateway's side; `changes` as _GatewaySide has them. Kept for a gateway that restarts."""
        self._side = side = _GatewaySide(secret, **changes)
        with self.gateway_charon.session() as session:
            if side.pool:
                session.load_pool({"inner": {"addrs": side.pool}})
            session.load_shared({"id": "laptop", "type": "IKE", "data": side.secret, "owners": ["%any"]})
            session.load_conn({"roadwarrior": side.connection()})

    def restart_gateway(self) -> None:
        """The gateway's charon dies and returns with its configuration: the SAs are lost, nobody is told (S2)."""
        self.gateway_charon.kill()
        self.gateway_charon.start()
        if self._side is not None:
            self.configure_gateway(**asdict(self._side))


def _child(parent: int) -> int:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.005)
    raise RuntimeError(f"process {parent} has no child")


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            # By the folder's descriptor: a test's folder may be longer than a socket's address.
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
            yield connection
    finally:
        os.close(folder)
