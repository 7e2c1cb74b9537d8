# SPDX-License-Identifier: GPL-2.0-or-later
"""What the programs of the fast path are made of; each program serves both ends of a tunnel.

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

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

ICMP, TCP, UDP, IP_IN_IP = 1, 6, 17, 4
IP_HEADER, UDP_HEADER, TUNNEL_DATA, GRE_HEADER = 20, 8, 4, 4
MOST_HEADERS: Final = IP_HEADER + UDP_HEADER + TUNNEL_DATA + GRE_HEADER
PLAIN_DATA: Final = socket.htonl(0x04040000)
"""A MIP Tunnel Data message's type, and what is inside: IPv4."""
GRE_DATA: Final = socket.htonl(0x042F0000)

_FROM_NETWORK_HEADER: Final = 1
_SYN: Final = 0x02


class Skb(IntEnum):
    """Where struct __sk_buff has what."""

    LENGTH = 0
    PACKET_TYPE = 4
    MARK = 8
    PROTOCOL = 16
    VLAN_PRESENT = 20
    INTERFACE = 40
    SEGMENT = 176


class Helper(IntEnum):
    """The kernel's helpers by their numbers (include/uapi/linux/bpf.h)."""

    LOOKUP = 1
    RANDOM = 7
    SET_TUNNEL_KEY = 21
    REDIRECT = 23
    LOAD_OCTETS = 26
    ADJUST_ROOM = 50
    IPSEC_STATE = 66
    LOAD_FROM_NETWORK = 68
    PUSH_ENCAPSULATION = 73
    NOTICE_CONGESTION = 97
    BOOT_TIME = 125


class Stack(IntEnum):
    """The stack, from its end (R10) down."""

    INNER = -24
    """The inner IPv4 header, 20 octets."""
    TCP_WORD = -32
    """Octets 12 to 15 of the TCP header."""
    KEY = -64
    """Of the map: up to 24 octets."""
    OUTER = -104
    """What is put on, or was in front: up to 36 octets."""
    SCRATCH = -152
    """What a helper takes or gives: up to 44 octets."""


class Total(IntEnum):
    """What an agent's programs count: the slots of a map of pairs, packets and octets of what was inside."""

    LEFT = 0
    LEFT_BY_DEVICE = 1
    CAME = 2


class Side(Enum):
    """At which end of the tunnel a program runs: which field of an inner packet is the home address."""

    MOBILE_NODE = "mobile node"
    AGENT = "home agent"


def load_octets(code: Assembler, helper: int, offset: Register | int, to: int, octets: int) -> None:
    """Copy octets of the packet onto the stack; too short a packet passes."""
    code.move(R1, R6)
    code.move(R2, offset)
    code.move(R3, R10)
    code.alu(Operation.ADD, R3, to)
    code.move(R4, octets)
    if helper == Helper.LOAD_FROM_NETWORK:
        code.move(R5, _FROM_NETWORK_HEADER)
    code.call(helper)
    code.jump("pass", Test.DIFFERENT, R0, 0)


def look_up(code: Assembler, entries: int, into: Register = R7) -> None:
    """The entry under the key on the stack; without one the packet passes."""
    code.load_map(R1, entries)
    code.move(R2, R10)
    code.alu(Operation.ADD, R2, Stack.KEY)
    code.call(Helper.LOOKUP)
    code.jump("pass", Test.EQUAL, R0, 0)
    code.move(into, R0)


def refuse_ended(code: Assembler, ends: int, alive: int | None) -> None:
    """An entry lapses by itself, also when nobody is alive to take it away; R9 is lost by this."""
    if alive is not None:
        code.store(Size.WORD, R10, Stack.KEY, 0)
        look_up(code, alive, into=R9)
    code.call(Helper.BOOT_TIME)
    code.load(Size.DOUBLE, R1, R7, ends)
    code.jump("pass", Test.GREATER, R0, R1)
    if alive is not None:
        code.load(Size.DOUBLE, R1, R9, 0)
        code.jump("pass", Test.GREATER, R0, R1)


def count(code: Assembler, packets: int, totals: int | None, slot: Total) -> None:
    """Count the packet, and the octets that its own header says, in its entry or in the total; R6 to R9 stay."""
    entry = R7
    done = f"counted as {slot.name}"
    if totals is not None:
        code.store(Size.WORD, R10, Stack.KEY, slot)
        code.load_map(R1, totals)
        code.move(R2, R10)
        code.alu(Operation.ADD, R2, Stack.KEY)
        code.call(Helper.LOOKUP)
        code.jump(done, Test.EQUAL, R0, 0)
        entry, packets = R0, 0
    code.move(R1, 1)
    code.count(entry, packets, R1)
    code.load(Size.HALF, R1, R10, Stack.INNER + 2)
    code.swap(R1, 16)
    code.count(entry, packets + 8, R1)
    code.label(done)


def refuse_opening(code: Assembler, entry: Register, clamps: int) -> None:
    """The slow path makes the segments of a connection fit when it is opened."""
    code.load(Size.OCTET, R1, entry, clamps)
    code.jump("open", Test.EQUAL, R1, 0)
    code.load(Size.OCTET, R1, R10, Stack.TCP_WORD + 1)
    code.jump("pass", Test.ANY_BIT, R1, _SYN)
    code.label("open")
