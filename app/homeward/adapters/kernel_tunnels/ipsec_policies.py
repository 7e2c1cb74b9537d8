# SPDX-License-Identifier: GPL-2.0-or-later
"""Other VPNs' IPsec policies: what the kernel itself sends meets them, and a tunnel in clear must not.

The slow path's sockets have a bypass each; a packet that a program sends has no socket of ours. So where such a policy
stands, the slow path carries a tunnel in clear. Policies of XFRM interfaces, our own VPN's among them, hold for packets
that pass those and for no others.

Numbers and layouts are Linux's: include/uapi/linux/xfrm.h.
"""

from __future__ import annotations

import socket
from typing import Final

from homeward.adapters.kernel_tunnels.netlink import DUMP, Netlink, attributes

NEWS: Final = 0x8
"""Netlink's group for news of policies (XFRMNLGRP_POLICY)."""
NETLINK_XFRM: Final = 6

_GET_POLICY: Final = 0x15
_POLICY_ID_OCTETS: Final = 64
_POLICY_OCTETS: Final = 168
_DIRECTION, _ACTION = 160, 161
_OUT, _BLOCK = 1, 1
_TEMPLATES, _INTERFACE = 5, 31


def lead_astray() -> bool:
    """Whether some policy takes, or blocks, packets that leave by an ordinary link. Raises PlanError, NotPermitted."""
    if not exist():
        return False
    netlink = Netlink(NETLINK_XFRM)
    try:
        shown = netlink.ask("looking for IPsec policies", _GET_POLICY, bytes(_POLICY_ID_OCTETS), flags=DUMP)
    finally:
        netlink.close()
    return any(_takes(policy) for policy in shown)


def _takes(policy: bytes) -> bool:
    if len(policy) < _POLICY_OCTETS or policy[_DIRECTION] != _OUT:  # a socket's own has another number there
        return False
    said = attributes(policy[_POLICY_OCTETS:])
    if any(said.get(_INTERFACE, b"")):
        return False
    return policy[_ACTION] == _BLOCK or bool(said.get(_TEMPLATES))


def exist() -> bool:
    """Whether this kernel has such policies at all."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_XFRM).close()
    except OSError:
        return False
    return True
