# SPDX-License-Identifier: GPL-2.0-or-later
"""The registration that nearly all are, past the framework of extensions: a request is read, its acceptance written.

A plain request has its fixed part, perhaps Revocation Support, and MN-HA at its very end. What is read and written here
is what ``registration`` would have read and written, which a property test says; whatever else arrives is left to it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from homeward.model.registration import AuthenticationAlgorithm, Identification, Spi
from homeward.wire.authenticator import digest, is_equal
from homeward.wire.extensions import ExtensionType
from homeward.wire.registration import REPLY_TYPE, REQUEST_TYPE, TRUSTED

_LEAST: Final = 24 + 6 + 1
_SUPPORT: Final = int(ExtensionType.REVOCATION_SUPPORT)
_SUPPORT_OCTETS: Final = 6
_MOBILE_HOME: Final = int(ExtensionType.MOBILE_HOME_AUTHENTICATION)
_SPI_OCTETS: Final = 4
_PLAIN: Final = struct.Struct("!BBHIIIQBBI")
_REVOCABLE: Final = struct.Struct("!BBHIIIQBBxxIBBI")
_REPLY: Final = struct.Struct(f"!BBHIIQ{len(TRUSTED)}sBBI")
_REVOCABLE_REPLY: Final = struct.Struct(f"!BBHIIQ{len(TRUSTED)}sBBxxIBBI")


class PlainRequest(NamedTuple):
    """What it says, its addresses as numbers. `revocable` is the time stamp of its Revocation Support, if any.

    Its authenticator is computed over the first `covered` octets.
    """

    flags: int
    lifetime: int
    home_address: int
    home_agent: int
    care_of_address: int
    identification: Identification
    revocable: int | None
    spi: Spi
    authenticator: bytes
    covered: int


def read(octets: bytes) -> PlainRequest | None:
    """The request, not yet verified; None where it is anything but plain, or ends too early."""
    if len(octets) < _LEAST or octets[0] != REQUEST_TYPE:
        return None
    revocable = None
    if octets[24] == _MOBILE_HOME:
        covered = _PLAIN.size
        _, flags, lifetime, home, agent, care_of, identification, _, size, spi = _PLAIN.unpack_from(octets)
    elif octets[24] == _SUPPORT and octets[25] == _SUPPORT_OCTETS and len(octets) > _REVOCABLE.size:
        covered = _REVOCABLE.size
        said = _REVOCABLE.unpack_from(octets)
        _, flags, lifetime, home, agent, care_of, identification, _, _, revocable, kind, size, spi = said
        if kind != _MOBILE_HOME:
            return None
    else:
        return None
    if covered - _SPI_OCTETS + size != len(octets) or size <= _SPI_OCTETS:
        return None
    return PlainRequest(
        flags, lifetime, home, agent, care_of, identification, revocable, spi, octets[covered:], covered
    )


def is_proved(octets: bytes, asked: PlainRequest, key: bytes, algorithm: AuthenticationAlgorithm) -> bool:
    """Whether the holder of the key made these octets, which `asked` was read from."""
    return is_equal(digest(key, octets[: asked.covered], algorithm), asked.authenticator)


def accept(
    asked: PlainRequest,
    key: bytes,
    algorithm: AuthenticationAlgorithm,
    *,
    lifetime: int,
    revocable: int | None,
) -> bytes:
    """Code 0 with a word about trust, and with our time stamp `revocable` where revocation is agreed on.

    Only for a request that this key has proved.
    """
    size = _SPI_OCTETS + len(asked.authenticator)
    fixed = (REPLY_TYPE, 0, lifetime, asked.home_address, asked.home_agent, asked.identification, TRUSTED)
    if revocable is None:
        said = _REPLY.pack(*fixed, _MOBILE_HOME, size, asked.spi)
    else:
        support = (_SUPPORT, _SUPPORT_OCTETS, revocable)
        said = _REVOCABLE_REPLY.pack(*fixed, *support, _MOBILE_HOME, size, asked.spi)
    return said + digest(key, said, algorithm)
