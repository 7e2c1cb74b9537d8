# SPDX-License-Identifier: GPL-2.0-or-later
"""The program at the ingress of a path's link: off with the headers of what an entry admits."""

from __future__ import annotations

import socket
from typing import Final

from homeward.adapters.kernel_tunnels.assembler import Assembler, Operation, Size, Test
from homeward.adapters.kernel_tunnels.entries import ARRIVING, Arriving, Carrier
from homeward.adapters.kernel_tunnels.parts import (
    GRE_DATA,
    GRE_HEADER,
    ICMP,
    IP_HEADER,
    IP_IN_IP,
    PLAIN_DATA,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    TCP,
    TUNNEL_DATA,
    UDP,
    UDP_HEADER,
    Helper,
    Side,
    Skb,
    Stack,
    Total,
    count,
    load_octets,
    look_up,
    refuse_ended,
    refuse_opening,
)

_PASS: Final = -1  # TC_ACT_UNSPEC: on to the next filter, or to the kernel
_DROP: Final = 2
_PACKET_FOR_US: Final = 0
_AT_MAC, _KEEP_SEGMENT_SIZE = 1, 1
_INTO_INGRESS: Final = 1
_IPSEC_STATE_OCTETS: Final = 28  # struct bpf_xfrm_state
_ECN, _CONGESTION_EXPERIENCED = 3, 3


def inward(
    entries: int,
    side: Side,
    into: int,
    alive: int | None = None,
    totals: int | None = None,
    *,
    tells_ipsec: bool = True,
) -> bytes:
    """For the ingress of a path's device; `entries` is a map of ARRIVING, `into` the tunnel device's index.

    At the mobile node an entry names the link as well, since there is one tunnel and it is bound to a link. What came
    out of the kernel's IPsec comes in by the link once more, as if in clear; `tells_ipsec` says that there can be such.
    """
    code = Assembler()
    code.move(R6, R1)
    code.load(Size.WORD, R1, R6, Skb.PACKET_TYPE)
    code.jump("pass", Test.DIFFERENT, R1, _PACKET_FOR_US)
    code.load(Size.WORD, R1, R6, Skb.PROTOCOL)
    code.jump("pass", Test.DIFFERENT, R1, socket.htons(0x0800))
    code.load(Size.WORD, R1, R6, Skb.VLAN_PRESENT)  # on its way to another device
    code.jump("pass", Test.DIFFERENT, R1, 0)
    load_octets(code, Helper.LOAD_FROM_NETWORK, 0, Stack.OUTER, IP_HEADER)
    code.load(Size.OCTET, R1, R10, Stack.OUTER)
    code.jump("pass", Test.DIFFERENT, R1, 0x45)
    code.load(Size.HALF, R1, R10, Stack.OUTER + 6)
    code.jump("pass", Test.ANY_BIT, R1, socket.htons(0x3FFF))
    _sum_up_outer_header(code)
    for at in range(0, 24, 4):
        code.store(Size.WORD, R10, Stack.KEY + at, 0)
    code.load(Size.OCTET, R1, R10, Stack.OUTER + 9)
    code.jump("udp", Test.EQUAL, R1, UDP)
    code.jump("pass", Test.DIFFERENT, R1, IP_IN_IP)
    code.store(Size.WORD, R10, Stack.KEY + Arriving.CARRIER, Carrier.IPIP)
    code.move(R8, IP_HEADER)
    code.jump("inner")
    _read_udp(code)
    code.label("inner")
    load_octets(code, Helper.LOAD_FROM_NETWORK, R8, Stack.INNER, IP_HEADER)
    _refuse_wrong_lengths(code)
    _fill_key(code, side)
    look_up(code, entries)
    refuse_ended(code, ARRIVING.ends, alive)
    if tells_ipsec:
        _ask_for_ipsec(code)
    if side is Side.AGENT:
        _leave_opening_to_slow_path(code)
    _compare_congestion(code)
    _strip(code, into, totals)
    code.label("pass")
    code.leave(_PASS)
    return code.octets()


def nothing() -> bytes:
    """For the ingress of the kernel's own tunnel device: what comes in there was agreed on by nobody."""
    code = Assembler()
    code.leave(_DROP)
    return code.octets()


