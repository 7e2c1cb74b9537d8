# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import math
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agents.agent_events import Forward, StopForwarding
from homeward.agents.path_mtu import read_header, too_big
from homeward.agents.tunnel_records import Record, end_of, record_of, tunnel_of
from homeward.agents.tunnels import LINGER, Dropped, TellSender, TunnelPacket, TunnelTable
from homeward.model.encapsulation import Encapsulation
from homeward.wire.internet_checksum import put

AGENT = IPv4Address("10.0.0.2")
HOME = IPv4Address("10.77.0.10")
OTHER_HOME = IPv4Address("10.77.0.11")
CARE_OF = IPv4Address("10.1.1.50")
ELSEWHERE = IPv4Address("10.1.2.60")
PEER = IPv4Address("10.0.0.10")
ECHO_REQUEST, TIME_EXCEEDED = 8, 11


def packet(
    source: IPv4Address,
    destination: IPv4Address,
    body: bytes = b"\x08\0\0\0payload",
    *,
    protocol: int = 17,
    df: bool = False,
    tos: int = 0,
    ttl: int = 63,
    offset: int = 0,
    options: bytes = b"",
) -> bytes:
    words = 5 + len(options) // 4
    total = words * 4 + len(body)
    fragment = (0x4000 if df else 0) | offset
    return (
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | words,
            tos,
            total,
            7,
            fragment,
            ttl,
            protocol,
            0,
            source.packed,
            destination.packed,
        )
        + options
        + body
    )


def sent_by(made: TunnelTable, inner: bytes, boot: float = 0.0) -> TunnelPacket:
    """The one tunnel packet that comes of it."""
    outcome = made.outbound(inner, boot)
    assert isinstance(outcome, tuple), outcome
    (only,) = outcome
    return only


def tunnelled(outer_source: IPv4Address, inner: bytes, **changes: object) -> bytes:
    return packet(outer_source, AGENT, inner, protocol=4, **changes)  # type: ignore[arg-type]


def table() -> TunnelTable:
    made = TunnelTable(AGENT)
    made.apply(Forward(HOME, CARE_OF, reverse_tunnel=True))
    return made


@pytest.mark.rows("R-284")
@pytest.mark.parametrize("df", [True, False])
@pytest.mark.parametrize("tos", [0, 0xB8, 0x03])
def test_the_outer_header(df: bool, tos: int) -> None:
    inner = packet(PEER, HOME, df=df, tos=tos, ttl=1)
    sent = sent_by(table(), inner)
    assert sent.endpoint == CARE_OF
    first, outer_tos, _, _, fragment, ttl, protocol, _, source, destination = struct.unpack_from(
        "!BBHHHBBH4s4s", sent.octets
    )
    assert (first, outer_tos, ttl, protocol) == (0x45, tos, 64, 4)
    assert fragment == (0x4000 if df else 0)
    assert (source, destination) == (AGENT.packed, CARE_OF.packed)
    assert sent.octets[20:] == inner


@pytest.mark.rows("R-284")
def test_options_of_the_inner_header_are_not_copied() -> None:
    sent = sent_by(table(), packet(PEER, HOME, options=bytes(8)))
    assert len(sent.octets) == 20 + 28 + 11


@pytest.mark.rows("R-201", "R-286")
@pytest.mark.parametrize(
    ("inner", "dropped"),
    [
        (b"", Dropped.MALFORMED),
        (b"\x60" + bytes(60), Dropped.MALFORMED),
        (packet(PEER, HOME)[:-1], Dropped.MALFORMED),
        (packet(PEER, HOME)[:19], Dropped.MALFORMED),
        (b"\x44" + packet(PEER, HOME)[1:], Dropped.MALFORMED),
        (packet(PEER, OTHER_HOME), Dropped.NO_BINDING),
        (packet(CARE_OF, HOME), Dropped.LOOP),
        (packet(CARE_OF, HOME, packet(HOME, HOME), protocol=4), Dropped.LOOP),
        (packet(AGENT, HOME, packet(PEER, HOME), protocol=4), Dropped.LOOP),
        (
            packet(AGENT, HOME, b"\x01\xb2\x01\xb2\0\x1c\0\0\4\4\0\0" + packet(PEER, HOME), protocol=17),
            Dropped.LOOP,
        ),
    ],
)
def test_what_is_not_tunnelled(inner: bytes, dropped: Dropped) -> None:
    assert table().outbound(inner, 0.0) is dropped


