# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback

import pytest

from homeward.model.errors import LocalProtocolError
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi
from homeward.model.secret import Secret

WORDS = b"correct horse battery staple"


def shows(text: str) -> bool:
    return any(form in text for form in (WORDS.decode(), WORDS.hex(), repr(WORDS), repr(list(WORDS))))


def test_the_check_can_see_a_leak() -> None:
    assert shows(f"key={WORDS!r}")
    assert shows(WORDS.hex())


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r:>40}".format,
        "{!s}".format,
        lambda secret: f"{secret:x}",
        lambda secret: f"{secret:>80}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - old formatting must not leak either
        lambda secret: str([secret, {"key": secret}, (secret,)]),
        ascii,
    ],
)
def test_no_formatting_shows_it(show: object) -> None:
    text = show(Secret(WORDS))  # type: ignore[operator]
    assert not shows(text)
    assert "redacted" in text


def test_neither_does_what_holds_it(caplog: pytest.LogCaptureFixture) -> None:
    held = MobilitySecurityAssociation(Spi(256), AuthenticationAlgorithm.HMAC_MD5, key=Secret(WORDS))
    assert not shows(repr(held))
    logging.getLogger("mip").error("association %s", held)
    assert not shows(caplog.text)
    try:
        raise LookupError(held)
    except LookupError:
        assert not shows(traceback.format_exc())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        pickle.dumps(Secret(WORDS), protocol)


@pytest.mark.parametrize(
    "spread",
    [
        copy.copy,
        copy.deepcopy,
        json.dumps,
        bytes,
        list,
        vars,
        lambda secret: secret.__reduce__(),
        lambda secret: secret.__getstate__(),
        lambda secret: dataclasses.asdict(
            MobilitySecurityAssociation(Spi(256), AuthenticationAlgorithm.HMAC_MD5, key=secret)
        ),
    ],
)
def test_it_does_not_spread(spread: object) -> None:
    with pytest.raises(TypeError) as caught:
        spread(Secret(WORDS))  # type: ignore[operator]
    assert not shows(str(caught.value))


def test_equal_content_is_not_equal() -> None:
    one = Secret(WORDS)
    assert one != Secret(WORDS)
    same = one
    assert one == same
    assert one != WORDS


def test_reveal_and_length() -> None:
    source = bytearray(WORDS)
    secret = Secret(source)
    source[0] = 0
    assert secret.reveal() == WORDS
    assert len(secret) == len(WORDS)
    assert secret
    assert not Secret(b"")


def test_wipe_forgets() -> None:
    secret = Secret(WORDS)
    secret.wipe()
    secret.wipe()
    assert not secret
    assert len(secret) == 0
    with pytest.raises(LocalProtocolError, match="wiped"):
        secret.reveal()


def test_nothing_can_be_hung_onto_it() -> None:
    with pytest.raises(AttributeError):
        Secret(WORDS).note = "x"  # type: ignore[attr-defined]
