# SPDX-License-Identifier: GPL-2.0-or-later
"""GRE, minimal encapsulation and tunnels in UDP at the home agent, and what errors from within mean to senders."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import IP, TCP, UDP, defragment

from homeward.agents.agent_events import Forward, StopForwarding
from homeward.agents.tunnel_errors import PATIENCE
from homeward.agents.tunnels import LINGER, Dropped, TellSender, TunnelPacket, TunnelTable
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import TunnelKind
from homeward.wire import gre, ip_in_ip, minimal_encapsulation, udp_tunnel
from homeward.wire.echo import Echo, decode_echo, encode_echo
from homeward.wire.ip_fragments import fragment
from tests.unit.agents.test_tunnels import AGENT, CARE_OF, ELSEWHERE, HOME, OTHER_HOME, PEER, error, packet

GRE, MINIMAL, IP_IN_IP = Encapsulation.GRE, Encapsulation.MINIMAL, Encapsulation.IP_IN_IP
NAT = IPv4Address("10.1.9.9")
PORT = 6000
OVERHEADS = {IP_IN_IP: 20, GRE: 24, MINIMAL: 12}
OPENERS = {
    IP_IN_IP: ip_in_ip.decapsulate,
    GRE: gre.decapsulate,
    MINIMAL: minimal_encapsulation.decapsulate,
}
ENCLOSERS = {
    IP_IN_IP: ip_in_ip.encapsulate,
    GRE: gre.encapsulate,
    MINIMAL: minimal_encapsulation.encapsulate,
}


def table(encapsulation: Encapsulation = IP_IN_IP, **options: object) -> TunnelTable:
    made = TunnelTable(AGENT, **options)  # type: ignore[arg-type]
    made.apply(Forward(HOME, CARE_OF, encapsulation=encapsulation, reverse_tunnel=True))
    return made


def in_udp(
    encapsulation: Encapsulation = IP_IN_IP, *, port: int | None = PORT, reverse_tunnel: bool = True
) -> TunnelTable:
    made = TunnelTable(AGENT)
    made.apply(
        Forward(HOME, NAT, encapsulation=encapsulation, reverse_tunnel=reverse_tunnel, udp=True, port=port)
    )
    return made


def sent_by(made: TunnelTable, inner: bytes, boot: float = 0.0) -> tuple[bytes, ...]:
    outcome = made.outbound(inner, boot)
    assert isinstance(outcome, tuple), outcome
    assert {each.endpoint for each in outcome} <= {CARE_OF, NAT}
    return tuple(each.octets for each in outcome)


# --- which kind ---


@pytest.mark.rows("R-284", "R-290", "R-291")
@pytest.mark.parametrize("encapsulation", list(Encapsulation))
def test_each_kind_both_ways(encapsulation: Encapsulation) -> None:
    made = table(encapsulation)
    inner = bytes(IP(packet(PEER, HOME)))
    (outer,) = sent_by(made, inner)
    assert outer[9] == encapsulation.protocol
    assert OPENERS[encapsulation](outer).inner[20:] == inner[20:]
    back = packet(HOME, PEER)
    taken = made.inbound(ENCLOSERS[encapsulation](back, CARE_OF, AGENT))
    assert isinstance(taken, bytes)
    assert (taken[12:20], taken[20:]) == (back[12:20], back[20:])


@pytest.mark.rows("R-202")
@pytest.mark.parametrize("agreed", list(Encapsulation))
@pytest.mark.parametrize("came", list(Encapsulation))
def test_only_what_was_agreed_on_is_taken(agreed: Encapsulation, came: Encapsulation) -> None:
    outer = ENCLOSERS[came](packet(HOME, PEER), CARE_OF, AGENT)
    taken = table(agreed).inbound(outer)
    assert isinstance(taken, bytes) is (agreed is came)
    if agreed is not came:
        assert taken is Dropped.NOT_AGREED
    forged = ENCLOSERS[came](packet(HOME, PEER), ELSEWHERE, AGENT)
    assert table(agreed).inbound(forged) is Dropped.SPOOFED


@pytest.mark.rows("R-290")
def test_fragments_never_take_minimal_encapsulation() -> None:
    parts = fragment(packet(PEER, HOME, bytes(2900)), 1480)
    for part in parts:
        (outer,) = sent_by(table(MINIMAL), part)
        assert outer[9] == IP_IN_IP.protocol
    # And what comes back in parts comes as IP-in-IP, which is nobody's mistake.
    back = fragment(packet(HOME, PEER, bytes(2900)), 1480)
    for part in back:
        assert table(MINIMAL).inbound(ip_in_ip.encapsulate(part, CARE_OF, AGENT)) == part
    assert table(GRE).inbound(ip_in_ip.encapsulate(back[0], CARE_OF, AGENT)) is Dropped.NOT_AGREED


@pytest.mark.rows("R-291")
@pytest.mark.parametrize("flags", [0x4000, 0x2000, 0x1000, 0x0800, 0x0400, 0x0001, 0x8000])
def test_gre_with_other_fields_is_dropped(flags: int) -> None:
    inner = packet(HOME, PEER)
    outer = packet(CARE_OF, AGENT, struct.pack("!HH", flags, 0x0800) + inner, protocol=47)
    assert table(GRE).inbound(outer) is Dropped.MALFORMED
    summed = gre.encapsulate(inner, CARE_OF, AGENT, with_checksum=True)
    assert table(GRE).inbound(summed) == inner


@pytest.mark.rows("R-286")
@pytest.mark.parametrize("encapsulation", list(Encapsulation))
def test_our_own_tunnel_packets_do_not_come_round_again(encapsulation: Encapsulation) -> None:
    own = packet(AGENT, HOME, packet(PEER, HOME), protocol=encapsulation.protocol)
    assert table().outbound(own, 0.0) is Dropped.LOOP


# --- lengths ---


@pytest.mark.rows("R-239", "R-289")
@pytest.mark.parametrize(
    ("made", "room"),
    [
        (table(IP_IN_IP), 1480),
        (table(GRE), 1476),
        (table(MINIMAL), 1488),
        (in_udp(), 1468),
        (in_udp(GRE), 1464),
        (table(link_mtu=1280), 1260),
        (table(path_mtus=[(IPv4Network("10.1.0.0/16"), 1426)]), 1406),
        (table(path_mtus=[(IPv4Network("10.9.0.0/16"), 1426)]), 1480),
    ],
)
def test_what_fits_and_what_is_cut_before_the_tunnel(made: TunnelTable, room: int) -> None:
    fits = packet(PEER, HOME, bytes(room - 20), df=True)
    (outer,) = sent_by(made, fits)
    assert len(outer) <= 1500
    too_long = packet(PEER, HOME, bytes(room - 19), df=True)
    told = made.outbound(too_long, 0.0)
    assert isinstance(told, TellSender)
    assert told.icmp is not None
    assert struct.unpack_from("!BBHHH", told.icmp)[4] == room
    parts = sent_by(made, packet(PEER, HOME, bytes(3000)))
    assert len(parts) == 3
    assert all(len(part) <= 1500 for part in parts)
    assert all(not IP(part).frag and not IP(part).flags.MF for part in parts)


@pytest.mark.rows("R-239")
def test_a_tunnel_in_udp_has_no_fragments_outside() -> None:
    made = in_udp()
    inner = bytes(IP(packet(PEER, HOME, bytes(2900))))
    parts = [IP(part) for part in sent_by(made, inner)]
    assert {(part.proto, part.frag, part[UDP].dport) for part in parts} == {(17, 0, PORT)}
    unwrapped = [IP(udp_tunnel.unwrap(bytes(part[UDP].payload), TunnelKind.IP_IN_IP)) for part in parts]
    (whole,) = defragment(unwrapped)
    assert bytes(whole.payload) == inner[20:]


@pytest.mark.rows("R-288", "R-289")
def test_a_reported_path_mtu_counts_for_what_the_tunnel_is_made_of() -> None:
    made = in_udp()
    inner = packet(PEER, HOME, bytes(1400), df=True)
    (outer,) = sent_by(made, inner)
    told = made.error_reported(error(outer[:300], mtu=1406), 0.0)
    assert isinstance(told, TellSender)
    assert told.icmp is not None
    assert told.sender == PEER
    assert struct.unpack_from("!H", told.icmp, 6) == (1374,)
    assert told.icmp[8:36] == inner[:28]


@pytest.mark.rows("R-289")
def test_a_connection_that_began_in_a_wider_network_goes_on() -> None:
    # Its segments were agreed to have 1440 octets, in c. In mc the path carries 1426 (less the tunnel's own 20).
    made = table()
    segment = bytes(IP(src=str(PEER), dst=str(HOME), flags="DF") / TCP(flags="A") / bytes(1440))
    assert len(sent_by(made, segment)) == 1
    inner_address = IPv4Address("10.9.0.5")
    narrow = TunnelTable(AGENT, path_mtus=[(IPv4Network("10.9.0.0/24"), 1446)])
    narrow.apply(Forward(HOME, inner_address, reverse_tunnel=True))
    told = narrow.outbound(segment, 0.0)
    assert isinstance(told, TellSender)
    assert told.icmp is not None
    assert struct.unpack_from("!H", told.icmp, 6) == (1426,)
    outcome = narrow.outbound(bytes(IP(segment[:6] + b"\0\0" + segment[8:])), 0.0)
    assert isinstance(outcome, tuple)
    assert [len(part.octets) <= 1446 for part in outcome] == [True, True]


@pytest.mark.rows("R-289")
@pytest.mark.parametrize(("most", "asked", "left"), [(1400, 1460, 1360), (1400, 1200, 1200), (0, 1460, 1460)])
def test_connections_begin_fit_for_every_mode(most: int, asked: int, left: int) -> None:
    made = table(segment_mtu=most)
    outgoing = bytes(IP(src=str(PEER), dst=str(HOME)) / TCP(flags="S", options=[("MSS", asked)]))
    (outer,) = sent_by(made, outgoing)
    assert dict(IP(outer[20:])[TCP].options)["MSS"] == left
    # From the mobile node, which says how long the segments may be that are sent to it.
    incoming = bytes(IP(src=str(HOME), dst=str(PEER)) / TCP(flags="SA", options=[("MSS", asked)]))
    taken = made.inbound(ip_in_ip.encapsulate(incoming, CARE_OF, AGENT))
    assert isinstance(taken, bytes)
    assert dict(IP(taken)[TCP].options)["MSS"] == left


# --- tunnels in UDP ---


def from_node(made: TunnelTable, inner: bytes, **changes: object) -> object:
    where = {"source": NAT, "port": PORT, "kind": TunnelKind.IP_IN_IP, **changes}
    payload = udp_tunnel.wrap(inner, where["kind"])  # type: ignore[arg-type]
    return made.inbound_udp(payload, where["source"], where["port"])  # type: ignore[arg-type]


@pytest.mark.rows("R-229", "R-231", "R-232")
@pytest.mark.parametrize("encapsulation", [IP_IN_IP, GRE])
def test_data_in_udp_both_ways(encapsulation: Encapsulation) -> None:
    made = in_udp(encapsulation)
    kind = TunnelKind(encapsulation.protocol)
    inner = packet(PEER, HOME, tos=0xB8, df=True)
    (outer,) = sent_by(made, inner)
    read = IP(outer)
    assert (read.src, read.dst, read.proto, read.tos, read.flags.DF) == (str(AGENT), str(NAT), 17, 0xB8, True)
    assert (read[UDP].sport, read[UDP].dport) == (434, PORT)
    assert udp_tunnel.unwrap(bytes(read[UDP].payload), kind) == inner
    back = packet(HOME, PEER)
    assert from_node(made, back, kind=kind) == back


@pytest.mark.rows("R-231")
@pytest.mark.parametrize(
    ("changes", "inner", "dropped"),
    [
        ({"port": 6001}, HOME, Dropped.SPOOFED),
        ({"source": ELSEWHERE}, HOME, Dropped.SPOOFED),
        ({"kind": TunnelKind.GRE}, HOME, Dropped.NOT_AGREED),
        ({}, OTHER_HOME, Dropped.SPOOFED),
        ({}, PEER, Dropped.SPOOFED),
    ],
)
def test_strange_data_in_udp(changes: dict[str, object], inner: IPv4Address, dropped: Dropped) -> None:
    made = in_udp()
    assert from_node(made, packet(inner, PEER), **changes) is dropped
    # Nothing that was not authenticated moves the tunnel (RFC 3519 section 4.6).
    assert IP(sent_by(made, packet(PEER, HOME))[0])[UDP].dport == PORT


@pytest.mark.rows("R-231")
@pytest.mark.parametrize(
    "payload", [b"", b"\x04", b"\x04\x04\0\0", b"\x04\x37\0\0" + packet(HOME, PEER), b"\x04\xff\0\0E"]
)
def test_malformed_data_in_udp(payload: bytes) -> None:
    assert in_udp().inbound_udp(payload, NAT, PORT) is Dropped.MALFORMED


@pytest.mark.rows("R-229", "R-231")
def test_the_two_ways_do_not_mix() -> None:
    inner = packet(HOME, PEER)
    assert in_udp().inbound(ip_in_ip.encapsulate(inner, NAT, AGENT)) is Dropped.NOT_AGREED
    assert from_node(table(), inner, source=CARE_OF) is Dropped.SPOOFED


def test_congestion_on_the_way_is_passed_on() -> None:
    inner = packet(HOME, PEER, tos=2)
    taken = in_udp().inbound_udp(udp_tunnel.wrap(inner), NAT, PORT, tos=3)
    assert isinstance(taken, bytes)
    assert taken[1] == 3


@pytest.mark.rows("R-237")
@pytest.mark.parametrize("reverse_tunnel", [True, False])
@pytest.mark.parametrize("encapsulation", [IP_IN_IP, GRE])
def test_a_keepalive_is_answered_inside_the_tunnel(
    reverse_tunnel: bool, encapsulation: Encapsulation
) -> None:
    made = in_udp(encapsulation, reverse_tunnel=reverse_tunnel)
    kind = TunnelKind(encapsulation.protocol)
    asked = Echo(HOME, AGENT, 0x1234, 7, data=b"alive?")
    answer = from_node(made, encode_echo(asked), kind=kind)
    assert isinstance(answer, TunnelPacket)
    read = IP(answer.octets)
    assert (read.dst, read[UDP].sport, read[UDP].dport) == (str(NAT), 434, PORT)
    assert decode_echo(udp_tunnel.unwrap(bytes(read[UDP].payload), kind)).answers(asked)


@pytest.mark.rows("R-237")
def test_other_packets_to_the_agent_are_its_kernels_to_answer() -> None:
    for inner in (
        packet(HOME, AGENT),
        encode_echo(Echo(HOME, AGENT, 1, 2, is_reply=True)),
        encode_echo(Echo(HOME, AGENT, 1, 2))[:-1] + b"\x01",
        packet(HOME, AGENT, bytes([8, 0, 9, 9, 0, 0, 0, 0]), protocol=1),
    ):
        assert from_node(in_udp(), inner) == inner or from_node(in_udp(), inner) is Dropped.MALFORMED


@pytest.mark.rows("R-243")
def test_nothing_goes_through_a_tunnel_that_is_half_bound() -> None:
    made = in_udp(port=None)
    assert made.outbound(packet(PEER, HOME), 0.0) is Dropped.HALF_BOUND
    assert from_node(made, packet(HOME, PEER)) is Dropped.HALF_BOUND
    assert from_node(made, packet(HOME, PEER), source=ELSEWHERE) is Dropped.SPOOFED
    made.apply(Forward(HOME, NAT, reverse_tunnel=True, udp=True, port=7))
    assert from_node(made, packet(HOME, PEER), port=7) == packet(HOME, PEER)


# --- errors from within ---


def outer_of(made: TunnelTable, inner: bytes) -> bytes:
    (outer,) = sent_by(made, inner)
    # The kernel counts the header's sum when it sends, and routers quote what they got.
    return outer


ALL = [table(IP_IN_IP), table(GRE), table(MINIMAL), in_udp(), in_udp(GRE)]


@pytest.mark.rows("R-287")
@pytest.mark.parametrize("made", ALL)
def test_a_loop_is_told_as_host_unreachable_at_once(made: TunnelTable) -> None:
    inner = packet(PEER, HOME, bytes(600))
    told = made.error_reported(error(outer_of(made, inner), kind=11, code=0), 0.0)
    assert isinstance(told, TellSender)
    assert told.sender == PEER
    assert told.icmp is not None
    assert told.icmp[:2] == b"\x03\x01"
    assert IP(told.icmp[8:]).src == str(PEER)
    assert told.icmp[28:] == inner[20:548]


@pytest.mark.rows("R-287")
@pytest.mark.parametrize("made", ALL)
@pytest.mark.parametrize("code", [0, 1, 2])
def test_an_unreachable_end_is_told_when_it_stays_so(made: TunnelTable, code: int) -> None:
    said = error(outer_of(made, packet(PEER, HOME)), code=code)
    start = 1000.0 * (code + 1)
    assert made.error_reported(said, start) is None
    assert made.error_reported(said, start + PATIENCE - 0.1) is None
    told = made.error_reported(said, start + PATIENCE)
    assert isinstance(told, TellSender)
    assert told.icmp is not None
    assert told.icmp[:2] == b"\x03\x01"
    assert told.icmp[8 + 12 : 8 + 20] == PEER.packed + HOME.packed


@pytest.mark.rows("R-287")
def test_a_word_from_the_mobile_node_ends_the_trouble() -> None:
    made = table()
    said = error(outer_of(made, packet(PEER, HOME)), code=1)
    assert made.error_reported(said, 10.0) is None
    made.inbound(ip_in_ip.encapsulate(packet(HOME, PEER), CARE_OF, AGENT))
    assert made.error_reported(said, 10.0 + PATIENCE) is None
    made.apply(Forward(HOME, CARE_OF, reverse_tunnel=True))
    assert made.error_reported(said, 11.0 + 2 * PATIENCE) is None
    # Long ago is another story.
    assert made.error_reported(said, 100.0) is None


@pytest.mark.rows("R-287")
@pytest.mark.parametrize("made", ALL)
@pytest.mark.parametrize(
    ("kind", "code"),
    [(3, 3), (3, 5), (3, 6), (3, 13), (4, 0), (5, 0), (5, 1), (11, 1), (12, 0), (0, 0), (8, 0)],
)
def test_what_is_never_passed_on(made: TunnelTable, kind: int, code: int) -> None:
    said = error(outer_of(made, packet(PEER, HOME)), kind=kind, code=code)
    assert made.error_reported(said, 0.0) is None
    assert made.error_reported(said, PATIENCE) is None


@pytest.mark.rows("R-287")
@pytest.mark.parametrize("made", ALL)
def test_short_and_damaged_quotes(made: TunnelTable) -> None:
    outer = outer_of(made, packet(PEER, HOME))
    told = []
    for size in range(len(outer)):
        told.append(made.error_reported(error(outer[:size], kind=11, code=0), 0.0))
        damaged = bytearray(error(outer, kind=11, code=0))
        damaged[size] ^= 1
        assert made.error_reported(bytes(damaged), 0.0) is None
    assert told[28] is None
    assert isinstance(made.error_reported(error(outer, kind=11, code=0), 0.0), TellSender)


@pytest.mark.rows("R-287")
def test_errors_about_what_we_did_not_send() -> None:
    made = table()
    inner = packet(PEER, HOME)
    answer = bytes(IP(src=str(AGENT), dst=str(CARE_OF)) / UDP(sport=434, dport=40000) / b"\x03\0")
    for quoted in (
        packet(PEER, CARE_OF, inner, protocol=4),
        packet(AGENT, ELSEWHERE, inner, protocol=4),
        packet(AGENT, CARE_OF, packet(PEER, OTHER_HOME), protocol=4),
        packet(AGENT, CARE_OF, inner, protocol=6),
        packet(AGENT, CARE_OF, inner, protocol=4, offset=3),
        outer_of(in_udp(), inner),
        answer,
    ):
        assert made.error_reported(error(quoted, kind=11, code=0), 0.0) is None
    made.apply(StopForwarding(HOME))
    ours = packet(AGENT, CARE_OF, inner, protocol=4)
    assert made.error_reported(error(ours, kind=11, code=0), 0.0) is None


@pytest.mark.rows("R-231")
def test_data_on_its_way_through_the_port_before_is_taken_for_two_seconds() -> None:
    made, inner = in_udp(), packet(HOME, PEER)
    moved = Forward(HOME, NAT, udp=True, port=PORT + 1, reverse_tunnel=True)
    payload = udp_tunnel.wrap(inner, TunnelKind.IP_IN_IP)
    made.apply(moved, 100.0)
    for port in (PORT, PORT + 1):
        assert made.inbound_udp(payload, NAT, port, boot=100.0 + LINGER - 0.1) == inner
    assert made.inbound_udp(payload, NAT, PORT, boot=100.0 + LINGER) is Dropped.SPOOFED
    assert made.inbound_udp(payload, NAT, PORT + 2, boot=100.1) is Dropped.SPOOFED
    made.apply(StopForwarding(HOME), 100.1)
    assert made.inbound_udp(payload, NAT, PORT, boot=100.2) is Dropped.SPOOFED
