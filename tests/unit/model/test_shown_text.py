# SPDX-License-Identifier: GPL-2.0-or-later
"""Text from an agent: whatever it sends, people see one harmless line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.model.errors import LocalProtocolError
from homeward.model.registration import RegistrationReply
from homeward.model.shown_text import LONGEST, require_shown_text, shown_text
from homeward.wire.authenticator import authenticate
from homeward.wire.registration import decode
from tests.unit.wire.vectors import MD5, V2

FIXED = V2.octets[:20]


@pytest.mark.rows("R-161")
@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"Maintenance at 22:00", "Maintenance at 22:00"),
        ("Grüße".encode(), "Grüße"),
        (b"", None),
        (b" \t\r\n", None),
        (b" two\nlines\t", "two lines"),
        (b"\x1b[2Jgone", "\ufffd[2Jgone"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("abc\u202edef".encode(), "abc\ufffddef"),
        (b"a\0b", "a\ufffdb"),
        (b"x" * 254, "x" * 254),
        (b"\xff" * 254, "\ufffd" * 84),
    ],
)
def test_table(octets: bytes, text: str | None) -> None:
    assert shown_text(octets) == text


@pytest.mark.rows("R-161")
@given(st.binary(max_size=300))
def test_anything_becomes_a_line_or_nothing(octets: bytes) -> None:
    text = shown_text(octets)
    if text is not None:
        assert text.isprintable()
        assert 0 < len(text.encode()) <= LONGEST
        require_shown_text(text)


@pytest.mark.parametrize("text", ["", " padded", "two\nlines", "\x1b", "\ud800", "x" * 255])
def test_what_we_never_send(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        require_shown_text(text)


@pytest.mark.rows("R-161")
@pytest.mark.parametrize(
    ("extensions", "text"),
    [
        ("9106016f6b203a29", "ok :)"),
        ("9102010a", None),
        ("910101", None),
        ("910501fffefdfc", "\ufffd" * 4),
        ("9103026869", None),
        ("9103036869", None),
        ("9103016869" + "9103016e6f", "hi"),
    ],
)
def test_in_a_reply_no_text_ever_condemns_the_message(extensions: str, text: str | None) -> None:
    message = decode(authenticate(FIXED + bytes.fromhex(extensions), MD5)).message
    assert isinstance(message, RegistrationReply)
    assert message.message == text
