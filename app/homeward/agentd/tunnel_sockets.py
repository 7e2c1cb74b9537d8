# SPDX-License-Identifier: GPL-2.0-or-later
"""The network's side of a home agent's tunnels: raw sockets, one for each encapsulation, and one for ICMP.

What comes in is told with the link that it came by; only what came by an inside link is anybody's business.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.tunnel_device import open_tunnel_socket, receive_packet
from homeward.agents.tunnels import TunnelPacket

_BATCH: Final = 64  # packets a wake-up, so that bulk traffic cannot starve the registrations on the same loop
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
_UNREACHABLE: Final = 3
_TIME_EXCEEDED: Final = 11
_ONLY_ERRORS: Final = 0xFFFFFFFF & ~(1 << _UNREACHABLE | 1 << _TIME_EXCEEDED)

Arrived = tuple[bytes, int]
"""A packet, and the index of the link that it came by."""
Take = Callable[[Sequence[Arrived]], None]


class TunnelSockets:
    """Gives `on_packets` the tunnel packets, from the outer header on, that have come until now, in their order, and
    `on_errors` the whole ICMP packets."""

    def __init__(
        self,
        address: IPv4Address,
        *,
        on_packets: Take,
        on_errors: Take,
    ) -> None:
        self._address = address
        self._on_packets = on_packets
        self._on_errors = on_errors
        self._arrivals: list[socket.socket] = []
        self._departures: socket.socket | None = None
        self._latest: IPv4Address | None = None
        self._to = ("", 0)
        self._icmp: socket.socket | None = None

    def open(self, protocols: Iterable[int]) -> None:
        """Begin to take tunnel packets of these IP protocols. Raises OSErrors."""
        # A socket of its own to send by: no fault of what was sent by another one comes up here.
        self._departures = _raw_socket(socket.IPPROTO_RAW, self._address)
        self._icmp = open_tunnel_socket(self._address, whole=False, protocol=socket.IPPROTO_ICMP)
        self._icmp.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", _ONLY_ERRORS))
        self._watch(self._icmp, self._on_errors)
        for protocol in sorted(protocols):
            made = open_tunnel_socket(self._address, protocol=protocol)
            self._arrivals.append(made)
            self._watch(made, self._on_packets)

    def send(self, packet: TunnelPacket) -> None:
        """Send a tunnel packet, which has its outer header. Raises OSErrors."""
        assert self._departures is not None
        if packet.endpoint is not self._latest:
            self._latest, self._to = packet.endpoint, (str(packet.endpoint), 0)
        self._departures.sendto(packet.octets, self._to)

    def tell(self, sender: IPv4Address, message: bytes) -> None:
        """Send an ICMP message. Raises OSErrors."""
        assert self._icmp is not None
        self._icmp.sendto(message, (str(sender), 0))

    def close(self) -> None:
        """Close all sockets."""
        loop = asyncio.get_running_loop()
        for each in (self._departures, self._icmp, *self._arrivals):
            if each is not None:
                loop.remove_reader(each)
                each.close()
        self._arrivals = []
        self._departures = self._icmp = None

    def _watch(self, raw: socket.socket, take: Take) -> None:
        def take_all() -> None:
            arrived: list[Arrived] = []
            for _ in range(_BATCH):
                try:
                    arrived.append(receive_packet(raw))
                except BlockingIOError:
                    break
                except OSError:
                    continue
            if arrived:
                take(arrived)

        asyncio.get_running_loop().add_reader(raw, take_all)


def _raw_socket(protocol: int, source: IPv4Address) -> socket.socket:
    made = socket.socket(
        socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
    )
    made.bind((str(source), 0))
    return made
