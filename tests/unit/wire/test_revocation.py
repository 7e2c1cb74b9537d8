# SPDX-License-Identifier: GPL-2.0-or-later
"""RFC 3543: the support extension, the revocation and its acknowledgment, and the table of port 434."""

from __future__ import annotations

import hmac
from dataclasses import replace

import pytest

from homeward.model.errors import (
    BadExtension,
    LocalProtocolError,
    Truncated,
    UnknownCriticalExtension,
    UnknownMessage,
    WireError,
)
from homeward.model.nat_traversal import TunnelData
from homeward.model.registration import RegistrationReply, RegistrationRequest
from homeward.model.revocation import RegistrationRevocation, RevocationAcknowledgment, RevocationSupport
from homeward.wire import port_434
from homeward.wire.authenticator import authenticate, verify
from homeward.wire.decoded import DecodedAcknowledgment, DecodedReply, DecodedRequest, DecodedRevocation
from homeward.wire.registration import decode as decode_registration
from homeward.wire.registration import encode_reply, encode_request
from homeward.wire.relay import FOREIGN_HOME, MOBILE_FOREIGN
from homeward.wire.revocation import decode, encode
from tests.unit.wire.vectors import (
    CARE_OF_ADDRESS,
    HOME_ADDRESS,
    HOME_AGENT,
    KEY,
    MD5,
    SHA256,
    V1,
    V1_BODY,
    V2,
    V4,
    V8_TUNNEL_DATA,
)

REVOCATION = RegistrationRevocation(
    HOME_ADDRESS,
    home_domain=HOME_AGENT,
    foreign_domain=CARE_OF_ADDRESS,
    identifier=0xEB3221C0,
    by_home_agent=True,
    inform=True,
)
REVOCATION_BODY = bytes.fromhex("0700c0000a0100320a0100010a02034deb3221c0")
ACKNOWLEDGMENT = RevocationAcknowledgment(HOME_ADDRESS, identifier=0xEB3221C0, inform=True)
ACKNOWLEDGMENT_BODY = bytes.fromhex("0f0080000a010032eb3221c0")


@pytest.mark.rows("R-280")
@pytest.mark.parametrize(
    ("message", "body"),
    [
        (REVOCATION, REVOCATION_BODY),
        (replace(REVOCATION, inform=False), REVOCATION_BODY[:2] + b"\x80" + REVOCATION_BODY[3:]),
        (replace(REVOCATION, by_home_agent=False), REVOCATION_BODY[:2] + b"\x40" + REVOCATION_BODY[3:]),
        (ACKNOWLEDGMENT, ACKNOWLEDGMENT_BODY),
        (replace(ACKNOWLEDGMENT, inform=False), ACKNOWLEDGMENT_BODY[:2] + b"\0" + ACKNOWLEDGMENT_BODY[3:]),
    ],
)
def test_to_the_octet(message: RegistrationRevocation | RevocationAcknowledgment, body: bytes) -> None:
    covered = body + bytes.fromhex("201400000100")
    octets = covered + hmac.digest(KEY, covered, "md5")
    assert encode(message, MD5) == octets
    decoded = decode(octets)
    assert decoded.message == message
    assert verify(octets, decoded, MD5)
    assert not verify(octets, decoded, SHA256)


@pytest.mark.rows("R-280")
def test_between_agents_fa_ha_protects_it() -> None:
    octets = encode(REVOCATION, SHA256, by=FOREIGN_HOME)
    assert octets[20] == 34
    decoded = decode(octets)
    assert verify(octets, decoded, SHA256, by=FOREIGN_HOME)
    assert not verify(octets, decoded, SHA256)
    with pytest.raises(LocalProtocolError, match="extension 33"):
        encode(REVOCATION, SHA256, by=MOBILE_FOREIGN)


@pytest.mark.rows("R-280")
@pytest.mark.parametrize("message", [REVOCATION, ACKNOWLEDGMENT])
def test_every_bit_counts(message: RegistrationRevocation | RevocationAcknowledgment) -> None:
    octets = encode(message, MD5)
    for bit in range(8 * len(octets)):
        changed = bytearray(octets)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            decoded = decode(bytes(changed))
        except WireError:
            continue
        assert not verify(bytes(changed), decoded, MD5), f"bit {bit}"


def test_reserved_fields_are_ignored() -> None:
    octets = authenticate(b"\x07\xff\xff\xff" + REVOCATION_BODY[4:], MD5)
    assert decode(octets).message == REVOCATION
    octets = authenticate(b"\x0f\xff\xff\xff" + ACKNOWLEDGMENT_BODY[4:], MD5)
    assert decode(octets).message == ACKNOWLEDGMENT


