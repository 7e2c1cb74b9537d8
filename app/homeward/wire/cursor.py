# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading octets in order, never past their end."""

from __future__ import annotations

from ipaddress import IPv4Address

from homeward.model.errors import TrailingOctets, Truncated


class Cursor:
    """A place in a run of octets, moving forward only.

    Every read names what it reads, so that the error says what was missing and where. All numbers are
    big-endian. Offsets count from the first octet of the message, also for a cursor over a part of it.
    """

    __slots__ = ("_at", "_end", "_octets")

    def __init__(self, octets: bytes, start: int = 0, *, end: int | None = None) -> None:
        self._octets = octets
        self._at = start
        self._end = len(octets) if end is None else end

    @property
    def offset(self) -> int:
        """Where the next read begins."""
        return self._at

    @property
    def remaining(self) -> int:
        """How many octets are left."""
        return self._end - self._at

    def take(self, count: int, what: str) -> bytes:
        """The next octets; Truncated, and nothing consumed, if there are fewer."""
        if count > self.remaining:
            raise Truncated(f"{what} at octet {self._at} needs {count} octets, {self.remaining} are left")
        taken = self._octets[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        """All that is left, possibly nothing."""
        taken = self._octets[self._at : self._end]
        self._at = self._end
        return taken

    def number(self, octets: int, what: str) -> int:
        """An unsigned number of that many octets."""
        return int.from_bytes(self.take(octets, what), "big")

    def address(self, what: str) -> IPv4Address:
        """An IPv4 address."""
        return IPv4Address(self.take(4, what))

    def part(self, count: int, what: str) -> Cursor:
        """A cursor over just the next octets, which this one then has passed."""
        start = self._at
        self.take(count, what)
        return Cursor(self._octets, start, end=self._at)

    def finish(self, what: str) -> None:
        """Nothing may be left; TrailingOctets otherwise."""
        if self.remaining:
            raise TrailingOctets(f"{what} ends at octet {self._at}, {self.remaining} more follow")
