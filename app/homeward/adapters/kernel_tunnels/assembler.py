# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF instructions written down in Python, so that no machine needs a compiler for a program of a hundred of them.

Names are those of the kernel's instruction set (Documentation/bpf/standardization/instruction-set.rst): registers R0 to
R10, R10 being the end of the stack; loads and stores of 1, 2, 4 and 8 octets; jumps to labels.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

_INSTRUCTION: Final = struct.Struct("<BBhi")
_MOST_INSTRUCTIONS: Final = 4096


class Register(IntEnum):
    """R0 is what calls return, R1 to R5 are their arguments and lost by them; R10 may only be read."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    R10 = 10


class Size(IntEnum):
    """How many octets a load or a store moves, as its opcode has it."""

    WORD = 0x00
    HALF = 0x08
    OCTET = 0x10
    DOUBLE = 0x18


class Operation(IntEnum):
    """What `alu` does to its register."""

    ADD = 0x00
    SUB = 0x10
    OR = 0x40
    AND = 0x50
    LEFT = 0x60
    RIGHT = 0x70


class Test(IntEnum):
    """When `jump` leaves the straight way; comparisons are unsigned."""

    ALWAYS = 0x00
    EQUAL = 0x10
    GREATER = 0x20
    ANY_BIT = 0x40
    DIFFERENT = 0x50


_LOAD, _STORE_IMMEDIATE, _STORE, _JUMP, _ALU = 0x61, 0x62, 0x63, 0x05, 0x07
_FROM_REGISTER: Final = 0x08
_MOVE, _CALL, _EXIT, _TO_BIG_ENDIAN = 0xB0, 0x85, 0x95, 0xDC
_LOAD_MAP, _MAP_BY_DESCRIPTOR = 0x18, 1
_ADD_ATOMICALLY: Final = 0xC3

Operand = Register | int


class Assembler:
    """A program being written. `octets` is it as bpf(2) takes it."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def label(self, name: str) -> None:
        """Here is where jumps to this name arrive; each name once."""
        assert name not in self._labels, name
        self._labels[name] = len(self._code)

    def move(self, to: Register, value: Operand) -> None:
        """Put a register or a constant of 32 bits (its sign extended) into a register."""
        self._arithmetic(_ALU | _MOVE, to, value)

    def alu(self, operation: Operation, to: Register, value: Operand) -> None:
        """Reckon with 64 bits."""
        self._arithmetic(_ALU | operation, to, value)

    def swap(self, register: Register, bits: int) -> None:
        """Between the host's order of octets and the network's, in the lowest 16 or 32 bits; the rest becomes 0."""
        self._put(_TO_BIG_ENDIAN, register, 0, 0, bits)

    def load(self, size: Size, to: Register, base: Register, offset: int) -> None:
        """Read memory."""
        self._put(_LOAD | size, to, base, offset, 0)

    def store(self, size: Size, base: Register, offset: int, value: Operand) -> None:
        """Write memory."""
        if isinstance(value, Register):
            self._put(_STORE | size, base, value, offset, 0)
        else:
            self._put(_STORE_IMMEDIATE | size, base, 0, offset, value)

    def count(self, base: Register, offset: int, value: Register) -> None:
        """Add a register to 8 octets of memory, whoever else does so at the same time."""
        self._put(_ADD_ATOMICALLY | Size.DOUBLE, base, value, offset, 0)

    def jump(
        self, label: str, test: Test = Test.ALWAYS, one: Register = Register.R0, other: Operand = 0
    ) -> None:
        """Go on at the label, where `one` and `other` pass the test."""
        self._jumps.append((len(self._code), label))
        self._arithmetic(_JUMP | test, one, other)

    def load_map(self, to: Register, descriptor: int) -> None:
        """The map with this file descriptor, for a call."""
        self._put(_LOAD_MAP, to, _MAP_BY_DESCRIPTOR, 0, descriptor)
        self._put(0, 0, 0, 0, 0)

    def call(self, helper: int) -> None:
        """Call one of the kernel's helpers by its number (include/uapi/linux/bpf.h)."""
        self._put(_CALL, 0, 0, 0, helper)

    def leave(self, value: int) -> None:
        """End the program with this verdict."""
        self.move(Register.R0, value)
        self._put(_EXIT, 0, 0, 0, 0)

    def leave_with_result(self) -> None:
        """End the program with what the last call returned."""
        self._put(_EXIT, 0, 0, 0, 0)

    def octets(self) -> bytes:
        """The whole program; a jump to a label that is nowhere is a KeyError."""
        code = list(self._code)
        for at, name in self._jumps:
            opcode, registers, _, immediate = code[at]
            code[at] = (opcode, registers, self._labels[name] - at - 1, immediate)
        assert len(code) <= _MOST_INSTRUCTIONS
        return b"".join(_INSTRUCTION.pack(*each) for each in code)

    def _arithmetic(self, opcode: int, to: Register, value: Operand) -> None:
        if isinstance(value, Register):
            self._put(opcode | _FROM_REGISTER, to, value, 0, 0)
        else:
            self._put(opcode, to, 0, 0, value)

    def _put(self, opcode: int, to: int, source: int, offset: int, immediate: int) -> None:
        if immediate > 0x7FFFFFFF:
            immediate -= 1 << 32
        self._code.append((opcode, source << 4 | to, offset, immediate))