@pytest.mark.rows("R-201")
@pytest.mark.parametrize(
    "inner",
    [
        packet(AGENT, HOME, protocol=1),
        packet(PEER, HOME, packet(PEER, OTHER_HOME), protocol=4),
        packet(ELSEWHERE, HOME, packet(ELSEWHERE, HOME), protocol=4),
    ],
)
def test_own_answers_and_foreign_tunnels_are_tunnelled(inner: bytes) -> None:
    assert isinstance(table().outbound(inner, 0.0), tuple)


@pytest.mark.rows("R-201")
def test_forwarding_follows_the_binding() -> None:
    made = table()
    made.apply(Forward(HOME, ELSEWHERE, reverse_tunnel=True))
    sent = sent_by(made, packet(PEER, HOME))
    assert sent.endpoint == ELSEWHERE
    made.apply(StopForwarding(HOME))
    made.apply(StopForwarding(HOME))
    assert made.outbound(packet(PEER, HOME), 0.0) is Dropped.NO_BINDING
    assert made.inbound(tunnelled(ELSEWHERE, packet(HOME, PEER))) is Dropped.SPOOFED


@pytest.mark.rows("R-202", "R-285")
def test_a_genuine_reverse_tunnelled_packet() -> None:
    inner = packet(HOME, PEER, ttl=9)
    assert table().inbound(tunnelled(CARE_OF, inner)) == inner
    assert table().inbound(tunnelled(CARE_OF, inner, options=bytes(8))) == inner


@pytest.mark.rows("R-202")
def test_packets_on_their_way_from_where_a_node_was_are_taken_for_two_seconds() -> None:
    made, inner = table(), packet(HOME, PEER)
    made.apply(Forward(HOME, ELSEWHERE, reverse_tunnel=True), 100.0)
    assert made.inbound(tunnelled(ELSEWHERE, inner), 100.1) == inner
    assert made.inbound(tunnelled(CARE_OF, inner), 100.0 + LINGER - 0.1) == inner
    assert made.inbound(tunnelled(CARE_OF, packet(OTHER_HOME, PEER)), 100.1) is Dropped.SPOOFED
    assert made.inbound(tunnelled(CARE_OF, inner), 100.0 + LINGER) is Dropped.SPOOFED


def closed(made: TunnelTable, change: Forward | StopForwarding, boot: float) -> list[IPv4Address]:
    """The far ends of the tunnels out of which nothing is taken any more."""
    return far_ends(made.apply(change, boot))


def lingers(made: TunnelTable) -> bool:
    return made.is_lingering


def far_ends(told: list[tuple[int, Record]]) -> list[IPv4Address]:
    return [tunnel_of(*each).endpoint for each in told]


@pytest.mark.rows("R-202")
def test_it_is_told_once_when_nothing_is_taken_out_of_a_tunnel_any_more() -> None:
    made = table()
    first, second = (Forward(HOME, each, reverse_tunnel=True) for each in (CARE_OF, ELSEWHERE))
    assert closed(made, replace(first, expires=9.0), 1.0) == []
    assert closed(made, second, 1.0) == []
    assert lingers(made)
    assert made.pop_closed(1.0 + LINGER - 0.1) == []
    assert far_ends(made.pop_closed(1.0 + LINGER)) == [CARE_OF]
    assert not lingers(made)
    assert made.pop_closed(1e9) == []
    # There and back again within the time: each tunnel is told of when it closes for good, or is the present one.
    assert closed(made, first, 20.0) == []
    assert closed(made, second, 20.5) == [ELSEWHERE]
    assert far_ends(made.pop_closed(22.5)) == [CARE_OF]
    assert closed(made, first, 30.0) == []
    assert closed(made, StopForwarding(HOME), 30.1) == [ELSEWHERE, CARE_OF]
    assert not lingers(made)
    assert made.pop_closed(1e9) == []


def ending_at(made: TunnelTable, endpoint: IPv4Address) -> set[IPv4Address]:
    return {IPv4Address(home) for home, _ in made.ending_at(int(endpoint))}


