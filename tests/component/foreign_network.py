# SPDX-License-Identifier: GPL-2.0-or-later
"""Six hosts in network namespaces: two mobile nodes on a foreign agent's link, a home agent and a correspondent.

    node, other ── [switch] ── trust3 10.1.3.1 foreign 10.0.0.13 core ── [switch] ── home agent 10.0.0.2
                                                                            └────── correspondent 10.0.0.10

With a NAT, that stands between the foreign agent's `core` (192.168.31.2) and the switch, where it has 10.0.0.31.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from homeward.model.agent import AgentAdvertisement
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.relay import MobileToForeign
from homeward.model.secret import Secret
from homeward.wire import registration, relay
from homeward.wire.agent_advertisement import decode_advertisement, encode_solicitation
from homeward.wire.datagram import read_udp_packet
from homeward.wire.decoded import DecodedReply
from homeward.wire.echo import Echo, encode_echo
from homeward.wire.identification import from_time
from homeward.wire.link_frames import ipv4, udp
from tests.component.agent_network import AgentProcess, Namespace

HOME_AGENT = IPv4Address("10.0.0.2")
PEER = IPv4Address("10.0.0.10")
FOREIGN = IPv4Address("10.1.3.1")
FOREIGN_CORE = IPv4Address("10.0.0.13")
NAT = IPv4Address("10.0.0.31")
HOME = IPv4Address("10.77.0.10")
OTHER_HOME = IPv4Address("10.77.0.11")
ALL_SYSTEMS = IPv4Address("224.0.0.1")
NODE_MAC = bytes.fromhex("020000000010")
OTHER_MAC = bytes.fromhex("020000000011")
FOREIGN_MAC = bytes.fromhex("020000000001")
PORT = 40434
T = RequestFlags.REVERSE_TUNNEL
NOTHING = MobileToForeign()

KEY, OTHER_KEY, FOREIGN_KEY = os.urandom(32), os.urandom(32), os.urandom(32)


def _association(spi: int, key: bytes) -> MobilitySecurityAssociation:
    return MobilitySecurityAssociation(Spi(spi), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(key))


SA = _association(0x100, KEY)
OTHER_SA = _association(0x101, OTHER_KEY)
FOREIGN_HOME = _association(0x300, FOREIGN_KEY)

HOME_CONFIGURATION = f"""version = 1
address = "{HOME_AGENT}"
inside_interfaces = ["inside"]
trusted_prefixes = ["10.1.0.0/16"]
home_network = "10.77.0.0/24"
control = "%CONTROL%"
[[node]]
name = "laptop"
home_address = "{HOME}"
spi = 0x100
algorithm = "hmac-sha256"
key_file = "laptop.key"
[[node]]
name = "other"
home_address = "{OTHER_HOME}"
spi = 0x101
algorithm = "hmac-sha256"
key_file = "other.key"
[[foreign_agent]]
address = "{FOREIGN}"
spi = 0x300
algorithm = "hmac-sha256"
key_file = "foreign.key"
"""

FOREIGN_CONFIGURATION = f"""version = 1
role = "foreign"
care_of_addresses = ["{FOREIGN}"]
uplink_interfaces = ["core"]
advertisement_interval = 1
revocation = true
[[access]]
interface = "trust3"
address = "{FOREIGN}/24"
[[home_agent]]
address = "{HOME_AGENT}"
spi = 0x300
algorithm = "hmac-sha256"
key_file = "foreign.key"
"""


class ForeignProcess(AgentProcess):
    """A real homeward-agent in the foreign agent's host."""

    def dump(self) -> dict[str, Any]:
        """What the agent tells about itself on SIGUSR1."""
        marker = " mip visitors "
        seen = self.text().count(marker)
        self._process.send_signal(signal.SIGUSR1)
        line = self.wait_for(marker, times=seen + 1)
        found: dict[str, Any] = json.loads(line.split(marker, 1)[1])
        return found


