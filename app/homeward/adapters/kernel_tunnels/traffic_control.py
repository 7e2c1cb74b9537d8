# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs at the ingress of links, and the kernel's `ipip` device: rtnetlink asked and answered on the spot.

A hand-over waits for this, so it is not asynchronous; a request takes some 20 µs. Numbers and layouts are Linux's:
include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls,if_link,if_tunnel}.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from homeward.model.errors import NotPermitted, PlanError, Unavailable

PRIORITY: Final = 434
"""Of our filters at a link's ingress; by it a later life knows them again."""

_REQUEST, _ACKNOWLEDGE, _CREATE, _EXCLUSIVE, _REPLACE = 0x001, 0x004, 0x400, 0x200, 0x100
_ERROR: Final = 2
_NEW_LINK, _DELETE_LINK, _NEW_QDISC, _DELETE_QDISC, _NEW_FILTER, _DELETE_FILTER = 16, 17, 36, 37, 44, 45
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_CONTROL: Final = struct.Struct("=BxxxiIII")
_CLSACT: Final = 0xFFFFFFF1
_CLSACT_HANDLE: Final = 0xFFFF0000
_INGRESS: Final = 0xFFFFFFF2
_KIND, _OPTIONS = 1, 2
_BPF_DESCRIPTOR, _BPF_NAME, _BPF_FLAGS, _DIRECT_ACTION = 6, 7, 8, 1
_NAME, _LINK_INFO, _INFO_KIND, _INFO_DATA, _EXTERNAL = 3, 18, 1, 2, 19
_UP: Final = 1
_NESTED: Final = 0x8000
_FILTER_HANDLE: Final = 1
_ETHERTYPE_IPV4: Final = 0x0800


class TrafficControl:
    """A netlink socket, and what was made with it. Every method raises PlanError, NotPermitted or Unavailable."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._netlink.bind((0, 0))
        self._number = 0
        self._made: set[int] = set()

    def close(self) -> None:
        """Give the socket back; what stands stays."""
        self._netlink.close()

    def attach(self, link: int, program: int, name: str) -> None:
        """Have every IPv4 packet that comes in by the link with this index pass the program, in place of an earlier one
        of ours."""
        action = f"attaching {name} to link {link}"
        qdisc = _CONTROL.pack(socket.AF_UNSPEC, link, _CLSACT_HANDLE, _CLSACT, 0) + _text(_KIND, "clsact")
        try:
            self._ask(action, _NEW_QDISC, _CREATE | _EXCLUSIVE, qdisc)
            self._made.add(link)
        except PlanError as error:
            if error.cause != errno.EEXIST:
                raise
        options = _number(_BPF_DESCRIPTOR, program) + _text(_BPF_NAME, name)
        options += _number(_BPF_FLAGS, _DIRECT_ACTION)
        described = _text(_KIND, "bpf") + _attribute(_OPTIONS | _NESTED, options)
        self._ask(action, _NEW_FILTER, _CREATE, _filter(link) + described)

    def detach(self, link: int) -> None:
        """Let the link be as it was; a link that is gone, or has no program of ours, is passed over."""
        action = f"detaching from link {link}"
        self._ask_quietly(action, _DELETE_FILTER, _filter(link) + _text(_KIND, "bpf"))
        if link in self._made:
            self._made.discard(link)
            qdisc = _CONTROL.pack(socket.AF_UNSPEC, link, _CLSACT_HANDLE, _CLSACT, 0)
            self._ask_quietly(action, _DELETE_QDISC, qdisc)

    def make_ipip_device(self, name: str) -> int:
        """The index of an `ipip` device whose ends each packet brings along; taken over where it is there already.

        Raises Unavailable where the kernel has none, or another program has the one that there may be of this kind.
        """
        action = f"making the device {name}"
        data = _attribute(_EXTERNAL, b"")
        info = _text(_INFO_KIND, "ipip") + _attribute(_INFO_DATA | _NESTED, data)
        link = _LINK.pack(socket.AF_UNSPEC, 0, 0, _UP, _UP) + _text(_NAME, name)
        try:
            self._ask(action, _NEW_LINK, _CREATE | _EXCLUSIVE, link + _attribute(_LINK_INFO | _NESTED, info))
        except PlanError as error:
            if error.cause != errno.EEXIST:
                raise Unavailable(action, error.cause) from error
        try:
            return socket.if_nametoindex(name)
        except OSError as error:  # EEXIST was about somebody else's
            raise Unavailable(action, "another program has the kernel's device for such tunnels") from error

    def delete_device(self, name: str) -> None:
        """Remove a device of that name, if there is one."""
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            return
        self._ask_quietly(f"removing the device {name}", _DELETE_LINK, _LINK.pack(0, 0, index, 0, 0))

    def _ask_quietly(self, action: str, kind: int, body: bytes) -> None:
        """Have something removed that may be gone already."""
        try:
            self._ask(action, kind, 0, body)
        except PlanError as error:
            if error.cause not in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
                raise

    def _ask(self, action: str, kind: int, flags: int, body: bytes) -> None:
        self._number += 1
        head = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACKNOWLEDGE | flags, self._number, 0)
        try:
            self._netlink.send(head + body)
            while True:
                answer = self._netlink.recv(1 << 16)
                _, said, _, number, _ = _HEADER.unpack_from(answer)
                if said == _ERROR and number == self._number:
                    break
        except OSError as error:
            raise PlanError(action, error.errno or str(error)) from error
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if code:
            raise (NotPermitted if code == errno.EPERM else PlanError)(action, code)


def _filter(link: int) -> bytes:
    info = PRIORITY << 16 | socket.htons(_ETHERTYPE_IPV4)
    return _CONTROL.pack(socket.AF_UNSPEC, link, _FILTER_HANDLE, _INGRESS, info)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
