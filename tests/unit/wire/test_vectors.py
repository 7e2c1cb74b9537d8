# SPDX-License-Identifier: GPL-2.0-or-later
"""Value <-> octets, for every vector that a registration message touches."""

from __future__ import annotations

import hmac
from dataclasses import replace

import pytest

from homeward.model.errors import UnknownMessage
from homeward.model.nat_traversal import UdpTunnelReply
from homeward.model.registration import RegistrationReply, RegistrationRequest
from homeward.wire.authenticator import authenticate, verify
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.extensions import Extension
from homeward.wire.registration import decode, encode_reply, encode_request
from tests.unit.wire import vectors
from tests.unit.wire.vectors import (
    ASSOCIATIONS,
    MD5,
    OURS,
    SHA256,
    V1,
    V2,
    V2BAD,
    V3,
    V3R,
    V4,
    VECTORS,
    Vector,
)


def _name(vector: Vector) -> str:
    return vector.name.split()[0]


@pytest.mark.rows("R-82", "R-143", "R-145", "R-167")
@pytest.mark.parametrize("vector", OURS, ids=_name)
def test_value_to_octets(vector: Vector) -> None:
    message = vector.message
    if isinstance(message, RegistrationRequest):
        octets = encode_request(message, vector.association)
    else:
        octets = encode_reply(message, vector.association)
    assert octets.hex() == vector.octets.hex()


@pytest.mark.parametrize("vector", VECTORS, ids=_name)
def test_octets_to_value(vector: Vector) -> None:
    decoded = decode(vector.octets)
    assert decoded.message == vector.message
    assert isinstance(
        decoded, DecodedReply if isinstance(vector.message, RegistrationReply) else DecodedRequest
    )
    assert decoded.authentication is not None
    assert decoded.authentications == (decoded.authentication,)
    assert decoded.authentication.spi == 0x100
    assert decoded.authentication.covered == vector.covered
    size = len(decoded.authentication.authenticator)
    assert decoded.authentication.authenticator == vector.octets[vector.covered : vector.covered + size]


@pytest.mark.rows("R-27", "R-167")
@pytest.mark.parametrize("vector", VECTORS, ids=_name)
def test_authentic(vector: Vector) -> None:
    assert verify(vector.octets, decode(vector.octets), vector.association)


@pytest.mark.parametrize("vector", VECTORS, ids=_name)
def test_not_authentic_under_another_algorithm(vector: Vector) -> None:
    for other in ASSOCIATIONS:
        if other is not vector.association:
            assert not verify(vector.octets, decode(vector.octets), other)


@pytest.mark.rows("R-167", "R-170")
@pytest.mark.parametrize(
    "vector",
    [vectors.V7_SHA256, vectors.V7_SHA1, vectors.V7_PREFIX_SUFFIX, vectors.V7_PREFIX_SUFFIX_SPI],
    ids=_name,
)
def test_v1_and_v7_differ_in_nothing_but_the_algorithm(vector: Vector) -> None:
    assert decode(V1.octets).message == decode(vector.octets).message
    assert vector.octets.startswith(vectors.V1_BODY)


@pytest.mark.rows("R-30", "R-292")
def test_v2bad_is_authentic_and_yet_says_nothing_of_trust() -> None:
    good, bad = decode(V2.octets), decode(V2BAD.octets)
    assert isinstance(good, DecodedReply)
    assert isinstance(bad, DecodedReply)
    assert good.message.trusted_networks_configured
    assert good.covered == (Extension(149, b"\0", sub_type=0, offset=20),)
    assert good.unauthenticated == ()
    assert verify(V2BAD.octets, bad, MD5)
    assert not bad.message.trusted_networks_configured
    assert bad.covered == ()
    assert bad.unauthenticated == (Extension(149, b"\0", sub_type=0, offset=42),)


@pytest.mark.rows("R-222", "R-225", "R-232")
def test_v3_asks_for_a_udp_tunnel_before_its_authenticator() -> None:
    decoded = decode(V3.octets)
    assert decoded.covered == (
        Extension(131, b"mn1@example.com", offset=24),
        Extension(144, bytes(5), sub_type=0, offset=41),
    )


@pytest.mark.rows("R-228", "R-292")
def test_v3r_grants_a_udp_tunnel_only_before_the_authenticator() -> None:
    good = decode(V3R.octets)
    assert isinstance(good, DecodedReply)
    assert good.message.udp_tunnel == UdpTunnelReply(0, keepalive=110)
    assert good.message.udp_tunnel.will_tunnel
    body = V3R.octets[:37] + V3R.octets[45:49]
    behind = authenticate(body, MD5) + V3R.octets[37:45]
    bad = decode(behind)
    assert verify(behind, bad, MD5)
    assert bad.message == replace(V3R.message, udp_tunnel=None)


def test_v4_lists_what_stands_behind_the_authenticator() -> None:
    decoded = decode(V4.octets)
    assert decoded.covered == ()
    assert [(one.number, one.offset, len(one.body)) for one in decoded.unauthenticated] == [
        (130, 46, 0),
        (33, 48, 20),
    ]


def test_v8_is_not_a_registration_message() -> None:
    with pytest.raises(UnknownMessage, match="type 4"):
        decode(vectors.V8_TUNNEL_DATA)


def test_a_reused_buffer_cannot_change_what_was_read() -> None:
    buffer = bytearray(V1.octets)
    decoded = decode(memoryview(buffer))
    buffer[2] ^= 0xFF
    assert decoded.octets == V1.octets
    assert not verify(bytes(buffer), decoded, MD5)
    assert verify(V1.octets, decoded, MD5)


def test_repr_of_a_decoded_message_shows_no_octets() -> None:
    assert "octets" not in repr(decode(V1.octets)).split("authentications")[0]


@pytest.mark.rows("R-145", "R-272")
def test_a_request_puts_its_nai_before_the_authenticator() -> None:
    assert isinstance(V3.message, RegistrationRequest)
    octets = encode_request(replace(V3.message, udp_tunnel=None), MD5)
    # V3 without its UDP Tunnel Request, whose 8 octets stand between.
    assert octets[:41].hex() == V3.octets[:41].hex()
    assert octets[41:47].hex() == "201400000100"
    assert octets[47:] == hmac.digest(vectors.KEY, octets[:47], "md5")


@pytest.mark.rows("R-200")
def test_a_reply_says_nai_then_trusted_networks_then_authenticator() -> None:
    assert isinstance(V2.message, RegistrationReply)
    octets = encode_reply(replace(V2.message, nai="a@b"), SHA256)
    assert octets[:20] == V2.octets[:20]
    assert octets[20:35].hex() == "8303614062" + "95020000" + "202400000100"
    assert octets[35:] == hmac.digest(vectors.KEY, octets[:35], "sha256")
