# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's word that something about a network interface has changed: made, renamed, removed, up or down."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

_LINKS: Final = 1  # RTMGRP_LINK
_LONGEST: Final = 1 << 16


class LinkNews:
    """Calls `on_news` on the event loop, after any number of changes; what has changed is to be looked up."""

    def __init__(self, on_news: Callable[[], None]) -> None:
        self._on_news = on_news
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _LINKS))
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def stop(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _hear(self) -> None:
        assert self._socket is not None
        while True:
            try:
                self._socket.recv(_LONGEST)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more happened than fits
                continue
        self._on_news()
