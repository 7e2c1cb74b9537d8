# SPDX-License-Identifier: GPL-2.0-or-later
"""The two programs of the fast path: one puts outer headers on, one takes them off. Each serves both ends of a tunnel.

They know plain packets only. Whatever is unusual they leave to the slow path, which has all rules: no entry in the
map, options, a fragment, a keepalive, one that is too long, a mark of congestion that cannot be carried on, a
checksum outside. So what they pass is a part of what the slow path would pass, and nothing else
(tests/contract/test_kernel_tunnels.py).
"""

from __future__ import annotations

import socket
from enum import Enum, IntEnum
from typing import Final

from homeward.adapters.kernel_tunnels.assembler import Assembler, Operation, Register, Size, Test
from homeward.adapters.kernel_tunnels.entries import ARRIVING, LEAVING, Arriving, Carrier

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

# struct __sk_buff
_LENGTH, _PACKET_TYPE, _MARK, _PROTOCOL, _INTERFACE, _SEGMENT = 0, 4, 8, 16, 40, 176

# helpers
_LOOKUP, _RANDOM, _SET_TUNNEL_KEY, _REDIRECT, _LOAD_OCTETS = 1, 7, 21, 23, 26
_ADJUST_ROOM, _LOAD_FROM_NETWORK, _PUSH_ENCAPSULATION, _NOTICE_CONGESTION, _BOOT_TIME = 50, 68, 73, 97, 125

# verdicts
PASS: Final = 0
_NEXT_FILTER: Final = -1
_REDIRECTED: Final = 7
_DROP_ON_ROUTE: Final = 2
_DROP_IN_TRAFFIC_CONTROL: Final = 2
_ROUTE_ANEW: Final = 128

_PACKET_FOR_US: Final = 0
_ICMP, _TCP, _UDP, _IP_IN_IP = 1, 6, 17, 4
_ENCAPSULATE_IP: Final = 2  # BPF_LWT_ENCAP_IP
_AT_MAC, _KEEP_SEGMENT_SIZE = 1, 1
_FROM_NETWORK_HEADER: Final = 1
_INTO_INGRESS: Final = 1
_DONT_FRAGMENT_OUTSIDE: Final = 4  # BPF_F_DONT_FRAGMENT
_KEY_OCTETS: Final = 44  # struct bpf_tunnel_key

_TTL: Final = 64
_IP, _UDP_HEADER, _TUNNEL_DATA, _GRE = 20, 8, 4, 4
_MOST_HEADERS: Final = _IP + _UDP_HEADER + _TUNNEL_DATA + _GRE
_LONGEST: Final = 0xFFFF
_ECN, _CONGESTION_EXPERIENCED = 3, 3
_SYN: Final = 0x02
_MULTICAST: Final = 0xE0
_PLAIN_DATA: Final = socket.htonl(0x04040000)  # MIP Tunnel Data: a message's type, and what is inside
_GRE_DATA: Final = socket.htonl(0x042F0000)

# The stack, from its end (R10) down.
_INNER: Final = -24  # the inner IPv4 header, 20 octets
_TCP_WORD: Final = -32  # octets 12 to 15 of the TCP header
_KEY: Final = -64  # of the map: up to 24 octets
_OUTER: Final = -104  # what is put on: up to 36 octets
_TUNNEL_KEY: Final = -152
_HEADERS: Final = -104  # what was in front of the inner packet: up to 36 octets


class Total(IntEnum):
    """What an agent's programs count: the slots of a map of pairs, packets and octets of what was inside."""

    LEFT = 0
    LEFT_BY_DEVICE = 1
    CAME = 2


class Side(Enum):
    """At which end of the tunnel a program runs: which field of an inner packet is the home address."""

    MOBILE_NODE = "mobile node"
    AGENT = "home agent"