def test_which_acknowledgment_belongs_to_which_revocation() -> None:
    assert ACKNOWLEDGMENT.answers(REVOCATION)
    assert not replace(ACKNOWLEDGMENT, identifier=1).answers(REVOCATION)
    assert not replace(ACKNOWLEDGMENT, home_address=HOME_AGENT).answers(REVOCATION)


@pytest.mark.rows("R-102", "R-103")
@pytest.mark.parametrize(
    ("error", "octets"),
    [
        (Truncated, b""),
        (Truncated, REVOCATION_BODY[:-1]),
        (Truncated, ACKNOWLEDGMENT_BODY[:-1]),
        (UnknownMessage, V1.octets),
        (Truncated, encode(REVOCATION, MD5)[:-1]),
        (UnknownCriticalExtension, REVOCATION_BODY + b"\x21\x02\0\0"),
        (BadExtension, REVOCATION_BODY + bytes.fromhex("200400000100")),
    ],
)
def test_refused(error: type[WireError], octets: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode(octets)
    assert caught.type is error


def test_unprotected_messages_are_read_but_not_authentic() -> None:
    decoded = decode(REVOCATION_BODY)
    assert decoded.message == REVOCATION
    assert decoded.authentication is None
    assert not verify(REVOCATION_BODY, decoded, MD5)
    assert not verify(REVOCATION_BODY, decoded, MD5, by=FOREIGN_HOME)


@pytest.mark.parametrize(
    "values", [{"identifier": 1 << 32}, {"identifier": -1}], ids=["too large", "negative"]
)
def test_identifiers_that_do_not_fit(values: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError):
        replace(REVOCATION, **values)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        replace(ACKNOWLEDGMENT, **values)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        RevocationSupport(values["identifier"])


# --- the extension in registrations -----------------------------------------------------------------------------------


@pytest.mark.rows("R-279")
def test_support_in_a_request_and_a_reply() -> None:
    assert isinstance(V1.message, RegistrationRequest)
    assert isinstance(V2.message, RegistrationReply)
    support = RevocationSupport(0x01020304)
    request = encode_request(replace(V1.message, revocation_support=support), MD5)
    assert request[24:32] == bytes.fromhex("8906000001020304")
    assert decode_registration(request).message.revocation_support == support
    informing = replace(support, inform=True)
    reply = encode_reply(replace(V2.message, revocation_support=informing), MD5)
    assert bytes.fromhex("8906800001020304") in reply
    assert decode_registration(reply).message.revocation_support == informing


@pytest.mark.rows("R-279")
def test_no_support_with_a_foreign_agents_care_of_address() -> None:
    assert isinstance(V4.message, RegistrationRequest)
    with pytest.raises(LocalProtocolError, match="co-located"):
        encode_request(replace(V4.message, revocation_support=RevocationSupport(1)), MD5)


def test_support_may_grow_but_not_shrink_or_multiply() -> None:
    longer = authenticate(V1_BODY + bytes.fromhex("8908ffff01020304beef"), MD5)
    assert decode_registration(longer).message.revocation_support == RevocationSupport(
        0x01020304, inform=True
    )
    with pytest.raises(Truncated):
        decode_registration(authenticate(V1_BODY + bytes.fromhex("89050000010203"), MD5))
    with pytest.raises(BadExtension):
        decode_registration(authenticate(V1_BODY + bytes.fromhex("8906000001020304") * 2, MD5))


# --- port 434 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "kind"),
    [
        (V1.octets, DecodedRequest),
        (V2.octets, DecodedReply),
        (V8_TUNNEL_DATA, TunnelData),
        (encode(REVOCATION, MD5), DecodedRevocation),
        (encode(ACKNOWLEDGMENT, MD5), DecodedAcknowledgment),
    ],
    ids=["1", "3", "4", "7", "15"],
)
def test_every_message_of_the_port(octets: bytes, kind: type) -> None:
    assert type(port_434.decode(octets)) is kind
    assert type(port_434.decode(memoryview(octets))) is kind


@pytest.mark.parametrize("number", sorted(set(range(256)) - {1, 3, 4, 7, 15}))
def test_every_other_message(number: int) -> None:
    with pytest.raises(UnknownMessage, match=f"type {number} "):
        port_434.decode(bytes([number]) + bytes(40))
