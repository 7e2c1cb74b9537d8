# SPDX-License-Identifier: GPL-2.0-or-later
"""Echoes keep a tunnel in UDP open, and their absence says that it is not (R-235 to R-238)."""

from ipaddress import IPv4Address
from random import Random

import pytest

from homeward.core.keepalive import TRIES, Keepalive
from homeward.model.nat_traversal import TunnelKind
from homeward.wire.echo import Echo, decode_echo, encode_echo
from homeward.wire.udp_tunnel import unwrap, wrap

HOME = IPv4Address("10.77.0.10")
AGENT = IPv4Address("10.0.0.2")


def keepalive(configured: int = 110, seed: int = 1) -> Keepalive:
    random = Random(seed)
    return Keepalive(HOME, AGENT, lambda: random.getrandbits(32), configured=configured)


def reply_to(octets: bytes | None, kind: TunnelKind = TunnelKind.IP_IN_IP) -> bytes:
    assert octets is not None
    return wrap(encode_echo(decode_echo(unwrap(octets, kind)).answer()), kind)


def die(one: Keepalive) -> float:
    """Let the next keepalive and its repetitions go unanswered; the moment of death."""
    while not one.is_dead:
        assert one.deadline is not None
        at = one.deadline
        one.due(at)
    return at


@pytest.mark.rows("R-236")
@pytest.mark.parametrize(("granted", "interval"), [(0, 110.0), (25, 25.0), (3, 10.0), (300, 300.0)])
def test_the_interval_is_the_home_agents_or_ours_and_never_too_short(granted: int, interval: float) -> None:
    one = keepalive()
    assert one.deadline is None
    one.registered(granted, 5.0)
    assert (one.interval, one.deadline) == (interval, 5.0 + interval)
    assert one.due(4.9 + interval) is None
    assert one.due(5.0 + interval) is not None


@pytest.mark.rows("R-236")
def test_it_is_an_echo_request_from_the_home_address_inside_tunnel_data() -> None:
    one = keepalive()
    one.registered(0, 0.0)
    octets = one.due(110.0)
    assert octets is not None
    assert octets[:4] == bytes([4, 4, 0, 0])
    echo = decode_echo(octets[4:])
    assert (echo.source, echo.destination, echo.is_reply) == (HOME, AGENT, False)


@pytest.mark.rows("R-237")
@pytest.mark.parametrize("kind", [TunnelKind.IP_IN_IP, TunnelKind.GRE])
def test_an_answer_gives_another_interval(kind: TunnelKind) -> None:
    one = keepalive()
    one.registered(20, 0.0, kind=kind)
    for round_ in range(1, 5):
        assert one.deadline is not None
        octets = one.due(one.deadline)
        assert one.answered(reply_to(octets, kind), one.deadline)
        assert not one.answered(reply_to(octets, kind), one.deadline), f"twice in round {round_}"
        assert not one.is_dead


@pytest.mark.rows("R-237")
def test_an_answer_to_an_earlier_try_of_the_round_counts() -> None:
    one = keepalive()
    one.registered(20, 0.0)
    first = one.due(20.0)
    assert one.due(21.0) is not None
    assert one.answered(reply_to(first), 21.1)
    assert one.deadline == 41.1


@pytest.mark.rows("R-237", "R-231")
def test_what_is_no_answer_counts_for_nothing() -> None:
    one = keepalive()
    one.registered(20, 0.0)
    assert not one.answered(reply_to(keepalive_request()), 1.0)
    octets = one.due(20.0)
    assert octets is not None
    echo = decode_echo(octets[4:])
    forged = Echo(AGENT, HOME, echo.identifier, echo.sequence, True, b"\0" * 8)
    elsewhere = Echo(IPv4Address("10.0.0.3"), HOME, echo.identifier, echo.sequence, True, echo.data)
    for wrong in (
        octets,
        wrap(encode_echo(forged)),
        wrap(encode_echo(elsewhere)),
        reply_to(octets)[:-1],
        b"",
        reply_to(keepalive_request()),
        bytes([4, 47, 0, 0]) + reply_to(octets)[4:],
    ):
        assert not one.answered(wrong, 20.1)
    assert one.deadline == 21.0


def keepalive_request() -> bytes | None:
    other = keepalive(seed=2)
    other.registered(10, 0.0)
    return other.due(10.0)


@pytest.mark.rows("R-238")
def test_several_tries_without_answer_and_the_tunnel_is_dead() -> None:
    one = keepalive()
    one.registered(20, 0.0)
    sent = []
    while not one.is_dead:
        assert one.deadline is not None
        at = one.deadline
        if one.due(at) is not None:
            sent.append(at)
    assert sent == [20.0, 21.0, 23.0, 27.0]
    assert len(sent) == TRIES
    assert at == 35.0
    assert one.deadline is None
    assert one.due(99.0) is None


@pytest.mark.rows("R-238")
def test_an_answer_after_death_does_not_raise_it() -> None:
    one = keepalive()
    one.registered(20, 0.0)
    octets = one.due(20.0)
    die(one)
    assert not one.answered(reply_to(octets), 36.0)
    assert one.is_dead


@pytest.mark.rows("R-238")
def test_each_death_halves_the_interval_to_ten_seconds_and_a_move_restores_it() -> None:
    one = keepalive()
    one.registered(100, 0.0)
    intervals = []
    for _ in range(5):
        died = die(one)
        one.registered(100, died)
        assert not one.is_dead
        intervals.append(one.interval)
    assert intervals == [50.0, 25.0, 12.5, 10.0, 10.0]
    one.registered(100, 1000.0)
    assert one.interval == 10.0, "a renewal without a loss keeps what was learnt"
    one.moved()
    assert one.deadline is None
    one.registered(100, 2000.0)
    assert one.interval == 100.0


@pytest.mark.rows("R-235")
def test_where_an_agent_relayed_the_registration_the_first_leaves_at_once() -> None:
    one = keepalive()
    one.registered(30, 7.0, at_once=True)
    octets = one.due(7.1)
    assert octets is not None
    assert one.answered(reply_to(octets), 7.2)
    assert one.deadline == pytest.approx(37.2)


def test_stopped_it_asks_nobody_and_hears_nobody() -> None:
    one = keepalive()
    one.registered(30, 0.0)
    octets = one.due(30.0)
    one.stop()
    assert one.deadline is None
    assert not one.answered(reply_to(octets), 30.1)