def outward(entries: int, side: Side, alive: int | None = None, totals: int | None = None) -> bytes:
    """For the route into the tunnel device; `entries` is a map of LEAVING by home address.

    `alive`, here and below, is a map of 8 octets: the boot time in nanoseconds until which anything passes at all.
    `totals` is a map of Total; without it the entries count.
    """
    code = Assembler()
    code.move(R6, R1)
    _load(code, _LOAD_OCTETS, 0, _INNER, _IP)
    code.load(Size.OCTET, R1, R10, _INNER)
    code.jump("pass", Test.DIFFERENT, R1, 0x45)
    code.load(Size.OCTET, R1, R10, _INNER + 16)
    code.jump("pass", Test.GREATER, R1, _MULTICAST - 1)
    code.load(Size.WORD, R1, R10, _INNER + (12 if side is Side.MOBILE_NODE else 16))
    code.store(Size.WORD, R10, _KEY, R1)
    _look_up(code, entries)
    _refuse_ended(code, LEAVING.ends, alive)
    # From the tunnel's exit or its entrance: a loop (RFC 2003 section 3.2), or this host's own word.
    code.load(Size.WORD, R1, R10, _INNER + 12)
    for end in (LEAVING.far, LEAVING.near):
        code.load(Size.WORD, R2, R7, end)
        code.jump("pass", Test.EQUAL, R1, R2)
    _refuse_what_does_not_fit(code)
    code.load(Size.WORD, R1, R7, LEAVING.mark)
    code.store(Size.WORD, R6, _MARK, R1)
    code.load(Size.OCTET, R1, R7, LEAVING.carrier)
    code.jump("device", Test.EQUAL, R1, Carrier.IPIP)
    _push(code, totals)
    _hand_to_device(code, totals)
    code.label("pass")
    code.leave(PASS)
    return code.octets()


def inward(entries: int, side: Side, into: int, alive: int | None = None, totals: int | None = None) -> bytes:
    """For the ingress of a path's device; `entries` is a map of ARRIVING, `into` the tunnel device's index.

    At the mobile node an entry names the link as well, since there is one tunnel and it is bound to a link.
    """
    code = Assembler()
    code.move(R6, R1)
    code.load(Size.WORD, R1, R6, _PACKET_TYPE)
    code.jump("pass", Test.DIFFERENT, R1, _PACKET_FOR_US)
    code.load(Size.WORD, R1, R6, _PROTOCOL)
    code.jump("pass", Test.DIFFERENT, R1, socket.htons(0x0800))
    _load(code, _LOAD_FROM_NETWORK, 0, _HEADERS, _IP)
    code.load(Size.OCTET, R1, R10, _HEADERS)
    code.jump("pass", Test.DIFFERENT, R1, 0x45)
    code.load(Size.HALF, R1, R10, _HEADERS + 6)
    code.jump("pass", Test.ANY_BIT, R1, socket.htons(0x3FFF))
    for at in range(0, 24, 4):
        code.store(Size.WORD, R10, _KEY + at, 0)
    code.load(Size.OCTET, R1, R10, _HEADERS + 9)
    code.jump("udp", Test.EQUAL, R1, _UDP)
    code.jump("pass", Test.DIFFERENT, R1, _IP_IN_IP)
    code.store(Size.WORD, R10, _KEY + Arriving.CARRIER, Carrier.IPIP)
    code.move(R8, _IP)
    code.jump("inner")
    _read_udp(code)
    code.label("inner")
    _load(code, _LOAD_FROM_NETWORK, R8, _INNER, _IP)
    _refuse_wrong_lengths(code)
    _fill_key(code, side)
    _look_up(code, entries)
    _refuse_ended(code, ARRIVING.ends, alive)
    if side is Side.AGENT:
        _leave_opening_to_slow_path(code)
    _compare_congestion(code)
    _strip(code, into, totals)
    code.label("pass")
    code.leave(_NEXT_FILTER)
    return code.octets()


def nothing() -> bytes:
    """For the ingress of the kernel's own tunnel device: what comes in there was agreed on by nobody."""
    code = Assembler()
    code.leave(_DROP_IN_TRAFFIC_CONTROL)
    return code.octets()


# --- what both begin with -------------------------------------------------------------------------------------------


