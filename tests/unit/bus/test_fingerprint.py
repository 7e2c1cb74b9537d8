# SPDX-License-Identifier: GPL-2.0-or-later
"""Fingerprints recognise a secret and give nothing away cheaply."""

import hashlib

import pytest

from homeward.bus.fingerprint import SALT_OCTETS, fingerprint, is_fingerprint, matches
from homeward.model.errors import ProfileError
from homeward.model.secret import Secret

SALT = bytes(range(SALT_OCTETS))


def test_it_is_salted_scrypt_at_the_cost_that_is_documented() -> None:
    hashed = hashlib.sha256(b"a secret").digest()
    expected = hashlib.scrypt(hashed, salt=SALT, n=2**14, r=8, p=1, maxmem=64 << 20, dklen=16)
    assert fingerprint(Secret(b"a secret"), SALT) == f"scrypt:{SALT.hex()}:{expected.hex()}"


def test_long_secrets_and_their_hashes_differ() -> None:
    long = b"x" * 100
    assert not matches(Secret(hashlib.sha256(long).digest()), fingerprint(Secret(long), SALT))


def test_only_the_secret_itself_matches() -> None:
    made = fingerprint(Secret(b"a secret"), SALT)
    assert is_fingerprint(made)
    assert matches(Secret(b"a secret"), made)
    assert not matches(Secret(b"a secres"), made)
    assert not matches(Secret(b"a secret\0"), made)
    other_salt = fingerprint(Secret(b"a secret"), bytes(SALT_OCTETS))
    assert other_salt != made
    assert matches(Secret(b"a secret"), other_salt)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scrypt:",
        "sha256:00:00",
        "scrypt:" + "0" * 32 + ":" + "0" * 31,
        "scrypt:" + "G" * 32 + ":" + "0" * 32,
    ],
)
def test_what_is_no_fingerprint_never_matches(text: str) -> None:
    assert not is_fingerprint(text)
    with pytest.raises(ProfileError, match="homeward profile fingerprint"):
        matches(Secret(b"x"), text)