def test_all_tunnels_with_one_end_are_found_and_forgotten() -> None:
    made = table()
    assert ending_at(made, CARE_OF) == {HOME}
    third = IPv4Address("10.77.0.12")
    for home in (OTHER_HOME, third, OTHER_HOME):
        made.apply(Forward(home, CARE_OF, reverse_tunnel=True))
    assert ending_at(made, CARE_OF) == {HOME, OTHER_HOME, third}
    for home in (HOME, third):
        made.apply(Forward(home, ELSEWHERE, reverse_tunnel=True))
    assert ending_at(made, CARE_OF) == {OTHER_HOME}
    made.apply(StopForwarding(OTHER_HOME))
    assert ending_at(made, CARE_OF) == set()
    assert len(made) == len(ending_at(made, ELSEWHERE)) == 2


@pytest.mark.rows("R-288")
def test_ends_with_another_room_are_told_once() -> None:
    made, big = table(), packet(PEER, HOME, bytes(1440), df=True)
    _report(big, 1400, made)
    assert made.pop_changed() == {int(CARE_OF)}
    _report(big, 1400, made, boot=10.0)
    assert made.pop_changed() == set()
    ((_, tunnel),) = made.ending_at(int(CARE_OF))
    assert made.room(tunnel, 609.0) == 1380
    assert made.room(tunnel, 610.0) == 1480


def test_paths_and_segment_size_can_be_configured_anew() -> None:
    made = table()
    ((_, tunnel),) = made.items()
    made.configure(path_mtus=[(IPv4Network("10.1.1.0/24"), 1300)], segment_mtu=0)
    assert made.room(tunnel, 0.0) == 1280
    made.configure(
        path_mtus=[(IPv4Network("10.9.0.0/16"), 1300), (IPv4Network("0.0.0.0/0"), 400)], segment_mtu=0
    )
    assert made.room(tunnel, 0.0) == 556


@pytest.mark.rows("R-202")
def test_a_binding_that_ended_is_followed_by_nothing() -> None:
    made, inner = table(), packet(HOME, PEER)
    made.apply(Forward(HOME, ELSEWHERE, reverse_tunnel=True), 100.0)
    made.apply(StopForwarding(HOME), 100.1)
    assert made.inbound(tunnelled(CARE_OF, inner), 100.2) is Dropped.SPOOFED
    assert made.inbound(tunnelled(ELSEWHERE, inner), 100.2) is Dropped.SPOOFED


def test_padding_behind_a_packet_is_refused() -> None:
    inner = packet(HOME, PEER)
    assert table().inbound(tunnelled(CARE_OF, inner) + b"padding") is Dropped.MALFORMED
    assert table().inbound(tunnelled(CARE_OF, inner + b"padding")) is Dropped.MALFORMED


def test_congestion_on_the_way_is_passed_on() -> None:
    inner = packet(HOME, PEER, tos=2)
    taken = table().inbound(tunnelled(CARE_OF, inner, tos=3))
    assert isinstance(taken, bytes)
    assert taken[1] == 3


@pytest.mark.rows("R-202")
@pytest.mark.parametrize(
    ("outer_source", "inner_source", "dropped"),
    [
        (ELSEWHERE, HOME, Dropped.SPOOFED),
        (HOME, HOME, Dropped.SPOOFED),
        (AGENT, HOME, Dropped.SPOOFED),
        (CARE_OF, OTHER_HOME, Dropped.SPOOFED),
        (CARE_OF, CARE_OF, Dropped.SPOOFED),
        (CARE_OF, PEER, Dropped.SPOOFED),
        (CARE_OF, IPv4Address("0.0.0.0"), Dropped.SPOOFED),
    ],
)
def test_spoofed_reverse_tunnels(
    outer_source: IPv4Address, inner_source: IPv4Address, dropped: Dropped
) -> None:
    assert table().inbound(tunnelled(outer_source, packet(inner_source, PEER))) is dropped


@pytest.mark.rows("R-202")
def test_one_node_cannot_speak_for_another_bound_one() -> None:
    made = table()
    made.apply(Forward(OTHER_HOME, ELSEWHERE, reverse_tunnel=True))
    assert made.inbound(tunnelled(ELSEWHERE, packet(HOME, PEER))) is Dropped.SPOOFED
    assert made.inbound(tunnelled(CARE_OF, packet(OTHER_HOME, PEER))) is Dropped.SPOOFED


