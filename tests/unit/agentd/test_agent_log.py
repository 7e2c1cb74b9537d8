# SPDX-License-Identifier: GPL-2.0-or-later
from ipaddress import IPv4Address, IPv4Network

import pytest

from homeward.agentd.log import entry
from homeward.model.secret import Secret


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "event"),
        ({"a": 1, "b": None, "c": "x"}, "event a=1 c=x"),
        (
            {"address": IPv4Address("10.0.0.2"), "net": IPv4Network("10.0.0.0/8")},
            "event address=10.0.0.2 net=10.0.0.0/8",
        ),
        ({"seconds": 1.23456}, "event seconds=1.235"),
        ({"text": "two words"}, 'event text="two words"'),
        ({"text": ""}, 'event text=""'),
        ({"text": "x b=1"}, 'event text="x b=1"'),
        ({"text": 'a"b'}, 'event text="a\\"b"'),
        ({"text": "a\nb\x1b[2J"}, 'event text="a\\nb\\u001b[2J"'),
        ({"text": "\N{RIGHT-TO-LEFT OVERRIDE}"}, 'event text="\\u202e"'),
        ({"key": Secret(b"sixteen octets!!")}, 'event key="Secret(redacted)"'),
    ],
)
def test_no_value_can_end_a_line_or_pass_for_another_field(fields: dict[str, object], line: str) -> None:
    assert entry("event", **fields) == line
