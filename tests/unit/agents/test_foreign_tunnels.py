# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose packets a foreign agent carries, in which tunnel, and which it drops."""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agents.foreign_keepalives import PATIENCE, TRIES, Keepalive, Keepalives, TunnelLost
from homeward.agents.foreign_tunnels import ToHomeAgent, ToVisitor, VisitorDrop, VisitorTunnels
from homeward.agents.visitors import Visitor
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import TunnelKind
from homeward.wire import gre, ip_in_ip, minimal_encapsulation, udp_tunnel
from homeward.wire.datagram import read_udp_packet
from homeward.wire.echo import Echo, decode_echo, encode_echo
from homeward.wire.internet_checksum import put
from tests.unit.agents.foreign_scene import (
    ADDRESS,
    CARE_OF,
    HOME,
    HOME_AGENT,
    LINK,
    MAC,
    OTHER_HOME,
    OTHER_HOME_AGENT,
    OTHER_MAC,
    stamp,
)

PEER = IPv4Address("10.0.0.10")
ELSEWHERE = IPv4Address("10.1.4.1")
VISITOR = Visitor(
    HOME,
    HOME_AGENT,
    care_of_address=CARE_OF,
    interface=LINK,
    hardware_address=MAC,
    agent_address=ADDRESS,
    identification=stamp(0),
    lifetime=300,
    since=0.0,
    reverse_tunnel=True,
)
OTHER = replace(VISITOR, home_address=OTHER_HOME, hardware_address=OTHER_MAC)


def ping(source: IPv4Address = HOME, destination: IPv4Address = PEER) -> bytes:
    return encode_echo(Echo(source, destination, 1, 2, data=b"data"))


def fragment(packet: bytes) -> bytes:
    return packet[:6] + b"\x20\x00" + packet[8:]


def tunnels(**changes: object) -> VisitorTunnels:
    made = VisitorTunnels()
    made.admit(replace(VISITOR, **changes))  # type: ignore[arg-type]
    made.admit(OTHER)
    return made


ENCAPSULATE = {
    Encapsulation.IP_IN_IP: ip_in_ip.encapsulate,
    Encapsulation.GRE: gre.encapsulate,
    Encapsulation.MINIMAL: minimal_encapsulation.encapsulate,
}


@pytest.mark.parametrize("encapsulation", Encapsulation)
def test_a_visitors_packet_goes_to_its_home_agent_in_the_tunnel_that_was_agreed_on(
    encapsulation: Encapsulation,
) -> None:
    sent = tunnels(encapsulation=encapsulation).from_visitor(ping())
    assert isinstance(sent, ToHomeAgent)
    assert sent.octets == ENCAPSULATE[encapsulation](ping(), CARE_OF, HOME_AGENT)
    assert sent.visitor.home_address == HOME


@pytest.mark.rows("R-211")
@pytest.mark.parametrize("encapsulation", Encapsulation)
def test_a_packet_for_a_visitor_is_delivered(encapsulation: Encapsulation) -> None:
    inner = ping(PEER, HOME)
    packet = ENCAPSULATE[encapsulation](inner, HOME_AGENT, CARE_OF)
    found = tunnels(encapsulation=encapsulation).from_home_agent(packet)
    assert isinstance(found, ToVisitor)
    assert found.visitor.hardware_address == MAC
    if encapsulation is not Encapsulation.MINIMAL:
        assert found.packet == inner


@pytest.mark.rows("R-211")
@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (ip_in_ip.encapsulate(ping(PEER, PEER), HOME_AGENT, CARE_OF), VisitorDrop.NO_VISITOR),
        (
            ip_in_ip.encapsulate(ping(PEER, IPv4Address("255.255.255.255")), HOME_AGENT, CARE_OF),
            VisitorDrop.NO_VISITOR,
        ),
        (ip_in_ip.encapsulate(ping(PEER, HOME), OTHER_HOME_AGENT, CARE_OF), VisitorDrop.WRONG_TUNNEL_END),
        (ip_in_ip.encapsulate(ping(PEER, HOME), OTHER_HOME, CARE_OF), VisitorDrop.WRONG_TUNNEL_END),
        (ip_in_ip.encapsulate(ping(PEER, HOME), HOME_AGENT, ELSEWHERE), VisitorDrop.WRONG_TUNNEL_END),
        (gre.encapsulate(ping(PEER, HOME), HOME_AGENT, CARE_OF), VisitorDrop.WRONG_ENCAPSULATION),
        (
            minimal_encapsulation.encapsulate(ping(PEER, HOME), HOME_AGENT, CARE_OF),
            VisitorDrop.WRONG_ENCAPSULATION,
        ),
        (ip_in_ip.encapsulate(ping(PEER, HOME), HOME_AGENT, CARE_OF)[:-1], VisitorDrop.MALFORMED),
        (ping(PEER, HOME), VisitorDrop.MALFORMED),
        (b"", VisitorDrop.MALFORMED),
    ],
)
def test_what_does_not_come_out_of_a_visitors_own_tunnel_goes_nowhere(
    packet: bytes, why: VisitorDrop
) -> None:
    assert tunnels().from_home_agent(packet) is why


