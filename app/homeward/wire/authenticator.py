# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobile-home authenticator: made over what leaves, checked over what arrived (RFC 5944 3.5.1)."""

from __future__ import annotations

import hmac
import struct
from typing import Final

from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation
from homeward.wire.decoded import Decoded
from homeward.wire.extensions import ExtensionType

_DIGEST_NAMES: Final[dict[AuthenticationAlgorithm, str]] = {
    AuthenticationAlgorithm.HMAC_MD5: "md5",
    AuthenticationAlgorithm.HMAC_SHA256: "sha256",
}

AUTHENTICATOR_OCTETS: Final[dict[AuthenticationAlgorithm, int]] = {
    AuthenticationAlgorithm.HMAC_MD5: 16,
    AuthenticationAlgorithm.HMAC_SHA256: 32,
}
"""Always the whole digest: a shorter one is not the algorithm that was agreed on."""

_SPI_OCTETS: Final = 4


def authenticate(octets: bytes, association: MobilitySecurityAssociation) -> bytes:
    """The message with its MN-HA extension appended, covering everything before and the extension's own header."""
    size = _SPI_OCTETS + AUTHENTICATOR_OCTETS[association.algorithm]
    covered = octets + struct.pack("!BBI", ExtensionType.MOBILE_HOME_AUTHENTICATION, size, association.spi)
    return covered + _digest(covered, association)


def verify(octets: bytes, decoded: Decoded, association: MobilitySecurityAssociation) -> bool:
    """Whether the holder of this association's key made these octets, as far as its authenticator covers them.

    False unless there is exactly one MN-HA extension, with this association's SPI and the full
    length of its algorithm, and ``decoded`` was read from these very octets. Takes a time that does
    not depend on how much of the authenticator is right.
    """
    authentication = decoded.authentication
    if authentication is None or decoded.octets != octets:
        return False
    if authentication.spi != association.spi:
        return False
    if len(authentication.authenticator) != AUTHENTICATOR_OCTETS[association.algorithm]:
        return False
    expected = _digest(octets[: authentication.covered], association)
    return hmac.compare_digest(expected, authentication.authenticator)


def _digest(covered: bytes, association: MobilitySecurityAssociation) -> bytes:
    return hmac.digest(association.key.reveal(), covered, _DIGEST_NAMES[association.algorithm])
