# SPDX-License-Identifier: GPL-2.0-or-later
"""Socket options and ancillary data that Python's socket module does not name, as octets in this machine's byte order.

Numbers and layouts are Linux's: include/uapi/linux/in.h, xfrm.h, and asm-generic/socket.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import Enum
from typing import Final

LEVEL_IP: Final = 0
IP_TOS: Final = 1
IP_TTL: Final = 2
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DONT: Final = 0
IP_PMTUDISC_DO: Final = 2
IP_RECVTOS: Final = 13
IP_MTU: Final = 14
IP_XFRM_POLICY: Final = 17
SO_RCVBUFFORCE: Final = 33
SO_TIMESTAMPNS: Final = 64
"""SO_TIMESTAMPNS_NEW: with each datagram the wall time at which it arrived, as a struct __kernel_timespec."""
SO_BINDTOIFINDEX: Final = 62
"""Binds to a link by its index: a link that takes over the name meanwhile is not meant."""

ANCILLARY_OCTETS: Final = 64
"""Room for an IP_PKTINFO and an IP_TOS message."""

_AF_INET = 2
_SOL_SOCKET = 1
_SO_MARK = 36
_NO_LIMIT = 2**64 - 1
_SELECTOR = struct.Struct("=16s16sHHHHHBBB3xiI")
_LIFETIME_CONFIG = struct.Struct("=8Q")
_LIFETIME_CURRENT = struct.Struct("=4Q")
_POLICY_TAIL = struct.Struct("=IIBBBB4x")
_PACKET_INFO = struct.Struct("=i4s4s")


class PolicyDirection(Enum):
    """XFRM_POLICY_IN and XFRM_POLICY_OUT."""

    IN = 0
    OUT = 1


def allow_without_ipsec(direction: PolicyDirection) -> bytes:
    """A struct xfrm_userpolicy_info: action allow, no template, for whatever one socket sends or receives.

    Set by IP_XFRM_POLICY for both directions, it keeps the socket's packets out of every IPsec policy of the machine,
    and has the kernel refuse packets that came through IPsec. This is what IKE daemons do to their own sockets.
    """
    anything = _SELECTOR.pack(b"", b"", 0, 0, 0, 0, _AF_INET, 0, 0, 0, 0, 0)
    for_ever = _LIFETIME_CONFIG.pack(*[_NO_LIMIT] * 4, 0, 0, 0, 0)
    unused = _LIFETIME_CURRENT.pack(0, 0, 0, 0)
    action_allow = 0
    return anything + for_ever + unused + _POLICY_TAIL.pack(0, 0, direction.value, action_allow, 0, 0)


def ingress_link(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """The index of the link a datagram came in on, from what recvmsg() returned; 0 where the kernel did not say."""
    for level, kind, data in ancillary:
        if level == LEVEL_IP and kind == IP_PKTINFO and len(data) >= _PACKET_INFO.size:
            return int(_PACKET_INFO.unpack_from(data)[0])
    return 0


def type_of_service(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """The type of service that a datagram arrived with, where IP_RECVTOS is set; else 0."""
    for level, kind, data in ancillary:
        if level == LEVEL_IP and kind == IP_TOS and data:
            return data[0]
    return 0


def marked(mark: int, service: int) -> list[tuple[int, int, bytes]]:
    """Ancillary data for sendmsg() that gives one datagram this mark and this type of service."""
    return [
        (_SOL_SOCKET, _SO_MARK, struct.pack("=I", mark)),
        (LEVEL_IP, IP_TOS, struct.pack("=i", service)),
    ]


def time_to_live(ttl: int) -> list[tuple[int, int, bytes]]:
    """Ancillary data for sendmsg() that gives one datagram this TTL."""
    return [(LEVEL_IP, IP_TTL, struct.pack("=i", ttl))]
