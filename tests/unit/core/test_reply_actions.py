# SPDX-License-Identifier: GPL-2.0-or-later
"""Every code of a Registration Reply leads somewhere, and never further than it may (R-154 to R-159, R-214, R-233)."""

import pytest

from homeward.core.reply_actions import Action, Asked, react
from homeward.model.encapsulation import Encapsulation
from homeward.model.reply_codes import ReplyCode, is_from_foreign_agent

THROUGH = Asked(through_agent=True)
LIKE_FOREIGN_AGENTS = {
    Action.RETRY_WITH_LIFETIME,
    Action.CHANGE_ENCAPSULATION,
    Action.WITHOUT_DELIVERY_STYLE,
    Action.WITHOUT_NAI,
    Action.NEW_CHALLENGE,
    Action.TRY_OTHER_CARE_OF,
    Action.NEEDS_HOME_ADDRESS,
    Action.BUSY_RETRY_LATER,
    Action.LEAVE_AGENT,
}
ALL_KINDS = [
    Asked(),
    THROUGH,
    Asked(encapsulation=Encapsulation.GRE, udp_tunnel=True, forced_udp=True),
    Asked(through_agent=True, encapsulation=Encapsulation.MINIMAL, nai=True, delivery_style=True),
    Asked(through_agent=True, nai=True, has_home_address=False),
]


@pytest.mark.rows("R-154", "R-159", "R-150")
@pytest.mark.parametrize("asked", ALL_KINDS)
def test_every_code_has_an_action_a_sentence_and_advice(asked: Asked) -> None:
    for code in range(256):
        reaction = react(code, asked)
        assert reaction.code == code
        assert (reaction.action is Action.ACCEPTED) == (code in (0, 1))
        assert reaction.sentence, code
        assert reaction.advice.endswith("."), code
        if is_from_foreign_agent(code):
            assert reaction.action in LIKE_FOREIGN_AGENTS, code


@pytest.mark.parametrize("named", list(ReplyCode))
def test_no_named_code_is_given_up_without_a_reason(named: ReplyCode) -> None:
    unused = named in (ReplyCode.CONCURRENT_REGISTRATION, ReplyCode.EXPERIMENTAL)
    assert (react(named).action is Action.GIVE_UP) == unused


@pytest.mark.rows("R-155", "R-156", "R-114", "R-158", "R-276")
@pytest.mark.parametrize(
    ("code", "action"),
    [
        (69, Action.RETRY_WITH_LIFETIME),
        (133, Action.RESYNCHRONISE),
        (77, Action.TRY_OTHER_CARE_OF),
        (66, Action.BUSY_RETRY_LATER),
        (130, Action.BUSY_RETRY_LATER),
        (104, Action.NEW_CHALLENGE),
        (105, Action.NEW_CHALLENGE),
        (106, Action.NEW_CHALLENGE),
        (108, Action.NEW_CHALLENGE),
        (131, Action.ADMINISTRATOR),
        (129, Action.ADMINISTRATOR),
        (143, Action.ADMINISTRATOR),
        *(
            (code, Action.LEAVE_AGENT)
            for code in (64, 65, 67, 68, 71, 78, 80, 81, 82, 88, 132, 141, 194, 200)
        ),
    ],
)
def test_what_is_done_about_it(code: int, action: Action) -> None:
    assert react(code, THROUGH).action is action


@pytest.mark.rows("R-214")
@pytest.mark.parametrize(("old", "new"), [(70, 74), (134, 137)])
def test_old_agents_answers_to_the_t_bit_mean_the_same(old: int, new: int) -> None:
    for asked in ALL_KINDS:
        assert react(old, asked).action is react(new, asked).action


@pytest.mark.rows("R-233", "R-215")
@pytest.mark.parametrize("code", [72, 139, 142])
def test_another_encapsulation_falls_back_to_ip_in_ip_once(code: int) -> None:
    for wished in (Encapsulation.GRE, Encapsulation.MINIMAL):
        assert react(code, Asked(encapsulation=wished)).action is Action.CHANGE_ENCAPSULATION
    assert react(code, THROUGH).action is not Action.CHANGE_ENCAPSULATION
    assert react(142, Asked(udp_tunnel=True)).action is Action.WITHOUT_UDP_TUNNEL


@pytest.mark.rows("R-215")
def test_a_delivery_style_is_done_without() -> None:
    assert react(79, Asked(through_agent=True, delivery_style=True)).action is Action.WITHOUT_DELIVERY_STYLE
    assert react(79, THROUGH).action is Action.LEAVE_AGENT


@pytest.mark.rows("R-234")
def test_a_refused_force_is_asked_for_no_longer() -> None:
    reaction = react(129, Asked(udp_tunnel=True, forced_udp=True))
    assert reaction.action is Action.WITHOUT_FORCED_UDP
    assert "force_udp" in reaction.advice


@pytest.mark.parametrize("code", [96, 97, 98, 99])
def test_an_agent_that_cannot_do_without_a_home_address(code: int) -> None:
    unknown = Asked(through_agent=True, nai=True, has_home_address=False)
    assert react(code, unknown).action is Action.NEEDS_HOME_ADDRESS
    both = Asked(through_agent=True, nai=True)
    assert react(code, both).action is (Action.LEAVE_AGENT if code == 96 else Action.WITHOUT_NAI)
    assert react(code, THROUGH).action is Action.LEAVE_AGENT


@pytest.mark.rows("R-158")
@pytest.mark.parametrize("code", [67, 131])
def test_a_failed_authentication_is_a_security_exception(code: int) -> None:
    reaction = react(code, THROUGH)
    assert reaction.is_security_exception
    assert "key" in reaction.advice


def test_without_an_agent_nobody_is_left() -> None:
    assert react(132).action is Action.ADMINISTRATOR
    assert react(141).action is Action.ADMINISTRATOR
