# SPDX-License-Identifier: GPL-2.0-or-later
"""What leaves the laptop by its cable. The far end would not do: it also hears what it has taken out of ESP."""

from __future__ import annotations

import socket
from typing import Final

from scapy.layers.inet import IP

_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
_HEADER: Final = 14
_IPV4: Final = b"\x08\x00"


class Cable:
    """The outgoing IPv4 packets of a link in the namespace that we are in."""

    def __init__(self, link: str = "eth0") -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        self._socket.bind((link, _ETH_P_ALL))

    def left(self) -> list[IP]:
        """The packets since the last look."""
        packets = []
        while True:
            try:
                frame, address = self._socket.recvfrom(0xFFFF)
            except BlockingIOError:
                return packets
            if address[2] == _PACKET_OUTGOING and frame[12:_HEADER] == _IPV4:
                packets.append(IP(frame[_HEADER:]))

    def close(self) -> None:
        self._socket.close()
