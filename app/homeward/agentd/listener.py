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

from homeward.agentd.datagram_batches import Leaving, Receiver, Sender
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.registration_port import open_registration_port
from homeward.agents.agent_events import RequestArrived, SendReply, SendRevocation
from homeward.model.errors import LinkError
from homeward.wire.socket_options import IP_PKTINFO, LEVEL_IP
from homeward.wire.udp_tunnel import TUNNEL_DATA_TYPE

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
        self._destinations: dict[bytes, IPv4Address] = {}
        self._receiver, self._sender = Receiver(), Sender()
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
        if isinstance(reply, SendReply) and reply.interface is not None:
            try:
                index = socket.if_nametoindex(reply.interface)
            except OSError as error:
                raise LinkError(f"sending to {reply.destination}", error.errno or 0) from error
        way = (LEVEL_IP, IP_PKTINFO, _PACKET_INFO.pack(index, reply.source.packed, b"\0\0\0\0"))
        try:
            self._socket.sendmsg([reply.octets], [way], 0, (str(reply.destination), reply.port))
        except OSError as error:
            raise LinkError(f"sending to {reply.destination}", error.errno or 0) from error

    def answer(self, answers: Sequence[tuple[RequestArrived, bytes]]) -> list[LinkError | None]:
        """Send many, each from where its request went to where that came from; for each what kept it from leaving."""
        assert self._socket is not None
        leaving = [
            Leaving(octets, int(asked.source), asked.source_port, asked.destination.packed)
            for asked, octets in answers
        ]
        return [
            LinkError(f"sending to {asked.source}", code) if code else None
            for (asked, _), code in zip(answers, self._sender.send(self._socket, leaving), strict=True)
        ]

    def _take(self) -> None:
        port = self._socket
        assert port is not None
        batch: list[RequestArrived] = []
        interfaces: dict[int, str] = {}
        for octets, source, its_port, link, local, destination, service in self._receiver.receive(port):
            own = self._own(destination)
            if octets[:1] == _TUNNEL_DATA:
                self._data_observer(TunnelDatagram(octets, IPv4Address(source), its_port, link, service, own))
                if self._socket is not port:  # it stopped us
                    return
                continue
            interface = interfaces.get(link)
            if interface is None:
                interface = interfaces[link] = self._links.name_of(link)
            batch.append(
                RequestArrived(
                    octets,
                    IPv4Address(source),
                    source_port=its_port,
                    destination=own,
                    interface=interface,
                    # The kernel names the address that it would answer from: another one for a broadcast.
                    unicast=local == destination,
                )
            )
        if batch:
            self._observer(batch)

    def _own(self, destination: bytes) -> IPv4Address:
        """Addresses that datagrams arrive at are few, and made once each."""
        known = self._destinations.get(destination)
        if known is None:
            if len(self._destinations) >= _DESTINATIONS:
                self._destinations.clear()
            known = self._destinations[destination] = IPv4Address(destination)
        return known
