# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens on the home link when a mobile node leaves and comes back (RFC 5944 section 4.6)."""

from __future__ import annotations

import pytest

from homeward.agents.agent_events import (
    Forward,
    ProxyHomeAddress,
    ReleaseHomeAddress,
    Remember,
    RevokeBinding,
    SendReply,
    StopForwarding,
)
from homeward.agents.home_agent import HomeAgent
from homeward.agents.ingress import TrustedNetworks
from homeward.model.inputs import DeadlinePassed
from tests.unit.agents.scene import (
    ELSEWHERE,
    HOME,
    INSIDE,
    NETWORKS,
    after,
    agent,
    arrived,
    none,
    octets,
    only,
    reply_in,
    request,
)

LINK = "home"
BOTH = TrustedNetworks(frozenset({INSIDE, LINK}), NETWORKS.prefixes)


def at_home() -> HomeAgent:
    return agent(home_link=LINK, networks=BOTH)


def away() -> HomeAgent:
    home_agent = at_home()
    home_agent.handle(arrived(request(1)), after(1))
    return home_agent


@pytest.mark.rows("R-203")
def test_leaving_home() -> None:
    home_agent = at_home()
    effects = home_agent.handle(arrived(request(1)), after(1))
    kinds = [type(each) for each in effects]
    assert kinds[:4] == [Remember, Forward, ProxyHomeAddress, SendReply]
    assert only(effects, ProxyHomeAddress) == ProxyHomeAddress(HOME)
    # Moving on and renewing: it is proxied already.
    effects = home_agent.handle(arrived(request(2, care_of_address=ELSEWHERE), source=ELSEWHERE), after(2))
    assert none(effects, ProxyHomeAddress, ReleaseHomeAddress)


@pytest.mark.rows("R-203")
def test_coming_home() -> None:
    home_agent = away()
    payload = octets(request(2, lifetime=0, care_of_address=HOME))
    effects = home_agent.handle(arrived(payload, source=HOME, interface=LINK), after(2))
    assert reply_in(effects).is_success
    assert reply_in(effects).trusted_networks_configured
    assert only(effects, ReleaseHomeAddress) == ReleaseHomeAddress(HOME, payload)
    kinds = [type(each) for each in effects]
    assert kinds.index(StopForwarding) < kinds.index(ReleaseHomeAddress) < kinds.index(SendReply)
    assert only(effects, SendReply).interface == LINK
    # The reachability check of X-5 changes nothing any more.
    again = home_agent.handle(
        arrived(request(3, lifetime=0, care_of_address=HOME), source=HOME, interface=LINK), after(3)
    )
    assert [type(each) for each in again] == [Remember, SendReply]


@pytest.mark.rows("R-203")
@pytest.mark.parametrize(
    "changes", [{"home_agent": ELSEWHERE}, {"identification": 7}, {"care_of_address": ELSEWHERE}]
)
def test_a_denied_return_changes_nothing(changes: dict[str, object]) -> None:
    asked = request(2, **{"lifetime": 0, "care_of_address": HOME, **changes})
    home_agent = away()
    effects = home_agent.handle(arrived(asked, source=HOME, interface=LINK), after(2))
    assert not reply_in(effects).is_success
    assert none(effects, ProxyHomeAddress, ReleaseHomeAddress, StopForwarding)
    assert only(effects, SendReply).interface == LINK
    assert home_agent.binding_count() == 1


@pytest.mark.rows("R-203")
def test_a_denied_registration_does_not_proxy() -> None:
    effects = at_home().handle(arrived(request(1, home_agent=ELSEWHERE)), after(1))
    assert none(effects, ProxyHomeAddress)


def test_whoever_ends_it_from_elsewhere_is_not_at_home() -> None:
    ended = away().handle(arrived(request(2, lifetime=0)), after(2))
    assert only(ended, ReleaseHomeAddress).asked is None
    # The home address on another inside link is not at home either.
    astray = away().handle(arrived(request(2, lifetime=0, care_of_address=HOME), source=HOME), after(2))
    assert only(astray, ReleaseHomeAddress).asked is None
    expired = away().handle(DeadlinePassed(), after(400))
    assert only(expired, ReleaseHomeAddress) == ReleaseHomeAddress(HOME)
    assert only(away().handle(RevokeBinding(HOME), after(2)), ReleaseHomeAddress).asked is None


def test_without_a_home_link_there_is_no_arp() -> None:
    home_agent = agent()
    assert none(home_agent.handle(arrived(request(1)), after(1)), ProxyHomeAddress)
    assert none(home_agent.handle(arrived(request(2, lifetime=0)), after(2)), ReleaseHomeAddress)
