# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent needs of the kernel's routing: its device up, routes into it, and forwarding on the links it uses.

Four kinds of rtnetlink request, asked and answered on the spot. pyroute2 is not used here on purpose: within a running
event loop it is asynchronous, but a route has to stand *before* the Registration Reply leaves, and at some 20 µs
a request there is nothing worth waiting for; nor does the agent pay its 0.4 s of import.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from homeward.model.errors import NotPermitted, PlanError

_NLMSG_ERROR: Final = 2
_RTM_NEWLINK: Final = 16
_RTM_DELLINK: Final = 17
_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_REQUEST_AND_ACK: Final = 0x001 | 0x004
_CREATE_OR_REPLACE: Final = 0x400 | 0x100

_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_IFF_UP: Final = 1
_IFLA_MTU: Final = 4
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_TABLE_MAIN: Final = 254
_PROTOCOL_STATIC: Final = 4
_SCOPE_LINK: Final = 253
_TYPE_UNICAST: Final = 1

_SIOCGIFMTU: Final = 0x8921
_MTU_REQUEST: Final = struct.Struct("=16si20x")

_SYSCTL: Final = Path("/proc/sys/net")


class ForwardingRoutes:
    """The routes into one device, in this network namespace. Remembers which it made, and makes none twice."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._index = 0
        self._sequence = 0
        self._routes: set[IPv4Network] = set()
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._netlink.bind((0, 0))
        self._changed_settings: dict[Path, str] = {}

    def bring_up(self, *, mtu: int, forward_from: frozenset[str]) -> None:
        """Take the device up with no route but those to come, and forward between it and the links `forward_from`.

        Routes left by a former life go when the device goes down. Raises PlanError, NotPermitted.
        """
        self._index = self._index_of(self._device)
        action = f"bringing up {self._device}"
        self._ask(action, _RTM_NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, self._index, 0, _IFF_UP))
        self._routes.clear()
        # Neither IPv6 chatter into the device, nor redirects to mobile nodes that talk with each other through it.
        self._set(f"ipv6/conf/{self._device}/disable_ipv6", "1", keep=False, optional=True)
        self._set(f"ipv4/conf/{self._device}/send_redirects", "0", keep=False)
        self._set(f"ipv4/conf/{self._device}/forwarding", "1", keep=False)
        up = _LINK.pack(socket.AF_UNSPEC, 0, self._index, _IFF_UP, _IFF_UP)
        self._ask(action, _RTM_NEWLINK, up + _attribute(_IFLA_MTU, struct.pack("=I", mtu)))
        for link in sorted(forward_from):
            self._index_of(link)
            self._set(f"ipv4/conf/{link}/forwarding", "1", keep=True)

    def be_loose(self, link: str) -> None:
        """Let packets come in by a link although the way back to their source may lead into a tunnel. Raises PlanError.

        A node that comes home speaks from its home address while its binding still stands.
        """
        checks = [_SYSCTL / "ipv4/conf" / each / "rp_filter" for each in ("all", link)]
        if any(check.read_text().strip() == "1" for check in checks):
            self._set(f"ipv4/conf/{link}/rp_filter", "2", keep=True)

    def add(self, prefix: IPv4Network) -> None:
        """Lead a prefix into the device, wherever the main table led it before. Raises PlanError, NotPermitted."""
        if prefix not in self._routes:
            self._route(_RTM_NEWROUTE, _CREATE_OR_REPLACE, prefix)
            self._routes.add(prefix)

    def remove(self, prefix: IPv4Network) -> None:
        """Take a route of ours away again. Raises PlanError, NotPermitted."""
        if prefix in self._routes:
            self._routes.discard(prefix)
            self._route(_RTM_DELROUTE, 0, prefix)

    def take_down(self) -> None:
        """Remove the device, with it its routes, and give the links their settings back. Raises PlanError."""
        for path, value in self._changed_settings.items():
            if path.exists():
                path.write_text(value)
        self._changed_settings.clear()
        self._routes.clear()
        try:
            index = self._index_of(self._device)
        except PlanError:  # somebody was faster
            return
        self._ask(f"removing {self._device}", _RTM_DELLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))

    def close(self) -> None:
        """Let go of the kernel; everything stays as it is."""
        self._netlink.close()

    def _route(self, kind: int, flags: int, prefix: IPv4Network) -> None:
        body = _ROUTE.pack(
            socket.AF_INET,
            prefix.prefixlen,
            0,
            0,
            _TABLE_MAIN,
            _PROTOCOL_STATIC,
            _SCOPE_LINK,
            _TYPE_UNICAST,
            0,
        )
        body += _attribute(_RTA_DST, prefix.network_address.packed)
        body += _attribute(_RTA_OIF, struct.pack("=i", self._index))
        verb = "adding" if kind == _RTM_NEWROUTE else "removing"
        self._ask(f"{verb} the route to {prefix} by {self._device}", kind, body, flags=flags)

    def _ask(self, action: str, kind: int, body: bytes, *, flags: int = 0) -> None:
        """Send one request and wait for the kernel's answer, which it gives before send() returns."""
        self._sequence += 1
        size = _HEADER.size + len(body)
        self._netlink.send(_HEADER.pack(size, kind, _REQUEST_AND_ACK | flags, self._sequence, 0) + body)
        while True:
            answer = self._netlink.recv(1 << 16)
            _, answered, _, sequence, _ = _HEADER.unpack_from(answer)
            if answered == _NLMSG_ERROR and sequence == self._sequence:
                break
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if code:
            raise _refusal(action, code)

    def _index_of(self, link: str) -> int:
        try:
            return socket.if_nametoindex(link)
        except OSError as error:
            raise PlanError(
                f"looking for the network interface {link}", "there is none of that name"
            ) from error

    def _set(self, name: str, value: str, *, keep: bool, optional: bool = False) -> None:
        """Write a kernel setting; with `keep`, note the value before, to be put back at the end."""
        path = _SYSCTL / name
        if optional and not path.exists():
            return
        try:
            before = path.read_text()
            if before.strip() == value:
                return
            path.write_text(value)
        except OSError as error:
            raise _refusal(f"setting {path} to {value}", error.errno or 0) from error
        if keep:
            self._changed_settings.setdefault(path, before)


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


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _refusal(action: str, code: int) -> PlanError | NotPermitted:
    if code in (errno.EPERM, errno.EACCES, errno.EROFS):
        return NotPermitted(action, code)
    return PlanError(action, code)
