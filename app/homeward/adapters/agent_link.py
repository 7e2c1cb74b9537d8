# SPDX-License-Identifier: GPL-2.0-or-later
"""One link of a mobility agent: what mobile nodes say to it there, with the station that said it, and its answers.

A packet socket does both. It shows the hardware address that a frame came from, hears requests from addresses that no
route leads to, and sends a frame to the station that it names: nobody is asked by ARP, as RFC 5944 4.2.2 demands.
The kernel filters, so that traffic which only passes through the agent's host does not wake us.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import LinkError, NotPermitted
from homeward.wire.link_frames import (
    ETHERTYPE_IPV4,
    PACKET_ADD_MEMBERSHIP,
    PACKET_OTHERHOST,
    SO_ATTACH_FILTER,
    SOL_PACKET,
    group_membership,
    hardware_group,
    instructions,
    only_requests_to,
)

_BATCH: Final = 32
_LONGEST: Final = 4096
_GROUPS: Final = (IPv4Address("224.0.0.2"), IPv4Address("224.0.0.11"))
_PACKET_AUXDATA: Final = 8
_AUXDATA: Final = struct.Struct("=IIIHHHH")
_CHECKSUM_NOT_READY: Final = 1 << 3
_ANCILLARY: Final = 64
_RECEIVE_BUFFER: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class HeardPacket:
    """A whole IPv4 packet and the station whose frame brought it.

    `checksummed` is false where the kernel says that nobody has filled the UDP checksum in yet: the packet never left
    this machine.
    """

    packet: bytes
    hardware_address: bytes
    checksummed: bool


class AgentLink:
    """Requests for port 434 of `address`, and solicitations, on one link."""

    def __init__(self, interface: str, address: IPv4Address) -> None:
        self.interface = interface
        self.address = address
        self._observer: Callable[[HeardPacket], None] = lambda heard: None
        self._socket: socket.socket | None = None
        self._index = 0

    def start(self, observer: Callable[[HeardPacket], None]) -> None:
        """Begin to hear, on the running event loop. Raises LinkError when there is no such link, NotPermitted."""
        self._observer = observer
        self._open()

    @property
    def is_open(self) -> bool:
        """Whether anything is heard, and can be said."""
        return self._socket is not None

    def refresh(self) -> None:
        """Hear again where the link was taken away and is back under its name. Raises LinkError, NotPermitted."""
        try:
            if self._socket is not None and socket.if_nametoindex(self.interface) == self._index:
                return
        except OSError as error:
            self.stop()
            raise LinkError(f"looking for the link {self.interface}", error.errno or errno.ENODEV) from error
        self.stop()
        self._open()

    def stop(self) -> None:
        """Hear and say nothing any more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def send(self, packet: bytes, hardware_address: bytes) -> None:
        """Send a whole IPv4 packet in a frame to this station. Raises LinkError."""
        if self._socket is None:
            raise LinkError(f"sending on {self.interface}", errno.ENODEV)
        try:
            self._socket.sendto(packet, (self.interface, ETHERTYPE_IPV4, 0, 0, hardware_address))
        except OSError as error:
            raise LinkError(f"sending on {self.interface}", error.errno or 0) from error

    def send_to_group(self, packet: bytes, group: IPv4Address) -> None:
        """Send a whole IPv4 packet to a group of receivers on the link, or to all. Raises LinkError."""
        self.send(packet, hardware_group(group))

    def _open(self) -> None:
        action = f"listening on {self.interface}"
        try:
            self._index = socket.if_nametoindex(self.interface)
            self._socket = _open_ears(self.interface, self._index, self.address)
        except OSError as error:
            refused = NotPermitted if isinstance(error, PermissionError) else LinkError
            raise refused(action, error.errno or 0) from error
        asyncio.get_running_loop().add_reader(self._socket, self._take)

    def _take(self) -> None:
        for _ in range(_BATCH):
            if self._socket is None:  # the observer stopped us
                return
            try:
                packet, ancillary, _, sender = self._socket.recvmsg(_LONGEST, _ANCILLARY)
            except OSError:
                return  # nothing more, or the link went down
            if sender[2] < PACKET_OTHERHOST:
                self._observer(HeardPacket(packet, sender[4], _is_checksummed(ancillary)))


def _open_ears(interface: str, index: int, address: IPv4Address) -> socket.socket:
    ears = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        wanted = only_requests_to(address)
        program = ctypes.create_string_buffer(wanted, len(wanted))
        described = struct.pack("HP", instructions(wanted), ctypes.addressof(program))
        ears.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
        ears.setsockopt(SOL_PACKET, _PACKET_AUXDATA, 1)
        ears.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        # Only now does it receive anything at all.
        ears.bind((interface, ETHERTYPE_IPV4))
        for group in _GROUPS:
            ears.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, group_membership(index, group))
    except OSError:
        ears.close()
        raise
    return ears


def _is_checksummed(ancillary: Iterable[tuple[int, int, bytes]]) -> bool:
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
            return not _AUXDATA.unpack_from(data)[0] & _CHECKSUM_NOT_READY
    return True
