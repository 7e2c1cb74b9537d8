# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP port 434 of the home agent: each request with the link it came in by, each reply from where the request went."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from homeward.agentd.inside_links import InsideLinks
from homeward.agents.agent_events import RequestArrived, SendReply
from homeward.model.errors import LinkError, NotPermitted
from homeward.model.names import REGISTRATION_PORT
from homeward.wire.socket_options import ANCILLARY_OCTETS, IP_PKTINFO, LEVEL_IP

_BATCH: Final = 64
_LONGEST: Final = 4096  # a request has some 80 octets; what is cut off here is malformed anyway
_RECEIVE_BUFFER: Final = 1 << 20
_PACKET_INFO: Final = struct.Struct("=i4s4s")


class RequestListener:
    """Listens on all addresses, since requests may be broadcast; what may be answered is decided elsewhere."""

    def __init__(self, links: InsideLinks) -> None:
        self._links = links
        self._socket: socket.socket | None = None
        self._observer: Callable[[RequestArrived], None] = lambda arrived: None

    def start(self, observer: Callable[[RequestArrived], None]) -> None:
        """Begin to listen. Raises NotPermitted, LinkError (EADDRINUSE: another agent is running)."""
        self._observer = observer
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            made.bind(("0.0.0.0", REGISTRATION_PORT))
        except OSError as error:
            made.close()
            refused = NotPermitted if isinstance(error, PermissionError) else LinkError
            raise refused(f"listening on UDP port {REGISTRATION_PORT}", error.errno or 0) from error
        self._socket = made
        asyncio.get_running_loop().add_reader(made, self._take)

    def stop(self) -> None:
        """Close the port."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def send(self, reply: SendReply) -> None:
        """Send a reply at once. Raises LinkError."""
        assert self._socket is not None
        action = f"sending a reply to {reply.destination}"
        index = 0
        try:
            if reply.interface is not None:
                index = socket.if_nametoindex(reply.interface)
            way = (LEVEL_IP, IP_PKTINFO, _PACKET_INFO.pack(index, reply.source.packed, bytes(4)))
            self._socket.sendmsg([reply.octets], [way], 0, (str(reply.destination), reply.port))
        except OSError as error:
            raise LinkError(action, error.errno or 0) from error

    def _take(self) -> None:
        for _ in range(_BATCH):
            if self._socket is None:  # the observer stopped us
                return
            try:
                octets, ancillary, _, source = self._socket.recvmsg(_LONGEST, ANCILLARY_OCTETS)
            except BlockingIOError:
                return
            except OSError:
                continue
            arrived = self._read(octets, ancillary, source)
            if arrived is not None:
                self._observer(arrived)

    def _read(
        self, octets: bytes, ancillary: list[tuple[int, int, bytes]], source: tuple[str, int]
    ) -> RequestArrived | None:
        for level, kind, data in ancillary:
            if (level, kind) == (LEVEL_IP, IP_PKTINFO):
                index, local, destination = _PACKET_INFO.unpack_from(data)
                return RequestArrived(
                    octets,
                    IPv4Address(source[0]),
                    source_port=source[1],
                    destination=IPv4Address(destination),
                    interface=self._links.name_of(index),
                    # The kernel names the address that it would answer from: another one for a broadcast.
                    unicast=local == destination,
                )
        return None
