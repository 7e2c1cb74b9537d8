# SPDX-License-Identifier: GPL-2.0-or-later
"""ARP on a home link, in the name of mobile nodes that are away (RFC 5944 section 4.6).

It is spoken by a packet socket of our own, not by the kernel's proxy entries: a killed agent leaves nothing behind that
would draw packets to a host which cannot tunnel them, and a mobile node that comes home and announces itself is not
told that its address is taken (the kernel would answer it).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import LinkError, NotPermitted, WireError
from homeward.wire import arp
from homeward.wire.link_frames import ARPHRD_ETHER, BROADCAST, ethernet

log = logging.getLogger("links")

_BATCH: Final = 64
_ETHERNET_HEADER: Final = 14
_LONGEST: Final = 128


class AgentHomeLink:
    """The link called `name`; `on_question` gets each ARP request on it. Raises LinkError, also for a link without
    Ethernet addresses, and NotPermitted."""

    def __init__(self, name: str, on_question: Callable[[arp.ArpMessage], None]) -> None:
        self._name = name
        self._on_question = on_question
        action = f"speaking ARP on the home link {name}"
        made = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
        )
        try:
            made.bind((name, arp.ETHERTYPE))
        except OSError as error:
            made.close()
            refused = NotPermitted if isinstance(error, PermissionError) else LinkError
            raise refused(action, error.errno or 0) from error
        _, _, _, kind_of_link, self.hardware = made.getsockname()
        if kind_of_link != ARPHRD_ETHER:
            made.close()
            raise LinkError(action, "it has no Ethernet addresses")
        self._socket = made
        asyncio.get_running_loop().add_reader(made, self._take)

    def tell(self, destination: bytes, message: arp.ArpMessage) -> None:
        """Send an ARP message; what cannot be sent is lost, as on any link."""
        frame = ethernet(destination, self.hardware, arp.ETHERTYPE, arp.encode(message))
        try:
            self._socket.send(frame)
        except OSError as error:
            log.debug("ARP could not be sent on %s: %s", self._name, error)

    def tell_all(self, address: IPv4Address, hardware: bytes) -> None:
        """Broadcast that an address is at this hardware address (gratuitous ARP)."""
        self.tell(BROADCAST, arp.gratuitous(address, hardware))

    def close(self) -> None:
        """Answer nobody any more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _take(self) -> None:
        for _ in range(_BATCH):
            try:
                message = arp.decode(self._socket.recv(_LONGEST)[_ETHERNET_HEADER:])
            except WireError:
                continue
            except OSError:
                return  # nothing more, or the link went down
            if not message.is_reply:
                self._on_question(message)
