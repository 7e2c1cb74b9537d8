# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP port 434 of the home agent: each request with the link it came in by, each reply from where the request went.

Data of tunnels in UDP comes by the same port (RFC 3519 section 4.1), and is told apart here by its first octet. What
goes into such tunnels leaves by a raw socket, with this port in its header.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.registration_port import open_registration_port
from homeward.agents.agent_events import RequestArrived, SendReply, SendRevocation
from homeward.model.errors import LinkError
from homeward.wire.socket_options import ANCILLARY_OCTETS, IP_PKTINFO, IP_TOS, LEVEL_IP
from homeward.wire.udp_tunnel import TUNNEL_DATA_TYPE

_BATCH: Final = 64
_LONGEST: Final = 0xFFFF
_DESTINATIONS: Final = 64
_TUNNEL_DATA: Final = bytes([TUNNEL_DATA_TYPE])
_PACKET_INFO: Final = struct.Struct("=i4s4s")


@dataclass(frozen=True, slots=True)
class TunnelDatagram:
    """MIP Tunnel Data as it arrived, by the link with this index, with this type of service."""

    octets: bytes
    source: IPv4Address
    port: int
    link: int
    tos: int
    destination: IPv4Address


class RequestListener:
    """Listens on all addresses, since requests may be broadcast; what may be answered is decided elsewhere."""

    def __init__(self, links: InsideLinks) -> None:
        self._links = links
        self._socket: socket.socket | None = None
        self._buffer = bytearray(_LONGEST)
        self._destinations: dict[bytes, IPv4Address] = {}
        self._observer: Callable[[Sequence[RequestArrived]], None] = lambda batch: None
        self._data_observer: Callable[[TunnelDatagram], None] = lambda arrived: None

    def start(
        self,
        observer: Callable[[Sequence[RequestArrived]], None],
        data_observer: Callable[[TunnelDatagram], None],
    ) -> None:
        """Begin to listen; `observer` is given what has arrived at one moment, in its order.

        Raises NotPermitted, LinkError (EADDRINUSE: another agent is running).
        """
        self._observer = observer
        self._data_observer = data_observer
        self._socket = open_registration_port()
        asyncio.get_running_loop().add_reader(self._socket, self._take)

    def stop(self) -> None:
        """Close the port."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def send(self, reply: SendReply | SendRevocation) -> None:
        """Send a reply, or what nobody asked for, at once. Raises LinkError."""
        assert self._socket is not None
        index = 0
        try:
            if isinstance(reply, SendReply) and reply.interface is not None:
                index = socket.if_nametoindex(reply.interface)
            way = (LEVEL_IP, IP_PKTINFO, _PACKET_INFO.pack(index, reply.source.packed, b"\0\0\0\0"))
            to = socket.inet_ntoa(reply.destination.packed)  # four times as fast as str()
            self._socket.sendmsg([reply.octets], [way], 0, (to, reply.port))
        except OSError as error:
            raise LinkError(f"sending to {reply.destination}", error.errno or 0) from error

    def _take(self) -> None:
        batch: list[RequestArrived] = []
        view = memoryview(self._buffer)
        for _ in range(_BATCH):
            if self._socket is None:  # an observer stopped us
                return
            try:
                size, ancillary, _, source = self._socket.recvmsg_into([self._buffer], ANCILLARY_OCTETS)
            except BlockingIOError:
                break
            except OSError:
                continue
            arrived = self._arrived(bytes(view[:size]), ancillary, source)
            if isinstance(arrived, RequestArrived):
                batch.append(arrived)
            elif arrived is not None:
                self._data_observer(arrived)
        if batch:
            self._observer(batch)

    def _arrived(
        self, octets: bytes, ancillary: list[tuple[int, int, bytes]], source: tuple[str, int]
    ) -> RequestArrived | TunnelDatagram | None:
        index, tos = 0, 0
        local = destination = b""
        for level, kind, data in ancillary:
            if kind == IP_PKTINFO and level == LEVEL_IP:
                index, local, destination = _PACKET_INFO.unpack_from(data)
            elif kind == IP_TOS and level == LEVEL_IP:
                tos = data[0]
        if not destination:
            return None
        sender = IPv4Address(int.from_bytes(socket.inet_aton(source[0]), "big"))
        if octets[:1] == _TUNNEL_DATA:
            return TunnelDatagram(octets, sender, source[1], index, tos, self._own(destination))
        return RequestArrived(
            octets,
            sender,
            source_port=source[1],
            destination=self._own(destination),
            interface=self._links.name_of(index),
            # The kernel names the address that it would answer from: another one for a broadcast.
            unicast=local == destination,
        )

    def _own(self, destination: bytes) -> IPv4Address:
        """Addresses that datagrams arrive at are few, and made once each."""
        known = self._destinations.get(destination)
        if known is None:
            if len(self._destinations) >= _DESTINATIONS:
                self._destinations.clear()
            known = self._destinations[destination] = IPv4Address(destination)
        return known