def _sum_up_outer_header(code: Assembler) -> None:
    """The kernel has not looked at it yet: one with a wrong checksum passes, to be dropped there."""
    code.load(Size.WORD, R1, R10, Stack.OUTER)
    for at in range(4, IP_HEADER, 4):
        code.load(Size.WORD, R2, R10, Stack.OUTER + at)
        code.alu(Operation.ADD, R1, R2)
    for bits in (32, 32, 16, 16):
        code.move(R2, R1)
        code.alu(Operation.RIGHT, R2, bits)
        code.alu(Operation.LEFT, R1, 64 - bits)
        code.alu(Operation.RIGHT, R1, 64 - bits)
        code.alu(Operation.ADD, R1, R2)
    code.jump("pass", Test.DIFFERENT, R1, 0xFFFF)


def _ask_for_ipsec(code: Assembler) -> None:
    """Whether the packet came out of the kernel's IPsec has to be as the entry says."""
    code.move(R1, R6)
    code.move(R2, 0)
    code.move(R3, R10)
    code.alu(Operation.ADD, R3, Stack.SCRATCH)
    code.move(R4, _IPSEC_STATE_OCTETS)
    code.move(R5, 0)
    code.call(Helper.IPSEC_STATE)
    code.load(Size.OCTET, R1, R7, ARRIVING.ipsec)
    code.jump("in clear", Test.DIFFERENT, R0, 0)
    code.jump("pass", Test.EQUAL, R1, 0)
    code.jump("as agreed")
    code.label("in clear")
    code.jump("pass", Test.DIFFERENT, R1, 0)
    code.label("as agreed")


def _read_udp(code: Assembler) -> None:
    """UDP and MIP Tunnel Data: R8 becomes where the inner packet begins."""
    code.label("udp")
    load_octets(code, Helper.LOAD_FROM_NETWORK, IP_HEADER, Stack.OUTER + IP_HEADER, UDP_HEADER + TUNNEL_DATA)
    code.load(Size.HALF, R1, R10, Stack.OUTER + 26)
    code.jump("pass", Test.DIFFERENT, R1, 0)  # a checksum: the socket verifies it
    code.load(Size.HALF, R1, R10, Stack.OUTER + 24)
    code.swap(R1, 16)
    code.alu(Operation.ADD, R1, IP_HEADER)
    code.load(Size.HALF, R2, R10, Stack.OUTER + 2)
    code.swap(R2, 16)
    code.alu(Operation.AND, R1, 0xFFFF)
    code.jump("pass", Test.DIFFERENT, R1, R2)
    code.load(Size.WORD, R1, R10, Stack.OUTER + 20)
    code.store(Size.WORD, R10, Stack.KEY + Arriving.PORTS, R1)
    code.move(R8, IP_HEADER + UDP_HEADER + TUNNEL_DATA)
    code.load(Size.WORD, R1, R10, Stack.OUTER + 28)
    code.store(Size.WORD, R10, Stack.KEY + Arriving.CARRIER, Carrier.UDP)
    code.jump("inner", Test.EQUAL, R1, PLAIN_DATA)
    code.store(Size.WORD, R10, Stack.KEY + Arriving.CARRIER, Carrier.GRE_IN_UDP)
    code.jump("pass", Test.DIFFERENT, R1, GRE_DATA)
    load_octets(
        code, Helper.LOAD_FROM_NETWORK, IP_HEADER + UDP_HEADER + TUNNEL_DATA, Stack.OUTER + 32, GRE_HEADER
    )
    code.load(Size.WORD, R1, R10, Stack.OUTER + 32)
    code.jump("pass", Test.DIFFERENT, R1, socket.htonl(0x0800))
    code.alu(Operation.ADD, R8, GRE_HEADER)


def _refuse_wrong_lengths(code: Assembler) -> None:
    """Inner and outer header must agree on where the packet ends, and it must be IPv4."""
    code.load(Size.OCTET, R1, R10, Stack.INNER)
    code.alu(Operation.AND, R1, 0xF0)
    code.jump("pass", Test.DIFFERENT, R1, 0x40)
    code.load(Size.HALF, R1, R10, Stack.INNER + 2)
    code.swap(R1, 16)
    code.jump("pass", Test.EQUAL, R1, 0)
    code.alu(Operation.ADD, R1, R8)
    code.alu(Operation.AND, R1, 0xFFFF)
    code.load(Size.HALF, R2, R10, Stack.OUTER + 2)
    code.swap(R2, 16)
    code.jump("pass", Test.DIFFERENT, R1, R2)


