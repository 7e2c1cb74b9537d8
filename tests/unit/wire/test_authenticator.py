# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import hmac
from dataclasses import replace

import pytest

from homeward.model.errors import WireError
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi
from homeward.model.secret import Secret
from homeward.wire.authenticator import AUTHENTICATOR_OCTETS, authenticate, verify
from homeward.wire.registration import decode
from tests.unit.wire.vectors import KEY, MD5, SHA256, V1, V1_BODY, V2, V4, VECTORS, Vector


def test_every_algorithm_has_a_length() -> None:
    assert {one: AUTHENTICATOR_OCTETS[one] for one in AuthenticationAlgorithm} == {
        AuthenticationAlgorithm.HMAC_MD5: 16,
        AuthenticationAlgorithm.HMAC_SHA256: 32,
        AuthenticationAlgorithm.HMAC_SHA1: 20,
        AuthenticationAlgorithm.KEYED_MD5: 16,
        AuthenticationAlgorithm.KEYED_MD5_RFC2002: 16,
    }


@pytest.mark.rows("R-167")
def test_the_published_hmac_md5_case() -> None:
    # RFC 2104: key 16 times 0x0b, "Hi There". The header of the extension is covered too, hence the own check beside.
    key = b"\x0b" * 16
    assert hmac.digest(key, b"Hi There", "md5").hex() == "9294727a3638bb1c13f48ef8158bfc9d"
    association = MobilitySecurityAssociation(Spi(256), AuthenticationAlgorithm.HMAC_MD5, key=Secret(key))
    octets = authenticate(b"Hi There", association)
    assert octets[:14] == b"Hi There" + bytes.fromhex("201400000100")
    assert octets[14:] == hmac.digest(key, octets[:14], "md5")


@pytest.mark.rows("R-167")
@pytest.mark.parametrize("association", [MD5, SHA256], ids=["md5", "sha256"])
def test_another_key_or_spi_is_not_authentic(association: MobilitySecurityAssociation) -> None:
    octets = authenticate(V1_BODY, association)
    decoded = decode(octets)
    assert verify(octets, decoded, association)
    assert not verify(octets, decoded, replace(association, spi=Spi(0x101)))
    assert not verify(octets, decoded, replace(association, key=Secret(KEY[:-1] + b"\xff")))
    assert not verify(octets, decoded, replace(association, key=Secret(KEY + b"\x01")))


@pytest.mark.parametrize("kept", [1, 4, 12, 15])
def test_a_shortened_authenticator_is_not_authentic(kept: int) -> None:
    # Well framed, and right as far as it goes: still not the algorithm that was agreed on.
    octets = V1_BODY + bytes([32, 4 + kept, 0, 0, 1, 0])
    octets += hmac.digest(KEY, octets, "md5")[:kept]
    assert not verify(octets, decode(octets), MD5)


def test_a_lengthened_authenticator_is_not_authentic() -> None:
    octets = V1_BODY + bytes([32, 4 + 17, 0, 0, 1, 0])
    octets += hmac.digest(KEY, octets, "md5") + b"\0"
    assert not verify(octets, decode(octets), MD5)


def test_a_sha256_cut_to_the_length_of_md5_is_authentic_for_neither() -> None:
    octets = V1_BODY + bytes([32, 20, 0, 0, 1, 0])
    octets += hmac.digest(KEY, octets, "sha256")[:16]
    assert not verify(octets, decode(octets), MD5)
    assert not verify(octets, decode(octets), SHA256)


def test_octets_and_reading_must_belong_together() -> None:
    assert not verify(V2.octets, decode(V1.octets), MD5)
    assert not verify(V1.octets, decode(V2.octets), MD5)
    # Same covered octets and authenticator, other tail: not what was decoded either.
    assert not verify(V1.octets + b"\0", decode(V1.octets), MD5)


def test_a_reserved_spi_on_the_wire_matches_nobody() -> None:
    octets = V1_BODY + bytes.fromhex("2014000000ff")
    octets += hmac.digest(KEY, octets, "md5")
    assert not verify(octets, decode(octets), MD5)


@pytest.mark.rows("R-168")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name.split()[0])
def test_each_bit_up_to_the_authenticators_end_counts(vector: Vector) -> None:
    end = vector.covered + AUTHENTICATOR_OCTETS[vector.association.algorithm]
    for bit in range(8 * end):
        changed = bytearray(vector.octets)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            decoded = decode(bytes(changed))
        except WireError:
            continue
        assert not verify(bytes(changed), decoded, vector.association), f"bit {bit}"


@pytest.mark.rows("R-168")
def test_bits_behind_it_do_not_count() -> None:
    # The body of V4's MN-FA extension: the foreign agent's business.
    for at in range(50, len(V4.octets)):
        changed = bytearray(V4.octets)
        changed[at] ^= 0xFF
        assert verify(bytes(changed), decode(bytes(changed)), MD5)
