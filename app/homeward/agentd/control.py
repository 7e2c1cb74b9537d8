# SPDX-License-Identifier: GPL-2.0-or-later
"""Orders to a running home agent: datagrams to a Unix socket that only its owner can write to.

    revoke 10.77.0.10       ends the binding of this home address (RFC 3543)

The answer, `done` or `error` and a reason, goes back to the sender's own socket, where it has bound one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Final

from homeward.model.errors import LinkError, NotPermitted

_LONGEST: Final = 256


class ControlSocket:
    """`revoke` is given a home address and returns whether there was a binding."""

    def __init__(self, place: Path, revoke: Callable[[IPv4Address], bool]) -> None:
        self._place = place
        self._revoke = revoke
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen, in place of a former life's socket. Raises LinkError, NotPermitted."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            if self._place.is_socket():
                self._place.unlink()
            made.bind(str(self._place))
        except OSError as error:
            made.close()
            refused = NotPermitted if isinstance(error, PermissionError) else LinkError
            raise refused(f"opening the control socket {self._place}", error.errno or 0) from error
        finally:
            os.umask(before)
        self._socket = made
        asyncio.get_running_loop().add_reader(made, self._take)

    def stop(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            with suppress(OSError):
                self._place.unlink()

    def _take(self) -> None:
        assert self._socket is not None
        try:
            order, sender = self._socket.recvfrom(_LONGEST)
        except OSError:
            return
        answer = self._obey(order)
        if sender:
            with suppress(OSError):
                self._socket.sendto(answer.encode(), sender)

    def _obey(self, order: bytes) -> str:
        match order.decode(errors="replace").split():
            case ["revoke", word]:
                try:
                    address = IPv4Address(word)
                except AddressValueError:
                    return "error: that is not an IPv4 address"
                return "done" if self._revoke(address) else "error: there is no binding of that address"
            case _:
                return "error: the orders are: revoke ADDRESS"