def _load(code: Assembler, helper: int, offset: Register | int, to: int, octets: int) -> None:
    """Copy octets of the packet onto the stack; too short a packet passes."""
    code.move(R1, R6)
    code.move(R2, offset)
    code.move(R3, R10)
    code.alu(Operation.ADD, R3, to)
    code.move(R4, octets)
    if helper == _LOAD_FROM_NETWORK:
        code.move(R5, _FROM_NETWORK_HEADER)
    code.call(helper)
    code.jump("pass", Test.DIFFERENT, R0, 0)


def _look_up(code: Assembler, entries: int, into: Register = R7) -> None:
    code.load_map(R1, entries)
    code.move(R2, R10)
    code.alu(Operation.ADD, R2, _KEY)
    code.call(_LOOKUP)
    code.jump("pass", Test.EQUAL, R0, 0)
    code.move(into, R0)


def _refuse_ended(code: Assembler, ends: int, alive: int | None) -> None:
    """An entry lapses by itself, also when nobody is alive to take it away; R9 is lost by this."""
    if alive is not None:
        code.store(Size.WORD, R10, _KEY, 0)
        _look_up(code, alive, into=R9)
    code.call(_BOOT_TIME)
    code.load(Size.DOUBLE, R1, R7, ends)
    code.jump("pass", Test.GREATER, R0, R1)
    if alive is not None:
        code.load(Size.DOUBLE, R1, R9, 0)
        code.jump("pass", Test.GREATER, R0, R1)


def _count(code: Assembler, packets: int, totals: int | None, slot: Total) -> None:
    """Count the packet, and the octets that its own header says, in its entry or in the total; R6 to R9 stay."""
    entry = R7
    done = f"counted as {slot.name}"
    if totals is not None:
        code.store(Size.WORD, R10, _KEY, slot)
        code.load_map(R1, totals)
        code.move(R2, R10)
        code.alu(Operation.ADD, R2, _KEY)
        code.call(_LOOKUP)
        code.jump(done, Test.EQUAL, R0, 0)
        entry, packets = R0, 0
    code.move(R1, 1)
    code.count(entry, packets, R1)
    code.load(Size.HALF, R1, R10, _INNER + 2)
    code.swap(R1, 16)
    code.count(entry, packets + 8, R1)
    code.label(done)


# --- outwards -------------------------------------------------------------------------------------------------------


def _refuse_what_does_not_fit(code: Assembler) -> None:
    """A segment longer than the tunnel's room passes, and one that opens a connection where it has to be clamped; so do
    segments that are too many together for a header around them to say their length.

    R9 becomes what a segment's headers take, 0 for a packet that is no TCP segment.
    """
    code.load(Size.WORD, R1, R6, _LENGTH)
    code.jump("pass", Test.GREATER, R1, _LONGEST - _MOST_HEADERS)
    code.move(R9, 0)
    code.load(Size.OCTET, R1, R10, _INNER + 9)
    code.jump("whole", Test.DIFFERENT, R1, _TCP)
    code.load(Size.HALF, R1, R10, _INNER + 6)
    code.jump("whole", Test.ANY_BIT, R1, socket.htons(0x1FFF))
    _load(code, _LOAD_OCTETS, _IP + 12, _TCP_WORD, 4)
    _refuse_opening(code, R7, LEAVING.clamps)
    code.load(Size.OCTET, R9, R10, _TCP_WORD)
    code.alu(Operation.RIGHT, R9, 4)
    code.alu(Operation.LEFT, R9, 2)
    code.alu(Operation.ADD, R9, _IP)
    code.label("whole")
    code.load(Size.WORD, R1, R6, _SEGMENT)
    code.jump("measured", Test.DIFFERENT, R1, 0)
    code.load(Size.WORD, R1, R6, _LENGTH)
    code.move(R9, 0)
    code.label("measured")
    code.alu(Operation.ADD, R1, R9)
    code.load(Size.HALF, R2, R7, LEAVING.room)
    code.jump("pass", Test.GREATER, R1, R2)


def _refuse_opening(code: Assembler, entry: Register, clamps: int) -> None:
    """The slow path makes the segments of a connection fit when it is opened."""
    code.load(Size.OCTET, R1, entry, clamps)
    code.jump("open", Test.EQUAL, R1, 0)
    code.load(Size.OCTET, R1, R10, _TCP_WORD + 1)
    code.jump("pass", Test.ANY_BIT, R1, _SYN)
    code.label("open")