def _fill_key(code: Assembler, side: Side) -> None:
    """From whom, to whom, for whom. What speaks with the tunnel's own end, as keepalives do, passes.

    At an agent it is keepalives only: the kernel takes all else that is for its own address, as from the slow path.
    """
    at_home, other, agent = (16, 12, 12) if side is Side.MOBILE_NODE else (12, 16, 16)
    code.load(Size.WORD, R1, R10, Stack.INNER + other)
    code.load(Size.WORD, R2, R10, Stack.OUTER + agent)
    if side is Side.AGENT:
        code.jump("away", Test.DIFFERENT, R1, R2)
        code.load(Size.OCTET, R1, R10, Stack.OUTER + 9)
        code.jump("away", Test.DIFFERENT, R1, UDP)
        code.load(Size.OCTET, R1, R10, Stack.INNER + 9)
        code.jump("pass", Test.EQUAL, R1, ICMP)
        code.label("away")
    else:
        code.jump("pass", Test.EQUAL, R1, R2)
    if side is Side.MOBILE_NODE:
        code.load(Size.WORD, R1, R6, Skb.INTERFACE)
        code.store(Size.WORD, R10, Stack.KEY + Arriving.LINK, R1)
    for to, at in (
        (Arriving.HOME, Stack.INNER + at_home),
        (Arriving.SOURCE, Stack.OUTER + 12),
        (Arriving.DESTINATION, Stack.OUTER + 16),
    ):
        code.load(Size.WORD, R1, R10, at)
        code.store(Size.WORD, R10, Stack.KEY + to, R1)


def _leave_opening_to_slow_path(code: Assembler) -> None:
    code.load(Size.OCTET, R1, R10, Stack.INNER)
    code.jump("pass", Test.DIFFERENT, R1, 0x45)
    code.load(Size.OCTET, R1, R10, Stack.INNER + 9)
    code.jump("open", Test.DIFFERENT, R1, TCP)
    code.load(Size.HALF, R1, R10, Stack.INNER + 6)
    code.jump("open", Test.ANY_BIT, R1, socket.htons(0x1FFF))
    code.move(R9, R8)
    code.alu(Operation.ADD, R9, IP_HEADER + 12)
    load_octets(code, Helper.LOAD_FROM_NETWORK, R9, Stack.TCP_WORD, 4)
    refuse_opening(code, R7, ARRIVING.clamps)


def _compare_congestion(code: Assembler) -> None:
    """R9 becomes 1 where the outer header has a mark of congestion that the inner one can take (RFC 6040 4.2)."""
    code.move(R9, 0)
    code.load(Size.OCTET, R1, R10, Stack.OUTER + 1)
    code.alu(Operation.AND, R1, _ECN)
    code.jump("noticed", Test.EQUAL, R1, 0)
    code.load(Size.OCTET, R2, R10, Stack.INNER + 1)
    code.alu(Operation.AND, R2, _ECN)
    code.jump("noticed", Test.EQUAL, R1, R2)
    code.jump("pass", Test.DIFFERENT, R1, _CONGESTION_EXPERIENCED)
    code.jump("pass", Test.EQUAL, R2, 0)
    code.move(R9, 1)
    code.label("noticed")


def _strip(code: Assembler, into: int, totals: int | None) -> None:
    """Off with the headers, and in by the tunnel device: never as if it had come from the link itself."""
    count(code, ARRIVING.packets, totals, Total.CAME)
    code.move(R1, R6)
    code.move(R2, 0)
    code.alu(Operation.SUB, R2, R8)
    code.move(R3, _AT_MAC)
    code.move(R4, _KEEP_SEGMENT_SIZE)
    code.call(Helper.ADJUST_ROOM)
    code.jump("broken", Test.DIFFERENT, R0, 0)
    code.move(R1, 0)  # what somebody marked the outer packet with says nothing of this one
    code.store(Size.WORD, R6, Skb.MARK, R1)
    code.jump("marked", Test.EQUAL, R9, 0)
    code.move(R1, R6)
    code.call(Helper.NOTICE_CONGESTION)
    code.jump("broken", Test.EQUAL, R0, 0)
    code.label("marked")
    code.move(R1, into)
    code.move(R2, _INTO_INGRESS)
    code.call(Helper.REDIRECT)
    code.leave_with_result()
    code.label("broken")
    code.leave(_DROP)
