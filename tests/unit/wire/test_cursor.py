# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from homeward.model.errors import TrailingOctets, Truncated
from homeward.wire.cursor import Cursor


def test_reads_in_order() -> None:
    cursor = Cursor(bytes.fromhex("01 0203 0a000001 04050607 08 ff"))
    assert cursor.number(1, "one") == 1
    assert cursor.number(2, "two") == 0x0203
    assert cursor.address("address") == IPv4Address("10.0.0.1")
    assert cursor.offset == 7
    assert cursor.take(4, "four") == bytes.fromhex("04050607")
    assert cursor.remaining == 2
    assert cursor.rest() == b"\x08\xff"
    assert cursor.rest() == b""
    cursor.finish("all")


def test_a_failed_read_consumes_nothing() -> None:
    cursor = Cursor(b"abc")
    with pytest.raises(Truncated, match="address at octet 0 needs 4 octets, 3 are left"):
        cursor.address("address")
    assert cursor.take(3, "all") == b"abc"


def test_what_is_left_over_is_named() -> None:
    cursor = Cursor(b"abc", 1)
    with pytest.raises(TrailingOctets, match="thing ends at octet 1, 2 more follow"):
        cursor.finish("thing")


def test_a_part_ends_before_the_whole_does_and_counts_from_its_beginning() -> None:
    cursor = Cursor(b"abcdef", 1)
    part = cursor.part(2, "part")
    assert cursor.offset == 3
    assert part.offset == 1
    with pytest.raises(Truncated, match="at octet 1 needs 3 octets, 2 are left"):
        part.take(3, "too much")
    assert part.rest() == b"bc"
    assert cursor.rest() == b"def"


def test_a_part_must_be_there() -> None:
    with pytest.raises(Truncated, match="part at octet 0 needs 3"):
        Cursor(b"ab").part(3, "part")