@pytest.mark.rows("R-211")
def test_who_is_no_visitor_any_more_gets_and_sends_nothing() -> None:
    one = tunnels()
    one.expel(VISITOR)
    assert one.from_visitor(ping()) is VisitorDrop.NO_VISITOR
    packet = ip_in_ip.encapsulate(ping(PEER, HOME), HOME_AGENT, CARE_OF)
    assert one.from_home_agent(packet) is VisitorDrop.NO_VISITOR


def test_without_a_reverse_tunnel_nothing_goes_into_one() -> None:
    assert tunnels(reverse_tunnel=False).from_visitor(ping()) is VisitorDrop.NO_REVERSE_TUNNEL


@pytest.mark.rows("R-218")
def test_encapsulating_delivery() -> None:
    one = tunnels(encapsulating=True)
    sent = one.from_delivery(ip_in_ip.encapsulate(ping(), HOME, ADDRESS), LINK)
    assert isinstance(sent, ToHomeAgent)
    assert sent.octets == ip_in_ip.encapsulate(ping(), CARE_OF, HOME_AGENT)
    broadcast = ping(destination=IPv4Address("255.255.255.255"))
    assert isinstance(one.from_delivery(ip_in_ip.encapsulate(broadcast, HOME, ADDRESS), LINK), ToHomeAgent)


@pytest.mark.rows("R-218")
@pytest.mark.parametrize(
    ("packet", "link", "why"),
    [
        (ip_in_ip.encapsulate(ping(OTHER_HOME), HOME, ADDRESS), LINK, VisitorDrop.SPOOFED),
        (ip_in_ip.encapsulate(ping(PEER), HOME, ADDRESS), LINK, VisitorDrop.SPOOFED),
        (ip_in_ip.encapsulate(ping(), PEER, ADDRESS), LINK, VisitorDrop.NO_VISITOR),
        (ip_in_ip.encapsulate(ping(), HOME, ELSEWHERE), LINK, VisitorDrop.NO_VISITOR),
        (ip_in_ip.encapsulate(ping(), HOME, ADDRESS), "other", VisitorDrop.NO_VISITOR),
        (ip_in_ip.encapsulate(ping(OTHER_HOME), OTHER_HOME, ADDRESS), LINK, VisitorDrop.WRONG_DELIVERY_STYLE),
        (b"\x45", LINK, VisitorDrop.MALFORMED),
    ],
)
def test_encapsulating_delivery_is_for_who_asked_for_it_and_from_its_own_address(
    packet: bytes, link: str, why: VisitorDrop
) -> None:
    assert tunnels(encapsulating=True).from_delivery(packet, link) is why


@pytest.mark.rows("R-218")
def test_what_such_a_visitor_sends_without_encapsulation_is_never_tunnelled() -> None:
    assert tunnels(encapsulating=True).from_visitor(ping()) is VisitorDrop.WRONG_DELIVERY_STYLE


@pytest.mark.rows("R-290")
def test_minimal_encapsulation_leaves_fragments_to_ip_in_ip_both_ways() -> None:
    one = tunnels(encapsulation=Encapsulation.MINIMAL)
    sent = one.from_visitor(fragment(ping()))
    assert isinstance(sent, ToHomeAgent)
    assert sent.octets == ip_in_ip.encapsulate(fragment(ping()), CARE_OF, HOME_AGENT)
    back = fragment(ping(PEER, HOME))
    assert isinstance(one.from_home_agent(ip_in_ip.encapsulate(back, HOME_AGENT, CARE_OF)), ToVisitor)
    whole = ip_in_ip.encapsulate(ping(PEER, HOME), HOME_AGENT, CARE_OF)
    assert one.from_home_agent(whole) is VisitorDrop.WRONG_ENCAPSULATION


# --- UDP tunnels ------------------------------------------------------------------------------------------------------

FROM = (HOME_AGENT, 434)


@pytest.mark.rows("R-242")
def test_a_udp_tunnel_carries_everything_of_its_visitor() -> None:
    one = tunnels(udp=True)
    sent = one.from_visitor(ping())
    assert isinstance(sent, ToHomeAgent)
    filled_in = put(sent.octets[:20], 10) + sent.octets[20:]  # as the kernel does
    datagram = read_udp_packet(filled_in)
    assert (datagram.source, datagram.source_port) == (CARE_OF, 434), "the port of the registration"
    assert (datagram.destination, datagram.destination_port) == (HOME_AGENT, 434)
    assert udp_tunnel.unwrap(datagram.payload, TunnelKind.IP_IN_IP) == ping()
    inner = ping(PEER, HOME)
    found = one.from_udp(udp_tunnel.wrap(inner), FROM, CARE_OF)
    assert found == ToVisitor(inner, replace(VISITOR, udp=True))
    plain = ip_in_ip.encapsulate(inner, HOME_AGENT, CARE_OF)
    assert one.from_home_agent(plain) is VisitorDrop.WRONG_ENCAPSULATION


