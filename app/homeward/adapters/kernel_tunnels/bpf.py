# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf(2): hash maps, and programs loaded. Numbers and layouts are Linux's (include/uapi/linux/bpf.h)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Collection, Iterable, Iterator
from enum import IntEnum
from itertools import islice
from typing import Final

from homeward.model.errors import NotPermitted, PlanError, Unavailable

_SYSTEM_CALLS: Final = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "ppc64le": 361,
    "s390x": 351,
    "i686": 357,
}
_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _LOAD, _UPDATE_BATCH, _DELETE_BATCH = (
    0,
    1,
    2,
    3,
    4,
    5,
    26,
    27,
)
_HASH, _ARRAY_PER_PROCESSOR = 1, 6
_LOG_OCTETS: Final = 1 << 18
_ATTRIBUTE_OCTETS: Final = 128
_BATCH: Final = 4096
_COUNT_AT: Final = 32  # in the attributes of such a call
_NO_PREALLOCATION: Final = 1

_library = ctypes.CDLL(None, use_errno=True)


class ProgramKind(IntEnum):
    """Where a program is run."""

    TRAFFIC_CONTROL = 3
    ROUTE = 12
    """When a packet leaves by a route that names it (BPF_PROG_TYPE_LWT_XMIT)."""


def _bpf(command: int, attributes: bytes) -> int:
    """The system call; raises OSError."""
    number = _SYSTEM_CALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {platform.machine()}")
    block = ctypes.create_string_buffer(attributes, _ATTRIBUTE_OCTETS)
    result: int = _library.syscall(number, command, block, _ATTRIBUTE_OCTETS)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def load_program(kind: ProgramKind, name: str, code: bytes) -> int:
    """A file descriptor of the program, which the kernel has proved to be safe.

    Raises NotPermitted, Unavailable where the kernel has no such programs, PlanError with the kernel's last words.
    """
    action = f"loading the BPF program {name}"
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_OCTETS)

    def load(level: int) -> int:
        attributes = struct.pack(
            "=IIQQIIQII16s", kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence),
            level, _LOG_OCTETS if level else 0, ctypes.addressof(log) if level else 0, 0, 0, name.encode()[:15],
        )  # fmt: skip
        return _bpf(_LOAD, attributes)

    try:
        return load(0)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise refusal(action, error) from error
    try:
        return load(1)
    except OSError as error:
        said = log.value.decode(errors="replace").strip().splitlines()[-3:]
        if not said:
            raise Unavailable(action, error.errno or 0) from error
        raise PlanError(action, " / ".join(said)) from error


