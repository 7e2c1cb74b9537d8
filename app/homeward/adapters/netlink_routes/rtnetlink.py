# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink, asked and answered on the spot.

pyroute2 is not used here on purpose: within a running event loop it is asynchronous, but a route has to stand *before*
the Registration Reply leaves, and at some 20 µs a request there is nothing worth waiting for; nor does the agent pay
its 0.4 s of import.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from typing import Final

from homeward.model.errors import NotPermitted, PlanError

CREATE: Final = 0x400
REPLACE: Final = 0x100
EXCLUSIVE: Final = 0x200

_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_IFF_UP: Final = 1
_IFLA_MTU: Final = 4
_MOST_AT_ONCE: Final = 1 << 18

_SIOCGIFMTU: Final = 0x8921
_MTU_REQUEST: Final = struct.Struct("=16si20x")


class Rtnetlink:
    """Questions to this network namespace's kernel, one at a time."""

    def __init__(self) -> None:
        self._sequence = 0
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._netlink.bind((0, 0))

    def ask(self, action: str, kind: int, body: bytes, *, flags: int = 0) -> None:
        """Have one request carried out; `action` names it in what is raised: PlanError, NotPermitted.

        The kernel answers before send() returns.
        """
        self._send(kind, body, _REQUEST | _ACK | flags)
        for answered, payload in self._answers():
            if answered == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                if code:
                    raise refusal(action, code)
                return

    def dump(self, action: str, kind: int, body: bytes) -> list[bytes]:
        """All that the kernel has of one kind, each without its header. Raises PlanError, NotPermitted."""
        self._send(kind, body, _REQUEST | _DUMP)
        found: list[bytes] = []
        for answered, payload in self._answers():
            if answered == _NLMSG_DONE:
                break
            if answered == _NLMSG_ERROR:
                raise refusal(action, -struct.unpack_from("=i", payload)[0])
            found.append(payload)
        return found

    def bring_up(self, device: str, index: int, *, mtu: int) -> None:
        """Take a device up with this MTU, in octets. Raises PlanError, NotPermitted."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP) + attribute(_IFLA_MTU, u32(mtu))
        self.ask(f"bringing up {device}", _RTM_NEWLINK, body)

    def bring_down(self, device: str, index: int) -> None:
        """Take a device down, by which the kernel forgets its routes. Raises PlanError, NotPermitted."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, _IFF_UP)
        self.ask(f"taking down {device}", _RTM_NEWLINK, body)

    def remove(self, device: str) -> None:
        """Remove a device, if it is there. Raises PlanError, NotPermitted."""
        try:
            index = index_of(device)
        except PlanError:  # somebody was faster
            return
        self.ask(f"removing {device}", _RTM_DELLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))

    def close(self) -> None:
        """Let go of the kernel; everything stays as it is."""
        self._netlink.close()

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        self._netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        while True:
            answer = self._netlink.recv(_MOST_AT_ONCE)
            at = 0
            while at + _HEADER.size <= len(answer):
                size, kind, _, sequence, _ = _HEADER.unpack_from(answer, at)
                if sequence == self._sequence:
                    yield kind, answer[at + _HEADER.size : at + size]
                at += (size + 3) & ~3


def index_of(link: str) -> int:
    """The kernel's number for a network interface. Raises PlanError where there is none of that name."""
    try:
        return socket.if_nametoindex(link)
    except OSError as error:
        action = f"looking for the network interface {link}"
        raise PlanError(action, "there is none of that name") from error


def link_mtu(link: str) -> int:
    """The MTU of a network interface, in octets. Raises PlanError.

    Asked by ioctl: /sys shows the network namespace that it was mounted in, which need not be ours.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            answer = fcntl.ioctl(asker, _SIOCGIFMTU, _MTU_REQUEST.pack(link.encode(), 0))
        except OSError as error:
            raise PlanError(f"reading the MTU of {link}", error.errno or 0) from error
    return int(_MTU_REQUEST.unpack(answer)[1])


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute of a message, padded to four octets."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def read_attributes(octets: bytes) -> dict[int, bytes]:
    """The attributes of a message by their kinds; what is cut short ends the reading."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(octets):
        size, kind = _ATTRIBUTE.unpack_from(octets, at)
        if size < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = octets[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return found


def u32(value: int) -> bytes:
    """A number as attributes carry it."""
    return struct.pack("=I", value)


def refusal(action: str, code: int) -> PlanError | NotPermitted:
    """What an errno means for the work that it ended."""
    if code in (errno.EPERM, errno.EACCES, errno.EROFS):
        return NotPermitted(action, code)
    return PlanError(action, code)
