# SPDX-License-Identifier: GPL-2.0-or-later
"""The fingerprint of a secret: how a profile says which key it expects without holding it.

Pre-shared keys may be guessable, and profiles are copied, mailed and backed up: so a fingerprint is salted and costs
a guesser as much as a password hash does, and is never a plain digest.
"""

import hashlib
import hmac
import re
from typing import Final

from homeward.model.errors import ProfileError
from homeward.model.secret import Secret

SALT_OCTETS: Final = 16
_DIGEST_OCTETS: Final = 16
"""128 bits: nobody finds a second secret with the same fingerprint."""
_COST: Final = 2**14
_BLOCK_SIZE: Final = 8
_PARALLEL: Final = 1
_MEMORY_OCTETS: Final = 64 * 1024 * 1024
_FORM: Final = re.compile(rf"scrypt:([0-9a-f]{{{2 * SALT_OCTETS}}}):([0-9a-f]{{{2 * _DIGEST_OCTETS}}})")

FORM_IN_WORDS: Final = (
    f'"scrypt:", {2 * SALT_OCTETS} hexadecimal digits, ":", {2 * _DIGEST_OCTETS} hexadecimal digits '
    "(make one with `homeward profile fingerprint`)"
)


def fingerprint(secret: Secret, salt: bytes) -> str:
    """The fingerprint of `secret`; `salt` is SALT_OCTETS random octets. Takes about 50 ms of CPU time."""
    return f"scrypt:{salt.hex()}:{_digest(secret, salt).hex()}"


def is_fingerprint(text: str) -> bool:
    """Whether the text has the form of a fingerprint."""
    return _FORM.fullmatch(text) is not None


def matches(secret: Secret, expected: str) -> bool:
    """Whether `secret` is the one with this fingerprint; compared in constant time.

    Takes about 50 ms of CPU time, so callers on an event loop use a thread. ProfileError for what is no fingerprint.
    """
    parts = _FORM.fullmatch(expected)
    if parts is None:
        raise ProfileError(f"not a fingerprint: it must be {FORM_IN_WORDS}")
    return hmac.compare_digest(_digest(secret, bytes.fromhex(parts[1])), bytes.fromhex(parts[2]))


def _digest(secret: Secret, salt: bytes) -> bytes:
    return hashlib.scrypt(
        # Hashed first, because scrypt begins with HMAC, to which a key and the same key with a zero octet behind it
        # are one.
        hashlib.sha256(secret.reveal()).digest(),
        salt=salt,
        n=_COST,
        r=_BLOCK_SIZE,
        p=_PARALLEL,
        maxmem=_MEMORY_OCTETS,
        dklen=_DIGEST_OCTETS,
    )
