# SPDX-License-Identifier: GPL-2.0-or-later
"""A home agent's sockets on the home link: ARP in the name of mobile nodes that are away, and who sent a request.

ARP is answered by a packet socket of our own, not by the kernel's proxy entries: a killed agent leaves nothing behind
that would draw packets to a host which cannot tunnel them, and a mobile node that comes home and announces itself is
not told that its address is taken (the kernel would answer it).
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import LinkError, NotPermitted, WireError
from homeward.wire import arp
from homeward.wire.link_frames import (
    BROADCAST,
    ETHERTYPE_IPV4,
    SO_ATTACH_FILTER,
    ethernet,
    instructions,
    only_requests_to,
)

log = logging.getLogger("links")

_BATCH: Final = 64
_ETHERNET_HEADER: Final = 14
_LONGEST_ARP: Final = 128
_LONGEST_REQUEST: Final = 4096
_REMEMBERED: Final = 64
_UDP_HEADER: Final = 8
_ARPHRD_ETHER: Final = 1


class AgentHomeLink:
    """The link called `name`. Raises LinkError, NotPermitted; a link without Ethernet addresses is a LinkError."""

    def __init__(self, name: str, agent: IPv4Address, on_question: Callable[[arp.ArpMessage], None]) -> None:
        self._name = name
        self._on_question = on_question
        self._senders: deque[tuple[bytes, bytes]] = deque(maxlen=_REMEMBERED)
        opened: list[socket.socket] = []
        try:
            for kind, protocol in ((socket.SOCK_RAW, arp.ETHERTYPE), (socket.SOCK_DGRAM, ETHERTYPE_IPV4)):
                made = socket.socket(socket.AF_PACKET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
                opened.append(made)
                if protocol == ETHERTYPE_IPV4:
                    _let_pass(made, only_requests_to(agent))
                made.bind((name, protocol))
        except OSError as error:
            for each in opened:
                each.close()
            refused = NotPermitted if isinstance(error, PermissionError) else LinkError
            raise refused(f"listening on the home link {name}", error.errno or 0) from error
        self._arp, self._requests = opened
        _, _, _, kind_of_link, self.hardware = self._arp.getsockname()
        if kind_of_link != _ARPHRD_ETHER:
            self.close()
            raise LinkError(f"listening on the home link {name}", "it has no Ethernet addresses")
        asyncio.get_running_loop().add_reader(self._arp, self._take)

    def tell(self, destination: bytes, message: arp.ArpMessage) -> None:
        """Send an ARP message; what cannot be sent is lost, as on any link."""
        frame = ethernet(destination, self.hardware, arp.ETHERTYPE, arp.encode(message))
        try:
            self._arp.send(frame)
        except OSError as error:
            log.debug("ARP could not be sent on %s: %s", self._name, error)

    def tell_all(self, address: IPv4Address, hardware: bytes) -> None:
        """Broadcast that an address is at this hardware address (gratuitous ARP)."""
        self.tell(BROADCAST, arp.gratuitous(address, hardware))

    def sender_of(self, request: bytes) -> bytes | None:
        """The hardware address that these octets came from lately, as the payload of a datagram to port 434."""
        while True:
            try:
                packet, (_, _, _, _, hardware) = self._requests.recvfrom(_LONGEST_REQUEST)
            except OSError:
                break
            self._senders.append((packet[(packet[0] & 0x0F) * 4 + _UDP_HEADER :], hardware))
        # The first one: whoever copies the frame afterwards only repeats what was accepted already.
        return next((hardware for payload, hardware in self._senders if payload == request), None)

    def close(self) -> None:
        """Answer and hear nothing more."""
        asyncio.get_running_loop().remove_reader(self._arp)
        self._arp.close()
        self._requests.close()

    def _take(self) -> None:
        for _ in range(_BATCH):
            try:
                message = arp.decode(self._arp.recv(_LONGEST_ARP)[_ETHERNET_HEADER:])
            except WireError:
                continue
            except OSError:
                return  # nothing more, or the link went down
            if not message.is_reply:
                self._on_question(message)


def _let_pass(opened: socket.socket, program: bytes) -> None:
    octets = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HP", instructions(program), ctypes.addressof(octets))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
