# SPDX-License-Identifier: GPL-2.0-or-later
"""Notes when a link gets and loses its address and its default route, as the kernel tells it.

Run as a program in a host (`python -I -S link_watch.py INTERFACE`), standard library only. Each line on
standard output is one event with the time, CLOCK_MONOTONIC: `T address A`, `T no-address A`, `T route`, `T
carrier`, `T no-carrier`.
"""

import socket
import struct
import sys
import time

_GROUPS = 0x1 | 0x10 | 0x40  # links, IPv4 addresses, IPv4 routes
_NEWLINK, _NEWADDR, _DELADDR, _NEWROUTE = 16, 20, 21, 24
_IFA_LOCAL, _RTA_OIF, _RTA_GATEWAY = 2, 4, 5
_HEADER = struct.Struct("=IHHII")
_LOWER_UP = 0x10000


def _attributes(body: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _event(kind: int, body: bytes, index: int) -> str | None:
    """The event in words; None when it is about another link or of no interest."""
    if kind == _NEWLINK:
        (number,) = struct.unpack_from("=i", body, 4)
        (flags,) = struct.unpack_from("=I", body, 8)
        if number == index:
            return "carrier" if flags & _LOWER_UP else "no-carrier"
    elif kind in (_NEWADDR, _DELADDR):
        (number,) = struct.unpack_from("=I", body, 4)
        address = _attributes(body[8:]).get(_IFA_LOCAL)
        if number == index and address is not None:
            return ("address " if kind == _NEWADDR else "no-address ") + socket.inet_ntoa(address)
    elif kind == _NEWROUTE:
        length, table = body[1], body[4]
        about = _attributes(body[12:])
        out = about.get(_RTA_OIF)
        if length == 0 and table == 254 and out is not None and struct.unpack("=I", out)[0] == index:
            return "route" if _RTA_GATEWAY in about else None
    return None


def main() -> None:
    """Watch until killed."""
    index = socket.if_nametoindex(sys.argv[1])
    watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    watch.bind((0, _GROUPS))
    print(f"{time.monotonic():.6f} watching", flush=True)
    while True:
        octets = watch.recv(65536)
        now, at = time.monotonic(), 0
        while at + _HEADER.size <= len(octets):
            length, kind, *_ = _HEADER.unpack_from(octets, at)
            event = _event(kind, octets[at + _HEADER.size : at + length], index)
            if event is not None:
                print(f"{now:.6f} {event}", flush=True)
            at += max((length + 3) & ~3, _HEADER.size)


if __name__ == "__main__":
    main()
