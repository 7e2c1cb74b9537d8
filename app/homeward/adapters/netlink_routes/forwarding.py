# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent needs of the kernel's routing: its device up, routes into it, forwarding on the links it uses."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from homeward.adapters.netlink_routes.link_settings import LinkSettings
from homeward.adapters.netlink_routes.rtnetlink import (
    CREATE,
    REPLACE,
    Rtnetlink,
    attribute,
    index_of,
    read_attributes,
    u32,
)
from homeward.model.errors import PlanError

_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_RTM_GETROUTE: Final = 26

_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_ENCAP_TYPE: Final = 21
_RTA_ENCAP: Final = 22
_ENCAP_BPF: Final = 6
_BPF_XMIT: Final = 3
_BPF_DESCRIPTOR, _BPF_NAME = 1, 2
_NESTED: Final = 0x8000
_NO_SUCH_ROUTE: Final = 3  # ESRCH
_TABLE_MAIN: Final = 254
_PROTOCOL_STATIC: Final = 4
_SCOPE_LINK: Final = 253
_TYPE_UNICAST: Final = 1


Prefix = tuple[int, int]
"""A network's first address as a number, and the length of its mask."""


@dataclass(frozen=True, slots=True)
class RouteProgram:
    """A BPF program for routes: its descriptor, and its name, by which alone the kernel tells it from another one."""

    descriptor: int
    name: str


class ForwardingRoutes:
    """The routes into one device, in this network namespace. Remembers which it made, and makes none twice."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._index = 0
        self._program: RouteProgram | None = None
        self._routes: set[Prefix] = set()
        self._netlink = Rtnetlink()
        self._settings = LinkSettings()

    @property
    def device_index(self) -> int:
        """The kernel's number for the device, once it is up."""
        return self._index

    def bring_up(self, *, mtu: int, forward_from: frozenset[str]) -> None:
        """Take the device up, and forward between it and the links `forward_from`. Raises PlanError, NotPermitted.

        Routes of a former life stay until `lead`.
        """
        self._index = index_of(self._device)
        self._routes.clear()
        # Neither IPv6 chatter into the device, nor redirects to mobile nodes that talk with each other through it.
        self._settings.put(f"ipv6/conf/{self._device}/disable_ipv6", "1", keep=False, optional=True)
        self._settings.put(f"ipv4/conf/{self._device}/send_redirects", "0", keep=False)
        self._settings.put(f"ipv4/conf/{self._device}/forwarding", "1", keep=False)
        self._netlink.bring_up(self._device, self._index, mtu=mtu)
        for link in sorted(forward_from):
            index_of(link)
            self._settings.put(f"ipv4/conf/{link}/forwarding", "1", keep=True)

    def be_loose(self, link: str) -> None:
        """Let packets come in by a link although the way back to their source may lead into a tunnel. Raises PlanError.

        A node that comes home speaks from its home address while its binding still stands.
        """
        self._settings.loosen(link, keep=True)

    def lead(self, prefixes: Iterable[Prefix], program: RouteProgram | None) -> None:
        """Lead these into the device and nothing else, by this program from now on; without a gap for what was led
        there before, also by an earlier life. Raises PlanError, NotPermitted."""
        self._program = program
        self._routes = set(prefixes)
        for prefix in self._routes:
            self._route(_RTM_NEWROUTE, prefix)
        for prefix in self._standing() - self._routes:
            self._route(_RTM_DELROUTE, prefix)

    def use(self, program: RouteProgram | None) -> None:
        """Lead by this program from now on, without a gap. Raises PlanError, NotPermitted."""
        self.lead(self._routes, program)

    def add(self, prefix: Prefix) -> None:
        """Lead a prefix into the device, wherever the main table led it before. Raises PlanError, NotPermitted."""
        if prefix not in self._routes:
            self._route(_RTM_NEWROUTE, prefix)
            self._routes.add(prefix)

    def remove(self, prefix: Prefix) -> None:
        """Take a route of ours away again. Raises PlanError, NotPermitted."""
        if prefix in self._routes:
            self._routes.discard(prefix)
            self._route(_RTM_DELROUTE, prefix)

    def take_down(self) -> None:
        """Remove the device, with it its routes, and give the links their settings back. Raises PlanError."""
        self._settings.put_back()
        self._routes.clear()
        self._netlink.remove(self._device)

    def close(self) -> None:
        """Let go of the kernel; everything stays as it is."""
        self._netlink.close()

    def _standing(self) -> set[Prefix]:
        """What leads into the device now, whoever put it there."""
        action = f"looking for routes by {self._device}"
        asked = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, 0, 0, 0, 0)
        found = set()
        for route in self._netlink.dump(action, _RTM_GETROUTE, asked):
            length, table = route[1], route[4]
            said = read_attributes(route[_ROUTE.size :])
            if table == _TABLE_MAIN and said.get(_RTA_OIF) == u32(self._index):
                found.add((int.from_bytes(said.get(_RTA_DST, bytes(4)), "big"), length))
        return found

    def _route(self, kind: int, prefix: Prefix) -> None:
        first, length = prefix
        body = _ROUTE.pack(
            socket.AF_INET, length, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_LINK, _TYPE_UNICAST, 0
        )
        body += attribute(_RTA_DST, first.to_bytes(4, "big")) + attribute(_RTA_OIF, u32(self._index))
        adding = kind == _RTM_NEWROUTE
        if adding and self._program is not None:
            body += _encapsulation(self._program)
        name = f"{socket.inet_ntoa(first.to_bytes(4, 'big'))}/{length}"
        action = f"{'adding' if adding else 'removing'} the route to {name} by {self._device}"
        try:
            self._netlink.ask(action, kind, body, flags=CREATE | REPLACE if adding else 0)
        except PlanError as error:
            if adding or error.cause != _NO_SUCH_ROUTE:
                raise


def _encapsulation(program: RouteProgram) -> bytes:
    described = attribute(_BPF_DESCRIPTOR, u32(program.descriptor))
    described += attribute(_BPF_NAME, program.name.encode() + b"\0")
    told = attribute(_BPF_XMIT | _NESTED, described)
    return attribute(_RTA_ENCAP_TYPE, struct.pack("=H", _ENCAP_BPF)) + attribute(_RTA_ENCAP | _NESTED, told)
