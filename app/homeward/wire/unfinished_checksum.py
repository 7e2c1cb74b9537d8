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
_PSEUDO_HEADER: Final = struct.Struct("!8sxBH")
_NOT_WHOLE: Final = 0x3FFF
_ALL_ONES: Final = b"\xff\xff"


def finished(packet: bytes) -> bytes:
    """A checked IPv4 packet, with its checksum where that was not finished; any other packet as it is.

    A finished checksum can look like an unfinished one, once in 65,536 times; then it is made anew as it was.
    """
    at = _CHECKSUM_AT.get(packet[9])
    if at is None or int.from_bytes(packet[6:8], "big") & _NOT_WHOLE:
        return packet
    start = (packet[0] & 0x0F) * 4
    at += start
    if len(packet) < at + 2:
        return packet
    pseudo = _PSEUDO_HEADER.pack(packet[12:20], packet[9], len(packet) - start)
    if int.from_bytes(packet[at : at + 2], "big") != ~checksum(pseudo) & 0xFFFF:
        return packet
    # The field holds the pseudo-header's part already.
    whole = checksum(packet[start:]).to_bytes(2, "big")
    if packet[9] == 17 and whole == b"\0\0":
        whole = _ALL_ONES  # in UDP, zero says that there is none
    return packet[:at] + whole + packet[at + 2 :]
