# SPDX-License-Identifier: GPL-2.0-or-later
"""Says something on a link in a host's own name, three times, a tenth of a second apart.

Run as a program in a host (`python -I -S link_words.py …`), standard library only:

    INTERFACE who-has ADDRESS OWN                       asks by broadcast ARP, from OWN
    INTERFACE redirect MAC TO OWN OTHER ABOUT PEER      tells TO, at MAC, by ICMP from OWN: what you send from ABOUT to
                                                        PEER goes better by OTHER
"""

import socket
import struct
import sys
import time
from collections.abc import Sequence

_BROADCAST = b"\xff" * 6
_ARP, _IPV4 = 0x0806, 0x0800
_TIMES, _PAUSE = 3, 0.1


def checksum(octets: bytes) -> int:
    """The Internet checksum of an even number of octets (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, destination: str, protocol: int, *, payload: bytes, ttl: int = 64) -> bytes:
    """An IPv4 packet with a correct header."""
    length = 20 + len(payload)
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, ttl, protocol, 0) + ends
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def who_has(hardware: bytes, address: str, own: str) -> bytes:
    """The frame of an ARP question (RFC 826)."""
    question = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + hardware + socket.inet_aton(own)
    question += bytes(6) + socket.inet_aton(address)
    return _BROADCAST + hardware + struct.pack("!H", _ARP) + question


def redirect(hardware: bytes, words: Sequence[str]) -> bytes:
    """The frame of an ICMP Redirect for a host (RFC 792), about a datagram that the receiver seems to have sent."""
    mac, to, own, other, about, peer = words
    original = ipv4(about, peer, 17, payload=struct.pack("!HHHH", 5002, 5002, 24, 0))
    message = struct.pack("!BBH", 5, 1, 0) + socket.inet_aton(other) + original
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    frame = bytes.fromhex(mac.replace(":", "")) + hardware + struct.pack("!H", _IPV4)
    return frame + ipv4(own, to, 1, payload=message)


def main() -> None:
    """Say it."""
    interface, what, *words = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, 0))
        hardware = link.getsockname()[4]
        frame = who_has(hardware, *words) if what == "who-has" else redirect(hardware, words)
        for _ in range(_TIMES):
            link.send(frame)
            time.sleep(_PAUSE)


if __name__ == "__main__":
    main()