@pytest.mark.rows("R-202")
def test_no_reverse_tunnel_without_having_asked_for_one() -> None:
    made = table()
    made.apply(Forward(HOME, CARE_OF, reverse_tunnel=False))
    assert made.inbound(tunnelled(CARE_OF, packet(HOME, PEER))) is Dropped.NO_REVERSE_TUNNEL


def test_every_truncation_of_a_reverse_tunnelled_packet() -> None:
    genuine = tunnelled(CARE_OF, packet(HOME, PEER))
    for size in range(len(genuine)):
        assert table().inbound(genuine[:size]) is Dropped.MALFORMED


def test_an_inner_packet_longer_than_its_tunnel_packet() -> None:
    inner = bytearray(packet(HOME, PEER))
    inner[2:4] = (len(inner) + 1).to_bytes(2, "big")
    assert table().inbound(tunnelled(CARE_OF, bytes(inner))) is Dropped.MALFORMED


# --- path MTU ---


def error(quoted: bytes, kind: int = 3, code: int = 4, mtu: int = 0) -> bytes:
    """An ICMP message as a router sends it."""
    return put(struct.pack("!BBHHH", kind, code, 0, 0, mtu) + quoted, 2)


def _report(
    inner: bytes, mtu: int, made: TunnelTable, *, boot: float = 0.0, quoted: int = 500
) -> TellSender | None:
    outer = packet(AGENT, CARE_OF, inner, protocol=4, df=True)
    return made.error_reported(error(outer[:quoted], mtu=mtu), boot)


def _checks(icmp: bytes) -> bool:
    words = icmp + b"\0" * (len(icmp) % 2)
    total: int = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


@pytest.mark.rows("R-287")
def test_a_report_is_relayed_with_the_tunnels_overhead_taken_off() -> None:
    inner = packet(PEER, HOME, bytes(1440), df=True)
    relayed = _report(inner, 1400, table())
    assert isinstance(relayed, TellSender)
    assert relayed.sender == PEER
    assert relayed.icmp is not None
    kind, code, _, unused, mtu = struct.unpack_from("!BBHHH", relayed.icmp)
    assert (kind, code, unused, mtu) == (3, 4, 0, 1380)
    assert relayed.icmp[8:] == inner[:480]
    assert _checks(relayed.icmp)


@pytest.mark.rows("R-287", "R-288")
def test_a_short_quote_is_remembered_for_the_next_packet() -> None:
    made = table()
    inner = packet(PEER, HOME, bytes(1440), df=True)
    assert _report(inner, 1400, made, quoted=28) is None
    answer = made.outbound(inner, 1.0)
    assert isinstance(answer, TellSender)
    assert answer.icmp is not None
    assert struct.unpack_from("!H", answer.icmp, 6) == (1380,)
    assert len(answer.icmp) == 8 + 548
    assert isinstance(made.outbound(packet(PEER, HOME, bytes(1360), df=True), 1.0), tuple)
    # What may be cut is cut before the tunnel, so that no tunnel packet is.
    parts = made.outbound(packet(PEER, HOME, bytes(1440)), 1.0)
    assert isinstance(parts, tuple)
    assert [len(part.octets) for part in parts] == [1400, 120]


@pytest.mark.rows("R-288")
def test_a_report_is_forgotten_with_time_and_with_the_path() -> None:
    big = packet(PEER, HOME, bytes(1440), df=True)
    made = table()
    _report(big, 1400, made)
    assert isinstance(made.outbound(big, 599.0), TellSender)
    assert isinstance(made.outbound(big, 600.0), tuple)
    _report(big, 1400, made)
    made.apply(Forward(HOME, ELSEWHERE, reverse_tunnel=True))
    made.apply(Forward(HOME, CARE_OF, reverse_tunnel=True))
    assert isinstance(made.outbound(big, 1.0), tuple)


def test_a_shared_care_of_address_keeps_its_path() -> None:
    made = table()
    made.apply(Forward(OTHER_HOME, CARE_OF, reverse_tunnel=True))
    big = packet(PEER, HOME, bytes(1440), df=True)
    _report(big, 1400, made)
    made.apply(StopForwarding(OTHER_HOME))
    assert isinstance(made.outbound(big, 1.0), TellSender)


