# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames and whole IPv4 packets that are sent past the routing of this machine, and filters for those that come in.

A packet made here goes to the neighbour that its sender names: nobody is asked by ARP, no route, other VPN's policy or
address selection has a say in it.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import WireError
from homeward.wire.internet_checksum import checksum, put

ETHERTYPE_IPV4: Final = 0x0800
BROADCAST: Final = b"\xff" * 6
ARPHRD_ETHER: Final = 1
"""The kind of hardware that has such addresses and takes such frames."""
SO_ATTACH_FILTER: Final = 26
SOL_PACKET: Final = 263
PACKET_ADD_MEMBERSHIP: Final = 1
PACKET_OTHERHOST: Final = 3
"""Of the kinds of frames that a packet socket tells of, those below are for us: to this host, to a group, to all."""

_UDP: Final = 17
_LONGEST: Final = 0xFFFF
_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_PSEUDO: Final = struct.Struct("!4s4sxBH")
_PORTS: Final = struct.Struct("!HHHH")
_MEMBERSHIP: Final = struct.Struct("=iHH8s")
_PACKET_MR_MULTICAST: Final = 0
_HEADER_CHECKSUM_AT: Final = 10
_UDP_CHECKSUM_AT: Final = 6
_DONT_FRAGMENT: Final = 0x4000
_EVERYBODY: Final = IPv4Address("255.255.255.255")
_MOBILITY_AGENTS: Final = IPv4Address("224.0.0.11")


def ethernet(destination: bytes, source: bytes, kind: int, payload: bytes = b"") -> bytes:
    """An Ethernet frame, or just its header."""
    return destination + source + kind.to_bytes(2, "big") + payload


def hardware_group(destination: IPv4Address) -> bytes:
    """The Ethernet address of a group of receivers, or of all (RFC 1112 6.4); WireError for a single receiver's."""
    if destination == _EVERYBODY:
        return BROADCAST
    if not destination.is_multicast:
        raise WireError(f"{destination} is the address of one receiver")
    return b"\x01\x00\x5e" + (int(destination) & 0x7FFFFF).to_bytes(3, "big")


def group_membership(link: int, group: IPv4Address) -> bytes:
    """A struct packet_mreq, by which a link's network card is told to let frames for this group in.

    Joined as a host, the group would be announced by IGMP to the whole link.
    """
    address = hardware_group(group)
    return _MEMBERSHIP.pack(link, _PACKET_MR_MULTICAST, len(address), address)


def ipv4(source: IPv4Address, destination: IPv4Address, protocol: int, payload: bytes, *, ttl: int) -> bytes:
    """A whole packet that must not be fragmented; WireError where it would be longer than one may be."""
    total = _IP.size + len(payload)
    if total > _LONGEST:
        raise WireError(f"{len(payload)} octets do not fit into an IPv4 packet")
    header = _IP.pack(0x45, 0, total, 0, _DONT_FRAGMENT, ttl, protocol, 0, source.packed, destination.packed)
    return put(header, _HEADER_CHECKSUM_AT) + payload


def udp(
    source: tuple[IPv4Address, int], destination: tuple[IPv4Address, int], octets: bytes, *, ttl: int
) -> bytes:
    """A datagram as a whole IPv4 packet, with its checksum (R-105)."""
    length = _PORTS.size + len(octets)
    if length > _LONGEST - _IP.size:
        raise WireError(f"{len(octets)} octets do not fit into a datagram")
    header = _PORTS.pack(source[1], destination[1], length, 0)
    pseudo = _PSEUDO.pack(source[0].packed, destination[0].packed, _UDP, length)
    total = checksum(pseudo + header + octets) or 0xFFFF  # 0 would mean that there is none
    header = header[:_UDP_CHECKSUM_AT] + total.to_bytes(2, "big")
    return ipv4(source[0], destination[0], _UDP, header + octets, ttl=ttl)


# --- filters for packet sockets: classic BPF, as (code, jump if true, jump if false, operand) ------------------------

_LOAD_OCTET, _LOAD_HALF, _LOAD_WORD = 0x30, 0x28, 0x20
_LOAD_HEADER_LENGTH, _LOAD_OCTET_BEHIND, _LOAD_HALF_BEHIND = 0xB1, 0x50, 0x48
_EQUAL, _ANY_BIT, _RETURN = 0x15, 0x45, 0x06
_INSTRUCTION: Final = struct.Struct("=HBBI")
_WHOLE: Final = 0xFFFF


def _assemble(*program: tuple[int, int, int, int]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


ONLY_ADVERTISEMENTS: Final = _assemble(
    (_LOAD_OCTET, 0, 0, 9),
    (_EQUAL, 0, 6, 1),  # ICMP
    (_LOAD_HALF, 0, 0, 6),
    (_ANY_BIT, 4, 0, 0x1FFF),  # no later fragment
    (_LOAD_HEADER_LENGTH, 0, 0, 0),
    (_LOAD_OCTET_BEHIND, 0, 0, 0),
    (_EQUAL, 0, 1, 9),  # Router Advertisement
    (_RETURN, 0, 0, _WHOLE),
    (_RETURN, 0, 0, 0),
)
"""Lets ICMP Router Advertisements pass, on a packet socket that shows no link-layer headers."""


def only_requests_to(address: IPv4Address) -> bytes:
    """Lets requests to a mobility agent with this address pass, and solicitations, whoever they come from.

    On a packet socket that shows no link-layer headers. What goes through to other agents does not pass: with a tunnel
    in UDP that may be all of somebody's traffic.
    """
    return _assemble(
        (_LOAD_OCTET, 0, 0, 9),
        (_EQUAL, 0, 9, _UDP),
        (_LOAD_HALF, 0, 0, 6),
        (_ANY_BIT, 14, 0, 0x3FFF),  # no fragment
        (_LOAD_WORD, 0, 0, 16),
        (_EQUAL, 2, 0, int(address)),
        (_EQUAL, 1, 0, int(_MOBILITY_AGENTS)),
        (_EQUAL, 0, 10, int(_EVERYBODY)),
        (_LOAD_HEADER_LENGTH, 0, 0, 0),
        (_LOAD_HALF_BEHIND, 0, 0, 2),
        (_EQUAL, 6, 7, 434),
        (_EQUAL, 0, 6, 1),  # ICMP
        (_LOAD_HALF, 0, 0, 6),
        (_ANY_BIT, 4, 0, 0x3FFF),
        (_LOAD_HEADER_LENGTH, 0, 0, 0),
        (_LOAD_OCTET_BEHIND, 0, 0, 0),
        (_EQUAL, 0, 1, 10),  # Router Solicitation
        (_RETURN, 0, 0, _WHOLE),
        (_RETURN, 0, 0, 0),
    )


def only_questions_for(address: IPv4Address) -> bytes:
    """Lets ARP requests for this address pass, on a packet socket that shows Ethernet headers."""
    return _assemble(
        (_LOAD_HALF, 0, 0, 20),
        (_EQUAL, 0, 3, 1),
        (_LOAD_WORD, 0, 0, 38),
        (_EQUAL, 0, 1, int(address)),
        (_RETURN, 0, 0, _WHOLE),
        (_RETURN, 0, 0, 0),
    )


def instructions(program: bytes) -> int:
    """How many instructions a filter has, for struct sock_fprog."""
    return len(program) // _INSTRUCTION.size
