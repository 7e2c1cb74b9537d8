# SPDX-License-Identifier: GPL-2.0-or-later
"""A foreign agent's newest challenge is answered, once, with the right key, and never an older one (R-275, R-276)."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.core.challenges import MOST_AGENTS, REMEMBERED, Challenges, ForeignKeys
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi
from homeward.model.relay import AaaAssociation
from homeward.model.secret import Secret

AGENT = IPv4Address("10.1.3.1")
MOBILE_FOREIGN = MobilitySecurityAssociation(
    Spi(0x200), AuthenticationAlgorithm.HMAC_MD5, key=Secret(b"f" * 16)
)
SERVER = AaaAssociation(Spi(0x300), key=Secret(b"s" * 16))


def with_server() -> Challenges:
    return Challenges(ForeignKeys(server=SERVER))


@pytest.mark.rows("R-276")
def test_the_newest_is_answered_and_nothing_from_before_it_again() -> None:
    challenges = with_server()
    for challenge in (b"one!", b"two!", b"three"):
        challenges.advertised(AGENT, challenge)
    assert challenges.take(AGENT) == b"three"
    for replayed in (b"one!", b"two!", b"three"):
        challenges.advertised(AGENT, replayed)
        assert challenges.take(AGENT) is None
    assert challenges.lacks_fresh_one(AGENT)
    challenges.advertised(AGENT, b"four")
    assert not challenges.lacks_fresh_one(AGENT)
    assert challenges.take(AGENT) == b"four"


@pytest.mark.rows("R-276")
def test_a_reply_brings_the_next_one_and_an_advertisement_may_overtake_it() -> None:
    challenges = with_server()
    challenges.advertised(AGENT, b"one!")
    assert challenges.take(AGENT) == b"one!"
    challenges.returned(AGENT, b"two!")
    assert challenges.take(AGENT) == b"two!"
    challenges.returned(AGENT, b"three")
    challenges.advertised(AGENT, b"four")
    assert challenges.take(AGENT) == b"four"


@pytest.mark.rows("R-276")
def test_an_agent_that_denies_for_want_of_an_answer_is_asked_for_a_challenge() -> None:
    challenges = with_server()
    assert not challenges.demands(AGENT)
    assert not challenges.lacks_fresh_one(AGENT)
    challenges.demanded(AGENT)
    assert challenges.demands(AGENT)
    assert challenges.lacks_fresh_one(AGENT)
    challenges.returned(AGENT, None)
    assert challenges.lacks_fresh_one(AGENT)
    challenges.returned(AGENT, b"new!")
    assert not challenges.lacks_fresh_one(AGENT)


@pytest.mark.rows("R-276")
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_whatever_is_heard_answers_never_go_back(story: list[tuple[bool, int]]) -> None:
    challenges = with_server()
    first_heard: list[bytes] = []
    answered = -1
    for take, number in story:
        if take:
            taken = challenges.take(AGENT)
            if taken is not None:
                assert first_heard.index(taken) > answered
                answered = first_heard.index(taken)
            continue
        challenge = b"challenge %d" % number
        if challenge not in first_heard:
            first_heard.append(challenge)
        challenges.advertised(AGENT, challenge)


def test_an_agent_that_stops_asking_gets_no_answer_demanded() -> None:
    challenges = with_server()
    challenges.advertised(AGENT, b"one!")
    assert challenges.demands(AGENT)
    challenges.advertised(AGENT, None)
    assert not challenges.demands(AGENT)


def test_without_any_key_nothing_is_answered_and_that_can_be_told() -> None:
    challenges = Challenges(ForeignKeys())
    challenges.advertised(AGENT, b"one!")
    assert challenges.demands(AGENT)
    assert not challenges.keys.can_answer(AGENT)
    assert challenges.take(AGENT) is None


@pytest.mark.rows("R-275")
def test_an_agents_own_key_serves_that_agent_and_the_servers_all() -> None:
    keys = ForeignKeys({AGENT: MOBILE_FOREIGN})
    assert keys.mobile_foreign(AGENT) is MOBILE_FOREIGN
    assert keys.can_answer(AGENT)
    assert not keys.can_answer(IPv4Address("10.1.4.1"))
    assert ForeignKeys(server=SERVER).can_answer(AGENT)
    assert ForeignKeys(server=SERVER).mobile_foreign(AGENT) is None


def test_memory_is_bounded() -> None:
    challenges = with_server()
    for number in range(4 * REMEMBERED):
        challenges.advertised(AGENT, b"challenge %d" % number)
    for number in range(4 * MOST_AGENTS):
        challenges.advertised(IPv4Address(int(AGENT) + 1 + number), b"one!")
    assert not challenges.demands(AGENT)
    assert challenges.demands(IPv4Address(int(AGENT) + 4 * MOST_AGENTS))
    challenges.forget()
    assert not challenges.demands(IPv4Address(int(AGENT) + 4 * MOST_AGENTS))
