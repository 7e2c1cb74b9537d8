# SPDX-License-Identifier: GPL-2.0-or-later
"""Many datagrams by one system call: recvmmsg(2) and sendmmsg(2), which Python's socket module does not have.

The memory for a batch is laid out once, with a slot for each message; a call fills slots, or says how full they are.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from homeward.wire.socket_options import ANCILLARY_OCTETS, IP_PKTINFO, IP_TOS, LEVEL_IP

BATCH: Final = 64
"""So many datagrams go by one call at most."""
SHORT: Final = 512
"""Longest datagram that is sent so, in octets."""

_LONGEST: Final = 0xFFFF

_library = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("octets", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_octets", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_octets", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("octets", ctypes.c_uint32))


_MESSAGE_OCTETS: Final = ctypes.sizeof(_Message)
_OCTETS_AT: Final = _Message.octets.offset
_SIZE: Final = struct.Struct(f"={_OCTETS_AT}xI{_MESSAGE_OCTETS - _OCTETS_AT - 4}x")

_CONTROL_HEAD: Final = struct.Struct("@Nii")  # struct cmsghdr: its octets in all, level, type
_INFO: Final = struct.Struct("=i4s4s")  # struct in_pktinfo
_INFO_OCTETS: Final = _CONTROL_HEAD.size + _INFO.size
_INFO_ROOM: Final = _INFO_OCTETS + -_INFO_OCTETS % ctypes.sizeof(ctypes.c_size_t)
_INFO_HEAD: Final = _CONTROL_HEAD.pack(_INFO_OCTETS, LEVEL_IP, IP_PKTINFO)
_SERVICE_HEAD: Final = _CONTROL_HEAD.pack(_CONTROL_HEAD.size + 1, LEVEL_IP, IP_TOS)

_FAMILY: Final = struct.pack("=H", socket.AF_INET)
_NAME_OCTETS: Final = 16
_SLOT: Final = _NAME_OCTETS + ANCILLARY_OCTETS
_HEAD: Final = f"{_CONTROL_HEAD.size}s"
_CAME: Final = struct.Struct(f"!2xHI8x{_HEAD}4s4s4s{_INFO_ROOM - _INFO_OCTETS}x{_HEAD}B")
"""A struct sockaddr_in, then the messages of IP_PKTINFO and IP_RECVTOS, in the order in which Linux gives them."""
_GOES: Final = struct.Struct(f"!2sHI8x{_HEAD}4x4s4x")


class Received(NamedTuple):
    """A datagram, the address and port that it came from, and the index of the link that it came by.

    `local` is the address of ours that the kernel would answer from, `destination` where it went, both packed: they
    differ where that was broadcast.
    """

    octets: bytes
    source: int
    port: int
    link: int
    local: bytes
    destination: bytes
    type_of_service: int


class Leaving(NamedTuple):
    """A datagram of at most SHORT octets, the address and port that it goes to, and the packed one that it is from."""

    octets: bytes
    destination: int
    port: int
    source: bytes


class _Slots:
    """Room for BATCH messages of so many octets, with a name and `control_octets` of ancillary data for each."""

    def __init__(self, longest: int, control_octets: int) -> None:
        self.payloads = ctypes.create_string_buffer(BATCH * longest)
        self.around = ctypes.create_string_buffer(BATCH * _SLOT)
        self.vectors = (_Vector * BATCH)()
        self.messages = (_Message * BATCH)()
        payload, around = ctypes.addressof(self.payloads), ctypes.addressof(self.around)
        for number, (vector, message) in enumerate(zip(self.vectors, self.messages, strict=True)):
            vector.base, vector.octets = payload + number * longest, longest
            header, name = message.header, around + number * _SLOT
            header.name, header.name_octets = name, _NAME_OCTETS
            header.vectors, header.vector_count = ctypes.pointer(vector), 1
            header.control, header.control_octets = name + _NAME_OCTETS, control_octets


class Receiver:
    """Takes datagrams from sockets with IP_PKTINFO and IP_RECVTOS, and no other option of the kind."""

    def __init__(self) -> None:
        self._slots = _Slots(_LONGEST, ANCILLARY_OCTETS)
        # The kernel writes what it used over what it may use.
        self._fresh = bytes(self._slots.messages)

    def receive(self, port: socket.socket) -> Iterator[Received]:
        """What has arrived, at most BATCH datagrams; none where there is nothing, or an error instead."""
        slots = self._slots
        ctypes.memmove(slots.messages, self._fresh, len(self._fresh))
        count = _library.recvmmsg(port.fileno(), slots.messages, BATCH, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return
        payloads, around = memoryview(slots.payloads).cast("B"), memoryview(slots.around)
        sizes = _SIZE.iter_unpack(memoryview(slots.messages).cast("B")[: count * _MESSAGE_OCTETS])
        for number, (size,) in enumerate(sizes):
            sender, source, head, link, local, destination, service_head, service = _CAME.unpack_from(
                around, number * _SLOT
            )
            if head == _INFO_HEAD and service_head == _SERVICE_HEAD:
                start = number * _LONGEST
                octets, index = bytes(payloads[start : start + size]), int.from_bytes(link, sys.byteorder)
                yield Received(octets, source, sender, index, local, destination, service)


class Sender:
    """Sends datagrams from addresses of this host."""

    def __init__(self) -> None:
        self._slots = _Slots(SHORT, _INFO_ROOM)

    def send(self, port: socket.socket, datagrams: Sequence[Leaving]) -> list[int]:
        """Send these in their order; for each of them 0, or the number of the error that kept it from leaving."""
        outcomes: list[int] = []
        for start in range(0, len(datagrams), BATCH):
            outcomes += self._send(port, datagrams[start : start + BATCH])
        return outcomes

    def _send(self, port: socket.socket, batch: Sequence[Leaving]) -> list[int]:
        slots = self._slots
        payloads = memoryview(slots.payloads).cast("B")
        for number, (octets, destination, its_port, source) in enumerate(batch):
            start, size = number * SHORT, len(octets)
            payloads[start : start + size] = octets
            _GOES.pack_into(slots.around, number * _SLOT, _FAMILY, its_port, destination, _INFO_HEAD, source)
            slots.vectors[number].octets = size
        outcomes: list[int] = []
        while len(outcomes) < len(batch):
            first = ctypes.byref(slots.messages, len(outcomes) * _MESSAGE_OCTETS)
            sent = _library.sendmmsg(port.fileno(), first, len(batch) - len(outcomes), 0)
            outcomes += [0] * sent if sent > 0 else [ctypes.get_errno()]
        return outcomes
