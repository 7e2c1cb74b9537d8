# SPDX-License-Identifier: GPL-2.0-or-later
"""The same messages built by scapy, field by field, are the same octets; and scapy reads ours back field by field."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.model import nat_traversal
from homeward.model.agent import AgentAdvertisement, AgentFlags
from homeward.model.registration import MobilitySecurityAssociation, RegistrationReply, RegistrationRequest
from homeward.model.relay import AaaAssociation, MobileToForeign
from homeward.model.revocation import RegistrationRevocation, RevocationAcknowledgment
from homeward.wire import relay, revocation, udp_tunnel
from homeward.wire.agent_advertisement import encode_advertisement
from homeward.wire.authenticator import AUTHENTICATOR_OCTETS
from homeward.wire.internet_checksum import put
from homeward.wire.registration import encode_reply, encode_request
from tests.property.registration_strategies import associations, octet, replies, requests
from tests.property.test_wire_messages import advertisements, challenges, revocations, servers

scapy = pytest.importorskip("tests.oracle.scapy_layers", reason="scapy is not installed")

LETTERS = {
    "R": AgentFlags.REGISTRATION_REQUIRED,
    "B": AgentFlags.BUSY,
    "H": AgentFlags.HOME_AGENT,
    "F": AgentFlags.FOREIGN_AGENT,
    "M": AgentFlags.MINIMAL,
    "G": AgentFlags.GRE,
    "T": AgentFlags.REVERSE_TUNNEL,
    "U": AgentFlags.UDP_TUNNEL,
    "X": AgentFlags.REVOCATION,
    "I": AgentFlags.REGIONAL,
}


def signed(octets: bytes, association: MobilitySecurityAssociation, number: int = 32) -> bytes:
    """These octets and the extension that ours end with: scapy's header, our digest."""
    size = AUTHENTICATOR_OCTETS[association.algorithm]
    return bytes(scapy.Authentication(type=number, spi=association.spi, authenticator=octets[-size:]))


def support(message: RegistrationRequest | RegistrationReply) -> bytes:
    value = message.revocation_support
    return b"" if value is None else bytes(scapy.RevocationSupport(I=value.inform, timestamp=value.timestamp))


def nai(message: RegistrationRequest | RegistrationReply) -> bytes:
    return b"" if message.nai is None else bytes(scapy.Plain(type=131, data=message.nai.encode()))


@pytest.mark.rows("R-145", "R-222", "R-279")
@given(requests, associations)
def test_a_requests_extensions(
    request: RegistrationRequest, association: MobilitySecurityAssociation
) -> None:
    octets = encode_request(request, association)
    asked = request.udp_tunnel
    tunnel = b""
    if asked is not None:
        tunnel = bytes(
            scapy.UdpTunnelRequest(F=asked.force, R=asked.through_foreign_agent, encapsulation=asked.kind)
        )
    assert octets[24:] == nai(request) + tunnel + support(request) + signed(octets, association)


@pytest.mark.rows("R-82", "R-161", "R-200", "R-228")
@given(replies, associations)
def test_a_replys_extensions(reply: RegistrationReply, association: MobilitySecurityAssociation) -> None:
    octets = encode_reply(reply, association)
    granted = reply.udp_tunnel
    tunnel = b""
    if granted is not None:
        tunnel = bytes(scapy.UdpTunnelReply(code=granted.code, F=granted.forced, keepalive=granted.keepalive))
    trusted = bytes(scapy.Short(type=149, data=b"\0")) if reply.trusted_networks_configured else b""
    text = b"" if reply.message is None else bytes(scapy.Short(subtype=1, data=reply.message.encode()))
    expected = nai(reply) + tunnel + trusted + support(reply) + text + signed(octets, association)
    assert octets[20:] == expected


@pytest.mark.rows("R-145", "R-275")
@settings(max_examples=50)
@given(requests, challenges, servers, associations)
def test_behind_mn_ha(
    request: RegistrationRequest,
    challenge: bytes,
    server: AaaAssociation,
    association: MobilitySecurityAssociation,
) -> None:
    before = encode_request(request, association)
    part = MobileToForeign(challenge=challenge)
    octets = relay.tell_foreign_agent(before, part, aaa=server, mobile_foreign=association)
    tail = octets[len(before) :]
    asked = scapy.Plain(tail)
    assert (asked.type, asked.data) == (132, challenge)
    to_server = scapy.GeneralizedAuthentication(tail[2 + len(challenge) :])
    assert (to_server.type, to_server.subtype, to_server.len, to_server.spi) == (36, 1, 20, server.spi)
    to_agent = scapy.Authentication(tail[2 + len(challenge) + 24 :])
    assert (to_agent.type, to_agent.spi) == (33, association.spi)
    size = AUTHENTICATOR_OCTETS[association.algorithm]
    built = (
        scapy.Plain(type=132, data=challenge),
        scapy.GeneralizedAuthentication(spi=server.spi, authenticator=tail[-size - 22 :][:16]),
        scapy.Authentication(type=33, spi=association.spi, authenticator=tail[-size:]),
    )
    assert b"".join(bytes(one) for one in built) == tail


@pytest.mark.rows("R-280")
@given(revocations, associations, st.sampled_from([32, 34]))
def test_revocations(
    message: RegistrationRevocation | RevocationAcknowledgment,
    association: MobilitySecurityAssociation,
    number: int,
) -> None:
    octets = revocation.encode(message, association, by=relay.ExtensionType(number))
    extension = scapy.Authentication(signed(octets, association, number))
    common: dict[str, Any] = {
        "homeaddr": str(message.home_address),
        "I": message.inform,
        "identifier": message.identifier,
        "extensions": [extension],
    }
    if isinstance(message, RegistrationRevocation):
        built = scapy.Revocation(
            A=message.by_home_agent,
            homedomain=str(message.home_domain),
            foreigndomain=str(message.foreign_domain),
            **common,
        )
    else:
        built = scapy.RevocationAcknowledgment(**common)
    assert bytes(built) == octets


@given(octet, st.binary(max_size=60))
def test_tunnel_data(kind: int, payload: bytes) -> None:
    built = bytes(scapy.TunnelData(nexthdr=kind, inner=payload))
    assert udp_tunnel.encode_tunnel_data(nat_traversal.TunnelData(kind, payload)) == built


@pytest.mark.rows("R-112")
@settings(max_examples=50)
@given(advertisements())
def test_advertisements(advertisement: AgentAdvertisement) -> None:
    agent = scapy.MobilityAgent(
        sequence=advertisement.sequence,
        lifetime=advertisement.registration_lifetime,
        coas=[str(one) for one in advertisement.care_of_addresses],
        **{letter: flag in advertisement.flags for letter, flag in LETTERS.items()},
    )
    built = bytes(
        scapy.Advertisement(
            code=advertisement.code,
            lifetime=advertisement.lifetime,
            routers=[
                scapy.Router(address=str(one.address), preference=one.preference)
                for one in advertisement.routers
            ],
        )
    ) + bytes(agent)
    if advertisement.prefix_lengths is not None:
        built += bytes(scapy.Plain(type=19, data=bytes(advertisement.prefix_lengths)))
    if advertisement.challenge is not None:
        built += bytes(scapy.Plain(type=24, data=advertisement.challenge))
    built += b"\0" * (len(built) % 2)
    octets = encode_advertisement(advertisement)
    assert octets == put(built, 2)
    read = scapy.Advertisement(octets)
    assert [IPv4Address(one.address) for one in read.routers] == [
        one.address for one in advertisement.routers
    ]
    assert [one.preference for one in read.routers] == [one.preference for one in advertisement.routers]
