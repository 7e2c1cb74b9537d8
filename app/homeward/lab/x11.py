# SPDX-License-Identifier: GPL-2.0-or-later
"""What a virtual screen needs of X11: a cookie, and real clicks through the XTEST extension."""

import ctypes
import os
import struct
import time


class PointerUnavailable(Exception):
    """The X client libraries are not installed, or the screen has no XTEST."""


def click(display: str, *, x: int, y: int, button: int, authority: str) -> None:
    """Move the pointer of `display` and press and release `button` (1 left, 3 right). PointerUnavailable.

    `authority` is the file with the display's cookie; Xlib takes it from the environment of the process only.
    """
    try:
        xlib, xtest = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXtst.so.6")
    except OSError as error:
        raise PointerUnavailable(str(error)) from None
    xlib.XOpenDisplay.restype = ctypes.c_void_p
    before = os.environ.get("XAUTHORITY")
    os.environ["XAUTHORITY"] = authority
    try:
        opened = xlib.XOpenDisplay(display.encode())
    finally:
        if before is None:
            del os.environ["XAUTHORITY"]
        else:
            os.environ["XAUTHORITY"] = before
    if not opened:
        raise PointerUnavailable(f"no connection to display {display}")
    connection = ctypes.c_void_p(opened)
    try:
        xtest.XTestFakeMotionEvent(connection, -1, x, y, ctypes.c_ulong(0))
        xlib.XSync(connection, 0)
        time.sleep(0.1)  # a panel lights the icon up before it takes the click
        for pressed in (1, 0):
            xtest.XTestFakeButtonEvent(connection, button, pressed, ctypes.c_ulong(0))
            xlib.XSync(connection, 0)
            time.sleep(0.05)
    finally:
        xlib.XCloseDisplay(connection)


def authority(cookie: bytes) -> bytes:
    """An Xauthority file that fits any display of this host (FamilyWild)."""
    fields = (b"", b"", b"MIT-MAGIC-COOKIE-1", cookie)
    return struct.pack(">H", 0xFFFF) + b"".join(struct.pack(">H", len(field)) + field for field in fields)
