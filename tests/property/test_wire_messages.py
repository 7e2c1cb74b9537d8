# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every other message that we may send: relayed parts, revocations, advertisements, tunnels, echoes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.model.agent import (
    ALL_AGENT_FLAGS,
    AdvertisedRouter,
    AgentAdvertisement,
    AgentFlags,
    has_restarted,
    next_sequence,
)
from homeward.model.errors import WireError
from homeward.model.nat_traversal import TunnelData
from homeward.model.registration import (
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.relay import (
    CHAP_SPI,
    AaaAssociation,
    ForeignToHome,
    ForeignToMobile,
    HomeToForeign,
    MobileToForeign,
)
from homeward.model.revocation import RegistrationRevocation, RevocationAcknowledgment
from homeward.model.secret import Secret
from homeward.wire import echo, relay, revocation, udp_tunnel
from homeward.wire.agent_advertisement import decode_advertisement, encode_advertisement
from homeward.wire.authenticator import verify
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.registration import decode, encode_reply, encode_request
from homeward.wire.relay import FOREIGN_HOME, MOBILE_FOREIGN
from tests.fuzz.parsers import PARSERS
from tests.property.registration_strategies import (
    addresses,
    associations,
    octet,
    replies,
    requests,
    revocation_supports,
    texts,
    udp_tunnel_replies,
    udp_tunnel_requests,
)

challenges = st.binary(min_size=1, max_size=255)
servers = st.builds(
    AaaAssociation,
    st.just(CHAP_SPI) | st.integers(256, 0xFFFFFFFF).map(Spi),
    key=st.binary(min_size=16, max_size=40).map(Secret),
)
words = st.integers(0, 0xFFFF)
revocations = st.builds(
    RegistrationRevocation,
    addresses,
    home_domain=addresses,
    foreign_domain=addresses,
    identifier=st.integers(0, 0xFFFFFFFF),
    by_home_agent=st.booleans(),
    inform=st.booleans(),
) | st.builds(
    RevocationAcknowledgment, addresses, identifier=st.integers(0, 0xFFFFFFFF), inform=st.booleans()
)
routers = st.lists(st.builds(AdvertisedRouter, addresses, st.integers(-(1 << 31), (1 << 31) - 1)), max_size=5)


@st.composite
def advertisements(draw: st.DrawFn) -> AgentAdvertisement:
    flags = AgentFlags(draw(words)) & ALL_AGENT_FLAGS
    care_of_addresses = tuple(draw(st.lists(addresses, min_size=1, max_size=62)))
    if AgentFlags.FOREIGN_AGENT not in flags:
        flags = (flags | AgentFlags.HOME_AGENT) & ~(AgentFlags.BUSY | AgentFlags.REGISTRATION_REQUIRED)
    drawn = tuple(draw(routers))
    lengths = st.lists(st.integers(0, 32), min_size=len(drawn), max_size=len(drawn)).map(tuple)
    return AgentAdvertisement(
        draw(words),
        draw(words),
        registration_lifetime=draw(words),
        flags=flags,
        care_of_addresses=care_of_addresses,
        routers=drawn,
        code=draw(octet),
        prefix_lengths=draw(st.none() | lengths),
        challenge=draw(st.none() | challenges),
    )


@pytest.mark.rows("R-145")
@settings(max_examples=60)
@given(requests, st.booleans(), st.none() | challenges, servers, associations, associations)
def test_a_request_for_a_foreign_agent(
    request: RegistrationRequest,
    delivery: bool,
    challenge: bytes | None,
    server: AaaAssociation,
    mobile_home: MobilitySecurityAssociation,
    mobile_foreign: MobilitySecurityAssociation,
) -> None:
    part = MobileToForeign(
        encapsulating_delivery=delivery and RequestFlags.REVERSE_TUNNEL in request.flags, challenge=challenge
    )
    signed = encode_request(request, mobile_home)
    octets = relay.tell_foreign_agent(signed, part, aaa=server, mobile_foreign=mobile_foreign)
    decoded = decode(octets)
    assert isinstance(decoded, DecodedRequest)
    assert decoded.message == request
    assert relay.read_for_foreign_agent(decoded) == part
    assert verify(octets, decoded, mobile_home)
    assert verify(octets, decoded, mobile_foreign, by=MOBILE_FOREIGN)
    assert relay.verify_for_server(octets, decoded, server)
    assert relay.through_mobile_home(decoded) == signed


@pytest.mark.rows("R-208", "R-292")
@settings(max_examples=60)
@given(
    requests.filter(lambda one: one.lifetime > 0),
    st.none() | udp_tunnel_requests,
    st.none() | revocation_supports,
    associations,
    associations,
)
def test_a_relayed_request(
    request: RegistrationRequest,
    tunnel: object,
    support: object,
    mobile_home: MobilitySecurityAssociation,
    foreign_home: MobilitySecurityAssociation,
) -> None:
    part = ForeignToHome(udp_tunnel=tunnel, revocation_support=support)  # type: ignore[arg-type]
    arrived = decode(encode_request(request, mobile_home))
    assert isinstance(arrived, DecodedRequest)
    octets = relay.tell_home_agent(relay.through_mobile_home(arrived), part, foreign_home=foreign_home)
    decoded = decode(octets)
    assert isinstance(decoded, DecodedRequest)
    assert decoded.message == request
    assert relay.read_for_home_agent(decoded) == part
    assert verify(octets, decoded, foreign_home, by=FOREIGN_HOME)
    assert verify(octets, decoded, mobile_home)


@pytest.mark.rows("R-200", "R-210", "R-292")
@settings(max_examples=60)
@given(
    replies,
    st.none() | udp_tunnel_replies,
    st.builds(ForeignToMobile, error=st.none() | octet, challenge=st.none() | challenges, message=texts),
    associations,
    associations,
)
def test_a_relayed_reply(
    reply: RegistrationReply,
    tunnel: object,
    part: ForeignToMobile,
    mobile_home: MobilitySecurityAssociation,
    other: MobilitySecurityAssociation,
) -> None:
    for_foreign = HomeToForeign(udp_tunnel=tunnel)  # type: ignore[arg-type]
    octets = relay.answer_foreign_agent(encode_reply(reply, mobile_home), for_foreign, foreign_home=other)
    arrived = decode(octets)
    assert isinstance(arrived, DecodedReply)
    assert relay.read_from_home_agent(arrived) == for_foreign
    assert verify(octets, arrived, other, by=FOREIGN_HOME)
    octets = relay.relay_reply(arrived, part, mobile_foreign=other)
    decoded = decode(octets)
    assert isinstance(decoded, DecodedReply)
    assert decoded.message == reply
    assert relay.read_from_foreign_agent(decoded) == part
    assert verify(octets, decoded, mobile_home)
    assert verify(octets, decoded, other, by=MOBILE_FOREIGN)


@given(revocations, associations, st.sampled_from([32, 34]))
def test_revocations(
    message: RegistrationRevocation | RevocationAcknowledgment,
    association: MobilitySecurityAssociation,
    number: int,
) -> None:
    by = FOREIGN_HOME if number == 34 else relay.ExtensionType.MOBILE_HOME_AUTHENTICATION
    octets = revocation.encode(message, association, by=by)
    decoded = revocation.decode(octets)
    assert decoded.message == message
    assert verify(octets, decoded, association, by=by)


@pytest.mark.rows("R-112")
@given(advertisements())
def test_advertisements(advertisement: AgentAdvertisement) -> None:
    octets = encode_advertisement(advertisement)
    assert len(octets) % 2 == 0
    assert decode_advertisement(octets) == advertisement


@given(octet, st.binary(max_size=100))
def test_tunnel_data(kind: int, payload: bytes) -> None:
    data = TunnelData(kind, payload)
    assert udp_tunnel.decode_tunnel_data(udp_tunnel.encode_tunnel_data(data)) == data


@given(addresses, addresses, words, words, st.booleans(), st.binary(max_size=64))
def test_echoes(
    source: object, destination: object, identifier: int, sequence: int, is_reply: bool, data: bytes
) -> None:
    sent = echo.Echo(source, destination, identifier, sequence, is_reply, data)  # type: ignore[arg-type]
    assert echo.decode_echo(echo.encode_echo(sent)) == sent
    assert sent.answer().answers(sent) is not is_reply
    assert not sent.answers(sent)


@pytest.mark.rows("R-119")
@given(words)
def test_an_agent_that_goes_on_counting_has_not_restarted(sequence: int) -> None:
    assert not has_restarted(sequence, next_sequence(sequence))


@pytest.mark.rows("R-103")
@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150)
@given(data=st.data())
def test_random_octets_raise_nothing_but_wire_errors(name: str, data: st.DataObject) -> None:
    parser: Callable[[bytes], object] = PARSERS[name].parse
    start = data.draw(st.sampled_from([b"", *PARSERS[name].beginnings]))
    octets = start + data.draw(st.binary(max_size=120))
    try:
        parser(octets)
    except WireError:
        return
