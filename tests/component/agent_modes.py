# SPDX-License-Identifier: GPL-2.0-or-later
"""One running home agent with everything switched on, and what its tests say to it and hear from it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.packet import Packet

from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.secret import Secret
from homeward.wire import authenticator, registration
from homeward.wire.decoded import DecodedReply
from homeward.wire.identification import from_time
from tests.component.agent_network import (
    AGENT,
    HOME,
    SECOND_CARE_OF,
    AgentNetwork,
    AgentProcess,
    raw,
    udp,
)

KEY = os.urandom(32)
SA = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(KEY))
NONCE_SA = replace(SA, spi=Spi(0x102))
ROAMER_SA = replace(SA, spi=Spi(0x103))
FOREIGN_SA = replace(SA, spi=Spi(0x200))
NAT = SECOND_CARE_OF
FOREIGN_AGENT = IPv4Address("10.1.1.52")
NARROW = IPv4Address("10.1.1.53")
NONCE_HOME = IPv4Address("10.77.0.12")
AT_HOME = IPv4Address("10.79.0.10")
D_T = RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL

CONFIGURATION = f"""version = 1
address = "{AGENT}"
inside_interfaces = ["inside", "home"]
trusted_prefixes = ["10.1.0.0/16", "10.79.0.0/24"]
inside_nats = ["{NAT}"]
nat_keepalive = 30
home_link = "home"
control = "CONTROL"
segment_mtu = 0
[[node]]
name = "laptop"
home_address = "{HOME}"
spi = 0x100
algorithm = "hmac-sha256"
key_file = "key"
[[node]]
name = "at-home"
home_address = "{AT_HOME}"
spi = 0x100
algorithm = "hmac-sha256"
key_file = "key"
[[node]]
name = "nonces"
home_address = "{NONCE_HOME}"
spi = 0x102
algorithm = "hmac-sha256"
key_file = "key"
replay = "nonces"
[[node]]
name = "roamer"
nai = "roamer@example.test"
home_addresses = "10.77.0.64/28"
spi = 0x103
algorithm = "hmac-sha256"
key_file = "key"
[[foreign_agent]]
address = "{FOREIGN_AGENT}"
spi = 0x200
algorithm = "hmac-sha256"
key_file = "key"
[[path]]
prefix = "{NARROW}/32"
mtu = 1280
"""


@contextmanager
def running(
    network: AgentNetwork, folder: Path, configuration: str = CONFIGURATION
) -> Iterator[AgentProcess]:
    """The agent of CONFIGURATION, or another one like it; its control socket is `control` in the folder."""
    (folder / "key").write_text(KEY.hex())
    (folder / "key").chmod(0o600)
    path = folder / "agent.toml"
    path.write_text(configuration.replace("CONTROL", str(folder / "control")))
    path.chmod(0o644)
    process = AgentProcess(network.agent, path, folder / "log")
    try:
        process.wait_for("ready ")
        yield process
    finally:
        process.stop()
    assert "Traceback" not in process.text()
    assert KEY.hex() not in process.text()


class Station:
    """A mobile node or foreign agent: one UDP socket and raw sockets for each encapsulation, at one address."""

    def __init__(self, network: AgentNetwork, address: IPv4Address, *protocols: int) -> None:
        self.address = address
        self.signalling = udp(network.node, address)
        self.raw = {protocol: raw(network.node, protocol, address) for protocol in protocols}

    def close(self) -> None:
        self.signalling.close()
        for each in self.raw.values():
            each.close()

    def send(self, octets: bytes) -> None:
        self.signalling.sendto(octets, (str(AGENT), 434))

    def hear(self, wait: float = 3.0) -> bytes:
        self.signalling.settimeout(wait)
        octets, source = self.signalling.recvfrom(65535)
        assert source == (str(AGENT), 434)
        return octets

    def exchange(self, octets: bytes, association: MobilitySecurityAssociation = SA) -> DecodedReply:
        """Send a request and return the reply, once it is proved."""
        self.send(octets)
        return proved(self.hear(), association)

    def ask(self, **changes: object) -> RegistrationReply:
        """Register by ourselves."""
        return self.exchange(request(self.address, SA, **changes)).message


def request(care_of: IPv4Address, association: MobilitySecurityAssociation = SA, **changes: object) -> bytes:
    plain = RegistrationRequest(
        300,
        HOME,
        home_agent=AGENT,
        care_of_address=care_of,
        identification=from_time(time.time(), time.monotonic_ns()),
        flags=D_T,
    )
    return registration.encode_request(replace(plain, **changes), association)  # type: ignore[arg-type]


def proved(octets: bytes, association: MobilitySecurityAssociation = SA) -> DecodedReply:
    decoded = registration.decode(octets)
    assert isinstance(decoded, DecodedReply)
    assert authenticator.verify(octets, decoded, association)
    return decoded


def from_raw(opened: socket.socket) -> Packet:
    return IP(opened.recv(65535))


def datagram(size: int = 20, *, source: IPv4Address, to: IPv4Address) -> bytes:
    """A packet for the other end of a tunnel."""
    return bytes(IP(src=str(source), dst=str(to), id=7) / UDP(sport=7000, dport=7001) / bytes(size))
