# SPDX-License-Identifier: GPL-2.0-or-later
"""A laptop and the machine of its router and home agent, in a namespace each; and what can be heard between them."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

from scapy.layers.inet import IP
from scapy.packet import Raw

from homeward.adapters.tunnel_device import open_tun, open_tunnel_socket, receive_packet
from homeward.wire.ip_in_ip import encapsulate
from tests.world.namespaces import Namespace

AGENT = IPv4Address("10.0.0.2")
PEER = IPv4Address("10.0.0.10")
ROUTER = IPv4Address("10.1.1.1")
CARE_OF = IPv4Address("10.1.1.10")
HOME = IPv4Address("10.77.0.10")
INNER = IPv4Address("10.9.0.1")

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_IP_RECVTTL = 12

T = TypeVar("T")


async def eventually(look: Callable[[], T | None], seconds: float = 3.0) -> T:
    """What `look` finds, as soon as it finds something true; a failure after that time."""
    async with asyncio.timeout(seconds):
        while not (found := look()):  # noqa: ASYNC110 - what is looked at is outside this process
            await asyncio.sleep(0.002)
    return found


class Stations:
    """`laptop` has eth0 with CARE_OF; `agent`, its router, has AGENT and PEER. Inside `with` we are the laptop."""

    def __init__(self) -> None:
        self.laptop, self.agent = Namespace(), Namespace()
        # One process at each machine: nearly every test of the data path begins here.
        self.laptop.batch(
            f"link add eth0 type veth peer name lan0 netns {self.agent.path}",
            "link set eth0 up",
            f"addr add {CARE_OF}/24 dev eth0",
            f"route add default via {ROUTER}",
        )
        self.agent.batch(
            "link set lan0 up",
            f"addr add {ROUTER}/24 dev lan0",
            *(f"addr add {address}/32 dev lo" for address in (AGENT, PEER)),
        )
        with self.laptop:
            self.link = socket.if_nametoindex("eth0")

    def __enter__(self) -> Stations:
        self.laptop.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.laptop.__exit__()
        self.laptop.close()
        self.agent.close()

    def udp(self, address: IPv4Address, port: int) -> socket.socket:
        """A UDP socket at the agent's machine, for `take`."""
        with self.agent:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            opened.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            opened.bind((str(address), port))
        return opened

    def listen(self, device: str = "lan0") -> Wire:
        """Hear every frame that reaches the agent's end of a cable."""
        with self.agent:
            return Wire(device)


class Wire:
    """The frames that come in by a device: what the other end really sent."""

    def __init__(self, device: str) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        self._socket.bind((device, _ETH_P_ALL))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def heard(self) -> list[bytes]:
        """All frames since the last call."""
        frames = []
        while True:
            try:
                frame, address = self._socket.recvfrom(0xFFFF)
            except BlockingIOError:
                return frames
            if address[2] != _PACKET_OUTGOING:
                frames.append(frame)


@dataclass(frozen=True, slots=True)
class Datagram:
    """What arrived at a socket of `Stations.udp`."""

    octets: bytes
    source: IPv4Address
    port: int
    ttl: int


def take(receiver: socket.socket) -> Datagram | None:
    """The next datagram, None when there is none."""
    try:
        octets, ancillary, _, (host, port) = receiver.recvmsg(4096, 64)
    except BlockingIOError:
        return None
    ttl = next((struct.unpack("=i", data)[0] for _, kind, data in ancillary if kind == socket.IP_TTL), 0)
    return Datagram(octets, IPv4Address(host), port, ttl)


class FarEnd:
    """The other side of a TUN device of the namespace we are in, like a user-space VPN's: whole packets, both ways."""

    def __init__(self, namespace: Namespace, name: str, address: IPv4Address) -> None:
        with namespace:
            self._fd = open_tun(name)
        namespace.ip(f"addr add {address}/32 dev {name}")
        namespace.sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
        namespace.ip(f"link set {name} up")

    @property
    def fileno(self) -> int:
        """The device's descriptor, for the event loop."""
        return self._fd

    def sent(self) -> bytes | None:
        """The next packet that the kernel sent into the tunnel, None when there is none."""
        try:
            return os.read(self._fd, 0xFFFF)
        except BlockingIOError:
            return None

    def deliver(self, packet: bytes) -> None:
        """A packet comes out of the tunnel."""
        os.write(self._fd, packet)

    def close(self) -> None:
        os.close(self._fd)


class TunnelEnd:
    """The home agent's end of the IP-in-IP tunnel, as octets: what came, and what is sent back."""

    def __init__(self, stations: Stations) -> None:
        with stations.agent:
            self._raw = open_tunnel_socket(AGENT)

    def __enter__(self) -> TunnelEnd:
        return self

    def __exit__(self, *exception: object) -> None:
        self._raw.close()

    def came(self) -> bytes | None:
        """The next whole outer packet, None when there is none."""
        try:
            return receive_packet(self._raw)[0]
        except BlockingIOError:
            return None

    def send(self, inner: bytes, *, to: IPv4Address = CARE_OF, source: IPv4Address = AGENT) -> None:
        """Tunnel a packet to the laptop."""
        self._raw.sendto(encapsulate(inner, source, to), (str(to), 0))

    def send_octets(self, octets: bytes) -> None:
        """Send something that may be no packet at all, in an outer packet that is in order."""
        outer = IP(src=str(AGENT), dst=str(CARE_OF), proto=4) / Raw(octets)
        self._raw.sendto(bytes(outer), (str(CARE_OF), 0))
