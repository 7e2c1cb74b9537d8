# SPDX-License-Identifier: GPL-2.0-or-later
"""Address resolution of IPv4 addresses on Ethernet (RFC 826), as far as the home address needs it (RFC 5944 4.6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import Truncated, UnknownMessage

ETHERTYPE: Final = 0x0806

_MESSAGE: Final = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET: Final = 1
_IPV4: Final = 0x0800
_REQUEST: Final = 1
_REPLY: Final = 2
_NOBODY: Final = bytes(6)


@dataclass(frozen=True, slots=True)
class ArpMessage:
    """A request, or the reply to one."""

    sender_hardware: bytes
    sender: IPv4Address
    target: IPv4Address
    target_hardware: bytes = _NOBODY
    is_reply: bool = False

    def answer(self, hardware: bytes) -> ArpMessage:
        """What the owner of the address that is asked for says, by the hardware address that it names."""
        return ArpMessage(hardware, self.target, self.sender, self.sender_hardware, True)


def gratuitous(address: IPv4Address, hardware: bytes) -> ArpMessage:
    """The request for one's own address by which all neighbours learn, or correct, where it is (RFC 5944 4.6)."""
    return ArpMessage(hardware, address, address)


def encode(message: ArpMessage) -> bytes:
    """The octets behind the Ethernet header."""
    return _MESSAGE.pack(
        _ETHERNET,
        _IPV4,
        6,
        4,
        _REPLY if message.is_reply else _REQUEST,
        message.sender_hardware,
        message.sender.packed,
        message.target_hardware,
        message.target.packed,
    )


def decode(octets: bytes) -> ArpMessage:
    """Read a message; what follows it is the padding of a short frame. Raises Truncated, UnknownMessage."""
    if len(octets) < _MESSAGE.size:
        raise Truncated(f"an ARP message has {_MESSAGE.size} octets, these are {len(octets)}")
    kind, protocol, hardware_size, address_size, operation, *rest = _MESSAGE.unpack_from(octets)
    if (kind, protocol, hardware_size, address_size) != (_ETHERNET, _IPV4, 6, 4):
        raise UnknownMessage("an ARP message about other addresses than IPv4 on Ethernet")
    if operation not in (_REQUEST, _REPLY):
        raise UnknownMessage(f"ARP operation {operation} is neither request nor reply")
    sender_hardware, sender, target_hardware, target = rest
    return ArpMessage(
        sender_hardware, IPv4Address(sender), IPv4Address(target), target_hardware, operation == _REPLY
    )