def _push(code: Assembler, totals: int | None) -> None:
    """IPv4, UDP and MIP Tunnel Data around the packet, and a new look for its route (RFC 3519 section 4.8)."""
    code.store(Size.OCTET, R10, _OUTER, 0x45)
    code.load(Size.OCTET, R1, R10, _INNER + 1)
    code.store(Size.OCTET, R10, _OUTER + 1, R1)
    code.load(Size.WORD, R8, R6, _LENGTH)
    code.load(Size.OCTET, R1, R7, LEAVING.carrier)
    code.move(R9, _IP + _UDP_HEADER + _TUNNEL_DATA)
    code.store(Size.WORD, R10, _OUTER + 28, _PLAIN_DATA)
    code.jump("told", Test.DIFFERENT, R1, Carrier.GRE_IN_UDP)
    code.move(R9, _MOST_HEADERS)
    code.store(Size.WORD, R10, _OUTER + 28, _GRE_DATA)
    code.label("told")
    code.alu(Operation.ADD, R8, R9)
    code.move(R1, R8)
    code.swap(R1, 16)
    code.store(Size.HALF, R10, _OUTER + 2, R1)
    code.call(_RANDOM)
    code.store(Size.HALF, R10, _OUTER + 4, R0)
    code.load(Size.HALF, R1, R10, _INNER + 6)
    code.alu(Operation.AND, R1, socket.htons(0x4000))
    code.store(Size.HALF, R10, _OUTER + 6, R1)
    code.store(Size.OCTET, R10, _OUTER + 8, _TTL)
    code.store(Size.OCTET, R10, _OUTER + 9, _UDP)
    code.store(Size.HALF, R10, _OUTER + 10, 0)  # the kernel sums up
    _copy(code, Size.WORD, _OUTER + 12, LEAVING.near)
    _copy(code, Size.WORD, _OUTER + 16, LEAVING.far)
    _copy(code, Size.HALF, _OUTER + 20, LEAVING.near_port)
    _copy(code, Size.HALF, _OUTER + 22, LEAVING.far_port)
    code.alu(Operation.SUB, R8, _IP)
    code.swap(R8, 16)
    code.store(Size.HALF, R10, _OUTER + 24, R8)
    code.store(Size.HALF, R10, _OUTER + 26, 0)  # no checksum, as a tunnel in UDP over IPv4 may
    code.store(Size.WORD, R10, _OUTER + 32, socket.htonl(0x0800))  # GRE: no option, and IPv4 inside
    code.move(R1, R6)
    code.move(R2, _ENCAPSULATE_IP)
    code.move(R3, R10)
    code.alu(Operation.ADD, R3, _OUTER)
    code.move(R4, _IP + _UDP_HEADER + _TUNNEL_DATA)
    code.jump("push", Test.EQUAL, R9, _IP + _UDP_HEADER + _TUNNEL_DATA)
    code.move(R4, _MOST_HEADERS)
    code.label("push")
    code.call(_PUSH_ENCAPSULATION)
    code.jump("refused", Test.DIFFERENT, R0, 0)
    _count(code, LEAVING.packets, totals, Total.LEFT)
    code.leave(_ROUTE_ANEW)
    code.label("refused")  # segments of another protocol than TCP, mostly; the device takes them as they are
    code.move(R1, 0)  # older kernels want a register here
    code.store(Size.WORD, R6, _MARK, R1)
    code.leave(PASS)


def _copy(code: Assembler, size: Size, to: int, field: int) -> None:
    code.load(size, R1, R7, field)
    code.store(size, R10, to, R1)


