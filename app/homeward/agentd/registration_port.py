# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP port 434, as home and foreign agents open it: on all addresses, and told by which link each datagram came."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Final

from homeward.model.errors import LinkError, NotPermitted
from homeward.model.names import REGISTRATION_PORT
from homeward.wire.socket_options import IP_PKTINFO, IP_RECVTOS

_RECEIVE_BUFFER: Final = 1 << 20


def open_registration_port(options: Iterable[tuple[int, int]] = ()) -> socket.socket:
    """A socket that does not block, with IP_PKTINFO, IP_RECVTOS and further IP options as (name, value).

    Raises NotPermitted, LinkError (EADDRINUSE: another agent is running).
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        for name, value in ((IP_PKTINFO, 1), (IP_RECVTOS, 1), *options):
            made.setsockopt(socket.IPPROTO_IP, name, value)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        made.bind(("0.0.0.0", REGISTRATION_PORT))
    except OSError as error:
        made.close()
        refused = NotPermitted if isinstance(error, PermissionError) else LinkError
        raise refused(f"listening on UDP port {REGISTRATION_PORT}", error.errno or 0) from error
    return made
