# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents are asked for with restraint, believed with care, and forgotten in time (R-107 to R-123)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.core.agent_discovery import (
    ALL_MOBILITY_AGENTS,
    ALL_ROUTERS,
    FIRST_DELAY,
    LIMITED_BROADCAST,
    MOST_AGENTS,
    AgentDiscovery,
    Change,
)
from homeward.model.agent import AGENT_ONLY, AgentAdvertisement, AgentFlags
from homeward.model.effects import SendSolicitation
from homeward.model.inputs import AgentAdvertised
from homeward.wire.agent_advertisement import encode_advertisement
from homeward.wire.internet_checksum import put

LINK = 7
OURS = IPv4Address("10.1.3.50")
AGENT = IPv4Address("10.1.3.1")
OTHER = IPv4Address("10.1.3.2")
MAC = bytes.fromhex("020000000001")
OTHER_MAC = bytes.fromhex("020000000002")
OFFER = AgentAdvertisement(
    10,
    30,
    registration_lifetime=300,
    flags=AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL,
    care_of_addresses=(AGENT,),
)


def packet(icmp: bytes, *, source: IPv4Address = AGENT, ttl: int = 1) -> bytes:
    total = (20 + len(icmp)).to_bytes(2, "big")
    fixed = b"\x45\0" + total + bytes(4) + bytes([ttl, 1, 0, 0]) + source.packed
    return put(fixed + bytes([224, 0, 0, 1]), 10) + icmp


def advertised(
    advertisement: AgentAdvertisement = OFFER,
    *,
    source: IPv4Address = AGENT,
    mac: bytes = MAC,
    link: int = LINK,
    ttl: int = 1,
) -> AgentAdvertised:
    return AgentAdvertised(link, packet(encode_advertisement(advertisement), source=source, ttl=ttl), mac)


def attached(entropy: Callable[[], int] = lambda: 0, *, at: float = 0.0) -> AgentDiscovery:
    discovery = AgentDiscovery(entropy)
    discovery.attach(LINK, "eth0", OURS, at)
    return discovery


def solicitations(discovery: AgentDiscovery, *, until: float) -> Iterator[tuple[float, SendSolicitation]]:
    while (at := discovery.deadline) is not None and at <= until:
        discovery.expired(at)
        yield from ((at, one) for one in discovery.due(at))


@pytest.mark.rows("R-109")
def test_three_a_second_apart_then_doubled_to_a_minute_and_more() -> None:
    times = [at for at, _ in solicitations(attached(), until=400.0)]
    gaps = [round(after - before, 6) for before, after in pairwise(times)]
    assert gaps[:10] == [1, 1, 2, 4, 8, 16, 32, 64, 64, 64]


@pytest.mark.rows("R-107", "R-26")
def test_the_search_begins_at_once_on_a_link_without_an_address() -> None:
    discovery = AgentDiscovery(lambda: 0)
    discovery.attach(LINK, "eth0", IPv4Address("0.0.0.0"), 3.0)
    assert discovery.deadline == 3.0
    assert discovery.due(3.0) == (SendSolicitation(LINK, "eth0", IPv4Address("0.0.0.0"), ALL_ROUTERS),)


@pytest.mark.rows("R-111")
def test_all_kinds_of_destination_are_asked_in_turn() -> None:
    asked = [one.destination for _, one in solicitations(attached(), until=6.0)]
    assert asked == [ALL_ROUTERS, ALL_MOBILITY_AGENTS, LIMITED_BROADCAST, ALL_ROUTERS]


@pytest.mark.rows("R-109")
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_chance_moves_each_time_but_never_raises_the_rate(draws: list[int]) -> None:
    turn = iter(draws * 40)
    times = [at for at, _ in solicitations(attached(lambda: next(turn)), until=300.0)]
    gaps = [after - before for before, after in pairwise(times)]
    nominal = [1, 1, 2, 4, 8, 16, 32, 64, 64]
    assert 0 <= times[0] < FIRST_DELAY
    assert all(low - 1e-9 <= gap <= low * 1.25 for low, gap in zip(nominal, gaps, strict=False))


@pytest.mark.rows("R-109")
def test_two_hosts_do_not_ask_in_step() -> None:
    times = [
        tuple(at for at, _ in solicitations(attached(lambda draw=draw: draw), until=20.0))
        for draw in (0, 2**30, 2**31)
    ]
    assert len({each for one in times for each in one}) == sum(map(len, times))


