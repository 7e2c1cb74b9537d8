# SPDX-License-Identifier: GPL-2.0-or-later
"""Receive merging (GRO) of links, which raw sockets cannot live with, switched off and given back.

A network card's driver, or the kernel for it, joins TCP segments that arrive together, and does so inside IP-in-IP too.
A raw socket then gets one packet longer than the link takes, its checksums unfinished.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from ctypes import addressof, create_string_buffer
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_GET: Final = 0x2B
_SET: Final = 0x2C
_VALUE: Final = struct.Struct("=II")
_REQUEST: Final = struct.Struct("16sP16x")


class ReceiveMerging:
    """Remembers which links merged; what a killed life left off stays off, which only costs speed."""

    def __init__(self) -> None:
        self._switched: list[str] = []

    def switch_off(self, link: str) -> None:
        """Have a link merge nothing. Links that cannot say, or may not be told, stay as they are."""
        if merges(link) and set_merging(link, on=False):
            self._switched.append(link)

    def restore(self) -> None:
        """Have all of them merge again."""
        for link in self._switched:
            set_merging(link, on=True)
        self._switched.clear()


def merges(link: str) -> bool:
    """Whether a link merges what it receives; False too where it cannot say."""
    return bool(_ask(link, _GET, 0))


def set_merging(link: str, *, on: bool) -> bool:
    """Switch merging on or off; False where that was refused, or the link is gone."""
    return _ask(link, _SET, int(on)) is not None


def _ask(link: str, command: int, value: int) -> int | None:
    buffer = create_string_buffer(_VALUE.pack(command, value), _VALUE.size)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            fcntl.ioctl(asker, _SIOCETHTOOL, _REQUEST.pack(link.encode(), addressof(buffer)))
        except OSError:
            return None
    return int(_VALUE.unpack(buffer.raw)[1])
