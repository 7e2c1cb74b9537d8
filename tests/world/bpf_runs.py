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
_INTERFACE_AT = 40
_LONGEST = 1 << 14
_library = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program said of a frame, and what it made of it."""

    verdict: int
    frame: bytes


def run_at_ingress(program: int, link: int, frame: bytes) -> Outcome:
    """Have the program (by its descriptor) see a frame as if it came in by the link with this index."""
    given, made = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(_LONGEST)
    context = ctypes.create_string_buffer(_CONTEXT_OCTETS)
    struct.pack_into("=I", context, _INTERFACE_AT, link)
    at = ctypes.addressof
    attributes = _ATTRIBUTES.pack(
        program,
        0,
        len(frame),
        _LONGEST,
        at(given),
        at(made),
        1,
        0,
        _CONTEXT_OCTETS,
        0,
        at(context),
        0,
        0,
        0,
        0,
    )
    block = ctypes.create_string_buffer(attributes, 128)
    if _library.syscall(_SYSTEM_CALLS[platform.machine()], _TEST_RUN, block, 128) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _, verdict, _, length, *_ = _ATTRIBUTES.unpack_from(block)
    return Outcome(verdict, made.raw[:length])
