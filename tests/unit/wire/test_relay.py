# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands behind MN-HA: the order it is written in, who may believe which part of it, and what proves it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest

from homeward.model.errors import (
    BadExtension,
    LocalProtocolError,
    ProfileError,
    TrailingOctets,
    Truncated,
    WireError,
)
from homeward.model.nat_traversal import UdpTunnelReply, UdpTunnelRequest
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
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
from homeward.model.revocation import RevocationSupport
from homeward.model.secret import Secret
from homeward.wire import relay
from homeward.wire.authenticator import authenticate, verify
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.registration import decode, encode_reply, encode_request
from homeward.wire.relay import FOREIGN_HOME, MOBILE_FOREIGN
from tests.unit.wire.vectors import MD5, MN_FA, SHA256, V1, V2, V4, V5, V6

FA_HA = MobilitySecurityAssociation(
    Spi(0x102), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(bytes(range(32, 64)))
)
AAA_KEY = bytes(range(64, 80))
AAA = AaaAssociation(Spi(0x103), key=Secret(AAA_KEY))
CHAP = AaaAssociation(CHAP_SPI, key=Secret(AAA_KEY))
CHALLENGE = bytes.fromhex("c0ffee1122334455")
MN_HA_OF_V4 = V4.octets[:46]
TUNNEL = bytes.fromhex("9006000080000000")


def md5(octets: bytes) -> bytes:
    return hashlib.md5(octets).digest()  # noqa: S324 - RFC 4721 section 8


def read_request(octets: bytes) -> DecodedRequest:
    decoded = decode(octets)
    assert isinstance(decoded, DecodedRequest)
    return decoded


def read_reply(octets: bytes) -> DecodedReply:
    decoded = decode(octets)
    assert isinstance(decoded, DecodedReply)
    return decoded


def numbers(octets: bytes) -> list[int]:
    return [one.number for one in decode(octets).unauthenticated]


# --- mobile node to foreign agent -------------------------------------------------------------------------------------


@pytest.mark.rows("R-145", "R-218")
def test_v4_to_the_octet() -> None:
    assert isinstance(V4.message, RegistrationRequest)
    part = MobileToForeign(encapsulating_delivery=True)
    octets = relay.tell_foreign_agent(encode_request(V4.message, MD5), part, mobile_foreign=MN_FA)
    assert octets == V4.octets
    decoded = read_request(octets)
    assert relay.read_for_foreign_agent(decoded) == part
    assert verify(octets, decoded, MD5)
    assert verify(octets, decoded, MN_FA, by=MOBILE_FOREIGN)


@pytest.mark.rows("R-168", "R-149")
def test_mn_fa_covers_everything_before_it() -> None:
    for at in range(len(V4.octets)):
        changed = bytearray(V4.octets)
        changed[at] ^= 0x01
        try:
            decoded = decode(bytes(changed))
        except WireError:
            continue
        assert not verify(bytes(changed), decoded, MN_FA, by=MOBILE_FOREIGN), f"octet {at}"


@pytest.mark.rows("R-149")
def test_mn_fa_must_be_one_and_of_this_association() -> None:
    decoded = decode(V4.octets)
    assert not verify(V4.octets, decoded, MD5, by=MOBILE_FOREIGN)
    assert not verify(V4.octets, decoded, replace(MN_FA, key=Secret(bytes(16))), by=MOBILE_FOREIGN)
    assert not verify(V4.octets, decoded, MN_FA, by=FOREIGN_HOME)
    assert not verify(V4.octets, decoded, MN_FA)
    twice = authenticate(V4.octets, MN_FA, by=MOBILE_FOREIGN)
    assert not verify(twice, decode(twice), MN_FA, by=MOBILE_FOREIGN)
    none = V4.octets[:48]
    assert not verify(none, decode(none), MN_FA, by=MOBILE_FOREIGN)
    empty = none + bytes.fromhex("210400000101")
    assert not verify(empty, decode(empty), MN_FA, by=MOBILE_FOREIGN)
    short = none + bytes.fromhex("21020000")
    assert decode(short).authentication_by(MOBILE_FOREIGN) is None


