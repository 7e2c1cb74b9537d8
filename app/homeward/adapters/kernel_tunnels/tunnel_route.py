# SPDX-License-Identifier: GPL-2.0-or-later
"""The one route that the fast path's outer packets take: to the home agent alone, by the path's own link.

A program on a route, and the kernel's `ipip` device, look the outer packet's way up by its mark and no more; our
sockets are bound to the link. So what the kernel answers for the link is written into a table that this mark alone
leads to. It is a route to one host: the VPN gateway's ESP keeps the mark of what is in it, and must not find it.

Behind it stands another one for the same host, back into the TUN device: where the first one cannot be used, as by an
application that has bound its socket to the device, or when the link has just gone, the outer packet comes to the
slow path, which knows its own again.

Numbers and layouts are Linux's: include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.kernel_tunnels.netlink import (
    CREATE,
    NESTED,
    REPLACE,
    Netlink,
    attribute,
    attributes,
    number,
)
from homeward.model.errors import PlanError
from homeward.model.names import TUNNEL_TABLE

NEW_ROUTE, DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
ROUTE: Final = struct.Struct("=BBBBBBBBI")
DESTINATION, OUTGOING, TABLE = 1, 4, 15
_SOURCE, _GATEWAY, _PRIORITY, _METRICS, _MARK, _VIA = 2, 5, 6, 8, 16, 18
_MTU: Final = 2
_UNICAST: Final = 1
_STATIC: Final = 4
_EVERYWHERE, _ON_LINK = 0, 253
_NEIGHBOUR_ANYWAY: Final = 4  # RTNH_F_ONLINK
_BACK: Final = 434
_LONGEST: Final = 65520


@dataclass(frozen=True, slots=True)
class Hop:
    """The next hop to a host: a link's index, and the attribute that names the router, empty where there is none."""

    link: int
    router: bytes = b""


class TunnelRoutes:
    """Asks for the way to a home agent, and writes it down. Every method raises PlanError and NotPermitted."""

    def __init__(self) -> None:
        self._netlink = Netlink()

    def close(self) -> None:
        """Give the socket back; the routes stay."""
        self._netlink.close()

    def ask(self, far: IPv4Address, near: IPv4Address, *, link: int, mark: int) -> Hop:
        """What a socket with this mark, bound to this address and link, would do. PlanError where it could not."""
        action = f"asking for the way from {near} to {far} by link {link}"
        asked = ROUTE.pack(socket.AF_INET, 32, 32, 0, 0, 0, 0, 0, 0)
        asked += attribute(DESTINATION, far.packed) + attribute(_SOURCE, near.packed)
        asked += number(OUTGOING, link) + number(_MARK, mark)
        for answer in self._netlink.ask(action, _GET_ROUTE, asked):
            kind, said = answer[7], attributes(answer[ROUTE.size :])
            if kind != _UNICAST or said.get(OUTGOING) != struct.pack("=I", link):
                break
            router = next((attribute(each, said[each]) for each in (_GATEWAY, _VIA) if each in said), b"")
            return Hop(link, router)
        raise PlanError(action, "the kernel would send it elsewhere")

    def put(self, far: IPv4Address, hop: Hop) -> None:
        """Lead this host's packets by that hop."""
        flags = _NEIGHBOUR_ANYWAY if hop.router else 0
        scope = _EVERYWHERE if hop.router else _ON_LINK
        body = _route(far, scope, flags) + number(OUTGOING, hop.link) + hop.router
        self._netlink.ask(f"setting the way to {far}", NEW_ROUTE, body, flags=CREATE | REPLACE)

    def put_behind(self, far: IPv4Address, device: int) -> None:
        """Where that cannot be, lead them into the TUN device with this index, which has to be up."""
        # What is cut for a path is not to be cut for a device that it passes by mistake.
        body = _route(far, _ON_LINK) + number(OUTGOING, device) + number(_PRIORITY, _BACK)
        body += attribute(_METRICS | NESTED, number(_MTU, _LONGEST))
        self._netlink.ask(f"setting the way back from {far}", NEW_ROUTE, body, flags=CREATE | REPLACE)

    def drop(self, far: IPv4Address, hop: Hop, *, device: int) -> None:
        """Take both away again, as far as they are there still."""
        for link in (hop.link, device):
            body = _route(far, _EVERYWHERE) + number(OUTGOING, link)
            self._netlink.ask_quietly(f"removing the way to {far}", DELETE_ROUTE, body)


def _route(far: IPv4Address, scope: int, flags: int = 0) -> bytes:
    head = ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, _STATIC, scope, _UNICAST, flags)
    return head + attribute(DESTINATION, far.packed) + number(TABLE, TUNNEL_TABLE)