class ForeignNetwork:
    """The hosts, cabled and addressed. Mobile nodes have no address at all, but a TUN-less route out of their link."""

    def __init__(self, *, nat: bool = False) -> None:
        self.node, self.other, self.foreign, self.home, self.peer, self.switch = (
            Namespace() for _ in range(6)
        )
        self.nat = Namespace() if nat else None
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for bridge in ("access", "backbone"):
            self.switch.batch(
                f"link add {bridge} type bridge forward_delay 0 mcast_snooping 0",
                f"link set dev {bridge} up",
            )
        self._cable(self.node, "wlan", "access", NODE_MAC)
        self._cable(self.other, "wlan", "access", OTHER_MAC)
        self._cable(self.foreign, "trust3", "access", FOREIGN_MAC)
        if self.nat is None:
            self._cable(self.foreign, "core", "backbone", bytes.fromhex("02000000000d"))
            self.foreign.ip(f"address add {FOREIGN_CORE}/24 dev core")
            self.foreign.ip(f"route add 10.77.0.0/24 via {HOME_AGENT}")
        else:
            self._build_nat(self.nat)
        self._cable(self.home, "inside", "backbone", bytes.fromhex("020000000002"))
        self._cable(self.peer, "lan", "backbone", bytes.fromhex("02000000000a"))
        self.foreign.ip(f"address add {FOREIGN}/24 dev trust3")
        self.home.ip(f"address add {HOME_AGENT}/24 dev inside")
        self.peer.ip(f"address add {PEER}/24 dev lan")
        for host in (self.home, self.peer):
            host.ip(f"route add default via {FOREIGN_CORE if self.nat is None else NAT}")
        self.peer.ip(f"route add 10.77.0.0/24 via {HOME_AGENT}")
        self.foreign.setting("ipv4/ip_forward", "1")
        for node, home in ((self.node, HOME), (self.other, OTHER_HOME)):
            node.batch(
                f"address add {home}/32 dev wlan",
                f"neighbour add {FOREIGN} lladdr {FOREIGN_MAC.hex(':')} dev wlan nud permanent",
                f"route add {FOREIGN} dev wlan",
                f"route add default via {FOREIGN} dev wlan",
            )
            node.setting("ipv4/conf/wlan/arp_ignore", "8")

    def _build_nat(self, nat: Namespace) -> None:
        self._cable(nat, "outer", "backbone", bytes.fromhex("02000000001f"))
        self.foreign.ip(f"link add core type veth peer name inner netns {nat.pid}")
        for host, link in ((self.foreign, "core"), (nat, "inner")):
            host.ip(f"link set dev {link} up")
        self.foreign.ip("address add 192.168.31.2/24 dev core")
        self.foreign.ip("route add default via 192.168.31.1")
        nat.ip("address add 192.168.31.1/24 dev inner")
        nat.ip(f"address add {NAT}/24 dev outer")
        nat.ip(f"route add {FOREIGN} via 192.168.31.2")
        nat.setting("ipv4/ip_forward", "1")
        nat.run(
            "nft",
            "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; };"
            "add rule ip nat out oifname outer masquerade",
        )

    def _cable(self, host: Namespace, name: str, bridge: str, hardware_address: bytes) -> None:
        port = f"{name}-{host.pid}"[:15]
        self.switch.batch(
            f"link add {port} type veth peer name {name} netns {host.pid}",
            f"link set dev {port} master {bridge} up",
        )
        host.batch(f"link set dev {name} address {hardware_address.hex(':')}", f"link set dev {name} up")

    def close(self) -> None:
        """Take all hosts down."""
        for host in (self.node, self.other, self.foreign, self.home, self.peer, self.switch, self.nat):
            if host is not None:
                host.close()


def write_configurations(
    folder: Path, *, home: str = "", foreign: str = "", foreign_tables: str = ""
) -> tuple[Path, Path]:
    """Configuration files of both agents, with their keys; what is given stands above the tables, or at the end."""
    for name, key in (("laptop.key", KEY), ("other.key", OTHER_KEY), ("foreign.key", FOREIGN_KEY)):
        (folder / name).write_text(key.hex() + "\n")
        (folder / name).chmod(0o600)
    paths = []
    for name, text, more in (
        ("home.toml", HOME_CONFIGURATION.replace("%CONTROL%", str(folder / "control")), home),
        ("foreign.toml", FOREIGN_CONFIGURATION + foreign_tables, foreign),
    ):
        path = folder / name
        # A key that is given stands instead of the one above.
        given = {line.split("=")[0].strip() for line in more.splitlines() if "=" in line}
        kept = [
            line for line in text.splitlines() if line.split("=")[0].strip() not in given or "_key" in line
        ]
        path.write_text("\n".join([kept[0], more, *kept[1:]]) + "\n")
        path.chmod(0o644)
        paths.append(path)
    return paths[0], paths[1]