class HashMap:
    """A map that programs read, and this process writes. Raises NotPermitted, Unavailable when it cannot be made.

    `preallocate` has the kernel take the memory of all entries now: faster, and a change can never find it gone.
    """

    def __init__(self, name: str, *, key: int, value: int, entries: int, preallocate: bool = True) -> None:
        self._name, self._key, self._value = name, key, value
        flags = 0 if preallocate else _NO_PREALLOCATION
        self.descriptor = _make_map(name, _HASH, key=key, value=value, entries=entries, flags=flags)
        # Two buffers and one block for all calls: a hand-over is one of them, a flood of registrations thousands.
        self._key_buffer = ctypes.create_string_buffer(key)
        self._value_buffer = ctypes.create_string_buffer(value)
        at_key, at_value = ctypes.addressof(self._key_buffer), ctypes.addressof(self._value_buffer)
        self._block = ctypes.create_string_buffer(
            struct.pack("=IxxxxQQQ", self.descriptor, at_key, at_value, 0), _ATTRIBUTE_OCTETS
        )
        # The kernel refuses a deletion that says more than the key.
        self._key_block = ctypes.create_string_buffer(
            struct.pack("=IxxxxQ", self.descriptor, at_key), _ATTRIBUTE_OCTETS
        )
        self._number = _SYSTEM_CALLS[platform.machine()]

    def put(self, key: bytes, value: bytes) -> None:
        """Make this the value of the key, from the next packet on. Raises PlanError, as when the map is full."""
        self._key_buffer.raw, self._value_buffer.raw = key, value
        if _library.syscall(self._number, _UPDATE, self._block, _ATTRIBUTE_OCTETS) < 0:
            raise PlanError(f"writing to the BPF map {self._name}", ctypes.get_errno())

    def put_all(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """The same for many, in few calls. Raises PlanError."""
        left = iter(entries)
        while some := list(islice(left, _BATCH)):
            keys = ctypes.create_string_buffer(b"".join(key for key, _ in some))
            values = ctypes.create_string_buffer(b"".join(value for _, value in some))
            attributes = struct.pack(
                "=QQQQIIQQ",
                0,
                0,
                ctypes.addressof(keys),
                ctypes.addressof(values),
                len(some),
                self.descriptor,
                0,
                0,
            )
            try:
                _bpf(_UPDATE_BATCH, attributes)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUPP if hasattr(errno, "ENOTSUPP") else 524):
                    raise PlanError(f"writing to the BPF map {self._name}", error.errno or 0) from error
                for key, value in some:  # a kernel older than 5.6
                    self.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        """The value of the key, None when there is none."""
        self._key_buffer.raw = key
        if _library.syscall(self._number, _LOOKUP, self._block, _ATTRIBUTE_OCTETS) < 0:
            return None
        return self._value_buffer.raw

    def delete(self, key: bytes) -> None:
        """No packet finds the key any more; nothing happens if it is not there."""
        self._key_buffer.raw = key
        if _library.syscall(self._number, _DELETE, self._key_block, _ATTRIBUTE_OCTETS) < 0:
            assert ctypes.get_errno() == errno.ENOENT, errno.errorcode.get(ctypes.get_errno())

    def delete_all(self, keys: Collection[bytes]) -> None:
        """The same for many, in few calls; never fails."""
        left = list(keys)
        while left:
            some = ctypes.create_string_buffer(b"".join(left[:_BATCH]), self._key * min(len(left), _BATCH))
            count, at = min(len(left), _BATCH), ctypes.addressof(some)
            block = ctypes.create_string_buffer(
                struct.pack("=QQQQIIQQ", 0, 0, at, 0, count, self.descriptor, 0, 0), _ATTRIBUTE_OCTETS
            )
            if _library.syscall(self._number, _DELETE_BATCH, block, _ATTRIBUTE_OCTETS) < 0:
                # It ends at the first key that is not there, having counted; an older kernel knows no such call.
                count = (
                    struct.unpack_from("=I", block, _COUNT_AT)[0] if ctypes.get_errno() == errno.ENOENT else 0
                )
                self.delete(left[count])
                count += 1
            left = left[count:]

    def keys(self) -> Iterator[bytes]:
        """All keys; meant for a map that does not change meanwhile."""
        key = ctypes.create_string_buffer(self._key)
        following = ctypes.create_string_buffer(self._key)
        start = 0
        while True:
            attributes = struct.pack("=IxxxxQQQ", self.descriptor, start, ctypes.addressof(following), 0)
            try:
                _bpf(_NEXT_KEY, attributes)
            except OSError:
                return
            yield following.raw
            key.raw, start = following.raw, ctypes.addressof(key)

    def close(self) -> None:
        """Let go of the map; programs that use it keep it."""
        os.close(self.descriptor)


class Totals:
    """Pairs of numbers to which programs add, each processor for itself. Raises as HashMap."""

    _PAIR: Final = struct.Struct("=QQ")
    _MOST_PROCESSORS: Final = 8192  # that Linux can be built for

    def __init__(self, name: str, *, pairs: int) -> None:
        self.descriptor = _make_map(
            name, _ARRAY_PER_PROCESSOR, key=4, value=self._PAIR.size, entries=pairs, flags=0
        )

    def read(self, pair: int) -> tuple[int, int]:
        """What all processors have added to a pair."""
        key = ctypes.create_string_buffer(struct.pack("=I", pair), 4)
        found = ctypes.create_string_buffer(self._PAIR.size * self._MOST_PROCESSORS)
        at_key, at_found = ctypes.addressof(key), ctypes.addressof(found)
        try:
            _bpf(_LOOKUP, struct.pack("=IxxxxQQQ", self.descriptor, at_key, at_found, 0))
        except OSError:
            return 0, 0
        first, second = zip(*self._PAIR.iter_unpack(found.raw), strict=True)
        return sum(first), sum(second)

    def close(self) -> None:
        """Let go of the map; programs that use it keep it."""
        os.close(self.descriptor)


def _make_map(name: str, kind: int, *, key: int, value: int, entries: int, flags: int) -> int:
    attributes = struct.pack("=IIIIIII16s", kind, key, value, entries, flags, 0, 0, name.encode()[:15])
    try:
        return _bpf(_MAP_CREATE, attributes)
    except OSError as error:
        raise refusal(f"making the BPF map {name}", error) from error


def refusal(action: str, error: OSError) -> NotPermitted | Unavailable:
    """The error of ours that a refused system call means."""
    code = error.errno or 0
    return NotPermitted(action, code) if code in (errno.EPERM, errno.EACCES) else Unavailable(action, code)
