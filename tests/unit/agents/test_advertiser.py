# SPDX-License-Identifier: GPL-2.0-or-later
"""When an agent advertises itself, and what it then says."""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.agents.advertiser import (
    ALL_SYSTEMS,
    ANSWERS_AT_ONCE,
    LEAST_GAP,
    LIMITED_BROADCAST,
    AdvertisedService,
    Advertiser,
    SendAdvertisement,
    SolicitationHeard,
    SolicitationIgnored,
)
from homeward.agents.offered_challenges import CHALLENGE_WINDOW, OfferedChallenges, Verdict
from homeward.model.agent import AgentAdvertisement, AgentFlags, has_restarted
from homeward.model.instant import Instant
from homeward.wire.agent_advertisement import decode_advertisement, encode_solicitation

ADDRESS = IPv4Address("10.1.3.1")
NODE = IPv4Address("10.77.0.10")
MAC = bytes.fromhex("020000000010")
T0 = Instant(boot=5000.0, wall=1_736_942_400.0)
SERVICE = AdvertisedService(
    ADDRESS,
    AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL,
    registration_lifetime=1800,
    care_of_addresses=(ADDRESS,),
    interval=10.0,
    subnet_prefix=24,
)


def after(seconds: float) -> Instant:
    return Instant(T0.boot + seconds, T0.wall + seconds)


def chance(*values: int) -> object:
    numbers = itertools.cycle(values or (0x9E3779B9, 0x3C6EF372, 0xDAA66D2B, 0x78DDE6E4, 0x1715609D))
    return lambda: next(numbers)


def advertiser(service: AdvertisedService = SERVICE, **more: object) -> Advertiser:
    return Advertiser(service, entropy=chance(), started=T0, **more)  # type: ignore[arg-type]


def said(sent: SendAdvertisement | SolicitationIgnored) -> AgentAdvertisement:
    assert isinstance(sent, SendAdvertisement), sent
    assert sent.source == ADDRESS
    return decode_advertisement(sent.octets)


def run(one: Advertiser, count: int) -> list[tuple[float, AgentAdvertisement]]:
    found = []
    for _ in range(count):
        at = Instant(one.next_deadline(), 0.0)
        (sent,) = one.due(at)
        assert (sent.destination, sent.hardware_address) == (ALL_SYSTEMS, None)
        found.append((at.boot, said(sent)))
    return found


def solicitation(source: IPv4Address = NODE, octets: bytes | None = None) -> SolicitationHeard:
    return SolicitationHeard(encode_solicitation() if octets is None else octets, source, MAC)


@pytest.mark.rows("R-206")
def test_it_speaks_at_once_and_then_within_a_third_of_what_it_promises() -> None:
    heard = run(advertiser(), 40)
    assert heard[0][0] == T0.boot
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(heard)]
    assert all(7.5 <= gap <= 10.0 for gap in gaps)
    assert len({round(gap, 3) for gap in gaps}) > 3, "no chance in it"
    first = heard[0][1]
    assert first.lifetime >= 3 * max(gaps)
    assert first.flags == AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL
    assert first.care_of_addresses == (ADDRESS,)
    assert first.registration_lifetime == 1800
    assert first.prefix_lengths == (24,)
    assert [one.address for one in first.routers] == [ADDRESS]


@pytest.mark.rows("R-206")
def test_numbers_begin_with_0_and_go_on_behind_0xffff_with_256() -> None:
    one = advertiser()
    numbers = [advertisement.sequence for _, advertisement in run(one, 3)]
    one._sequence = 0xFFFE  # some days later
    numbers += [advertisement.sequence for _, advertisement in run(one, 4)]
    assert numbers == [0, 1, 2, 0xFFFE, 0xFFFF, 256, 257]
    assert not any(has_restarted(*pair) for pair in itertools.pairwise(numbers))


def test_a_long_interval_is_not_awaited_at_the_start() -> None:
    heard = run(advertiser(replace(SERVICE, interval=600.0)), 5)
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(heard)]
    assert max(gaps[:3]) <= 16.0
    assert min(gaps[3:]) >= 450.0


@pytest.mark.rows("R-206")
@pytest.mark.parametrize("source", [NODE, IPv4Address("10.1.3.50"), IPv4Address("192.0.2.77")])
def test_a_solicitation_is_answered_at_once_and_to_its_sender(source: IPv4Address) -> None:
    one = advertiser()
    run(one, 1)
    before = one.next_deadline()
    (sent,) = one.heard(solicitation(source), after(0.2))
    assert isinstance(sent, SendAdvertisement)
    assert (sent.destination, sent.hardware_address) == (source, MAC)
    assert said(sent).sequence == 1
    assert one.next_deadline() == before


