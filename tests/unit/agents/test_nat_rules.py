# SPDX-License-Identifier: GPL-2.0-or-later
"""Tunnels in UDP: who gets one, where it ends, and when a half-bound one is whole (RFC 3519 sections 4.1 and 4.6)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agents.agent_events import (
    BindingChanged,
    Change,
    Finding,
    Forward,
    RequestArrived,
    SendReply,
    StopForwarding,
)
from homeward.agents.home_agent import HomeAgent
from homeward.model.encapsulation import Encapsulation
from homeward.model.nat_traversal import TunnelKind, UdpTunnelRequest
from homeward.model.registration import LIFETIME_INFINITE, ReplyCode, RequestFlags
from homeward.model.relay import ForeignToHome
from homeward.wire.echo import Echo, encode_echo
from homeward.wire.extensions import Extension
from homeward.wire.udp_tunnel import wrap
from tests.unit.agents.scene import (
    AGENT,
    CARE_OF,
    D_T,
    ELSEWHERE,
    HOME,
    NAT,
    NETWORKS,
    OTHER_HOME,
    PORT,
    T0,
    T,
    after,
    agent,
    arrived,
    by_foreign_agent,
    co_located,
    forward_in,
    none,
    octets,
    only,
    refused_in,
    relayed,
    relayed_reply_in,
    reply_in,
    request,
)

ASKED = UdpTunnelRequest()
FORCED = UdpTunnelRequest(force=True)
THROUGH = UdpTunnelRequest(through_foreign_agent=True)


def ask(
    udp: UdpTunnelRequest | None,
    *,
    source: IPv4Address = NAT,
    port: int = PORT,
    flags: RequestFlags = D_T,
    at: float = 1,
    lifetime: int = 300,
) -> RequestArrived:
    payload = co_located(at, udp_tunnel=udp, flags=flags, lifetime=lifetime)
    return arrived(payload, source=source, source_port=port)


@pytest.mark.rows("R-48", "R-50", "R-92", "R-229", "R-240", "R-241")
def test_behind_a_listed_nat() -> None:
    effects = agent(nat_keepalive=25).handle(ask(ASKED), after(1))
    reply = reply_in(effects)
    assert (reply.code, reply.lifetime) == (0, 60)
    assert reply.trusted_networks_configured
    assert reply.udp_tunnel is not None
    assert (reply.udp_tunnel.will_tunnel, reply.udp_tunnel.forced) == (True, False)
    assert reply.udp_tunnel.keepalive == 25
    assert forward_in(effects) == Forward(HOME, NAT, reverse_tunnel=True, udp=True, port=PORT)
    assert only(effects, Forward).expires == after(1).boot + 60
    sent = only(effects, SendReply)
    assert (sent.destination, sent.port) == (NAT, PORT)


@pytest.mark.rows("R-229")
def test_the_answer_stands_before_the_authenticator() -> None:
    decoded_reply = only(agent().handle(ask(ASKED), after(1)), SendReply).octets
    assert decoded_reply[20] == 44


@pytest.mark.rows("R-240")
@pytest.mark.parametrize(
    ("asked", "most", "granted"), [(300, 60, 60), (30, 60, 30), (300, 1000, 300), (LIFETIME_INFINITE, 60, 60)]
)
def test_a_binding_behind_a_nat_is_short(asked: int, most: int, granted: int) -> None:
    home_agent = agent(nat_max_lifetime=most)
    assert reply_in(home_agent.handle(ask(ASKED, lifetime=asked), after(1))).lifetime == granted
    assert home_agent.next_deadline() == T0.boot + 1 + granted


@pytest.mark.rows("R-241")
@pytest.mark.parametrize("udp", [None, ASKED, FORCED, THROUGH])
def test_a_nat_that_nobody_listed_is_a_relay(udp: UdpTunnelRequest | None) -> None:
    effects = agent(networks=replace(NETWORKS, nats=frozenset())).handle(ask(udp), after(1))
    assert reply_in(effects).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert not reply_in(effects).trusted_networks_configured
    assert refused_in(effects).finding is Finding.RELAYED
    assert none(effects, Forward)


@pytest.mark.rows("R-241")
def test_without_the_extension_no_tunnel_through_a_nat() -> None:
    effects = agent().handle(ask(None), after(1))
    assert reply_in(effects).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert refused_in(effects).finding is Finding.NAT_UNSUPPORTED


@pytest.mark.rows("R-241")
def test_without_a_nat_it_is_declined() -> None:
    effects = agent().handle(ask(ASKED, source=CARE_OF), after(1))
    reply = reply_in(effects)
    assert reply.lifetime == 300
    assert reply.udp_tunnel is not None
    assert (reply.udp_tunnel.code, reply.udp_tunnel.keepalive) == (64, 0)
    assert forward_in(effects) == Forward(HOME, CARE_OF, reverse_tunnel=True)


@pytest.mark.rows("R-241")
def test_forced_without_a_nat() -> None:
    effects = agent().handle(ask(FORCED, source=CARE_OF), after(1))
    reply = reply_in(effects)
    assert reply.lifetime == 300
    assert reply.udp_tunnel is not None
    assert reply.udp_tunnel.will_tunnel
    assert reply.udp_tunnel.forced
    assert forward_in(effects) == Forward(HOME, CARE_OF, reverse_tunnel=True, udp=True, port=PORT)
    refused = agent(allow_forced_udp=False).handle(ask(FORCED, source=CARE_OF), after(1))
    assert reply_in(refused).code == ReplyCode.ADMINISTRATIVELY_PROHIBITED
    assert refused_in(refused).finding is Finding.FORCED_UDP


def test_a_forced_tunnel_does_not_hide_a_nat() -> None:
    # the mobile node raises an alarm where it expects no NAT inside, whatever it forced.
    for allowed in (True, False):
        reply = reply_in(agent(allow_forced_udp=allowed).handle(ask(FORCED), after(1)))
        assert reply.udp_tunnel is not None
        assert reply.udp_tunnel.will_tunnel
        assert not reply.udp_tunnel.forced


@pytest.mark.rows("R-241")
@pytest.mark.parametrize("source", [CARE_OF, NAT])
def test_the_mobile_nodes_extension_with_a_foreign_agents_address(source: IPv4Address) -> None:
    payload = octets(request(1, flags=T), covered=[Extension(144, bytes(5), sub_type=0)])
    effects = agent().handle(arrived(payload, source=source), after(1))
    assert reply_in(effects).code == ReplyCode.POORLY_FORMED_REQUEST
    assert refused_in(effects).finding is Finding.MISPLACED_UDP_REQUEST


@pytest.mark.rows("R-241")
def test_a_foreign_agents_extension_with_a_co_located_address() -> None:
    part = ForeignToHome(udp_tunnel=ASKED)
    effects = agent().handle(relayed(request(1), part, by=None, source=NAT), after(1))
    reply, _ = relayed_reply_in(effects, by=None)
    assert reply.code == ReplyCode.POORLY_FORMED_REQUEST


@pytest.mark.rows("R-241")
def test_a_foreign_agent_without_a_nat_is_declined_or_forces_it() -> None:
    effects = agent().handle(relayed(by_foreign_agent(1), ForeignToHome(udp_tunnel=ASKED), by=None), after(1))
    _, told = relayed_reply_in(effects, by=None)
    assert told.udp_tunnel is not None
    assert not told.udp_tunnel.will_tunnel
    assert not forward_in(effects).udp
    effects = agent().handle(
        relayed(by_foreign_agent(1), ForeignToHome(udp_tunnel=FORCED), by=None), after(1)
    )
    _, told = relayed_reply_in(effects, by=None)
    assert told.udp_tunnel is not None
    assert told.udp_tunnel.forced
    assert forward_in(effects).udp


@pytest.mark.rows("R-232", "R-241")
@pytest.mark.parametrize(
    ("kind", "flags", "carried"),
    [
        (0, D_T, Encapsulation.IP_IN_IP),
        (4, D_T, Encapsulation.IP_IN_IP),
        (4, D_T | RequestFlags.GRE, Encapsulation.IP_IN_IP),
        (47, D_T, Encapsulation.GRE),
        (0, D_T | RequestFlags.GRE, Encapsulation.GRE),
        (55, D_T, None),
        (0, D_T | RequestFlags.MINIMAL, None),
        (41, D_T, None),
        (255, D_T, None),
    ],
)
def test_what_a_tunnel_in_udp_carries(kind: int, flags: RequestFlags, carried: Encapsulation | None) -> None:
    effects = agent().handle(ask(UdpTunnelRequest(kind=kind), flags=flags), after(1))
    if carried is None:
        assert reply_in(effects).code == ReplyCode.UDP_TUNNEL_ENCAPSULATION_UNAVAILABLE
        assert refused_in(effects).finding is Finding.UDP_ENCAPSULATION
        assert none(effects, Forward)
    else:
        assert forward_in(effects).encapsulation is carried


@pytest.mark.rows("R-232")
def test_gre_in_udp_only_where_gre_is_offered() -> None:
    home_agent = agent(encapsulations=frozenset({Encapsulation.IP_IN_IP}))
    effects = home_agent.handle(ask(UdpTunnelRequest(kind=47)), after(1))
    assert reply_in(effects).code == ReplyCode.UDP_TUNNEL_ENCAPSULATION_UNAVAILABLE


@pytest.mark.rows("R-241")
def test_a_new_port_comes_with_a_new_registration_only() -> None:
    home_agent = agent()
    home_agent.handle(ask(ASKED), after(1))
    effects = home_agent.handle(ask(ASKED, port=777, at=2), after(2))
    assert forward_in(effects).port == 777
    assert only(effects, BindingChanged).change is Change.MOVED
    # A recording of it from another port is answered, as any duplicate is, and moves nothing.
    again = home_agent.handle(ask(ASKED, port=888, at=2), after(3))
    assert reply_in(again).is_success
    assert none(again, Forward, StopForwarding)


def test_leaving_the_nat_ends_the_udp_tunnel() -> None:
    home_agent = agent()
    home_agent.handle(ask(ASKED), after(1))
    effects = home_agent.handle(ask(ASKED, source=CARE_OF, at=2), after(2))
    assert forward_in(effects) == Forward(HOME, CARE_OF, reverse_tunnel=True)


def test_ending_a_binding_behind_a_nat() -> None:
    home_agent = agent()
    home_agent.handle(ask(ASKED), after(1))
    effects = home_agent.handle(ask(None, at=2, lifetime=0, port=99), after(2))
    assert only(effects, StopForwarding) == StopForwarding(HOME)
    assert reply_in(effects).trusted_networks_configured


# --- half bound ---


def keepalive(
    *,
    source: IPv4Address = NAT,
    port: int = 6000,
    home: IPv4Address = HOME,
    to: IPv4Address = AGENT,
    is_reply: bool = False,
    kind: TunnelKind = TunnelKind.IP_IN_IP,
    interface: str = "inside",
) -> RequestArrived:
    inner = encode_echo(Echo(home, to, 1, 2, is_reply=is_reply))
    return arrived(wrap(inner, kind), source=source, source_port=port, interface=interface)


def half_bound() -> HomeAgent:
    home_agent = agent()
    effects = home_agent.handle(ask(THROUGH), after(1))
    reply = reply_in(effects)
    assert reply.udp_tunnel is not None
    assert reply.udp_tunnel.will_tunnel
    assert forward_in(effects) == Forward(HOME, NAT, reverse_tunnel=True, udp=True, port=None)
    return home_agent


@pytest.mark.rows("R-243")
def test_the_first_keepalive_shows_the_port() -> None:
    home_agent = half_bound()
    effects = home_agent.handle(keepalive(), after(1.1))
    assert forward_in(effects) == Forward(HOME, NAT, reverse_tunnel=True, udp=True, port=6000)
    assert only(effects, BindingChanged).change is Change.COMPLETED
    # It ends when it would have ended.
    assert home_agent.next_deadline() == T0.boot + 61
    # And only the first one counts.
    assert none(home_agent.handle(keepalive(port=6001), after(1.2)), Forward)
    assert home_agent.bindings()[0].way.port == 6000


@pytest.mark.rows("R-243")
@pytest.mark.parametrize(
    "stray",
    [
        keepalive(source=ELSEWHERE),
        keepalive(source=CARE_OF),
        keepalive(home=OTHER_HOME),
        keepalive(home=CARE_OF),
        keepalive(to=CARE_OF),
        keepalive(is_reply=True),
        keepalive(kind=TunnelKind.GRE),
        keepalive(interface="outside"),
        keepalive(source=IPv4Address("198.51.100.7")),
        arrived(wrap(encode_echo(Echo(HOME, AGENT, 1, 2)))[:-1], source=NAT),
        arrived(b"\x04\xff\0\0", source=NAT),
        arrived(b"\x04", source=NAT),
    ],
)
def test_other_packets_do_not(stray: RequestArrived) -> None:
    home_agent = half_bound()
    effects = home_agent.handle(stray, after(1.1))
    assert none(effects, Forward, SendReply, BindingChanged)
    assert refused_in(effects).code is None
    assert forward_in(home_agent.handle(keepalive(), after(1.2))).port == 6000


def test_a_renewal_waits_for_a_keepalive_again() -> None:
    home_agent = half_bound()
    home_agent.handle(keepalive(), after(1.1))
    effects = home_agent.handle(ask(THROUGH, at=20), after(20))
    assert forward_in(effects).port is None
    assert forward_in(home_agent.handle(keepalive(port=6002), after(20.1))).port == 6002


def test_no_keepalive_changes_a_tunnel_that_is_whole() -> None:
    home_agent = agent()
    home_agent.handle(ask(ASKED), after(1))
    effects = home_agent.handle(keepalive(port=6000), after(2))
    assert none(effects, Forward)
    assert refused_in(effects).finding is Finding.STRAY_KEEPALIVE