def _hand_to_device(code: Assembler, totals: int | None) -> None:
    """The kernel's own `ipip` device builds the header; it has segmentation and path MTU as well."""
    code.label("device")
    for at in range(0, _KEY_OCTETS, 4):
        code.store(Size.WORD, R10, _TUNNEL_KEY + at, 0)
    for at, field in ((4, LEAVING.far), (28, LEAVING.near)):
        code.load(Size.WORD, R1, R7, field)
        code.swap(R1, 32)
        code.store(Size.WORD, R10, _TUNNEL_KEY + at, R1)
    code.load(Size.OCTET, R1, R10, _INNER + 1)
    code.store(Size.OCTET, R10, _TUNNEL_KEY + 20, R1)
    code.store(Size.OCTET, R10, _TUNNEL_KEY + 21, _TTL)
    code.move(R4, 0)
    code.load(Size.HALF, R1, R10, _INNER + 6)
    code.alu(Operation.AND, R1, socket.htons(0x4000))
    code.jump("described", Test.EQUAL, R1, 0)
    code.move(R4, _DONT_FRAGMENT_OUTSIDE)
    code.label("described")
    code.move(R1, R6)
    code.move(R2, R10)
    code.alu(Operation.ADD, R2, _TUNNEL_KEY)
    code.move(R3, _KEY_OCTETS)
    code.call(_SET_TUNNEL_KEY)
    code.jump("refused", Test.DIFFERENT, R0, 0)
    _count(code, LEAVING.packets, totals, Total.LEFT_BY_DEVICE)
    code.load(Size.WORD, R1, R7, LEAVING.device)
    code.move(R2, 0)
    code.call(_REDIRECT)
    code.leave_with_result()


# --- inwards --------------------------------------------------------------------------------------------------------


def _read_udp(code: Assembler) -> None:
    """UDP and MIP Tunnel Data: R8 becomes where the inner packet begins."""
    code.label("udp")
    _load(code, _LOAD_FROM_NETWORK, _IP, _HEADERS + _IP, _UDP_HEADER + _TUNNEL_DATA)
    code.load(Size.HALF, R1, R10, _HEADERS + 26)
    code.jump("pass", Test.DIFFERENT, R1, 0)  # a checksum: the socket verifies it
    code.load(Size.HALF, R1, R10, _HEADERS + 24)
    code.swap(R1, 16)
    code.alu(Operation.ADD, R1, _IP)
    code.load(Size.HALF, R2, R10, _HEADERS + 2)
    code.swap(R2, 16)
    code.alu(Operation.AND, R1, 0xFFFF)
    code.jump("pass", Test.DIFFERENT, R1, R2)
    code.load(Size.WORD, R1, R10, _HEADERS + 20)
    code.store(Size.WORD, R10, _KEY + Arriving.PORTS, R1)
    code.move(R8, _IP + _UDP_HEADER + _TUNNEL_DATA)
    code.load(Size.WORD, R1, R10, _HEADERS + 28)
    code.store(Size.WORD, R10, _KEY + Arriving.CARRIER, Carrier.UDP)
    code.jump("inner", Test.EQUAL, R1, _PLAIN_DATA)
    code.store(Size.WORD, R10, _KEY + Arriving.CARRIER, Carrier.GRE_IN_UDP)
    code.jump("pass", Test.DIFFERENT, R1, _GRE_DATA)
    _load(code, _LOAD_FROM_NETWORK, _IP + _UDP_HEADER + _TUNNEL_DATA, _HEADERS + 32, _GRE)
    code.load(Size.WORD, R1, R10, _HEADERS + 32)
    code.jump("pass", Test.DIFFERENT, R1, socket.htonl(0x0800))
    code.alu(Operation.ADD, R8, _GRE)


def _refuse_wrong_lengths(code: Assembler) -> None:
    """Inner and outer header must agree on where the packet ends, and it must be IPv4."""
    code.load(Size.OCTET, R1, R10, _INNER)
    code.alu(Operation.AND, R1, 0xF0)
    code.jump("pass", Test.DIFFERENT, R1, 0x40)
    code.load(Size.HALF, R1, R10, _INNER + 2)
    code.swap(R1, 16)
    code.jump("pass", Test.EQUAL, R1, 0)
    code.alu(Operation.ADD, R1, R8)
    code.alu(Operation.AND, R1, 0xFFFF)
    code.load(Size.HALF, R2, R10, _HEADERS + 2)
    code.swap(R2, 16)
    code.jump("pass", Test.DIFFERENT, R1, R2)