@pytest.mark.rows("R-242")
@pytest.mark.parametrize(
    ("octets", "source", "destination", "why"),
    [
        (udp_tunnel.wrap(ping(PEER, HOME)), (OTHER_HOME_AGENT, 434), CARE_OF, VisitorDrop.WRONG_TUNNEL_END),
        (udp_tunnel.wrap(ping(PEER, HOME)), (HOME_AGENT, 40000), CARE_OF, VisitorDrop.WRONG_TUNNEL_END),
        (udp_tunnel.wrap(ping(PEER, HOME)), FROM, ELSEWHERE, VisitorDrop.WRONG_TUNNEL_END),
        (udp_tunnel.wrap(ping(PEER, HOME), TunnelKind.GRE), FROM, CARE_OF, VisitorDrop.WRONG_ENCAPSULATION),
        (udp_tunnel.wrap(ping(PEER, OTHER_HOME)), FROM, CARE_OF, VisitorDrop.WRONG_ENCAPSULATION),
        (udp_tunnel.wrap(ping(PEER, PEER)), FROM, CARE_OF, VisitorDrop.NO_VISITOR),
        (udp_tunnel.wrap(ping(PEER, HOME))[:-1], FROM, CARE_OF, VisitorDrop.MALFORMED),
    ],
)
def test_a_udp_tunnel_ends_at_one_home_agents_port(
    octets: bytes, source: tuple[IPv4Address, int], destination: IPv4Address, why: VisitorDrop
) -> None:
    assert tunnels(udp=True).from_udp(octets, source, destination) is why


def test_room_for_a_visitors_packets() -> None:
    one = VisitorTunnels()
    assert one.room(1500, 0.0) == 1480
    one.admit(VISITOR)
    one.path_mtu_reported(OTHER_HOME_AGENT, 1000, 0.0)
    assert one.room(1500, 0.0) == 1480, "nobody's home agent"
    one.path_mtu_reported(HOME_AGENT, 1400, 0.0)
    assert one.room(1500, 1.0) == 1380
    assert one.room(1500, 601.0) == 1480
    one.path_mtu_reported(HOME_AGENT, 68, 700.0)
    assert one.room(1500, 701.0) == 556
    one.admit(replace(OTHER, encapsulation=Encapsulation.GRE))
    assert one.room(1500, 1500.0) == 1476
    one.admit(replace(OTHER, udp=True))
    assert one.room(1500, 1500.0) == 1468
    one.admit(replace(OTHER, udp=True, encapsulation=Encapsulation.GRE))
    assert one.room(1500, 1500.0) == 1464


# --- keepalives -------------------------------------------------------------------------------------------------------


def keepalives(**changes: object) -> tuple[Keepalives, Visitor]:
    numbers = itertools.count(0x1234)
    made = Keepalives(lambda: next(numbers))
    visitor = replace(VISITOR, udp=True, **changes)  # type: ignore[arg-type]
    made.admit(visitor, 0.0)
    return made, visitor


def echo_in(found: list[Keepalive | TunnelLost]) -> Echo:
    (one,) = found
    assert isinstance(one, Keepalive)
    return decode_echo(one.packet)


@pytest.mark.rows("R-236", "R-237")
@pytest.mark.parametrize(("named", "interval"), [(0, 110), (30, 30), (3, 10)])
def test_an_idle_tunnel_is_kept_open_by_an_echo_to_the_home_agent(named: int, interval: int) -> None:
    made, visitor = keepalives(keepalive=named)
    assert made.next_deadline() == interval
    assert made.due(interval - 1) == []
    echo = echo_in(made.due(interval))
    assert (echo.source, echo.destination, echo.is_reply) == (HOME, HOME_AGENT, False)
    answer = encode_echo(echo.answer())
    assert made.is_answer(answer, visitor, interval + 0.1)
    assert made.next_deadline() == 2 * interval + 0.1
    assert not made.is_answer(encode_echo(replace(echo.answer(), identifier=7)), visitor, interval)
    assert not made.is_answer(ping(HOME_AGENT, HOME), visitor, interval)


def test_a_used_tunnel_needs_none() -> None:
    made, visitor = keepalives(keepalive=30)
    made.used(visitor, 20.0)
    assert made.due(30.0) == []
    assert made.next_deadline() == 50.0


def test_a_tunnel_that_answers_nothing_is_lost_after_some_tries() -> None:
    made, visitor = keepalives(keepalive=30)
    times = [30.0 + n * PATIENCE for n in range(TRIES)]
    for at in times:
        assert isinstance(made.due(at)[0], Keepalive)
    made.used(visitor, times[-1] + 1)
    assert made.due(times[-1] + PATIENCE) == [TunnelLost(visitor)], "what the visitor sends is no answer"
    assert made.next_deadline() == times[-1] + PATIENCE + 30


def test_no_keepalives_without_a_udp_tunnel() -> None:
    made, visitor = keepalives()
    made.admit(replace(visitor, udp=False), 5.0)
    assert made.next_deadline() is None
    made.admit(visitor, 5.0)
    made.expel(visitor)
    assert made.next_deadline() is None
