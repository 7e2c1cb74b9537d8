# SPDX-License-Identifier: GPL-2.0-or-later
"""Word to systemd of how far the service is (sd_notify(3)), where it asks for that; else nothing."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


def tell(state: str, *, clock: bool = False) -> None:
    """Say for example READY=1; `clock` adds the time, which RELOADING=1 needs."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    text = f"{state}\nMONOTONIC_USEC={time.monotonic_ns() // 1000}" if clock else state
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as made:
        made.setblocking(False)
        made.sendto(text.encode(), "\0" + place[1:] if place[0] == "@" else place)
