# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from homeward.model.errors import LocalProtocolError, ProfileError
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    ReplyCode,
    RequestFlags,
    Spi,
    nai_fault,
)
from homeward.model.secret import Secret
from tests.unit.wire.vectors import MD5, V1, V2

ALGORITHM = AuthenticationAlgorithm.HMAC_SHA256


@pytest.mark.rows("R-97")
@pytest.mark.parametrize("octets", [0, 1, 15])
def test_short_keys_are_refused_without_being_shown(octets: int) -> None:
    key = b"\x5a" * octets
    with pytest.raises(ProfileError, match=f"has {octets} octets, at least 16") as caught:
        MobilitySecurityAssociation(Spi(256), ALGORITHM, key=Secret(key))
    assert "ZZ" not in str(caught.value)


@pytest.mark.rows("R-167")
@pytest.mark.parametrize("octets", [16, 17, 32, 200])
def test_long_enough_keys_are_taken_whatever_their_octets(octets: int) -> None:
    assert len(MobilitySecurityAssociation(Spi(256), ALGORITHM, key=Secret(bytes(octets))).key) == octets


@pytest.mark.rows("R-106")
@pytest.mark.parametrize("spi", [-1, 0, 1, 255, 1 << 32])
def test_reserved_and_impossible_indices_are_refused(spi: int) -> None:
    with pytest.raises(ProfileError, match=f"SPI {spi} cannot be used"):
        MobilitySecurityAssociation(Spi(spi), ALGORITHM, key=Secret(bytes(16)))


@pytest.mark.parametrize("spi", [256, 0xFFFFFFFF])
def test_borders_of_the_index(spi: int) -> None:
    assert MobilitySecurityAssociation(Spi(spi), ALGORITHM, key=Secret(bytes(16))).spi == spi


def test_algorithms_by_the_names_of_profiles() -> None:
    assert {one.value for one in AuthenticationAlgorithm} == {
        "hmac-md5",
        "hmac-sha256",
        "hmac-sha1",
        "keyed-md5",
        "keyed-md5-rfc2002",
    }


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (V1.message, {"lifetime": -1}),
        (V1.message, {"lifetime": 0x10000}),
        (V1.message, {"identification": -1}),
        (V1.message, {"identification": 1 << 64}),
        (V1.message, {"flags": RequestFlags(0x100)}),
        (V1.message, {"nai": ""}),
        (V1.message, {"nai": "a\nb"}),
        (V1.message, {"nai": "\ud800"}),
        (V1.message, {"nai": "é" * 128}),
        (V2.message, {"code": -1}),
        (V2.message, {"code": 256}),
        (V2.message, {"lifetime": 0x10000}),
        (V2.message, {"identification": 1 << 64}),
        (V2.message, {"nai": "\x7f"}),
    ],
)
def test_what_does_not_fit_its_field_cannot_be_said(message: Any, change: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        replace(message, **change)


@pytest.mark.parametrize("nai", ["a", "mn1@example.com", "jörg@example.com", "x" * 255])
def test_usable_identifiers(nai: str) -> None:
    assert nai_fault(nai) is None


def test_values_do_not_change() -> None:
    for value, name in ((V1.message, "lifetime"), (V2.message, "code"), (MD5, "spi")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, 1)


def test_flags_by_their_letters() -> None:
    assert [(flag.name, flag.value) for flag in RequestFlags] == [
        ("SIMULTANEOUS", 0x80),
        ("BROADCAST", 0x40),
        ("DECAPSULATE_SELF", 0x20),
        ("MINIMAL", 0x10),
        ("GRE", 0x08),
        ("RESERVED_R", 0x04),
        ("REVERSE_TUNNEL", 0x02),
        ("RESERVED_X", 0x01),
    ]


@pytest.mark.parametrize("octet", range(256))
def test_only_two_flags_are_reserved(octet: int) -> None:
    assert RequestFlags(octet).has_reserved == bool(octet & 0x05)


def test_a_reply_knows_who_speaks_also_for_codes_without_a_name() -> None:
    assert isinstance(V2.message, RegistrationReply)
    assert isinstance(V1.message, RegistrationRequest)
    named = replace(V2.message, code=ReplyCode.INVALID_HOME_AGENT_ADDRESS)
    assert (named.is_success, named.by_home_agent, named.by_foreign_agent) == (False, False, True)
    assert named.sentence == ReplyCode.INVALID_HOME_AGENT_ADDRESS.sentence
    odd = replace(V2.message, code=222)
    assert (odd.is_success, odd.by_home_agent, odd.by_foreign_agent) == (False, True, False)
    assert "222" in odd.sentence
    assert V2.message.is_success
    assert replace(V2.message, code=1).is_success
    assert not replace(V2.message, code=2).is_success
