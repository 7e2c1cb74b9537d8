# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands in the maps of the fast path: the tunnel by which a home address's packets leave, and those they come by.

Addresses and ports are in the network's order, as in the packets that they are compared with; all else is the host's.
"""

from __future__ import annotations

import struct
from dataclasses import KW_ONLY, dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

NEVER: Final = (1 << 64) - 1
"""The end of what ends only when it is taken away, in nanoseconds of boot time."""


class Carrier(IntEnum):
    """What the outer headers are."""

    IPIP = 0
    UDP = 1
    GRE_IN_UDP = 2


class LEAVING:
    """Where the fields of an entry of the outward map are, in octets from its beginning.

    Behind `uncounted` octets a mobile node's entries count what they pass; an agent has too many of them for that.
    """

    ends, far, near, far_port, near_port = 0, 8, 12, 16, 18
    room, carrier, clamps, mark, device = 20, 22, 23, 24, 28
    packets = uncounted = 32
    octets = 48


class ARRIVING:
    """The same for an entry of the inward map."""

    ends, clamps, ipsec = 0, 8, 9
    packets = uncounted = 16
    octets = 32


class Arriving:
    """Where the fields of a key of the inward map are."""

    LINK, HOME, SOURCE, DESTINATION, PORTS, CARRIER = 0, 4, 8, 12, 16, 20
    OCTETS = 24


_LEAVING: Final = struct.Struct("=Q4s4sHHHBBII16x")
_ARRIVING_KEY: Final = struct.Struct("=I4s4s4s4sI")
_ARRIVING: Final = struct.Struct("=QBB22x")
_LONGEST: Final = 0xFFFF
_COUNTED: Final = struct.Struct("=QQ")


@dataclass(frozen=True, slots=True)
class Ends:
    """A tunnel: its far and its near end, the ports of one in UDP (0 otherwise), and what it is made of.

    `link` is the index of the link that it is bound to, 0 for any.
    """

    far: IPv4Address
    near: IPv4Address
    carrier: Carrier
    _: KW_ONLY
    far_port: int = 0
    near_port: int = 0
    link: int = 0

    def arriving(self, home_address: IPv4Address) -> bytes:
        """The key under which the inward map has what comes out of this tunnel for, or from, a home address."""
        ports = self.far_port.to_bytes(2, "big") + self.near_port.to_bytes(2, "big")
        return _ARRIVING_KEY.pack(
            self.link, home_address.packed, self.far.packed, self.near.packed, ports, self.carrier
        )


def leaving(ends: Ends, *, room: int, mark: int, device: int, clamps: bool, until: int = NEVER) -> bytes:
    """An entry of the outward map.

    `room` is the longest packet that goes in, in octets; `device` the index of the kernel's `ipip` device where that
    carries it; `clamps` leaves segments that open a connection to the slow path; `until` is boot time in nanoseconds.
    """
    return _LEAVING.pack(
        until, ends.far.packed, ends.near.packed, _network(ends.far_port), _network(ends.near_port),
        min(room, _LONGEST), ends.carrier, clamps, mark, device,
    )  # fmt: skip


def arriving(*, clamps: bool, ipsec: bool = False, until: int = NEVER) -> bytes:
    """An entry of the inward map; with `ipsec` for what came out of the kernel's IPsec, else for what did not."""
    return _ARRIVING.pack(until, clamps, ipsec)


def counted(entry: bytes) -> tuple[int, int]:
    """Packets and octets that an entry of either map has seen."""
    return _COUNTED.unpack_from(entry, LEAVING.packets if len(entry) == LEAVING.octets else ARRIVING.packets)


def _network(port: int) -> int:
    return struct.unpack("=H", port.to_bytes(2, "big"))[0]