@pytest.mark.rows("R-108", "R-26")
def test_nobody_is_asked_while_an_agent_is_heard() -> None:
    discovery = attached()
    first = list(solicitations(discovery, until=1.5))
    assert len(first) == 2
    assert discovery.heard(advertised(), 1.6).change is Change.NEW_AGENT
    assert list(solicitations(discovery, until=31.5)) == []


@pytest.mark.rows("R-110")
def test_only_a_sign_of_a_new_link_or_a_registration_makes_the_search_fast_again() -> None:
    discovery = attached()
    for at, _ in solicitations(discovery, until=20.0):
        last = at
    assert last == 16.0
    discovery.heard(advertised(), 20.0)
    assert [one.address for one in discovery.expired(50.0)] == [AGENT]
    again = [at for at, _ in solicitations(discovery, until=120.0)]
    assert again == [50.0, 82.0]
    discovery.heard(advertised(), 83.0)
    discovery.registered()
    discovery.expired(113.0)
    assert [at for at, _ in solicitations(discovery, until=120.0)] == [113.0, 114.0, 115.0, 117.0]
    discovery.attach(LINK, "eth0", OURS, 200.0)
    assert [at for at, _ in solicitations(discovery, until=203.0)] == [200.0, 201.0, 202.0]


@pytest.mark.rows("R-109", "R-110")
def test_a_flapping_link_does_not_raise_the_rate() -> None:
    discovery = AgentDiscovery(lambda: 0)
    sent = []
    for tenth in range(100):
        discovery.attach(LINK, "eth0", OURS, tenth / 10)
        sent += [tenth for _ in discovery.due(tenth / 10)]
    assert len(sent) <= 11
    assert all(after - before >= 10 for before, after in pairwise(sent))


def test_a_fresh_challenge_may_be_asked_for_once_although_an_agent_is_heard() -> None:
    discovery = attached()
    discovery.due(0.0)
    discovery.heard(advertised(), 0.2)
    discovery.ask_again(0.3)
    discovery.ask_again(0.3)
    assert [at for at, _ in solicitations(discovery, until=20.0)] == [1.0]
    discovery.ask_again(1.1)
    assert [at for at, _ in solicitations(discovery, until=20.0)] == [3.0]


@pytest.mark.rows("R-112", "R-113", "R-115")
def test_an_agent_is_known_by_its_extension_not_by_code_or_routers() -> None:
    discovery = attached()
    alone = replace(OFFER, code=AGENT_ONLY, routers=())
    assert discovery.heard(advertised(alone), 0.0).change is Change.NEW_AGENT
    plain = put(bytes([9, 0, 0, 0, 1, 2, 0, 30]) + OTHER.packed + bytes(4), 2)
    heard = discovery.heard(AgentAdvertised(LINK, packet(plain, source=OTHER), OTHER_MAC), 0.0)
    assert (heard.change, heard.suspicious) == (Change.IGNORED, False)
    assert [one.address for one in discovery.agents] == [AGENT]


@pytest.mark.rows("R-112")
def test_reserved_flags_do_not_hide_an_agent() -> None:
    octets = bytearray(encode_advertisement(OFFER))
    octets[8 + 7] |= 0x1F
    octets[8 + 6] |= 0x02
    octets[2:4] = b"\0\0"
    heard = attached().heard(AgentAdvertised(LINK, packet(put(bytes(octets), 2)), MAC), 0.0)
    assert heard.change is Change.NEW_AGENT
    assert heard.agent is not None
    assert heard.agent.advertisement == OFFER


@pytest.mark.rows("R-116")
@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(advertised(ttl=64), id="from-afar"),
        pytest.param(advertised(mac=OTHER_MAC), id="another-link-layer-address"),
        pytest.param(advertised(mac=b""), id="no-link-layer-address"),
        pytest.param(advertised(source=OTHER, mac=bytes.fromhex("01005e000001")), id="a-group"),
        pytest.param(advertised(source=IPv4Address("224.0.0.1")), id="multicast"),
        pytest.param(advertised(source=IPv4Address("255.255.255.255")), id="broadcast"),
        pytest.param(advertised(source=OURS), id="our-own-address"),
        pytest.param(advertised(link=LINK + 1), id="another-link"),
        pytest.param(AgentAdvertised(LINK, b"\x45", MAC), id="truncated"),
    ],
)
def test_what_is_not_to_be_believed_changes_nothing(forged: AgentAdvertised) -> None:
    discovery = attached()
    discovery.heard(advertised(), 0.0)
    before = discovery.agents
    heard = discovery.heard(forged, 5.0)
    assert heard.change is Change.IGNORED
    assert heard.why
    assert discovery.agents == before


