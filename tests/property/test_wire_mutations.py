# SPDX-License-Identifier: GPL-2.0-or-later
"""Genuine messages, damaged at random but always in the same way: never a crash, never a different belief."""

from __future__ import annotations

import random

import pytest

from homeward.model.errors import WireError
from homeward.wire.authenticator import verify
from homeward.wire.registration import decode
from tests.unit.wire.vectors import V8_TUNNEL_DATA, VECTORS

ROUNDS = 3000
POOL = [*(vector.octets for vector in VECTORS), V8_TUNNEL_DATA]
# Octets that mean something at some place: types, lengths, borders.
TELLING = bytes.fromhex("0001020304061420212224262c2d7f80828384898f909195feff")


def mutate(octets: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(octets)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(damaged) + 1)
        other = chance.choice(POOL)
        match chance.randrange(7):
            case 0 if at < len(damaged):
                damaged[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(damaged):
                damaged[at] = chance.choice(TELLING)
            case 2:
                damaged[at:at] = chance.choices(TELLING, k=chance.randint(1, 8))
            case 3:
                del damaged[at : at + chance.randint(1, 24)]
            case 4:
                begin = chance.randrange(len(other))
                damaged[at:] = other[begin:]
            case 5:
                damaged[at:at] = damaged[at : at + chance.randint(1, 30)]
            case _:
                damaged += other[-26:]
    return bytes(damaged)


@pytest.mark.rows("R-103", "R-168")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name.split()[0])
def test_damaged_messages(vector: object) -> None:
    chance = random.Random(f"RFC 5266 {vector.name}")  # type: ignore[attr-defined]
    believed = {(one.association, one.octets[: one.covered]): one.message for one in VECTORS}
    associations = {one.association for one in VECTORS}
    refused = read = proved = 0
    for _ in range(ROUNDS):
        octets = mutate(vector.octets, chance)  # type: ignore[attr-defined]
        try:
            decoded = decode(octets)
        except WireError:
            refused += 1
            continue
        read += 1
        for association in associations:
            if verify(octets, decoded, association):
                proved += 1
                assert decoded.authentication is not None
                # Only what the holder of the key has said somewhere is ever believed, and in the same words.
                covered = octets[: decoded.authentication.covered]
                assert decoded.message == believed[association, covered]
    # The damage is neither so light nor so heavy that only one side of the decoder is exercised.
    assert refused > ROUNDS / 10
    assert read > ROUNDS / 10
    assert proved > 0
