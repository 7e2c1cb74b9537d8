# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixed part of both messages against scapy, which has no extensions, hence compares nothing behind it.

Older scapy gave the Identification 64 octets in place of 64 bits; the first test says so if such a one is found.
"""

from __future__ import annotations

import pytest
from hypothesis import given

from homeward.model.registration import (
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
)
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.registration import decode
from tests.property.registration_strategies import associations, encode, replies, requests
from tests.unit.wire.vectors import VECTORS, Vector

mobileip = pytest.importorskip("scapy.layers.mobileip", reason="scapy is not installed")

REQUEST_OCTETS = 24
REPLY_OCTETS = 20


def test_scapy_has_the_identification_at_its_right_size() -> None:
    assert len(bytes(mobileip.MobileIP(type=1) / mobileip.MobileIPRRQ())) == REQUEST_OCTETS
    assert len(bytes(mobileip.MobileIP(type=3) / mobileip.MobileIPRRP())) == REPLY_OCTETS


def built_by_scapy(message: RegistrationRequest | RegistrationReply) -> bytes:
    common = {
        "lifetime": message.lifetime,
        "homeaddr": str(message.home_address),
        "haaddr": str(message.home_agent),
        "id": message.identification,
    }
    if isinstance(message, RegistrationRequest):
        body = mobileip.MobileIPRRQ(flags=int(message.flags), coaddr=str(message.care_of_address), **common)
        return bytes(mobileip.MobileIP(type=1) / body)
    return bytes(mobileip.MobileIP(type=3) / mobileip.MobileIPRRP(code=message.code, **common))


def assert_scapy_reads_the_same(octets: bytes, message: RegistrationRequest | RegistrationReply) -> None:
    packet = mobileip.MobileIP(octets)
    if isinstance(message, RegistrationRequest):
        body = packet[mobileip.MobileIPRRQ]
        assert (packet.type, body.flags, body.coaddr) == (1, message.flags, str(message.care_of_address))
        assert bytes(body.payload) == octets[REQUEST_OCTETS:]
    else:
        body = packet[mobileip.MobileIPRRP]
        assert (packet.type, body.code) == (3, message.code)
        assert bytes(body.payload) == octets[REPLY_OCTETS:]
    assert body.lifetime == message.lifetime
    assert body.homeaddr == str(message.home_address)
    assert body.haaddr == str(message.home_agent)
    assert body.id == message.identification


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name.split()[0])
def test_vectors(vector: Vector) -> None:
    assert vector.octets.startswith(built_by_scapy(vector.message))
    assert_scapy_reads_the_same(vector.octets, vector.message)


@given(requests, associations)
def test_requests_both_ways(request: RegistrationRequest, association: MobilitySecurityAssociation) -> None:
    octets = encode(request, association)
    fixed = built_by_scapy(request)
    assert octets[:REQUEST_OCTETS] == fixed
    assert_scapy_reads_the_same(octets, request)
    decoded = decode(fixed)
    assert isinstance(decoded, DecodedRequest)
    assert (decoded.message.flags, decoded.message.care_of_address) == (
        request.flags,
        request.care_of_address,
    )
    assert decoded.message.identification == request.identification


@given(replies, associations)
def test_replies_both_ways(reply: RegistrationReply, association: MobilitySecurityAssociation) -> None:
    octets = encode(reply, association)
    fixed = built_by_scapy(reply)
    assert octets[:REPLY_OCTETS] == fixed
    assert_scapy_reads_the_same(octets, reply)
    decoded = decode(fixed)
    assert isinstance(decoded, DecodedReply)
    assert (decoded.message.code, decoded.message.lifetime) == (reply.code, reply.lifetime)
    assert decoded.message.identification == reply.identification
