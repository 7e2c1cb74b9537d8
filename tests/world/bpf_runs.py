# SPDX-License-Identifier: GPL-2.0-or-later
"""One packet through a BPF program, without a network: the kernel's BPF_PROG_TEST_RUN."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass

from homeward.adapters.kernel_tunnels.bpf import _SYSTEM_CALLS

_TEST_RUN = 10
_ATTRIBUTES = struct.Struct("=IIIIQQIIIIQQIII4x")
_CONTEXT_OCTETS = 192
_MARK_AT, _INTERFACE_AT, _SEGMENT_AT = 8, 40, 176
_LONGEST = 1 << 14
_library = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program said of a frame, what it made of it, and the mark that it left on it."""

    verdict: int
    frame: bytes
    mark: int


def run_at_ingress(program: int, link: int, frame: bytes, *, mark: int = 0) -> Outcome:
    """Have the program (by its descriptor) see a frame as if it came in by the link with this index."""
    return _run(program, frame, {_INTERFACE_AT: link, _MARK_AT: mark})


def run_on_route(program: int, packet: bytes, *, segment: int = 0) -> Outcome:
    """Have the program see a packet as if its route led there; with `segment`, octets that a card would cut it into.

    Never for an entry by which it puts headers on: the kernel would look at a route that a packet has not got here.
    """
    return _run(program, bytes(12) + b"\x08\x00" + packet, {_SEGMENT_AT: segment})


def _run(program: int, frame: bytes, fields: dict[int, int]) -> Outcome:
    given, made = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(_LONGEST)
    context, after = (ctypes.create_string_buffer(_CONTEXT_OCTETS) for _ in range(2))
    for field, value in fields.items():
        struct.pack_into("=I", context, field, value)
    at = ctypes.addressof
    attributes = _ATTRIBUTES.pack(
        program, 0, len(frame), _LONGEST, at(given), at(made), 1, 0, _CONTEXT_OCTETS, _CONTEXT_OCTETS,
        at(context), at(after), 0, 0, 0,
    )  # fmt: skip
    block = ctypes.create_string_buffer(attributes, 128)
    if _library.syscall(_SYSTEM_CALLS[platform.machine()], _TEST_RUN, block, 128) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _, verdict, _, length, *_ = _ATTRIBUTES.unpack_from(block)
    return Outcome(verdict, made.raw[:length], struct.unpack_from("=I", after, _MARK_AT)[0])