def test_nobody_fills_the_memory_with_agents() -> None:
    discovery = attached()
    for number in range(2 * MOST_AGENTS):
        discovery.heard(advertised(source=IPv4Address(int(AGENT) + 256 + number)), 0.0)
    assert len(discovery.agents) == MOST_AGENTS


@pytest.mark.rows("R-119")
@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (5000, 3, Change.RESTARTED),
        (200, 0, Change.RESTARTED),
        (0xFFFF, 256, Change.REFRESHED),
        (5000, 300, Change.REFRESHED),
        (5000, 5001, Change.REFRESHED),
        (7, 7, Change.REFRESHED),
    ],
)
def test_a_sequence_that_begins_anew_tells_a_restart(before: int, after: int, change: Change) -> None:
    discovery = attached()
    discovery.heard(advertised(replace(OFFER, sequence=before)), 0.0)
    assert discovery.heard(advertised(replace(OFFER, sequence=after)), 1.0).change is change


@pytest.mark.rows("R-121")
def test_an_agent_lives_as_long_as_its_last_advertisement_says() -> None:
    discovery = attached()
    discovery.heard(advertised(), 0.0)
    discovery.heard(advertised(replace(OFFER, lifetime=90), source=OTHER, mac=OTHER_MAC), 0.0)
    discovery.heard(advertised(replace(OFFER, sequence=11)), 20.0)
    assert discovery.deadline == 50.0
    assert discovery.expired(49.9) == ()
    assert [one.address for one in discovery.expired(50.0)] == [AGENT]
    assert [one.address for one in discovery.agents] == [OTHER]
    assert discovery.deadline == 90.0


def test_an_agent_that_takes_itself_back_is_gone() -> None:
    discovery = attached()
    discovery.heard(advertised(), 0.0)
    assert discovery.heard(advertised(replace(OFFER, lifetime=0)), 1.0).change is Change.GONE
    assert discovery.agents == ()
    assert discovery.heard(advertised(replace(OFFER, lifetime=0)), 1.0).change is Change.IGNORED


@pytest.mark.rows("R-123")
def test_preference_does_not_follow_who_advertised_last() -> None:
    discovery = attached()
    for at in range(10):
        discovery.heard(advertised(replace(OFFER, sequence=10 + at)), float(at))
        discovery.heard(advertised(replace(OFFER, sequence=10 + at), source=OTHER, mac=OTHER_MAC), at + 0.5)
        assert [one.address for one in discovery.agents] == [AGENT, OTHER]


@pytest.mark.rows("R-118")
def test_a_busy_agent_comes_last_and_stays_known() -> None:
    discovery = attached()
    discovery.heard(advertised(), 0.0)
    discovery.heard(advertised(source=OTHER, mac=OTHER_MAC), 0.0)
    busy = replace(OFFER, flags=OFFER.flags | AgentFlags.BUSY)
    assert discovery.heard(advertised(busy), 1.0).change is Change.CHANGED
    assert [one.address for one in discovery.foreign_agents] == [OTHER, AGENT]


@pytest.mark.rows("R-126")
def test_a_home_agent_is_known_and_is_no_foreign_agent() -> None:
    discovery = attached()
    at_home = AgentAdvertisement(1, 30, registration_lifetime=300, flags=AgentFlags.HOME_AGENT)
    discovery.heard(advertised(at_home), 0.0)
    discovery.heard(advertised(source=OTHER, mac=OTHER_MAC), 0.0)
    found = discovery.known(AGENT)
    assert found is not None
    assert not found.is_foreign_agent
    assert [one.address for one in discovery.agents] == [AGENT, OTHER]
    assert [one.address for one in discovery.foreign_agents] == [OTHER]


@pytest.mark.rows("R-110")
def test_a_new_link_knows_nobody() -> None:
    discovery = attached()
    discovery.heard(advertised(), 0.0)
    discovery.attach(LINK + 1, "eth1", OURS, 1.0)
    assert discovery.agents == ()
    assert discovery.heard(advertised(), 1.0).change is Change.IGNORED
    discovery.detach()
    assert discovery.deadline is None
    assert discovery.due(10.0) == ()
