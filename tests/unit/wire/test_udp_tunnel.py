# SPDX-License-Identifier: GPL-2.0-or-later
"""RFC 3519: the extensions 144 and 44, the tunnel's data, and the keepalive of vector V8 inside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from homeward.model.errors import (
    BadChecksum,
    BadExtension,
    LocalProtocolError,
    TrailingOctets,
    Truncated,
    UnknownMessage,
    WireError,
)
from homeward.model.nat_traversal import TunnelData, TunnelKind, UdpTunnelReply, UdpTunnelRequest
from homeward.model.registration import RegistrationReply, RegistrationRequest
from homeward.wire import echo, udp_tunnel
from homeward.wire.authenticator import authenticate
from homeward.wire.echo import Echo
from homeward.wire.internet_checksum import put
from homeward.wire.registration import decode, encode_request
from tests.unit.wire.vectors import HOME_ADDRESS, HOME_AGENT, MD5, V1, V1_BODY, V2, V4, V8_TUNNEL_DATA

REPLY = V2.octets[:20]
KEEPALIVE = V8_TUNNEL_DATA[4:]
V8_ECHO = Echo(HOME_ADDRESS, HOME_AGENT, 0x1234, 1)


def request_in(extension: str) -> UdpTunnelRequest | None:
    decoded = decode(authenticate(V1_BODY + bytes.fromhex(extension), MD5)).message
    assert isinstance(decoded, RegistrationRequest)
    return decoded.udp_tunnel


def reply_in(extension: str) -> UdpTunnelReply | None:
    decoded = decode(authenticate(REPLY + bytes.fromhex(extension), MD5)).message
    assert isinstance(decoded, RegistrationReply)
    return decoded.udp_tunnel


@pytest.mark.rows("R-222", "R-232", "R-234", "R-235")
@pytest.mark.parametrize(
    ("extension", "value"),
    [
        ("9006000000000000", UdpTunnelRequest()),
        ("9006000080000000", UdpTunnelRequest(force=True)),
        ("9006000040000000", UdpTunnelRequest(through_foreign_agent=True)),
        ("90060000c0040000", UdpTunnelRequest(force=True, through_foreign_agent=True, kind=4)),
        ("90060000002f0000", UdpTunnelRequest(kind=TunnelKind.GRE)),
        ("9006000000370000", UdpTunnelRequest(kind=TunnelKind.MINIMAL)),
        ("9006000000630000", UdpTunnelRequest(kind=99)),
    ],
)
def test_request(extension: str, value: UdpTunnelRequest) -> None:
    assert udp_tunnel.encode_request(value).hex() == extension
    assert request_in(extension) == value


@pytest.mark.rows("R-228", "R-236")
@pytest.mark.parametrize(
    ("extension", "value", "will_tunnel"),
    [
        ("2c0600000000006e", UdpTunnelReply(0, keepalive=110), True),
        ("2c06000080000000", UdpTunnelReply(0, forced=True), True),
        ("2c06003f0000ffff", UdpTunnelReply(63, keepalive=0xFFFF), True),
        ("2c06004000000000", UdpTunnelReply(64), False),
        ("2c0600ff00000000", UdpTunnelReply(255), False),
    ],
)
def test_reply(extension: str, value: UdpTunnelReply, will_tunnel: bool) -> None:
    assert udp_tunnel.encode_reply(value).hex() == extension
    assert reply_in(extension) == value
    assert value.will_tunnel is will_tunnel


def test_nothing_is_nothing() -> None:
    assert udp_tunnel.encode_request(None) == udp_tunnel.encode_reply(None) == b""
    assert request_in("") is None
    assert reply_in("") is None


@pytest.mark.parametrize("extension", ["900600ff3f000000", "9006000100000000"])
def test_reserved_1_and_2_are_ignored(extension: str) -> None:
    assert request_in(extension) == UdpTunnelRequest()


@pytest.mark.rows("R-241")
@pytest.mark.parametrize("extension", ["9006000080000001", "9006000080008000"])
def test_reserved_3_makes_the_extension_unknown_and_skipped(extension: str) -> None:
    assert request_in(extension) is None


def test_the_replys_reserved_bits_are_ignored() -> None:
    assert reply_in("2c0600007fff000a") == UdpTunnelReply(0, keepalive=10)


@pytest.mark.rows("R-103")
@pytest.mark.parametrize(
    ("error", "extension"),
    [
        (Truncated, "90050000000000"),
        (TrailingOctets, "900700000000000000"),
        (Truncated, "9000"),
        (BadExtension, "9006000000000000" * 2),
    ],
)
def test_malformed_requests(error: type[WireError], extension: str) -> None:
    with pytest.raises(error):
        request_in(extension)


@pytest.mark.rows("R-103")
@pytest.mark.parametrize(
    ("error", "extension"),
    [
        (Truncated, "2c050000000000"),
        (TrailingOctets, "2c0700000000000000"),
        (BadExtension, "2c0600000000006e" * 2),
    ],
)
def test_malformed_replies(error: type[WireError], extension: str) -> None:
    with pytest.raises(error):
        reply_in(extension)


def test_another_sub_type_of_144_is_some_other_extension() -> None:
    assert request_in("9006010080000000") is None
    assert request_in("900601008000000090060000" + "80000000") == UdpTunnelRequest(force=True)


@pytest.mark.rows("R-223", "R-224", "R-279")
def test_a_foreign_agents_care_of_address_never_asks_for_a_tunnel() -> None:
    assert isinstance(V4.message, RegistrationRequest)
    with pytest.raises(LocalProtocolError, match="co-located"):
        encode_request(replace(V4.message, udp_tunnel=UdpTunnelRequest()), MD5)


@pytest.mark.rows("R-292")
def test_a_tunnel_behind_the_authenticator_was_granted_by_nobody() -> None:
    decoded = decode(authenticate(REPLY, MD5) + bytes.fromhex("2c0600000000006e")).message
    assert isinstance(decoded, RegistrationReply)
    assert decoded.udp_tunnel is None
    asked = decode(V1.octets + bytes.fromhex("9006000080000000")).message
    assert isinstance(asked, RegistrationRequest)
    assert asked.udp_tunnel is None


# --- tunnel data -----------------------------------------------------------------------------------------------------


@pytest.mark.rows("R-236")
def test_v8_is_a_keepalive_to_the_octet() -> None:
    assert udp_tunnel.wrap(echo.encode_echo(V8_ECHO, packet_identification=1)) == V8_TUNNEL_DATA
    assert udp_tunnel.decode_tunnel_data(V8_TUNNEL_DATA) == TunnelData(4, KEEPALIVE)
    assert echo.decode_echo(udp_tunnel.unwrap(V8_TUNNEL_DATA, TunnelKind.IP_IN_IP)) == V8_ECHO


@pytest.mark.rows("R-237")
def test_the_answer_goes_back_the_same_way() -> None:
    answer = V8_ECHO.answer()
    assert (answer.source, answer.destination, answer.is_reply) == (HOME_AGENT, HOME_ADDRESS, True)
    assert echo.decode_echo(echo.encode_echo(answer)) == answer
    assert answer.answers(V8_ECHO)
    assert not replace(answer, sequence=2).answers(V8_ECHO)
    assert not V8_ECHO.answers(V8_ECHO)


@pytest.mark.parametrize(
    ("error", "at", "value"),
    [
        (UnknownMessage, 9, 17),
        (UnknownMessage, 20, 3),
        (UnknownMessage, 21, 1),
        (BadChecksum, 27, 9),
        (Truncated, 6, 0x20),
    ],
)
def test_what_is_no_echo(error: type[WireError], at: int, value: int) -> None:
    packet = KEEPALIVE[:at] + bytes([value]) + KEEPALIVE[at + 1 :]
    with pytest.raises(error):
        echo.decode_echo(packet)


def test_an_echo_with_the_checksum_of_another_type_is_still_no_echo() -> None:
    packet = KEEPALIVE[:20] + put(b"\x0d\x00\0\0" + KEEPALIVE[24:], 2)
    with pytest.raises(UnknownMessage, match="type 13"):
        echo.decode_echo(packet)


@pytest.mark.rows("R-231")
@pytest.mark.parametrize("kind", [TunnelKind.IP_IN_IP, TunnelKind.GRE])
def test_only_the_kind_agreed_on_is_opened(kind: TunnelKind) -> None:
    other = TunnelKind.GRE if kind is TunnelKind.IP_IN_IP else TunnelKind.IP_IN_IP
    payload = udp_tunnel.wrap(KEEPALIVE, kind)
    assert payload[1] == kind
    assert udp_tunnel.unwrap(payload, kind) == KEEPALIVE
    with pytest.raises(UnknownMessage, match="agreed on"):
        udp_tunnel.unwrap(payload, other)


def test_gre_in_udp_has_its_header_between() -> None:
    assert udp_tunnel.wrap(KEEPALIVE, TunnelKind.GRE) == bytes.fromhex("042f0000" + "00000800") + KEEPALIVE


@pytest.mark.parametrize("kind", [TunnelKind.MINIMAL, TunnelKind.AS_FLAGGED])
def test_kinds_that_udp_does_not_carry(kind: TunnelKind) -> None:
    with pytest.raises(UnknownMessage, match="not carried in UDP"):
        udp_tunnel.wrap(KEEPALIVE, kind)
    with pytest.raises(UnknownMessage, match="not carried in UDP"):
        udp_tunnel.unwrap(bytes([4, kind, 0, 0]) + KEEPALIVE, kind)


def test_the_reserved_field_is_ignored() -> None:
    assert udp_tunnel.unwrap(b"\x04\x04\xff\xff" + KEEPALIVE, TunnelKind.IP_IN_IP) == KEEPALIVE


@pytest.mark.parametrize(
    ("error", "octets"),
    [
        (Truncated, b""),
        (Truncated, b"\x04"),
        (Truncated, b"\x04\x04\x00"),
        (Truncated, b"\x04\x04\x00\x00"),
        (UnknownMessage, b"\x01\x04\x00\x00"),
        (Truncated, V8_TUNNEL_DATA[:-1]),
        (TrailingOctets, V8_TUNNEL_DATA + b"\0"),
        (UnknownMessage, b"\x04\x04\x00\x00\x60" + bytes(39)),
    ],
)
def test_refused(error: type[WireError], octets: bytes) -> None:
    with pytest.raises(WireError) as caught:
        udp_tunnel.unwrap(octets, TunnelKind.IP_IN_IP)
    assert caught.type is error


def test_the_mark_of_the_outer_header_is_carried_on() -> None:
    aware = put(KEEPALIVE[:1] + b"\x02" + KEEPALIVE[2:20], 10) + KEEPALIVE[20:]
    marked = udp_tunnel.unwrap(udp_tunnel.wrap(aware), TunnelKind.IP_IN_IP, outer_tos=0x03)
    assert marked[1] == 0x03
    with pytest.raises(WireError, match="congestion"):
        udp_tunnel.unwrap(V8_TUNNEL_DATA, TunnelKind.IP_IN_IP, outer_tos=0x03)


def test_values_that_do_not_fit() -> None:
    for make in (
        lambda: UdpTunnelRequest(kind=256),
        lambda: UdpTunnelReply(256),
        lambda: UdpTunnelReply(keepalive=65536),
        lambda: TunnelData(256, b""),
        lambda: Echo(HOME_ADDRESS, HOME_AGENT, 65536, 0),
    ):
        with pytest.raises(LocalProtocolError):
            make()


def test_overhead_is_ipv4_udp_and_the_header() -> None:
    added = 20 + 8 + len(udp_tunnel.wrap(KEEPALIVE)) - len(KEEPALIVE)
    assert added == udp_tunnel.OVERHEAD
