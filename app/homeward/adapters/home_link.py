# SPDX-License-Identifier: GPL-2.0-or-later
"""ARP for the home address on the home link (RFC 5944 section 4.6): answered by ourselves, and announced.

The kernel never answers for the home address, on no link (kernel_switches). On the home link a packet socket of ours
does, for as long as it is announced. So withdrawing is closing a socket: it works at once, it needs no setting that
would have to be remembered and put back, and a killed daemon answers nobody, as it has to be while its block stands.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import struct
from dataclasses import dataclass
from typing import Final

from homeward.model.access import HomePath
from homeward.model.errors import LinkError, NotPermitted, WireError
from homeward.model.names import MARK_REGISTRATION
from homeward.wire import arp
from homeward.wire.link_frames import (
    ARPHRD_ETHER,
    BROADCAST,
    SO_ATTACH_FILTER,
    ethernet,
    instructions,
    only_questions_for,
)

log = logging.getLogger("links")

ANNOUNCEMENTS: Final = 3
"""How often the home address is announced by gratuitous ARP, the first time included (R-190)."""
PAUSE: Final = 0.5
"""Seconds between two of them."""

_BATCH: Final = 16
_ETHERNET_HEADER: Final = 14
_LONGEST: Final = 128


@dataclass(slots=True)
class _Announced:
    path: HomePath
    opened: socket.socket
    hardware: bytes
    left: int = ANNOUNCEMENTS
    timer: asyncio.TimerHandle | None = None


class ArpHomeLinks:
    """At most one home link at a time, as there is one home address."""

    def __init__(self) -> None:
        self._announced: _Announced | None = None

    def announce(self, path: HomePath) -> None:
        """Answer ARP for the home address on this link from now on, and tell all its hosts; raises LinkError,
        NotPermitted. Where it is announced already it is told once more."""
        self.stop()
        try:
            opened, hardware = _open(path)
        except OSError as error:
            action = f"announcing {path.source} on {path.link_name}"
            kind = NotPermitted if isinstance(error, PermissionError) else LinkError
            raise kind(action, error.errno or 0) from error
        self._announced = _Announced(path, opened, hardware)
        asyncio.get_running_loop().add_reader(opened, self._take)
        self._tell()

    def withdraw(self, path: HomePath) -> None:
        """Answer no more on this link, at once (R-189); never fails."""
        if self._announced is not None and self._announced.path == path:
            self.stop()

    def stop(self) -> None:
        """Answer nowhere any more."""
        closing, self._announced = self._announced, None
        if closing is None:
            return
        if closing.timer is not None:
            closing.timer.cancel()
        loop = asyncio.get_running_loop()
        loop.remove_reader(closing.opened)
        # Nobody reads from it any more, so nobody is answered. The kernel takes 11 ms to close a packet socket.
        loop.run_in_executor(None, closing.opened.close)

    def _tell(self) -> None:
        """Broadcast our hardware address, and see to it that it is done a few times."""
        told = self._announced
        if told is None or not told.hardware:
            return  # a link without hardware addresses knows no ARP
        told.left -= 1
        self._send(told, BROADCAST, arp.gratuitous(told.path.source, told.hardware))
        again = asyncio.get_running_loop().call_later(PAUSE, self._tell) if told.left > 0 else None
        told.timer = again

    def _take(self) -> None:
        for _ in range(_BATCH):
            told = self._announced
            if told is None:
                return
            try:
                question = arp.decode(told.opened.recv(_LONGEST)[_ETHERNET_HEADER:])
            except WireError:
                continue
            except OSError:
                return  # nothing more, or the link went down
            asked = not question.is_reply and question.target == told.path.source
            if asked and question.sender != told.path.source:
                self._send(told, question.sender_hardware, question.answer(told.hardware))

    def _send(self, told: _Announced, destination: bytes, message: arp.ArpMessage) -> None:
        try:
            told.opened.send(ethernet(destination, told.hardware, arp.ETHERTYPE, arp.encode(message)))
        except OSError as error:
            log.debug("ARP for the home address could not be sent on %s: %s", told.path.link_name, error)


def _open(path: HomePath) -> tuple[socket.socket, bytes]:
    """A socket that hears the questions for the home address on its link, and the link's hardware address."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        octets = only_questions_for(path.source)
        program = ctypes.create_string_buffer(octets, len(octets))
        described = struct.pack("HP", instructions(octets), ctypes.addressof(program))
        opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_REGISTRATION)
        opened.bind((socket.if_indextoname(path.link_index), arp.ETHERTYPE))
    except OSError:
        opened.close()
        raise
    _, _, _, kind, hardware = opened.getsockname()
    return opened, hardware if kind == ARPHRD_ETHER else b""
