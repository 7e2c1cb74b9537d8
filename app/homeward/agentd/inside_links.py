# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the machine's links are inside: the kernel names ingress links by index, the administrator by name."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

_BELIEVED: Final = 1.0
"""Seconds for which an index is taken for the same link without asking again."""


class InsideLinks:
    """The configured inside links. A link that is renamed, or made anew, is seen within a second."""

    def __init__(self, names: frozenset[str], boot: Callable[[], float]) -> None:
        self.names = names
        self._boot = boot
        self._known: dict[int, str] = {}
        self._since = 0.0

    def name_of(self, index: int) -> str:
        """The name of a link, empty when it is gone. For each packet: asks the kernel once a second."""
        now = self._boot()
        if now - self._since >= _BELIEVED:
            self._known.clear()
            self._since = now
        known = self._known.get(index)
        if known is None:
            known = self._known[index] = _name_of(index)
        return known

    def indexes(self) -> set[int]:
        """Those of all inside links that there are at this moment."""
        return {index for index, name in socket.if_nameindex() if name in self.names}

    def has(self, index: int) -> bool:
        """Whether the link with this index is inside."""
        return self.name_of(index) in self.names


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except (OSError, OverflowError, ValueError):
        return ""