@pytest.mark.rows("R-145", "R-275", "R-278")
def test_the_order_is_delivery_challenge_server_foreign_agent() -> None:
    part = MobileToForeign(encapsulating_delivery=True, challenge=CHALLENGE)
    octets = relay.tell_foreign_agent(MN_HA_OF_V4, part, aaa=AAA, mobile_foreign=MN_FA)
    assert numbers(octets) == [130, 132, 36, 33]
    decoded = read_request(octets)
    assert relay.read_for_foreign_agent(decoded) == part
    assert verify(octets, decoded, MN_FA, by=MOBILE_FOREIGN)
    assert relay.verify_for_server(octets, decoded, AAA)
    assert relay.server_spi(decoded) == 0x103


@pytest.mark.rows("R-278")
def test_the_server_authenticator_is_hmac_md5_over_all_before_and_its_header() -> None:
    octets = relay.tell_foreign_agent(MN_HA_OF_V4, MobileToForeign(challenge=CHALLENGE), aaa=AAA)
    covered = MN_HA_OF_V4 + b"\x84\x08" + CHALLENGE + bytes.fromhex("2401001400000103")
    assert octets == covered + hmac.digest(AAA_KEY, covered, "md5")


@pytest.mark.rows("R-277")
@pytest.mark.parametrize("size", [1, 8, 237, 238, 255])
def test_chap_uses_the_first_octet_and_the_last_237(size: int) -> None:
    challenge = bytes(1 + n % 255 for n in range(size))
    octets = relay.tell_foreign_agent(MN_HA_OF_V4, MobileToForeign(challenge=challenge), aaa=CHAP)
    covered = MN_HA_OF_V4 + bytes([0x84, size]) + challenge + bytes.fromhex("2401001400000002")
    inner = md5(covered)
    expected = md5(challenge[:1] + AAA_KEY + inner + challenge[-237:])
    assert octets == covered + expected
    assert relay.verify_for_server(octets, read_request(octets), CHAP)


@pytest.mark.rows("R-277")
def test_chap_without_a_challenge_takes_zero() -> None:
    octets = relay.tell_foreign_agent(V1.octets, MobileToForeign(), aaa=CHAP)
    covered = V1.octets + bytes.fromhex("2401001400000002")
    assert octets[-16:] == md5(b"\0" + AAA_KEY + md5(covered) + b"\0")
    assert relay.verify_for_server(octets, read_request(octets), CHAP)


def test_what_no_server_believes() -> None:
    octets = relay.tell_foreign_agent(MN_HA_OF_V4, MobileToForeign(challenge=CHALLENGE), aaa=AAA)
    genuine = read_request(octets)
    other = AaaAssociation(Spi(0x103), key=Secret(bytes(16)))
    assert not relay.verify_for_server(octets, genuine, other)
    assert not relay.verify_for_server(octets, genuine, CHAP)
    assert not relay.verify_for_server(octets + b"\0", genuine, AAA)
    for at in range(46, len(octets)):
        changed = bytearray(octets)
        changed[at] ^= 0x40
        try:
            decoded = read_request(bytes(changed))
        except WireError:
            continue
        assert not relay.verify_for_server(bytes(changed), decoded, AAA), f"octet {at}"
    twice = relay.authenticate_to_server(octets, AAA, challenge=CHALLENGE)
    assert not relay.verify_for_server(twice, read_request(twice), AAA)
    # Before MN-HA it is in the wrong place (RFC 4721 6).
    early = authenticate(relay.authenticate_to_server(V4.octets[:24], AAA, challenge=None), MD5)
    assert not relay.verify_for_server(early, read_request(early), AAA)
    assert relay.server_spi(read_request(V1.octets)) is None
    doubled = MN_HA_OF_V4 + (b"\x84\x08" + CHALLENGE) * 2
    doubled = relay.authenticate_to_server(doubled, AAA, challenge=CHALLENGE)
    assert not relay.verify_for_server(doubled, read_request(doubled), AAA)
    short = MN_HA_OF_V4 + bytes.fromhex("2401000500000103ff")
    assert not relay.verify_for_server(short, read_request(short), AAA)


@pytest.mark.rows("R-219")
def test_no_delivery_style_without_reverse_tunnelling() -> None:
    with pytest.raises(LocalProtocolError, match="reverse"):
        relay.tell_foreign_agent(V5.octets, MobileToForeign(encapsulating_delivery=True))


