# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's news of routes and addresses, as far as they can change how the fast path's packets leave."""

from __future__ import annotations

import socket
import struct
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


def tells_of_our_path(octets: bytes, near: IPv4Address) -> bool:
    """Whether a datagram of news is a reason to ask anew for the way from this care-of address.

    Of our own tables only that a route has been taken from TUNNEL_TABLE counts: what we put there is no news.
    """
    for kind, _, body in messages(octets):
        if kind in (_NEW_ADDRESS, _DELETE_ADDRESS):
            if attributes(body[_ADDRESS.size :]).get(_LOCAL) == near.packed:
                return True
        elif kind in (NEW_ROUTE, DELETE_ROUTE) and len(body) >= ROUTE.size:
            table = attributes(body[ROUTE.size :]).get(TABLE)
            number = struct.unpack("=I", table)[0] if table else body[4]
            if number == TUNNEL_TABLE:
                if kind == DELETE_ROUTE:
                    return True
            elif body[0] == socket.AF_INET and number not in (ROUTING_TABLE, _LOCAL_TABLE):
                return True
    return False
