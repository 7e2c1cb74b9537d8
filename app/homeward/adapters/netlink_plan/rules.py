# SPDX-License-Identifier: GPL-2.0-or-later
"""The routing rules that lead applications into the home device and our own packets past it, and news of their loss,
and of the routes' that they lead to."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from homeward.model.names import (
    MARK_BASE,
    MARK_IKE,
    MARK_MASK,
    MARK_TUNNEL,
    ROUTING_TABLE,
    RULE_DHCP,
    RULE_HOME,
    RULE_IKE,
    RULE_TUNNEL,
    TUNNEL_TABLE,
)

NEWS: Final = 0x40 | 0x80
"""Netlink's groups for news of IPv4 routes and rules (RTMGRP_IPV4_ROUTE, _RULE)."""

_MAIN_TABLE = 254
_UDP = 17
_INVERT = 2  # FIB_RULE_INVERT: "not"
_RTM_DELROUTE, _RTM_DELRULE = 25, 33
_FRA_PRIORITY = 6
_RTA_DST, _RTA_TABLE = 1, 15
_BODY = 16 + 12  # struct nlmsghdr, and struct fib_rule_hdr or rtmsg

RULES: Final[tuple[dict[str, Any], ...]] = (
    {"priority": RULE_IKE, "fwmark": MARK_IKE, "fwmask": 0xFFFFFFFF, "table": _MAIN_TABLE},
    {
        "priority": RULE_DHCP,
        "ip_proto": _UDP,
        "sport_range": "68:68",
        "dport_range": "67:67",
        "table": _MAIN_TABLE,
    },
    {"priority": RULE_TUNNEL, "fwmark": MARK_TUNNEL, "fwmask": 0xFFFFFFFF, "table": TUNNEL_TABLE},
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
    ours = {struct.pack("=I", rule["priority"]) for rule in RULES}
    return any(
        kind == _RTM_DELRULE and attributes.get(_FRA_PRIORITY) in ours
        for kind, _, attributes in _messages(octets)
    )


def deleted_routes(octets: bytes) -> frozenset[IPv4Network]:
    """Where the routes led that were deleted from our table, as a netlink datagram says (RTM_DELROUTE)."""
    table = struct.pack("=I", ROUTING_TABLE)
    return frozenset(
        IPv4Network((IPv4Address(attributes.get(_RTA_DST, bytes(4))), length))
        for kind, length, attributes in _messages(octets)
        if kind == _RTM_DELROUTE and attributes.get(_RTA_TABLE) == table
    )


def _messages(octets: bytes) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """Kind, length of the destination prefix, and attributes of each message of a netlink datagram."""
    at = 0
    while at + _BODY <= len(octets):
        length, kind = struct.unpack_from("=IH", octets, at)
        if length < _BODY:
            return
        yield kind, octets[at + 17], dict(_attributes(octets[at + _BODY : at + length]))
        at += (length + 3) & ~3


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(octets):
        size, name = struct.unpack_from("=HH", octets, at)
        yield name, octets[at + 4 : at + max(size, 4)]
        at += max((size + 3) & ~3, 4)