@pytest.mark.rows("R-275")
def test_no_challenge_without_an_authenticator() -> None:
    with pytest.raises(LocalProtocolError, match="challenge"):
        relay.tell_foreign_agent(MN_HA_OF_V4, MobileToForeign(challenge=CHALLENGE))


@pytest.mark.parametrize(
    ("error", "tail"),
    [
        (TrailingOctets, "820100"),
        (BadExtension, "82008200"),
        (BadExtension, "8400"),
        (BadExtension, "840161840161"),
    ],
)
def test_malformed_parts_for_the_foreign_agent(error: type[WireError], tail: str) -> None:
    decoded = read_request(MN_HA_OF_V4 + bytes.fromhex(tail))
    with pytest.raises(error):
        relay.read_for_foreign_agent(decoded)


def test_what_stands_before_mn_ha_or_behind_mn_fa_is_not_for_the_foreign_agent() -> None:
    early = authenticate(V4.octets[:24] + bytes.fromhex("840161"), MD5)
    assert relay.read_for_foreign_agent(read_request(early)) == MobileToForeign()
    late = V4.octets + bytes.fromhex("840161")
    assert relay.read_for_foreign_agent(read_request(late)) == MobileToForeign(encapsulating_delivery=True)


# --- foreign agent and home agent -------------------------------------------------------------------------------------


@pytest.mark.rows("R-208", "R-242")
def test_a_relayed_request_is_unchanged_through_mn_ha_and_stripped_behind_it() -> None:
    part = ForeignToHome(
        udp_tunnel=UdpTunnelRequest(force=True), revocation_support=RevocationSupport(7, inform=True)
    )
    octets = relay.tell_home_agent(
        relay.through_mobile_home(read_request(V4.octets)), part, foreign_home=FA_HA
    )
    assert octets.startswith(MN_HA_OF_V4)
    assert numbers(octets) == [144, 137, 34]
    decoded = read_request(octets)
    assert decoded.message == V4.message
    assert verify(octets, decoded, MD5)
    assert verify(octets, decoded, FA_HA, by=FOREIGN_HOME)
    assert relay.read_for_home_agent(decoded) == part
    changed = octets.replace(TUNNEL, TUNNEL[:4] + b"\x00" + TUNNEL[5:])
    assert changed != octets
    assert not verify(changed, decode(changed), FA_HA, by=FOREIGN_HOME)
    assert verify(changed, decode(changed), MD5)


@pytest.mark.rows("R-292")
def test_what_the_foreign_agent_asks_is_not_what_the_mobile_node_asks() -> None:
    octets = relay.tell_home_agent(
        relay.through_mobile_home(read_request(V4.octets)), ForeignToHome(udp_tunnel=UdpTunnelRequest())
    )
    decoded = read_request(octets)
    assert decoded.message.udp_tunnel is None
    assert relay.read_for_home_agent(decoded).udp_tunnel == UdpTunnelRequest()
    assert relay.read_for_home_agent(read_request(V1.octets)) == ForeignToHome()


@pytest.mark.rows("R-171")
def test_a_deregistration_gets_no_fa_ha() -> None:
    with pytest.raises(LocalProtocolError, match="deregistration"):
        relay.tell_home_agent(
            relay.through_mobile_home(read_request(V5.octets)), ForeignToHome(), foreign_home=FA_HA
        )
    assert (
        relay.tell_home_agent(relay.through_mobile_home(read_request(V5.octets)), ForeignToHome())
        == V5.octets
    )


@pytest.mark.rows("R-200")
def test_the_home_agents_answer_for_the_foreign_agent() -> None:
    assert isinstance(V2.message, RegistrationReply)
    part = HomeToForeign(udp_tunnel=UdpTunnelReply(keepalive=60), revocation_support=RevocationSupport(9))
    octets = relay.answer_foreign_agent(encode_reply(V2.message, MD5), part, foreign_home=FA_HA)
    assert octets.startswith(V2.octets)
    assert numbers(octets) == [44, 137, 34]
    decoded = read_reply(octets)
    assert decoded.message == V2.message
    assert relay.read_from_home_agent(decoded) == part
    assert verify(octets, decoded, FA_HA, by=FOREIGN_HOME)
    assert relay.through_mobile_home(decoded) == V2.octets


