# SPDX-License-Identifier: GPL-2.0-or-later
"""Bus connections that no local user can choke: not by much to write, and not by one long message to read.

dbus-fast takes a full socket for a broken one and closes the connection (measured with 1,500 answers at once; its
ancestor has that as altdesktop/python-dbus-next#153). And a bus lets any user send messages of 32 MiB; unpacking one
of integers takes dbus-fast two seconds, in which no roam is handled. So the stream is cut into messages before it is
unpacked, and of a message that is too long only the header goes on, marked, for the service to refuse.
"""

from __future__ import annotations

import errno
import io
import socket
import struct
from typing import TYPE_CHECKING, ClassVar, Final

from dbus_fast import Message
from dbus_fast.aio import MessageBus

from homeward.bus.names import MAXIMUM_MESSAGE_OCTETS

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FIXED_HEADER: Final = 16
_FLAGS_AT: Final = 2
_LENGTHS_AT: Final = 4
"""Octets of the body, serial number, octets of the header fields; each 32 bits."""
_OVERSIZE: Final = 0x80
"""A flag bit that D-Bus does not use. Who sets it himself has his own message refused, and nothing more."""
_READS_AT_ONCE: Final = 64
"""After so many reads that left nothing to pass on the event loop gets its turn."""


def was_oversize(message: Message) -> bool:
    """Whether this is the header of a message whose body was thrown away."""
    return bool(int(message.flags) & _OVERSIZE)


class MessageFilter:
    """Passes the messages of a D-Bus stream on, too long ones without their body; what comes before them as it is."""

    def __init__(self, limit: int = MAXIMUM_MESSAGE_OCTETS) -> None:
        self._limit = limit
        self._started = False
        self._header = bytearray()
        self._pass = 0
        self._skip = 0

    def filter(self, chunk: bytes) -> bytes:
        """What of this chunk, and of a header begun earlier, goes on."""
        if not self._started:
            # Lines of the SASL handshake begin with a capital letter other than B; messages with "l" or "B".
            if chunk[:1] not in (b"l", b"B"):
                return chunk
            self._started = True
        out = bytearray()
        at = 0
        while at < len(chunk):
            if self._pass or self._skip:
                taken = min(self._pass or self._skip, len(chunk) - at)
                if self._pass:
                    out += chunk[at : at + taken]
                    self._pass -= taken
                else:
                    self._skip -= taken
            else:
                taken = min(_FIXED_HEADER - len(self._header), len(chunk) - at)
                self._header += chunk[at : at + taken]
                if len(self._header) == _FIXED_HEADER:
                    out += self._begin_message()
            at += taken
        return bytes(out)

    def _begin_message(self) -> bytes:
        header, self._header = self._header, bytearray()
        body, _serial, fields = struct.unpack_from(
            "<III" if header[:1] == b"l" else ">III", header, _LENGTHS_AT
        )
        padded = fields + -fields % 8
        if padded + body <= self._limit:
            self._pass = padded + body
        elif padded <= self._limit:
            # The body is skipped when the rest of the header has passed: both counters stand, `_pass` goes first.
            header[_FLAGS_AT] |= _OVERSIZE
            header[_LENGTHS_AT : _LENGTHS_AT + 4] = bytes(4)
            self._pass, self._skip = padded, body
        else:
            self._skip = padded + body
            return b""
        return bytes(header)


class _PatientSocket(socket.socket):
    """A socket that says "nothing sent" when it is full; dbus-fast then waits until it is writable."""

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)

    def send(self, octets: ReadableBuffer, flags: int = 0, /) -> int:
        try:
            return super().send(octets, flags)
        except BlockingIOError:
            return 0


class _BoundedSocket(_PatientSocket):
    """Its recv() yields the filtered stream."""

    def __init__(self) -> None:
        super().__init__()
        self._filter = MessageFilter()

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        for _ in range(_READS_AT_ONCE):
            chunk = super().recv(size, flags)
            if not chunk:
                return chunk
            passed = self._filter.filter(chunk)
            if passed:
                return passed
        raise BlockingIOError(errno.EAGAIN, "nothing but oversize messages so far")


class PatientBus(MessageBus):
    """dbus-fast's connection over a socket of ours; Unix sockets only, any other is dbus-fast's own."""

    socket_kind: ClassVar[type[_PatientSocket]] = _PatientSocket

    @classmethod
    def _create_socket_for_transport(
        cls, transport: str, options: dict[str, str]
    ) -> tuple[socket.socket, io.BufferedRWPair, bytes | str | tuple[str, int]]:
        sock, stream, address = MessageBus._create_socket_for_transport(transport, options)
        if transport != "unix":
            return sock, stream, address
        stream.close()
        sock.close()
        ours = cls.socket_kind()
        return ours, ours.makefile("rwb"), address


class BoundedBus(PatientBus):
    """Besides, what is too long to be for us is never unpacked; for services."""

    socket_kind = _BoundedSocket
