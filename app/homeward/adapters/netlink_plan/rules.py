# SPDX-License-Identifier: GPL-2.0-or-later
"""The routing rules that lead applications into the home device and our own packets past it, and news of their loss."""

from __future__ import annotations

import struct
from typing import Any, Final

from homeward.model.names import (
    MARK_BASE,
    MARK_IKE,
    MARK_MASK,
    ROUTING_TABLE,
    RULE_DHCP,
    RULE_HOME,
    RULE_IKE,
)

RULE_NEWS: Final = 0x80
"""Netlink's group for news of IPv4 rules (RTMGRP_IPV4_RULE)."""

_MAIN_TABLE = 254
_UDP = 17
_INVERT = 2  # FIB_RULE_INVERT: "not"
_RTM_DELRULE = 33
_FRA_PRIORITY = 6
_RULE_BODY = 16 + 12  # struct nlmsghdr and struct fib_rule_hdr

RULES: Final[tuple[dict[str, Any], ...]] = (
    {"priority": RULE_IKE, "fwmark": MARK_IKE, "fwmask": 0xFFFFFFFF, "table": _MAIN_TABLE},
    {
        "priority": RULE_DHCP,
        "ip_proto": _UDP,
        "sport_range": "68:68",
        "dport_range": "67:67",
        "table": _MAIN_TABLE,
    },
    {
        "priority": RULE_HOME,
        "fwmark": MARK_BASE,
        "fwmask": MARK_MASK,
        "flags": _INVERT,
        "table": ROUTING_TABLE,
    },
)


def tells_of_a_deleted_rule(octets: bytes) -> bool:
    """Whether a netlink datagram says that a rule with one of our preferences was deleted (RTM_DELRULE)."""
    at = 0
    while at + _RULE_BODY < len(octets):
        length, kind = struct.unpack_from("=IH", octets, at)
        if length < _RULE_BODY:
            return False
        inner = at + _RULE_BODY
        while kind == _RTM_DELRULE and inner + 8 <= at + length:
            size, name, value = struct.unpack_from("=HHI", octets, inner)
            if name == _FRA_PRIORITY and value in {rule["priority"] for rule in RULES}:
                return True
            inner += max((size + 3) & ~3, 4)
        at += (length + 3) & ~3
    return False
