# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP and UDP checksums that were left to a network card which the packet has never met.

Linux writes the sum of the pseudo-header where the checksum belongs, and has the card that sends the packet do the
rest. Between namespaces and virtual machines there is none, and nobody misses it: the receiving kernel knows what is
missing. But when the packet is inside a tunnel that a process takes off, that knowledge is lost; so is it after a card
has merged received segments. (What a kernel tunnels itself it hands over like this; a process's packets are finished.)
"""

from __future__ import annotations

import struct
from typing import Final

from homeward.wire.internet_checksum import checksum

_CHECKSUM_AT: Final = {6: 16, 17: 6}
_ADDRESSES: Final = struct.Struct("!HHHH")
_NOT_WHOLE: Final = 0x3F
_ALL_ONES: Final = b"\xff\xff"


def finished(packet: bytes) -> bytes:
    """A checked IPv4 packet, with its checksum where that was not finished; any other packet as it is.

    A finished checksum can look like an unfinished one, once in 65,536 times; then it is made anew as it was.
    """
    at = _CHECKSUM_AT.get(packet[9])
    if at is None or packet[7] or packet[6] & _NOT_WHOLE:
        return packet
    start = (packet[0] & 0x0F) * 4
    at += start
    if len(packet) < at + 2:
        return packet
    total = sum(_ADDRESSES.unpack_from(packet, 12)) + packet[9] + len(packet) - start
    total = (total & 0xFFFF) + (total >> 16)
    # At most one more carry; for each packet, so without a loop.
    if (packet[at] << 8 | packet[at + 1]) != (total & 0xFFFF) + (total >> 16):
        return packet
    # The field holds the pseudo-header's part already.
    whole = checksum(packet[start:]).to_bytes(2, "big")
    if packet[9] == 17 and whole == b"\0\0":
        whole = _ALL_ONES  # in UDP, zero says that there is none
    return packet[:at] + whole + packet[at + 2 :]
