# SPDX-License-Identifier: GPL-2.0-or-later
"""Too long messages lose their body before anybody unpacks it, however the stream is cut."""

import io
import random

import pytest
from dbus_fast import Message, MessageType
from dbus_fast._private.unmarshaller import Unmarshaller

from homeward.bus.bounded import MessageFilter, was_oversize

LIMIT = 1000
HANDSHAKE = [
    b"OK 1234deadbeef\r\n",
    b"REJECTED EXTERNAL\r\n",
    b"DATA\r\n",
    b"ERROR\r\n",
    b"AGREE_UNIX_FD\r\n",
]


def message(member: str, size: int, *, serial: int, path: str = "/a") -> bytes:
    made = Message(
        destination="org.example.A",
        path=path,
        interface="org.example.A",
        member=member,
        signature="ay" if size else "",
        body=[b"x" * size] if size else [],
        serial=serial,
    )
    return bytes(made._marshall(False))


def unpacked(stream: bytes) -> list[Message]:
    reader = Unmarshaller(io.BytesIO(stream))
    found = []
    while True:
        try:
            one = reader.unmarshall()
        except EOFError:
            return found
        if one is None:
            return found
        found.append(one)


STREAM = b"".join(
    [
        message("Small", 0, serial=1),
        message("Large", 5000, serial=2),
        message("Middle", 500, serial=3),
        message("Larger", 100_000, serial=4),
        message("LongPath", 10, serial=5, path="/" + "a" * 3000),
        message("Last", 1, serial=6),
    ]
)


@pytest.mark.parametrize("cut", [1, 2, 7, 16, 17, 100, 4096, 10**6])
def test_every_message_arrives_and_the_long_ones_without_body(cut: int) -> None:
    bounded = MessageFilter(LIMIT)
    out = b"".join(bounded.filter(STREAM[at : at + cut]) for at in range(0, len(STREAM), cut))
    found = unpacked(out)
    assert [one.member for one in found] == ["Small", "Large", "Middle", "Larger", "Last"]
    assert [was_oversize(one) for one in found] == [False, True, False, True, False]
    assert [len(one.body[0]) if one.body else 0 for one in found] == [0, 0, 500, 0, 1]
    assert [one.serial for one in found] == [1, 2, 3, 4, 6]
    assert all(one.message_type is MessageType.METHOD_CALL for one in found)


def test_random_cuts() -> None:
    chance = random.Random(5266)
    whole = MessageFilter(LIMIT).filter(STREAM)
    for _ in range(200):
        cuts = sorted(chance.randrange(len(STREAM)) for _ in range(9))
        bounded = MessageFilter(LIMIT)
        pieces = zip([0, *cuts], [*cuts, len(STREAM)], strict=True)
        assert b"".join(bounded.filter(STREAM[a:b]) for a, b in pieces) == whole


@pytest.mark.parametrize("line", HANDSHAKE)
def test_the_handshake_passes(line: bytes) -> None:
    bounded = MessageFilter(LIMIT)
    assert bounded.filter(line) == line
    assert bounded.filter(message("Small", 3, serial=1)) == message("Small", 3, serial=1)


def test_big_endian() -> None:
    header = b"B\x01\x00\x01" + (5000).to_bytes(4, "big") + (9).to_bytes(4, "big") + (16).to_bytes(4, "big")
    out = MessageFilter(LIMIT).filter(header + bytes(16) + bytes(5000) + b"Bnext")
    assert out[:4] == b"B\x01\x80\x01"
    assert out[4:8] == bytes(4)
    assert len(out) == 32  # the next message's first octets wait for the rest of its header
