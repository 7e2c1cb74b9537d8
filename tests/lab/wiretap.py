# SPDX-License-Identifier: GPL-2.0-or-later
"""What really left the laptop, heard at the other end of its cable, and judged by docs/security.md with scapy's help.

A second opinion: homeward.diagnostics judges captures by code of its own, and the fence by nftables.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from homeward.lab.access import PORT
from homeward.lab.host import Host
from homeward.lab.state import LabState
from homeward.lab.topology import (
    AGENT_ADDRESS,
    CABLE,
    GATEWAY_ADDRESS,
    GATEWAY_NAME,
    HOME_ADDRESS,
    LAPTOP,
    SWITCH,
    hardware_address,
)
from homeward.model.access import AccessMode
from tests.lab.laptop import network_of

_ALL_PROTOCOLS = 3
_SO_RCVBUFFORCE = 33
_OUTGOING = 4
_IPIP = 4
_ALL_ROUTERS = ("224.0.0.2", "224.0.0.11", "255.255.255.255")
_REQUEST, _REVOCATION_ACKNOWLEDGMENT = b"\x01", b"\x0f"


class Tap:
    """Every frame that a device of a host carries; `heard` only those that came in, `carried` both ways."""

    def __init__(self, host: Host, device: str) -> None:
        with network_of(host):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ALL_PROTOCOLS)
            )
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
            self._socket.bind((device, _ALL_PROTOCOLS))

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def heard(self) -> list[bytes]:
        """The frames that came in by the device since the last call of either."""
        return [frame for frame, kind in self._read() if kind != _OUTGOING]

    def carried(self) -> list[bytes]:
        """The frames that went in or out since the last call of either."""
        return [frame for frame, _ in self._read()]

    def send(self, frame: bytes) -> None:
        """Put a frame onto the device."""
        self._socket.send(frame)

    def _read(self) -> Iterator[tuple[bytes, int]]:
        while True:
            try:
                frame, address = self._socket.recvfrom(0xFFFF)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                continue  # told once when the cable was pulled; what came before and comes after is there
            yield frame, address[2]


def tap_on_cable(lab: LabState) -> Tap:
    """At the switch's end of the laptop's cable: what is heard there has left the laptop."""
    return Tap(Host(lab, SWITCH), PORT)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The rules of one state: in mode c also the tunnel from the care-of address; in every other the short list."""

    mode: AccessMode = AccessMode.NONE
    care_of: IPv4Address | None = None


HELD = Allowed()


def leaks(frames: Iterable[bytes], allowed: Allowed) -> list[str]:
    """The frames that must not have left, in scapy's words, each kind once."""
    bad = (Ether(frame) for frame in frames)
    return sorted({frame.summary() for frame in bad if not may_leave(frame, allowed)})


def may_leave(frame: Packet, allowed: Allowed) -> bool:
    """Whether docs/security.md lets this frame of the laptop's leave in this state."""
    if frame.src != hardware_address(LAPTOP, CABLE):
        return False  # nobody else's frames come out of this cable
    if ARP in frame:
        return str(HOME_ADDRESS) not in (frame[ARP].psrc, frame[ARP].pdst)
    if IP not in frame:
        return False  # IPv6 among others
    packet = frame[IP]
    if UDP in packet and packet.proto == socket.IPPROTO_UDP:
        return _is_of_our_own(packet)
    if ICMP in packet and packet.proto == socket.IPPROTO_ICMP:
        return packet[ICMP].type == 10 and packet.dst in _ALL_ROUTERS
    if allowed.mode is AccessMode.C and packet.proto == _IPIP:
        inner = IP(bytes(packet.payload))
        ends = (packet.src, packet.dst, inner.src)
        return ends == (str(allowed.care_of), str(AGENT_ADDRESS), str(HOME_ADDRESS))
    return False


def _is_of_our_own(packet: Packet) -> bool:
    datagram = packet[UDP]
    match (datagram.sport, datagram.dport):
        case (68, 67):
            return True
        case (_, 434):
            # Words, and not what a tunnel in UDP carries by the same port.
            said = bytes(datagram.payload)[:1]
            return packet.dst == str(AGENT_ADDRESS) and said in (_REQUEST, _REVOCATION_ACKNOWLEDGMENT)
        case (_, 500 | 4500):
            return packet.dst == str(GATEWAY_ADDRESS)
        case (_, 53) if DNS in datagram:
            asked = [getattr(question, "qname", b"") for question in datagram[DNS].qd or ()]
            return asked == [f"{GATEWAY_NAME}.".encode()]
    return False
