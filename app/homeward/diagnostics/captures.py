# SPDX-License-Identifier: GPL-2.0-only
"""Captures as the audit reads them: each packet with the few fields that rules are about, and scapy for the rest.

A tour leaves some hundred thousand packets. The fixed header fields are therefore read directly, and scapy dissects a
packet when its contents decide, or when it has to be described to a person.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw
from scapy.utils import RawPcapReader

ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
PROTOCOL_ICMP: Final = 1
PROTOCOL_IPIP: Final = 4
PROTOCOL_UDP: Final = 17
REGISTRATION_PORT: Final = 434
REQUEST: Final = 1
REPLY: Final = 3
TUNNEL_DATA: Final = 4
REVOCATION_ACKNOWLEDGMENT: Final = 15
"""Types of Mobile IP messages on that port."""

_LINKTYPE_ETHERNET: Final = 1
_LINKTYPES_RAW_IP: Final = (12, 101, 228)


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured packet; `at` is wall-clock seconds, `octets` start at the network layer and may be cut off.

    Ports are 0 where there are none, `fragment` is the offset of a later fragment, and `sender` is the Ethernet source,
    empty on a tunnel device.
    """

    at: float
    sender: str
    ethertype: int
    octets: bytes
    protocol: int = 0
    source: str = ""
    destination: str = ""
    source_port: int = 0
    destination_port: int = 0
    fragment: int = 0
    payload: int = 0
    """Where the transport header, or for protocol 4 the inner packet, begins in `octets`."""
    receiver: str = ""
    """The Ethernet destination, empty on a tunnel device."""

    @property
    def ttl(self) -> int:
        """The time to live of an IPv4 packet."""
        return self.octets[8]

    @property
    def udp_payload(self) -> bytes:
        """What a UDP datagram carries, as far as it was captured."""
        return self.octets[self.payload + 8 :]

    def inner(self) -> "Packet | None":
        """The packet inside an IP-in-IP packet; None when there is none."""
        if self.protocol != PROTOCOL_IPIP or self.fragment:
            return None
        return parse(self.at, "", ETHERTYPE_IPV4, octets=self.octets[self.payload :])

    def in_udp(self) -> "Packet | None":
        """The packet inside MIP Tunnel Data (RFC 3519 section 3.3) to or from UDP port 434; None when there is none."""
        if self.protocol != PROTOCOL_UDP or self.fragment or REGISTRATION_PORT not in self.ports:
            return None
        if self.udp_payload[:2] != bytes((TUNNEL_DATA, PROTOCOL_IPIP)):
            return None
        return parse(self.at, "", ETHERTYPE_IPV4, octets=self.udp_payload[4:])

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port."""
        return self.source_port, self.destination_port

    def dissected(self) -> ScapyPacket:
        """The packet as scapy reads it."""
        if self.ethertype == ETHERTYPE_IPV4:
            return IP(self.octets)
        if self.ethertype == ETHERTYPE_ARP:
            return ARP(self.octets)
        if self.ethertype == 0x86DD:
            return IPv6(self.octets)
        return Ether(type=self.ethertype) / Raw(self.octets)

    def in_words(self) -> str:
        """One line for a person."""
        return str(self.dissected().summary())


def read(path: Path) -> Iterator[Packet]:
    """The packets of a capture, in order; FileNotFoundError when there is none, ValueError for an unknown link type."""
    with RawPcapReader(str(path)) as reader:
        if reader.linktype not in (_LINKTYPE_ETHERNET, *_LINKTYPES_RAW_IP):
            raise ValueError(f"{path.name}: link type {reader.linktype} is not known here")
        raw = reader.linktype != _LINKTYPE_ETHERNET
        unit = 1e-9 if reader.nano else 1e-6
        for octets, about in reader:
            at = about.sec + about.usec * unit
            if raw:
                ethertype = ETHERTYPE_IPV4 if octets[:1] and octets[0] >> 4 == 4 else 0x86DD
                yield parse(at, "", ethertype, octets=octets)
            elif len(octets) >= 14:
                ends = octets[6:12].hex(":"), octets[:6].hex(":")
                kind = int.from_bytes(octets[12:14], "big")
                yield parse(at, ends[0], kind, octets=octets[14:], receiver=ends[1])


def parse(at: float, sender: str, ethertype: int, *, octets: bytes, receiver: str = "") -> Packet:
    """Read the fixed fields; what is not IPv4, or too short to be, stays without them."""
    if ethertype != ETHERTYPE_IPV4 or len(octets) < 20 or octets[0] >> 4 != 4:
        return Packet(at, sender, ethertype, octets, receiver=receiver)
    length = (octets[0] & 15) * 4
    fragment = int.from_bytes(octets[6:8], "big") & 0x1FFF
    protocol = octets[9]
    ports = (0, 0)
    if not fragment and protocol in (6, PROTOCOL_UDP) and len(octets) >= length + 4:
        ports = struct.unpack_from("!HH", octets, length)
    return Packet(
        at,
        sender,
        ethertype,
        octets,
        protocol,
        _dotted(octets[12:16]),
        _dotted(octets[16:20]),
        ports[0],
        ports[1],
        fragment,
        length,
        receiver,
    )


def _dotted(octets: bytes) -> str:
    return f"{octets[0]}.{octets[1]}.{octets[2]}.{octets[3]}"
