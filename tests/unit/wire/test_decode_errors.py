# SPDX-License-Identifier: GPL-2.0-or-later
"""What is refused, by which error, and what is not refused though it looks odd."""

from __future__ import annotations

import pytest

from homeward.model.errors import (
    BadExtension,
    LocalProtocolError,
    TrailingOctets,
    Truncated,
    UnknownCriticalExtension,
    UnknownMessage,
    WireError,
)
from homeward.model.registration import RegistrationReply, RegistrationRequest, RequestFlags
from homeward.wire.authenticator import authenticate, verify
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.registration import decode, encode_request
from tests.unit.wire.vectors import MD5, V1, V1_BODY, V2, V4, V6

REPLY = V2.octets[:20]
PLAIN_MN_HA = bytes.fromhex("201400000100") + bytes(16)
TNC = bytes.fromhex("95020000")
NAI = bytes.fromhex("8303612e62")


def hexadecimal(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize(
    ("error", "octets", "words"),
    [
        (Truncated, b"", "message type at octet 0 needs 1 octets, 0 are left"),
        (Truncated, b"\x01", "24 octets or more, these are 1"),
        (Truncated, b"\x03", "20 octets or more, these are 1"),
        (Truncated, V1_BODY[:-1], "these are 23"),
        (Truncated, REPLY[:-1], "these are 19"),
        (UnknownMessage, bytes(24), "type 0"),
        (UnknownMessage, b"\x02" + bytes(23), "type 2"),
        (UnknownMessage, b"\x07" + bytes(19), "type 7"),
        (UnknownMessage, b"\xff" + bytes(23), "type 255"),
        (Truncated, V1_BODY + b"\x20", "length of extension 32 at octet 25 needs 1"),
        (Truncated, V1_BODY + PLAIN_MN_HA[:-1], "extension 32 at octet 26 needs 20 octets, 19 are left"),
        (Truncated, V1_BODY + hexadecimal("2003000001"), "SPI at octet 0 needs 4"),
        (Truncated, V1_BODY + hexadecimal("2000"), "SPI"),
        (BadExtension, V1_BODY + hexadecimal("200400000100"), "at octet 24 has no authenticator"),
        (Truncated, REPLY + b"\x83", "length of extension 131"),
        (Truncated, REPLY + hexadecimal("830361"), "extension 131"),
        (Truncated, REPLY + hexadecimal("9502"), "extension 149"),
        (Truncated, REPLY + hexadecimal("950200"), "extension 149"),
        (Truncated, REPLY + hexadecimal("9500") + PLAIN_MN_HA, "sub-type of extension 149"),
        (Truncated, REPLY + hexadecimal("950100") + PLAIN_MN_HA, "reserved octet of Trusted Networks"),
        (TrailingOctets, REPLY + hexadecimal("9503000000") + PLAIN_MN_HA, "Trusted Networks Configured ends"),
        (BadExtension, REPLY + TNC + TNC + PLAIN_MN_HA, "extension 149 stands 2 times"),
        (BadExtension, REPLY + NAI + NAI + PLAIN_MN_HA, "extension 131 stands 2 times"),
        (BadExtension, REPLY + NAI + TNC + NAI + NAI + PLAIN_MN_HA, "extension 131 stands 3 times"),
        (
            BadExtension,
            V1_BODY + hexadecimal("8300") + PLAIN_MN_HA,
            "NAI at octet 24 cannot be used: it is empty",
        ),
        (BadExtension, V1_BODY + hexadecimal("8301ff") + PLAIN_MN_HA, "not UTF-8"),
        (BadExtension, V1_BODY + hexadecimal("8303610a62") + PLAIN_MN_HA, "do not print"),
        (BadExtension, V1_BODY + hexadecimal("8303e280ae") + PLAIN_MN_HA, "do not print"),
    ],
)
def test_refused(error: type[WireError], octets: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words) as caught:
        decode(octets)
    assert caught.type is error


# Every number that RFCs give to something which is not read here, and a few that nobody gave away.
CRITICAL = [1, 16, 19, 24, 31, 35, 37, 38, 39, 40, 43, 46, 47, 48, 49, 50, 99, 127]
SKIPPABLE = [128, 129, 130, 133, 134, 136, 138, 139, 140, 144, 147, 148, 150, 151, 200, 255]


@pytest.mark.rows("R-102")
@pytest.mark.parametrize("number", CRITICAL)
@pytest.mark.parametrize("fixed", [V1_BODY, REPLY], ids=["request", "reply"])
def test_critical_extension_that_is_not_understood_drops_the_message(number: int, fixed: bytes) -> None:
    extension = bytes([number, 2, 0, 0])
    for octets in (
        fixed + extension + PLAIN_MN_HA,
        authenticate(fixed, MD5) + extension,
        fixed + bytes([number]),
    ):
        with pytest.raises(UnknownCriticalExtension, match=f"extension {number} at octet"):
            decode(octets)


@pytest.mark.rows("R-102")
@pytest.mark.parametrize(("number", "fixed"), [(36, REPLY), (44, V1_BODY), (45, V1_BODY)])
def test_critical_extension_that_belongs_in_the_other_message(number: int, fixed: bytes) -> None:
    with pytest.raises(UnknownCriticalExtension, match=f"extension {number} at octet"):
        decode(authenticate(fixed, MD5) + bytes([number, 2, 0, 0]))


@pytest.mark.rows("R-102")
@pytest.mark.parametrize(
    ("fixed", "extension"),
    [
        (V1_BODY, "2402001400000100" + "00" * 16),
        (REPLY, "2c0601000000006e"),
        (REPLY, "2d020141"),
    ],
)
def test_critical_extension_of_another_sub_type_drops_the_message(fixed: bytes, extension: str) -> None:
    for octets in (
        authenticate(fixed, MD5) + hexadecimal(extension),
        authenticate(fixed + hexadecimal(extension), MD5),
    ):
        with pytest.raises(UnknownCriticalExtension, match="sub-type"):
            decode(octets)


@pytest.mark.rows("R-102", "R-103")
@pytest.mark.parametrize("number", SKIPPABLE)
@pytest.mark.parametrize("size", [0, 1, 6, 255])
def test_skippable_extension_is_stepped_over_by_its_length(number: int, size: int) -> None:
    # The body is made of octets that would each condemn the message if they were taken for a type.
    extension = bytes([number, size]) + bytes([99]) * size
    octets = authenticate(REPLY + extension + TNC, MD5)
    decoded = decode(octets)
    assert decoded.message == V2.message
    assert verify(octets, decoded, MD5)
    with pytest.raises(Truncated, match=f"extension {number}"):
        decode(octets + extension[:-1])


@pytest.mark.parametrize("number", [33, 34])
def test_authentication_with_foreign_agents_is_read_and_ignored(number: int) -> None:
    foreign = bytes([number, 20]) + bytes(20)
    octets = authenticate(REPLY + TNC, MD5) + foreign
    decoded = decode(octets)
    assert decoded.message == V2.message
    assert verify(octets, decoded, MD5)
    with pytest.raises(Truncated):
        decode(octets[:-1])


@pytest.mark.rows("R-104")
def test_padding_anywhere_is_one_octet_and_leaves_no_trace() -> None:
    octets = authenticate(REPLY + b"\0" + TNC + b"\0\0", MD5) + b"\0"
    decoded = decode(octets)
    assert decoded.message == V2.message
    assert verify(octets, decoded, MD5)
    assert decoded.unauthenticated == ()
    assert [one.offset for one in decoded.covered] == [21]


@pytest.mark.rows("R-82")
def test_trusted_networks_configured_ignores_its_reserved_octet() -> None:
    octets = authenticate(REPLY + hexadecimal("950200ff"), MD5)
    assert decode(octets).message == V2.message


@pytest.mark.rows("R-82")
def test_another_sub_type_of_149_says_nothing_of_trust() -> None:
    decoded = decode(authenticate(REPLY + hexadecimal("95020100"), MD5))
    assert isinstance(decoded, DecodedReply)
    assert not decoded.message.trusted_networks_configured
    both = decode(authenticate(REPLY + hexadecimal("95020100") + TNC, MD5))
    assert isinstance(both, DecodedReply)
    assert both.message.trusted_networks_configured


def test_149_in_a_request_means_nothing() -> None:
    decoded = decode(authenticate(V1_BODY + TNC + TNC, MD5))
    assert decoded.message == V1.message


@pytest.mark.rows("R-292")
def test_without_authentication_only_the_fixed_part_is_said() -> None:
    decoded = decode(REPLY + NAI + TNC)
    assert isinstance(decoded, DecodedReply)
    assert isinstance(decoded.message, RegistrationReply)
    assert decoded.message.nai is None
    assert not decoded.message.trusted_networks_configured
    assert decoded.authentications == ()
    assert decoded.authentication is None
    assert decoded.covered == ()
    assert [one.number for one in decoded.unauthenticated] == [131, 149]
    assert not verify(REPLY + NAI + TNC, decoded, MD5)


@pytest.mark.rows("R-148")
@pytest.mark.parametrize("second", [PLAIN_MN_HA, None], ids=["forged", "genuine"])
def test_two_authentications_are_none(second: bytes | None) -> None:
    octets = authenticate(REPLY + NAI + TNC, MD5)
    octets = octets + second if second is not None else authenticate(octets, MD5)
    decoded = decode(octets)
    assert isinstance(decoded, DecodedReply)
    assert len(decoded.authentications) == 2
    assert decoded.authentication is None
    assert not verify(octets, decoded, MD5)
    assert decoded.message.nai is None
    assert not decoded.message.trusted_networks_configured
    assert [one.number for one in decoded.unauthenticated] == [131, 149]


@pytest.mark.rows("R-292")
def test_behind_the_authenticator_nothing_is_interpreted() -> None:
    octets = V1.octets + hexadecimal("8301ff8300") + TNC
    decoded = decode(octets)
    assert isinstance(decoded, DecodedRequest)
    assert decoded.message == V1.message
    assert verify(octets, decoded, MD5)
    assert [one.number for one in decoded.unauthenticated] == [131, 131, 149]


def test_a_denial_of_a_foreign_agent_needs_no_authenticator_to_be_read() -> None:
    decoded = decode(bytes([3, 65]) + REPLY[2:])
    assert isinstance(decoded, DecodedReply)
    assert decoded.message.by_foreign_agent
    assert decoded.authentication is None


def test_code_and_flags_without_a_name_are_handed_on() -> None:
    reply = decode(bytes([3, 222]) + V6.octets[2:])
    assert isinstance(reply, DecodedReply)
    assert reply.message.code == 222
    request = decode(bytes([1, 0xFF]) + V4.octets[2:])
    assert isinstance(request, DecodedRequest)
    assert int(request.message.flags) == 0xFF
    assert request.message.flags.has_reserved


@pytest.mark.rows("R-141")
@pytest.mark.parametrize("flags", [0x04, 0x01, 0x25])
def test_reserved_flags_are_read_but_never_sent(flags: int) -> None:
    octets = authenticate(bytes([1, flags]) + V1_BODY[2:], MD5)
    decoded = decode(octets)
    assert isinstance(decoded, DecodedRequest)
    assert isinstance(decoded.message, RegistrationRequest)
    assert verify(octets, decoded, MD5)
    assert decoded.message.flags == RequestFlags(flags)
    with pytest.raises(LocalProtocolError, match="reserved flags"):
        encode_request(decoded.message, MD5)