def _fill_key(code: Assembler, side: Side) -> None:
    """From whom, to whom, for whom. What speaks with the tunnel's own end, as keepalives do, passes.

    At an agent it is keepalives only: the kernel takes all else that is for its own address, as from the slow path.
    """
    at_home, other, agent = (16, 12, 12) if side is Side.MOBILE_NODE else (12, 16, 16)
    code.load(Size.WORD, R1, R10, _INNER + other)
    code.load(Size.WORD, R2, R10, _HEADERS + agent)
    if side is Side.AGENT:
        code.jump("away", Test.DIFFERENT, R1, R2)
        code.load(Size.OCTET, R1, R10, _HEADERS + 9)
        code.jump("away", Test.DIFFERENT, R1, _UDP)
        code.load(Size.OCTET, R1, R10, _INNER + 9)
        code.jump("pass", Test.EQUAL, R1, _ICMP)
        code.label("away")
    else:
        code.jump("pass", Test.EQUAL, R1, R2)
    if side is Side.MOBILE_NODE:
        code.load(Size.WORD, R1, R6, _INTERFACE)
        code.store(Size.WORD, R10, _KEY + Arriving.LINK, R1)
    for to, at in (
        (Arriving.HOME, _INNER + at_home),
        (Arriving.SOURCE, _HEADERS + 12),
        (Arriving.DESTINATION, _HEADERS + 16),
    ):
        code.load(Size.WORD, R1, R10, at)
        code.store(Size.WORD, R10, _KEY + to, R1)


def _leave_opening_to_slow_path(code: Assembler) -> None:
    code.load(Size.OCTET, R1, R10, _INNER)
    code.jump("pass", Test.DIFFERENT, R1, 0x45)
    code.load(Size.OCTET, R1, R10, _INNER + 9)
    code.jump("open", Test.DIFFERENT, R1, _TCP)
    code.load(Size.HALF, R1, R10, _INNER + 6)
    code.jump("open", Test.ANY_BIT, R1, socket.htons(0x1FFF))
    code.move(R9, R8)
    code.alu(Operation.ADD, R9, _IP + 12)
    _load(code, _LOAD_FROM_NETWORK, R9, _TCP_WORD, 4)
    _refuse_opening(code, R7, ARRIVING.clamps)


def _compare_congestion(code: Assembler) -> None:
    """R9 becomes 1 where the outer header has a mark of congestion that the inner one can take (RFC 6040 4.2)."""
    code.move(R9, 0)
    code.load(Size.OCTET, R1, R10, _HEADERS + 1)
    code.alu(Operation.AND, R1, _ECN)
    code.jump("noticed", Test.EQUAL, R1, 0)
    code.load(Size.OCTET, R2, R10, _INNER + 1)
    code.alu(Operation.AND, R2, _ECN)
    code.jump("noticed", Test.EQUAL, R1, R2)
    code.jump("pass", Test.DIFFERENT, R1, _CONGESTION_EXPERIENCED)
    code.jump("pass", Test.EQUAL, R2, 0)
    code.move(R9, 1)
    code.label("noticed")


def _strip(code: Assembler, into: int, totals: int | None) -> None:
    """Off with the headers, and in by the tunnel device: never as if it had come from the link itself."""
    _count(code, ARRIVING.packets, totals, Total.CAME)
    code.move(R1, R6)
    code.move(R2, 0)
    code.alu(Operation.SUB, R2, R8)
    code.move(R3, _AT_MAC)
    code.move(R4, _KEEP_SEGMENT_SIZE)
    code.call(_ADJUST_ROOM)
    code.jump("broken", Test.DIFFERENT, R0, 0)
    code.jump("marked", Test.EQUAL, R9, 0)
    code.move(R1, R6)
    code.call(_NOTICE_CONGESTION)
    code.jump("broken", Test.EQUAL, R0, 0)
    code.label("marked")
    code.move(R1, into)
    code.move(R2, _INTO_INGRESS)
    code.call(_REDIRECT)
    code.leave_with_result()
    code.label("broken")
    code.leave(_DROP_IN_TRAFFIC_CONTROL)