@pytest.mark.parametrize("mtu", [0, 68, 575])
def test_absurdly_small_reports_are_not_believed(mtu: int) -> None:
    made = table()
    relayed = _report(packet(PEER, HOME, bytes(1440), df=True), mtu, made)
    assert relayed is not None
    assert relayed.icmp is not None
    assert struct.unpack_from("!H", relayed.icmp, 6) == (556,)
    assert isinstance(made.outbound(packet(PEER, HOME, bytes(536), df=True), 1.0), tuple)


@pytest.mark.rows("R-288")
@pytest.mark.parametrize(
    "quoted",
    [
        b"",
        packet(AGENT, CARE_OF, packet(PEER, HOME))[:19],
        packet(AGENT, CARE_OF, packet(PEER, HOME), protocol=17),
        packet(PEER, CARE_OF, packet(PEER, HOME), protocol=4),
        packet(AGENT, ELSEWHERE, packet(PEER, HOME), protocol=4),
    ],
)
def test_reports_about_other_packets_are_ignored(quoted: bytes) -> None:
    made = table()
    assert made.error_reported(error(quoted, mtu=1000), 0.0) is None
    assert isinstance(made.outbound(packet(PEER, HOME, bytes(1440), df=True), 1.0), tuple)


def test_a_quote_for_another_home_address_is_not_relayed() -> None:
    assert _report(packet(PEER, OTHER_HOME, bytes(1440), df=True), 1400, table()) is None


@pytest.mark.parametrize(
    ("about", "sent"),
    [
        (packet(PEER, HOME, protocol=17), True),
        (packet(PEER, HOME, bytes([ECHO_REQUEST]) + bytes(7), protocol=1), True),
        (packet(PEER, HOME, bytes([TIME_EXCEEDED]) + bytes(7), protocol=1), False),
        (packet(PEER, HOME, b"", protocol=1), False),
        (packet(PEER, HOME, offset=100), False),
        (packet(IPv4Address("224.0.0.1"), HOME), False),
        (packet(IPv4Address("255.255.255.255"), HOME), False),
        (packet(IPv4Address("0.0.0.0"), HOME), False),
        (packet(IPv4Address("127.0.0.1"), HOME), False),
        (b"\x45\0", False),
    ],
)
def test_whom_no_error_is_sent_to(about: bytes, sent: bool) -> None:
    assert (too_big(about, 1380) is not None) is sent


def test_an_odd_quote_has_a_right_checksum() -> None:
    icmp = too_big(packet(PEER, HOME, b"odd"), 1380)
    assert icmp is not None
    assert len(icmp) % 2 == 1
    assert _checks(icmp)


def test_a_header_is_read_from_a_quote() -> None:
    header = read_header(packet(PEER, HOME, bytes(80), df=True, offset=5, protocol=6)[:28])
    assert header is not None
    assert (header.octets, header.total) == (20, 100)
    assert (header.do_not_fragment, header.fragment_offset, header.protocol) == (True, 5, 6)
    assert (header.source, header.destination) == (PEER.packed, HOME.packed)


def test_what_the_agent_itself_says_on_port_434_is_no_tunnel_packet() -> None:
    reply = b"\x01\xb2\x01\xb2\0\x0c\0\0\3\0\0\0"
    assert sent_by(table(), packet(AGENT, HOME, reply, protocol=17)).octets.endswith(reply)


@pytest.mark.parametrize("encapsulation", list(Encapsulation))
@pytest.mark.parametrize("reverse_tunnel", [True, False])
@pytest.mark.parametrize(("udp", "port"), [(False, None), (True, None), (True, 1), (True, 65535)])
@pytest.mark.parametrize("expires", [None, 12345.678])
def test_a_record_says_all_of_a_tunnel(
    encapsulation: Encapsulation, reverse_tunnel: bool, udp: bool, port: int | None, expires: float | None
) -> None:
    tunnel = Forward(
        HOME,
        CARE_OF,
        encapsulation=encapsulation,
        reverse_tunnel=reverse_tunnel,
        udp=udp,
        port=port,
        expires=expires,
    )
    record = record_of(tunnel)
    assert len(record) == 15
    assert tunnel_of(int(HOME), record) == tunnel
    assert end_of(record) == (math.inf if expires is None else expires)
