# SPDX-License-Identifier: GPL-2.0-or-later
"""Authenticators of mobile node, foreign agent and home agent: made over what leaves, checked over what arrived.

All three extensions cover the message from its first octet up to and including their own SPI (RFC 5944 3.5.1): a later
one covers the earlier ones with their authenticators, and nothing covers what stands behind it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final, assert_never

from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation
from homeward.wire.decoded import Decoded
from homeward.wire.extensions import ExtensionType

AUTHENTICATOR_OCTETS: Final[dict[AuthenticationAlgorithm, int]] = {
    AuthenticationAlgorithm.HMAC_MD5: 16,
    AuthenticationAlgorithm.HMAC_SHA256: 32,
    AuthenticationAlgorithm.HMAC_SHA1: 20,
    AuthenticationAlgorithm.KEYED_MD5: 16,
    AuthenticationAlgorithm.KEYED_MD5_RFC2002: 16,
}
"""Always the whole digest: a shorter one is not the algorithm that was agreed on."""

_SPI_OCTETS: Final = 4
_HMAC_MD5: Final = AuthenticationAlgorithm.HMAC_MD5
_HMAC_SHA256: Final = AuthenticationAlgorithm.HMAC_SHA256


def authenticate(
    octets: bytes,
    association: MobilitySecurityAssociation,
    *,
    by: ExtensionType = ExtensionType.MOBILE_HOME_AUTHENTICATION,
) -> bytes:
    """The message with an authentication extension of that type appended: it covers all before and its own header."""
    size = _SPI_OCTETS + AUTHENTICATOR_OCTETS[association.algorithm]
    covered = octets + struct.pack("!BBI", by, size, association.spi)
    return covered + digest(association.key.reveal(), covered, association.algorithm)


def verify(
    octets: bytes,
    decoded: Decoded,
    association: MobilitySecurityAssociation,
    *,
    by: ExtensionType = ExtensionType.MOBILE_HOME_AUTHENTICATION,
) -> bool:
    """Whether the holder of this association's key made these octets, as far as its authenticator covers them.

    False unless there is exactly one extension of that type, with this association's SPI and the full
    length of its algorithm, and ``decoded`` was read from these very octets. Takes a time that does
    not depend on how much of the authenticator is right.
    """
    authentication = decoded.authentication_by(by)
    if authentication is None or decoded.octets != octets:
        return False
    if authentication.spi != association.spi:
        return False
    if len(authentication.authenticator) != AUTHENTICATOR_OCTETS[association.algorithm]:
        return False
    expected = digest(association.key.reveal(), octets[: authentication.covered], association.algorithm)
    return is_equal(expected, authentication.authenticator)


def is_same(one: MobilitySecurityAssociation, other: MobilitySecurityAssociation) -> bool:
    """Whether two associations are one: index, algorithm and key."""
    same = is_equal(one.key.reveal(), other.key.reveal())
    return same and (one.spi, one.algorithm) == (other.spi, other.algorithm)


def digest(key: bytes, covered: bytes, algorithm: AuthenticationAlgorithm) -> bytes:
    """The authenticator of these octets, which end with the SPI."""
    if algorithm is _HMAC_SHA256:
        return hmac.digest(key, covered, "sha256")
    if algorithm is _HMAC_MD5:
        return hmac.digest(key, covered, "md5")
    if algorithm is AuthenticationAlgorithm.HMAC_SHA1:
        return hmac.digest(key, covered, "sha1")
    if algorithm is AuthenticationAlgorithm.KEYED_MD5:
        return _md5(key + covered + key)
    if algorithm is AuthenticationAlgorithm.KEYED_MD5_RFC2002:
        return _md5(key + covered[:-_SPI_OCTETS] + key)
    assert_never(algorithm)


def is_equal(one: bytes, other: bytes) -> bool:
    """Whether two authenticators are the same, in a time that does not depend on how far they are."""
    return hmac.compare_digest(one, other)


def _md5(octets: bytes) -> bytes:
    # Not our choice: the peer's administrator has one of these, or the mandatory algorithm of an RFC.
    return hashlib.md5(octets, usedforsecurity=True).digest()  # noqa: S324
