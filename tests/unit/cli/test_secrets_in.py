# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets from a file descriptor or a prompt: read right, or refused without being repeated."""

import getpass
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from homeward.bus.secret_text import secret_from_text
from homeward.cli.errors import UsageError
from homeward.cli.secrets_in import ask_secrets, read_secrets
from homeward.model.errors import ProfileError
from homeward.model.status import SecretNeeded


@contextmanager
def descriptor_with(octets: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(octets)
        file.seek(0)
        yield file.fileno()


def test_all_forms() -> None:
    with descriptor_with(
        b"a=hex:00ff10\n\nb = text: x=y \r\nc=base64:AAEC/w==\nd=bare words\n"
    ) as descriptor:
        secrets = read_secrets(descriptor)
    assert {name: secret.reveal() for name, secret in secrets.items()} == {
        "a": b"\x00\xff\x10",
        "b": b" text: x=y ",
        "c": b"\x00\x01\x02\xff",
        "d": b"bare words",
    }


@pytest.mark.parametrize(
    "octets",
    [
        b"hunter2hunter2",
        b"=text:hunter2hunter2",
        b"a=hex:hunter2hunter2",
        b"a=base64:hunter2hunter2!",
        b"a=text:",
        b"a=base64:",
        b"a=hex:",
        b"a=",
        b"ok=text:x\na=text:hunter2\x01hunter2",
        b"a=text:hunter2\xff",
        b"a=text:" + b"hunter2" * 10_000,
    ],
)
def test_wrong_input_is_not_repeated(octets: bytes) -> None:
    with descriptor_with(octets) as descriptor, pytest.raises(UsageError) as caught:
        read_secrets(descriptor)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 300


def test_a_descriptor_that_is_not_open() -> None:
    with pytest.raises(UsageError, match="--secrets-fd 999: Bad file descriptor"):
        read_secrets(999)


def test_base64_besides_the_common_forms() -> None:
    assert secret_from_text("base64:aGVsbG8=\n").reveal() == b"hello"
    with pytest.raises(ProfileError):
        secret_from_text("base64:aGVsbG8")


def test_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "hex:0102"

    monkeypatch.setattr(getpass, "getpass", answer)
    needed = [SecretNeeded("psk", "the key\x1b[2J shared", "alice", "scrypt:0:0")]
    assert {name: secret.reveal() for name, secret in ask_secrets(needed).items()} == {"psk": b"\x01\x02"}
    assert "“psk”" in asked[0]
    assert "\x1b" not in asked[0]
