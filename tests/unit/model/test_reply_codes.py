# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from homeward.model.reply_codes import ReplyCode, is_from_foreign_agent, is_from_home_agent, sentence_for

# The numbers of wire-formats.md section 8, by who sends them.
BY_HOME_AGENT = {0, 1, 2, *range(128, 152), 192}
BY_FOREIGN_AGENT = {*range(64, 83), 88, 89, 90, *range(96, 102), *range(104, 112), 127, 194}


def test_every_number_has_a_name_and_no_other_has() -> None:
    assert {int(code) for code in ReplyCode} == BY_HOME_AGENT | BY_FOREIGN_AGENT
    assert len(ReplyCode) == len(ReplyCode.__members__)


@pytest.mark.parametrize("code", list(ReplyCode))
def test_who_speaks(code: ReplyCode) -> None:
    assert code.by_home_agent == (code in BY_HOME_AGENT)
    assert code.by_foreign_agent == (code in BY_FOREIGN_AGENT)
    assert code.is_success == (code in (0, 1))
    assert code.name.startswith("FOREIGN_AGENT_") == (64 <= code <= 127 or code == 132)


@pytest.mark.parametrize("number", range(256))
def test_every_number_has_at_most_one_speaker(number: int) -> None:
    assert not (is_from_home_agent(number) and is_from_foreign_agent(number))
    # From 128 on, whatever is not plainly a foreign agent's needs the home agent's authenticator.
    assert is_from_home_agent(number) == (number <= 8 or 128 <= number <= 192 or number >= 201)
    assert is_from_foreign_agent(number) == (64 <= number <= 127 or 193 <= number <= 200)


@pytest.mark.parametrize("code", list(ReplyCode))
def test_sentences_are_sentences(code: ReplyCode) -> None:
    assert code.sentence[0].isupper()
    assert code.sentence.endswith(".")
    assert 20 < len(code.sentence) < 100
    assert sentence_for(int(code)) == code.sentence


def test_sentences_are_all_different() -> None:
    assert len({code.sentence for code in ReplyCode}) == len(ReplyCode)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (3, "The answer carries code 3"),
        (83, "The foreign agent answered with code 83"),
        (197, "The foreign agent answered with code 197"),
        (160, "The answer carries code 160"),
        (255, "The answer carries code 255"),
    ],
)
def test_numbers_without_a_name_are_told_as_such(number: int, words: str) -> None:
    assert sentence_for(number).startswith(words)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (69, "FOREIGN_AGENT_LIFETIME_TOO_LONG"),
        (128, "REASON_UNSPECIFIED"),
        (131, "MOBILE_NODE_FAILED_AUTHENTICATION"),
        (133, "IDENTIFICATION_MISMATCH"),
        (134, "POORLY_FORMED_REQUEST"),
        (136, "UNKNOWN_HOME_AGENT_ADDRESS"),
        (138, "REVERSE_TUNNEL_MANDATORY"),
        (139, "ENCAPSULATION_UNAVAILABLE"),
        (194, "INVALID_HOME_AGENT_ADDRESS"),
    ],
)
def test_names_of_the_numbers_that_decide_something(number: int, name: str) -> None:
    assert ReplyCode(number).name == name
