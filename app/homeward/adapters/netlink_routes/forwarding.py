# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent needs of the kernel's routing: its device up, routes into it, forwarding on the links it uses."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network
from typing import Final

from homeward.adapters.netlink_routes.link_settings import LinkSettings
from homeward.adapters.netlink_routes.rtnetlink import CREATE, REPLACE, Rtnetlink, attribute, index_of, u32

_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25

_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_TABLE_MAIN: Final = 254
_PROTOCOL_STATIC: Final = 4
_SCOPE_LINK: Final = 253
_TYPE_UNICAST: Final = 1


class ForwardingRoutes:
    """The routes into one device, in this network namespace. Remembers which it made, and makes none twice."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._index = 0
        self._routes: set[IPv4Network] = set()
        self._netlink = Rtnetlink()
        self._settings = LinkSettings()

    def bring_up(self, *, mtu: int, forward_from: frozenset[str]) -> None:
        """Take the device up with no route but those to come, and forward between it and the links `forward_from`.

        Routes left by a former life go when the device goes down. Raises PlanError, NotPermitted.
        """
        self._index = index_of(self._device)
        self._netlink.bring_down(self._device, self._index)
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

    def add(self, prefix: IPv4Network) -> None:
        """Lead a prefix into the device, wherever the main table led it before. Raises PlanError, NotPermitted."""
        if prefix not in self._routes:
            self._route(_RTM_NEWROUTE, prefix)
            self._routes.add(prefix)

    def remove(self, prefix: IPv4Network) -> None:
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

    def _route(self, kind: int, prefix: IPv4Network) -> None:
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
        body += attribute(_RTA_DST, prefix.network_address.packed) + attribute(_RTA_OIF, u32(self._index))
        adding = kind == _RTM_NEWROUTE
        action = f"{'adding' if adding else 'removing'} the route to {prefix} by {self._device}"
        self._netlink.ask(action, kind, body, flags=CREATE | REPLACE if adding else 0)
