# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's news of routes and addresses, as far as they can change how the fast path's packets leave."""

from __future__ import annotations

import struct
from enum import Enum
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.kernel_tunnels.netlink import attributes, messages
from homeward.adapters.kernel_tunnels.tunnel_route import DELETE_ROUTE, NEW_ROUTE, ROUTE, TABLE
from homeward.model.names import ROUTING_TABLE, TUNNEL_TABLE

NEWS: Final = 0x10 | 0x40
"""Netlink's groups for news of IPv4 addresses and routes (RTMGRP_IPV4_IFADDR, _ROUTE)."""

_NEW_ADDRESS, _DELETE_ADDRESS = 20, 21
_ADDRESS: Final = struct.Struct("=BBBBI")
_LOCAL: Final = 2
_LOCAL_TABLE: Final = 255


class News(Enum):
    """What a datagram of news means for the fast path."""

    NONE = 0
    PERHAPS = 1
    """The way from the care-of address may be another one now, or gone."""
    TAKEN_AWAY = 2
    """A route of ours was deleted."""


def read(octets: bytes, near: IPv4Address) -> News:
    """What a datagram of news means for packets from this care-of address.

    What is put into our own tables is no news: that was us.
    """
    found = News.NONE
    for kind, _, body in messages(octets):
        if kind in (_NEW_ADDRESS, _DELETE_ADDRESS):
            if attributes(body[_ADDRESS.size :]).get(_LOCAL) == near.packed:
                found = News.PERHAPS
        elif kind in (NEW_ROUTE, DELETE_ROUTE) and len(body) >= ROUTE.size:
            table = attributes(body[ROUTE.size :]).get(TABLE)
            number = struct.unpack("=I", table)[0] if table else body[4]
            if number == TUNNEL_TABLE and kind == DELETE_ROUTE:
                return News.TAKEN_AWAY
            if number not in (TUNNEL_TABLE, ROUTING_TABLE, _LOCAL_TABLE):
                found = News.PERHAPS
    return found