@pytest.mark.rows("R-160", "R-210")
def test_the_foreign_agents_verdict_goes_behind_an_unchanged_reply() -> None:
    part = ForeignToMobile(error=78, challenge=CHALLENGE, message="try again later")
    from_home = relay.answer_foreign_agent(V2.octets, HomeToForeign(), foreign_home=FA_HA)
    octets = relay.relay_reply(read_reply(from_home), part, mobile_foreign=MN_FA)
    assert octets.startswith(V2.octets)
    assert numbers(octets) == [45, 132, 145, 33]
    assert octets[len(V2.octets) :].startswith(bytes.fromhex("2d02004e"))
    decoded = read_reply(octets)
    assert decoded.message == V2.message
    assert relay.read_from_foreign_agent(decoded) == part
    assert verify(octets, decoded, MN_FA, by=MOBILE_FOREIGN)
    assert verify(octets, decoded, MD5)


@pytest.mark.rows("R-292")
def test_a_home_agents_text_from_behind_the_authenticator_is_nobodys() -> None:
    octets = V2.octets + bytes.fromhex("9105016f6f7073")
    decoded = read_reply(octets)
    assert decoded.message.message is None
    assert relay.read_from_foreign_agent(decoded) == ForeignToMobile()


def test_a_denial_has_no_mn_ha() -> None:
    assert isinstance(V6.message, RegistrationReply)
    part = ForeignToMobile(challenge=CHALLENGE)
    denial = replace(V6.message, code=106)
    octets = relay.deny_request(denial, part, mobile_foreign=MN_FA)
    decoded = read_reply(octets)
    assert decoded.authentication is None
    assert decoded.message == denial
    assert relay.read_from_foreign_agent(decoded) == part
    assert verify(octets, decoded, MN_FA, by=MOBILE_FOREIGN)
    assert not verify(octets, decoded, MN_FA)
    with pytest.raises(LocalProtocolError, match="code 133"):
        relay.deny_request(V6.message, part)


def test_without_one_mn_ha_nothing_is_relayed() -> None:
    assert isinstance(V6.message, RegistrationReply)
    denial = relay.deny_request(replace(V6.message, code=65), ForeignToMobile())
    with pytest.raises(BadExtension, match="0 mobile-home"):
        relay.relay_reply(read_reply(denial), ForeignToMobile())
    twice = authenticate(V1.octets, SHA256)
    with pytest.raises(BadExtension, match="2 mobile-home"):
        relay.tell_home_agent(relay.through_mobile_home(read_request(twice)), ForeignToHome())


@pytest.mark.parametrize(
    ("error", "tail"),
    [
        (Truncated, "2d0100"),
        (TrailingOctets, "2d03004e00"),
        (BadExtension, "2d02004e2d02004e"),
        (BadExtension, "8400"),
    ],
)
def test_malformed_parts_from_the_foreign_agent(error: type[WireError], tail: str) -> None:
    decoded = read_reply(V2.octets + bytes.fromhex(tail))
    with pytest.raises(error):
        relay.read_from_foreign_agent(decoded)


def test_what_stands_behind_mn_fa_is_not_the_foreign_agents() -> None:
    octets = relay.relay_reply(read_reply(V2.octets), ForeignToMobile(), mobile_foreign=MN_FA)
    octets += bytes.fromhex("2d02004e") + b"\x84\x08" + CHALLENGE
    assert relay.read_from_foreign_agent(read_reply(octets)) == ForeignToMobile()


def test_values_that_are_never_sent() -> None:
    for make in (
        lambda: MobileToForeign(challenge=b""),
        lambda: MobileToForeign(challenge=bytes(256)),
        lambda: ForeignToMobile(error=256),
        lambda: ForeignToMobile(message="two\nlines"),
        lambda: ForeignToMobile(challenge=b""),
    ):
        with pytest.raises(LocalProtocolError):
            make()


@pytest.mark.rows("R-106")
@pytest.mark.parametrize("spi", [0, 1, 3, 255, 1 << 32])
def test_reserved_indexes_but_chap_are_refused(spi: int) -> None:
    with pytest.raises(ProfileError, match="SPI"):
        AaaAssociation(Spi(spi), key=Secret(AAA_KEY))
    with pytest.raises(ProfileError, match="octets"):
        AaaAssociation(CHAP_SPI, key=Secret(AAA_KEY[1:]))