def test_who_has_no_address_yet_is_answered_by_broadcast_to_its_own_station() -> None:
    (sent,) = advertiser().heard(solicitation(IPv4Address("0.0.0.0")), T0)
    assert isinstance(sent, SendAdvertisement)
    assert (sent.destination, sent.hardware_address) == (LIMITED_BROADCAST, MAC)


@pytest.mark.rows("R-206")
def test_a_flood_of_solicitations_is_answered_with_measure() -> None:
    one = advertiser()
    run(one, 1)
    answers = [one.heard(solicitation(), after(0.5 + n / 1000))[0] for n in range(500)]
    sent = [each for each in answers if isinstance(each, SendAdvertisement)]
    assert len(sent) <= ANSWERS_AT_ONCE + 5
    assert one.next_deadline() == T0.boot + LEAST_GAP, "the others get everybody's next one"
    assert one.due(after(0.999)) == ()
    assert len(one.due(after(LEAST_GAP))) == 1


@pytest.mark.parametrize(
    "odd",
    [
        solicitation(ADDRESS),
        solicitation(IPv4Address("224.0.0.1")),
        solicitation(IPv4Address("127.0.0.1")),
        solicitation(octets=encode_solicitation()[:7]),
        solicitation(octets=encode_solicitation()[:-1] + b"\1"),
        replace(solicitation(), hardware_address=bytes.fromhex("010000000001")),
    ],
)
def test_what_is_no_solicitation_gets_nothing(odd: SolicitationHeard) -> None:
    (answer,) = advertiser().heard(odd, T0)
    assert isinstance(answer, SolicitationIgnored)


@pytest.mark.rows("R-206")
def test_being_busy_is_told_soon_and_taken_back_soon() -> None:
    one = advertiser()
    run(one, 1)
    one.set_busy(True, after(0.3))
    assert one.next_deadline() == T0.boot + LEAST_GAP
    (sent,) = one.due(after(1.0))
    assert said(sent).is_busy
    one.set_busy(True, after(1.5))
    assert one.next_deadline() > T0.boot + 5
    one.set_busy(False, after(6.0))
    (sent,) = one.due(after(6.0))
    assert not said(sent).is_busy


def test_a_farewell_takes_it_back_at_once() -> None:
    one = advertiser()
    run(one, 3)
    sent = one.farewell()
    assert sent.destination == ALL_SYSTEMS
    assert (said(sent).lifetime, said(sent).sequence) == (0, 3)


def test_a_visitor_that_was_lost_is_told_so_alone() -> None:
    one = advertiser()
    run(one, 7)
    sent = one.lost_visitor(NODE, MAC)
    assert (sent.destination, sent.hardware_address) == (NODE, MAC)
    assert has_restarted(6, said(sent).sequence)
    assert run(one, 1)[0][1].sequence == 7, "others see no restart"


@pytest.mark.rows("R-276")
def test_each_advertisement_to_everybody_brings_a_new_challenge_and_two_are_good() -> None:
    challenges = OfferedChallenges(chance(*range(1000)))  # type: ignore[arg-type]
    one = advertiser(challenges=challenges)
    seen = [advertisement.challenge for _, advertisement in run(one, 5)]
    assert None not in seen
    assert len(set(seen)) == 5
    verdicts = [challenges.judge(NODE, each or b"") for each in seen]
    assert verdicts == [Verdict.UNKNOWN] * (5 - CHALLENGE_WINDOW) + [Verdict.FRESH] * CHALLENGE_WINDOW


def test_solicitations_push_nobodys_challenge_out() -> None:
    challenges = OfferedChallenges(chance(*range(1000)))  # type: ignore[arg-type]
    one = advertiser(challenges=challenges)
    (first,) = [advertisement.challenge for _, advertisement in run(one, 1)]
    for n in range(8):
        assert said(one.heard(solicitation(), after(n / 10))[0]).challenge == first
    challenges.use(NODE, first or b"")
    second = said(one.heard(solicitation(), after(1.0))[0]).challenge
    assert second != first, "a used one is never offered again (RFC 4721 section 3.3)"


def test_a_home_agent_advertises_itself_without_care_of_addresses() -> None:
    service = AdvertisedService(ADDRESS, AgentFlags.HOME_AGENT, registration_lifetime=1800)
    (_, heard), *_ = run(advertiser(service), 2)
    assert heard.flags == AgentFlags.HOME_AGENT
    assert heard.care_of_addresses == ()
    assert heard.prefix_lengths is None
