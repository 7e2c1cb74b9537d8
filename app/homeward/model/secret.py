# SPDX-License-Identifier: GPL-2.0-or-later
"""A key or password that cannot be printed, logged, pickled or compared by accident."""

from __future__ import annotations

from typing import Final, NoReturn, final

from homeward.model.errors import LocalProtocolError

_SHOWN: Final = "Secret(redacted)"


@final
class Secret:
    """Octets that leave this object only through ``reveal``.

    Two secrets are never equal by ``==``, whatever they hold: comparing key material belongs to a
    constant-time comparison next to the algorithm. Copying and pickling are refused, so that
    ``dataclasses.asdict`` and ``copy.deepcopy`` cannot spread one.
    """

    __slots__ = ("_octets", "_wiped")

    def __init__(self, octets: bytes | bytearray) -> None:
        self._octets = bytearray(octets)
        self._wiped = False

    def reveal(self) -> bytes:
        """The octets themselves; LocalProtocolError after ``wipe``."""
        if self._wiped:
            raise LocalProtocolError("this secret has been wiped")
        return bytes(self._octets)

    def wipe(self) -> None:
        """Overwrite and forget the octets. Best effort: copies that ``reveal`` gave out stay where they are."""
        for index in range(len(self._octets)):
            self._octets[index] = 0
        self._octets.clear()
        self._wiped = True

    def __len__(self) -> int:
        return len(self._octets)

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return len(self._octets) > 0

    def __repr__(self) -> str:
        return _SHOWN

    def __str__(self) -> str:
        return _SHOWN

    def __format__(self, format_spec: str) -> str:
        # The specification is ignored on purpose: no width or type code may ever reach the octets.
        return _SHOWN

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is neither pickled nor copied")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is neither pickled nor copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret is neither pickled nor copied")
