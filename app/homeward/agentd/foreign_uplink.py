# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP port 434 of a foreign agent towards home agents: relayed requests out, replies and UDP tunnels in.

What comes in by any other link than an uplink is dropped, whatever it says: a mobile node's neighbour could say it too.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.registration_port import open_registration_port
from homeward.agents.foreign_events import RelayFailed, SendToHomeAgent
from homeward.model.errors import LinkError
from homeward.wire.socket_options import IP_MTU_DISCOVER, IP_PKTINFO, IP_PMTUDISC_DONT, IP_TOS, LEVEL_IP

_BATCH: Final = 64
_LONGEST: Final = 0xFFFF
_PACKET_INFO: Final = struct.Struct("=i4s4s")
_EXTENDED_ERROR: Final = struct.Struct("=IBBBxII")
_IP_RECVERR: Final = 11
_ANCILLARY: Final = 256
_ORIGIN_ICMP: Final = 2
_UNREACHABLE: Final = 3
_TOO_BIG: Final = 4
_CODES: Final = {errno.ENETUNREACH: 0, errno.EHOSTUNREACH: 1, errno.ECONNREFUSED: 3}


@dataclass(frozen=True, slots=True)
class HomeDatagram:
    """A datagram that came in by an uplink for port 434 of `destination`."""

    octets: bytes
    source: IPv4Address
    source_port: int
    destination: IPv4Address
    type_of_service: int


@dataclass(frozen=True, slots=True)
class TooBigReported:
    """A router on the way to a home agent could not take a datagram of our UDP tunnel whole."""

    home_agent: IPv4Address
    mtu: int


class HomeAgentPort:
    """One socket for all home agents, whatever the care-of address."""

    def __init__(self, uplinks: InsideLinks) -> None:
        self._uplinks = uplinks
        self._socket: socket.socket | None = None
        self.on_datagram: Callable[[HomeDatagram], None] = lambda datagram: None
        self.on_failure: Callable[[RelayFailed | TooBigReported], None] = lambda failure: None
        self.on_stranger: Callable[[IPv4Address], None] = lambda source: None
        """Called for a datagram that came in by another link."""

    def start(self) -> None:
        """Begin to listen. Raises NotPermitted, LinkError (EADDRINUSE: another agent is running)."""
        options = ((_IP_RECVERR, 1), (IP_MTU_DISCOVER, IP_PMTUDISC_DONT))
        self._socket = open_registration_port(options)
        asyncio.get_running_loop().add_reader(self._socket, self._take)

    def stop(self) -> None:
        """Close the port."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def send(self, message: SendToHomeAgent) -> RelayFailed | None:
        """Send at once; what the kernel itself knows to be in vain comes back as if a router had said so.

        Raises LinkError for anything else that keeps it from leaving.
        """
        assert self._socket is not None
        way = (LEVEL_IP, IP_PKTINFO, _PACKET_INFO.pack(0, message.source.packed, bytes(4)))
        for last in (False, True):
            try:
                self._socket.sendmsg([message.octets], [way], 0, (str(message.destination), message.port))
            except OSError as error:
                # The first failure may be news of an earlier datagram, which the error queue tells in full.
                if not last:
                    self._take_errors()
                    continue
                if error.errno in _CODES:
                    return RelayFailed(message.destination, _CODES[error.errno], message.octets)
                raise LinkError(f"sending to home agent {message.destination}", error.errno or 0) from error
            return None
        return None

    def _take(self) -> None:
        self._take_errors()
        for _ in range(_BATCH):
            if self._socket is None:  # an observer stopped us
                return
            try:
                octets, ancillary, _, source = self._socket.recvmsg(_LONGEST, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:
                continue
            self._hand_on(octets, ancillary, source)

    def _hand_on(
        self, octets: bytes, ancillary: list[tuple[int, int, bytes]], source: tuple[str, int]
    ) -> None:
        link, destination, service = 0, None, 0
        for level, kind, data in ancillary:
            if (level, kind) == (LEVEL_IP, IP_PKTINFO):
                link, _, packed = _PACKET_INFO.unpack_from(data)
                destination = IPv4Address(packed)
            elif (level, kind) == (LEVEL_IP, IP_TOS):
                service = data[0]
        address = IPv4Address(source[0])
        if destination is None or not self._uplinks.has(link):
            self.on_stranger(address)
            return
        self.on_datagram(HomeDatagram(octets, address, source[1], destination, service))

    def _take_errors(self) -> None:
        for _ in range(_BATCH):
            if self._socket is None:
                return
            try:
                quoted, ancillary, _, far = self._socket.recvmsg(_LONGEST, _ANCILLARY, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for level, kind, data in ancillary:
                if (level, kind) == (LEVEL_IP, _IP_RECVERR):
                    self._take_error(quoted, IPv4Address(far[0]), data)

    def _take_error(self, quoted: bytes, home_agent: IPv4Address, data: bytes) -> None:
        _, origin, kind, code, info, _ = _EXTENDED_ERROR.unpack_from(data)
        if origin != _ORIGIN_ICMP or kind != _UNREACHABLE:
            return
        if code == _TOO_BIG:
            self.on_failure(TooBigReported(home_agent, info))
        else:
            self.on_failure(RelayFailed(home_agent, code, quoted))
