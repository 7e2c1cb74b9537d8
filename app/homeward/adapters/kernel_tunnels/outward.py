# SPDX-License-Identifier: GPL-2.0-or-later
"""The program on the route into the TUN device: outer headers for home addresses that have an entry."""

from __future__ import annotations

import socket
from typing import Final

from homeward.adapters.kernel_tunnels.assembler import Assembler, Operation, Size, Test
from homeward.adapters.kernel_tunnels.entries import LEAVING, Carrier
from homeward.adapters.kernel_tunnels.parts import (
    GRE_DATA,
    IP_HEADER,
    MOST_HEADERS,
    PLAIN_DATA,
    R0,
    R1,
    R2,
    R3,
    R4,
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

_PASS: Final = 0  # BPF_OK: on into the device
_ROUTE_ANEW: Final = 128  # BPF_LWT_REROUTE
_DONT_FRAGMENT: Final = socket.htons(0x4000)
_ENCAPSULATE_IP: Final = 2  # BPF_LWT_ENCAP_IP
_DONT_FRAGMENT_OUTSIDE: Final = 4  # BPF_F_DONT_FRAGMENT
_KEY_OCTETS: Final = 44  # struct bpf_tunnel_key
_TTL: Final = 64
_LONGEST: Final = 0xFFFF
_MULTICAST: Final = 0xE0


def outward(entries: int, side: Side, alive: int | None = None, totals: int | None = None) -> bytes:
    """For the route into the tunnel device; `entries` is a map of LEAVING by home address.

    `alive`, here and below, is a map of 8 octets: the boot time in nanoseconds until which anything passes at all.
    `totals` is a map of Total; without it the entries count.
    """
    code = Assembler()
    code.move(R6, R1)
    load_octets(code, Helper.LOAD_OCTETS, 0, Stack.INNER, IP_HEADER)
    code.load(Size.OCTET, R1, R10, Stack.INNER)
    code.jump("pass", Test.DIFFERENT, R1, 0x45)
    code.load(Size.OCTET, R1, R10, Stack.INNER + 16)
    code.jump("pass", Test.GREATER, R1, _MULTICAST - 1)
    code.load(Size.WORD, R1, R10, Stack.INNER + (12 if side is Side.MOBILE_NODE else 16))
    code.store(Size.WORD, R10, Stack.KEY, R1)
    look_up(code, entries)
    refuse_ended(code, LEAVING.ends, alive)
    # From the tunnel's exit or its entrance: a loop (RFC 2003 section 3.2), or this host's own word.
    code.load(Size.WORD, R1, R10, Stack.INNER + 12)
    for end in (LEAVING.far, LEAVING.near):
        code.load(Size.WORD, R2, R7, end)
        code.jump("pass", Test.EQUAL, R1, R2)
    _refuse_what_does_not_fit(code)
    code.load(Size.OCTET, R1, R7, LEAVING.carrier)
    code.jump("device", Test.EQUAL, R1, Carrier.IPIP)
    _refuse_segments_but_of_tcp(code)
    _push(code, side, totals)
    _hand_to_device(code, totals)
    code.label("pass")
    code.leave(_PASS)
    return code.octets()


def _refuse_what_does_not_fit(code: Assembler) -> None:
    """A segment longer than the tunnel's room passes, and one that opens a connection where it has to be clamped; so do
    segments that are too many together for a header around them to say their length.

    R9 becomes what a segment's headers take, 0 for a packet that is no TCP segment.
    """
    code.load(Size.WORD, R1, R6, Skb.LENGTH)
    code.jump("pass", Test.GREATER, R1, _LONGEST - MOST_HEADERS)
    code.move(R9, 0)
    code.load(Size.OCTET, R1, R10, Stack.INNER + 9)
    code.jump("whole", Test.DIFFERENT, R1, TCP)
    code.load(Size.HALF, R1, R10, Stack.INNER + 6)
    code.jump("whole", Test.ANY_BIT, R1, socket.htons(0x1FFF))
    load_octets(code, Helper.LOAD_OCTETS, IP_HEADER + 12, Stack.TCP_WORD, 4)
    refuse_opening(code, R7, LEAVING.clamps)
    code.load(Size.OCTET, R9, R10, Stack.TCP_WORD)
    code.alu(Operation.RIGHT, R9, 4)
    code.alu(Operation.LEFT, R9, 2)
    code.alu(Operation.ADD, R9, IP_HEADER)
    code.label("whole")
    code.load(Size.WORD, R1, R6, Skb.SEGMENT)
    code.jump("measured", Test.DIFFERENT, R1, 0)
    code.load(Size.WORD, R1, R6, Skb.LENGTH)
    code.move(R9, 0)
    code.label("measured")
    code.alu(Operation.ADD, R1, R9)
    code.load(Size.HALF, R2, R7, LEAVING.room)
    code.jump("pass", Test.GREATER, R1, R2)


def _refuse_segments_but_of_tcp(code: Assembler) -> None:
    """Datagrams that the kernel is to cut (UDP_SEGMENT) pass: it refuses to put headers on them, but only when they are
    on already, and then loses the whole."""
    code.load(Size.WORD, R1, R6, Skb.SEGMENT)
    code.jump("can be cut", Test.EQUAL, R1, 0)
    code.load(Size.OCTET, R1, R10, Stack.INNER + 9)
    code.jump("pass", Test.DIFFERENT, R1, TCP)
    code.label("can be cut")


def _push(code: Assembler, side: Side, totals: int | None) -> None:
    """IPv4, UDP and MIP Tunnel Data around the packet, and a new look for its route (RFC 3519 section 4.8).

    A mobile node's are never fragmented outside (R-239): what is too long is cut before.
    """
    code.store(Size.OCTET, R10, Stack.OUTER, 0x45)
    code.load(Size.OCTET, R1, R10, Stack.INNER + 1)
    code.store(Size.OCTET, R10, Stack.OUTER + 1, R1)
    code.load(Size.WORD, R8, R6, Skb.LENGTH)
    code.load(Size.OCTET, R1, R7, LEAVING.carrier)
    code.move(R9, IP_HEADER + UDP_HEADER + TUNNEL_DATA)
    code.store(Size.WORD, R10, Stack.OUTER + 28, PLAIN_DATA)
    code.jump("told", Test.DIFFERENT, R1, Carrier.GRE_IN_UDP)
    code.move(R9, MOST_HEADERS)
    code.store(Size.WORD, R10, Stack.OUTER + 28, GRE_DATA)
    code.label("told")
    code.alu(Operation.ADD, R8, R9)
    code.move(R1, R8)
    code.swap(R1, 16)
    code.store(Size.HALF, R10, Stack.OUTER + 2, R1)
    code.call(Helper.RANDOM)
    code.store(Size.HALF, R10, Stack.OUTER + 4, R0)
    code.move(R1, _DONT_FRAGMENT)
    if side is Side.AGENT:
        code.load(Size.HALF, R1, R10, Stack.INNER + 6)
        code.alu(Operation.AND, R1, _DONT_FRAGMENT)
    code.store(Size.HALF, R10, Stack.OUTER + 6, R1)
    code.store(Size.OCTET, R10, Stack.OUTER + 8, _TTL)
    code.store(Size.OCTET, R10, Stack.OUTER + 9, UDP)
    code.store(Size.HALF, R10, Stack.OUTER + 10, 0)  # the kernel sums up
    _copy(code, Size.WORD, Stack.OUTER + 12, LEAVING.near)
    _copy(code, Size.WORD, Stack.OUTER + 16, LEAVING.far)
    _copy(code, Size.HALF, Stack.OUTER + 20, LEAVING.near_port)
    _copy(code, Size.HALF, Stack.OUTER + 22, LEAVING.far_port)
    code.alu(Operation.SUB, R8, IP_HEADER)
    code.swap(R8, 16)
    code.store(Size.HALF, R10, Stack.OUTER + 24, R8)
    code.store(Size.HALF, R10, Stack.OUTER + 26, 0)  # no checksum, as a tunnel in UDP over IPv4 may
    code.store(Size.WORD, R10, Stack.OUTER + 32, socket.htonl(0x0800))  # GRE: no option, and IPv4 inside
    code.move(R1, R6)
    code.move(R2, _ENCAPSULATE_IP)
    code.move(R3, R10)
    code.alu(Operation.ADD, R3, Stack.OUTER)
    code.move(R4, IP_HEADER + UDP_HEADER + TUNNEL_DATA)
    code.jump("push", Test.EQUAL, R9, IP_HEADER + UDP_HEADER + TUNNEL_DATA)
    code.move(R4, MOST_HEADERS)
    code.label("push")
    code.call(Helper.PUSH_ENCAPSULATION)
    # No memory, that is. The device takes the packet as it is, with the mark it had; headers of ours it knows again.
    code.jump("pass", Test.DIFFERENT, R0, 0)
    _mark(code)
    count(code, LEAVING.packets, totals, Total.LEFT)
    code.leave(_ROUTE_ANEW)


def _mark(code: Assembler) -> None:
    code.load(Size.WORD, R1, R7, LEAVING.mark)
    code.store(Size.WORD, R6, Skb.MARK, R1)


def _copy(code: Assembler, size: Size, to: int, field: int) -> None:
    code.load(size, R1, R7, field)
    code.store(size, R10, to, R1)


def _hand_to_device(code: Assembler, totals: int | None) -> None:
    """The kernel's own `ipip` device builds the header; it has segmentation and path MTU as well."""
    code.label("device")
    for at in range(0, _KEY_OCTETS, 4):
        code.store(Size.WORD, R10, Stack.SCRATCH + at, 0)
    for at, field in ((4, LEAVING.far), (28, LEAVING.near)):
        code.load(Size.WORD, R1, R7, field)
        code.swap(R1, 32)
        code.store(Size.WORD, R10, Stack.SCRATCH + at, R1)
    code.load(Size.OCTET, R1, R10, Stack.INNER + 1)
    code.store(Size.OCTET, R10, Stack.SCRATCH + 20, R1)
    code.store(Size.OCTET, R10, Stack.SCRATCH + 21, _TTL)
    code.move(R4, 0)
    code.load(Size.HALF, R1, R10, Stack.INNER + 6)
    code.alu(Operation.AND, R1, _DONT_FRAGMENT)
    code.jump("described", Test.EQUAL, R1, 0)
    code.move(R4, _DONT_FRAGMENT_OUTSIDE)
    code.label("described")
    code.move(R1, R6)
    code.move(R2, R10)
    code.alu(Operation.ADD, R2, Stack.SCRATCH)
    code.move(R3, _KEY_OCTETS)
    code.call(Helper.SET_TUNNEL_KEY)
    code.jump("pass", Test.DIFFERENT, R0, 0)
    _mark(code)
    count(code, LEAVING.packets, totals, Total.LEFT_BY_DEVICE)
    code.load(Size.WORD, R1, R7, LEAVING.device)
    code.move(R2, 0)
    code.call(Helper.REDIRECT)
    code.leave_with_result()