class MobileNode:
    """A mobile node by hand: what it says and hears on its link goes through a packet socket."""

    def __init__(
        self,
        host: Namespace,
        home: IPv4Address = HOME,
        association: MobilitySecurityAssociation = SA,
        *,
        hardware_address: bytes = NODE_MAC,
    ) -> None:
        self.host = host
        self.home = home
        self.association = association
        self.hardware_address = hardware_address
        with host.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.bind(("wlan", 3))
        self._socket.settimeout(0.05)

    def close(self) -> None:
        """Be gone."""
        self._socket.close()

    def send(self, packet: bytes, *, source: bytes | None = None, to: bytes = FOREIGN_MAC) -> None:
        """Send a whole IPv4 packet in a frame to a station, the foreign agent's unless another is named."""
        self._socket.send(to + (source or self.hardware_address) + b"\x08\x00" + packet)

    def heard(self, wanted: Callable[[bytes, bytes], object], *, wait: float = 3.0) -> object:
        """The first thing that `wanted` makes of a frame's source station and IPv4 packet; None when there is none."""
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            try:
                frame, sender = self._socket.recvfrom(4096)
            except TimeoutError:
                continue
            if sender[2] == socket.PACKET_OUTGOING or frame[12:14] != b"\x08\x00":
                continue
            found = wanted(frame[6:12], frame[14:])
            if found is not None:
                return found
        return None

    def drain(self) -> None:
        """Forget what was heard so far."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            self._socket.settimeout(0.05)

    def solicit(self, source: IPv4Address | None = None) -> None:
        """Ask the agents of the link to advertise."""
        group = IPv4Address("224.0.0.11")
        packet = ipv4(source or self.home, group, 1, encode_solicitation(), ttl=1)
        self.send(packet, to=bytes.fromhex("01005e00000b"))

    def advertisement(self, *, to: IPv4Address | None = None, wait: float = 3.0) -> AgentAdvertisement | None:
        """The next agent advertisement, or the next one to that address."""

        def wanted(station: bytes, packet: bytes) -> AgentAdvertisement | None:
            if packet[9] != 1 or packet[20] != 9 or station != FOREIGN_MAC:
                return None
            assert packet[8] == 1, "TTL"
            if to is not None and packet[16:20] != to.packed:
                return None
            return decode_advertisement(packet[20:])

        found = self.heard(wanted, wait=wait)
        return found if isinstance(found, AgentAdvertisement) else None

    def request(self, lifetime: int = 300, **changes: object) -> RegistrationRequest:
        """A request for the foreign agent's care-of address, made now."""
        fields: dict[str, object] = {
            "home_agent": HOME_AGENT,
            "care_of_address": FOREIGN,
            "identification": from_time(time.time(), time.monotonic_ns()),
            "flags": T,
            **changes,
        }
        return RegistrationRequest(lifetime, self.home, **fields)  # type: ignore[arg-type]

    def octets(self, message: RegistrationRequest, part: MobileToForeign = NOTHING) -> bytes:
        """The request as it leaves."""
        return relay.tell_foreign_agent(registration.encode_request(message, self.association), part)

    def ask(
        self, payload: bytes, *, ttl: int = 255, station: bytes | None = None, to: IPv4Address = FOREIGN
    ) -> None:
        """Send a request's octets."""
        packet = udp((self.home, PORT), (to, 434), payload, ttl=ttl)
        self.send(packet, source=station)

    def answer(self, *, wait: float = 3.0) -> DecodedReply | None:
        """The next reply to our port, as it came."""

        def wanted(station: bytes, packet: bytes) -> DecodedReply | None:
            if packet[9] != 17 or station != FOREIGN_MAC:
                return None
            datagram = read_udp_packet(packet)
            if (datagram.source_port, datagram.destination_port) != (434, PORT):
                return None
            decoded = registration.decode(datagram.payload)
            return decoded if isinstance(decoded, DecodedReply) else None

        found = self.heard(wanted, wait=wait)
        return found if isinstance(found, DecodedReply) else None

    def register(
        self,
        lifetime: int = 300,
        part: MobileToForeign = NOTHING,
        **changes: object,
    ) -> RegistrationReply:
        """Register all the way; the reply, which there must be."""
        self.drain()
        self.ask(self.octets(self.request(lifetime, **changes), part))
        reply = self.answer()
        assert reply is not None, "no reply"
        return reply.message


@contextmanager
def both_agents(
    network: ForeignNetwork, folder: Path, *, home: str = "", foreign: str = "", foreign_tables: str = ""
) -> Iterator[tuple[AgentProcess, ForeignProcess]]:
    """Both agents' real processes, home agent first."""
    home_path, foreign_path = write_configurations(
        folder, home=home, foreign=foreign, foreign_tables=foreign_tables
    )
    processes = (
        AgentProcess(network.home, home_path, folder / "home.log"),
        ForeignProcess(network.foreign, foreign_path, folder / "foreign.log"),
    )
    try:
        for process in processes:
            process.wait_for("ready ")
        yield processes
    finally:
        for process in processes:
            process.stop()
    for process in processes:
        assert "Traceback" not in process.text(), process.text()


def ping_packet(source: IPv4Address, destination: IPv4Address, number: int) -> bytes:
    """An ICMP echo request."""
    return encode_echo(Echo(source, destination, number, number, data=struct.pack("!I", number)))
