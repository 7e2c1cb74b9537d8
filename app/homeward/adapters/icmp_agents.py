# SPDX-License-Identifier: GPL-2.0-or-later
"""Agent discovery by ICMP (RFC 5944 section 2): hears Router Advertisements on access links, and asks for them.

Packet sockets do both. One that hears shows the sender's hardware address, which requests to an agent are sent to
(R-134), and a filter in the kernel keeps all but advertisements from waking us. One that asks chooses no source
address of its own, so that a link without an address can ask before DHCP is through (R-26), and never from the home
address.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import AdapterError, LinkError, LocalProtocolError, NotPermitted
from homeward.model.inputs import AgentAdvertised
from homeward.model.names import MARK_REGISTRATION
from homeward.wire import agent_advertisement
from homeward.wire.link_frames import (
    ARPHRD_ETHER,
    ETHERTYPE_IPV4,
    ONLY_ADVERTISEMENTS,
    PACKET_ADD_MEMBERSHIP,
    PACKET_OTHERHOST,
    SO_ATTACH_FILTER,
    SOL_PACKET,
    ethernet,
    group_membership,
    hardware_group,
    instructions,
    ipv4,
)

_BATCH: Final = 16
_LONGEST: Final = 2048
_GROUPS: Final = (IPv4Address("224.0.0.1"), IPv4Address("224.0.0.11"))
_SIOCGIFHWADDR: Final = 0x8927


class IcmpAgents:
    """Advertisements heard on the watched links, and solicitations."""

    def __init__(self) -> None:
        self._observer: Callable[[AgentAdvertised], None] | None = None
        self._sockets: dict[int, socket.socket] = {}
        self._mouth: socket.socket | None = None

    def start(self, observer: Callable[[AgentAdvertised], None]) -> None:
        """Report every advertisement on a watched link to `observer`, on the running event loop."""
        self._observer = observer

    def watch(self, links: frozenset[int]) -> None:
        """Hear these links, by index, and no others; one that is gone already is passed over. Raises NotPermitted."""
        if self._observer is None:
            raise LocalProtocolError("watch() before start()")
        for index in self._sockets.keys() - links:
            self._close(index)
        for index in links - self._sockets.keys():
            try:
                self._sockets[index] = _open_ears(index)
            except OSError as error:
                if isinstance(error, PermissionError):
                    raise NotPermitted("listening for mobility agents", error.errno or 0) from error
                continue  # the next picture of the links will not show it
            asyncio.get_running_loop().add_reader(self._sockets[index], self._take, index)

    def solicit(self, link_index: int, source: IPv4Address, destination: IPv4Address) -> None:
        """Send one solicitation with a TTL of 1 (R-107). Raises LinkError, NotPermitted."""
        if self._observer is None:
            raise LocalProtocolError("solicit() before start()")
        message = agent_advertisement.encode_solicitation()
        packet = ipv4(source, destination, agent_advertisement.PROTOCOL, message, ttl=agent_advertisement.TTL)
        try:
            if self._mouth is None:
                self._mouth = _open_mouth()
            name = socket.if_indextoname(link_index)
            kind, own = _hardware(self._mouth, name)
            if kind == ARPHRD_ETHER:
                packet = ethernet(hardware_group(destination), own, ETHERTYPE_IPV4, packet)
            self._mouth.sendto(packet, (name, ETHERTYPE_IPV4))
        except OSError as error:
            raise _refusal("asking for mobility agents", error) from error

    def stop(self) -> None:
        """Hear nothing any more."""
        for index in list(self._sockets):
            self._close(index)
        if self._mouth is not None:
            _release(self._mouth)
            self._mouth = None
        self._observer = None

    def _take(self, index: int) -> None:
        for _ in range(_BATCH):
            ears = self._sockets.get(index)
            if ears is None or self._observer is None:
                return
            try:
                packet, (_, _, kind, _, hardware_address) = ears.recvfrom(_LONGEST)
            except OSError:
                return  # nothing more, or the link went down: it is heard again when it comes up
            if kind < PACKET_OTHERHOST:
                self._observer(AgentAdvertised(index, packet, hardware_address))

    def _close(self, index: int) -> None:
        closing = self._sockets.pop(index)
        asyncio.get_running_loop().remove_reader(closing)
        _release(closing)


def _release(closing: socket.socket) -> None:
    """Close a packet socket aside: the kernel first waits until nobody looks at it any more, which took 11 ms here."""
    asyncio.get_running_loop().run_in_executor(None, closing.close)


def _open_mouth() -> socket.socket:
    """A socket that sends on any link and, having no protocol, hears nothing. Raises OSError."""
    mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        mouth.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_REGISTRATION)
    except OSError:
        mouth.close()
        raise
    return mouth


def _hardware(asker: socket.socket, name: str) -> tuple[int, bytes]:
    """A link's hardware type (ARPHRD) and address. Raises OSError."""
    answer = fcntl.ioctl(asker, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
    (kind,) = struct.unpack_from("=H", answer, 16)
    return kind, answer[18:24]


def _open_ears(index: int) -> socket.socket:
    """A socket that receives advertisements from one link and nothing else. Raises OSError."""
    ears = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    try:
        program = ctypes.create_string_buffer(ONLY_ADVERTISEMENTS, len(ONLY_ADVERTISEMENTS))
        described = struct.pack("HP", instructions(ONLY_ADVERTISEMENTS), ctypes.addressof(program))
        ears.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
        # Only now does it receive anything at all.
        ears.bind((socket.if_indextoname(index), ETHERTYPE_IPV4))
        for group in _GROUPS:
            ears.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, group_membership(index, group))
    except OSError:
        ears.close()
        raise
    return ears


def _refusal(action: str, error: OSError) -> AdapterError:
    if isinstance(error, PermissionError):
        return NotPermitted(action, error.errno or 0)
    return LinkError(action, error.errno or 0)
