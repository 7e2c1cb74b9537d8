# SPDX-License-Identifier: GPL-2.0-or-later
"""The framework by itself: layouts, padding, what is stepped over and what is not."""

from __future__ import annotations

import pytest

from homeward.model.errors import LocalProtocolError, Truncated, UnknownCriticalExtension
from homeward.wire.extensions import LAYOUTS, Extension, Layout, encode, walk

EVERYTHING = frozenset(range(1, 256))

# One line per layout and border, among them the fixed parts of extensions that later issues will read.
TABLE = [
    ("simple", Extension(131, b"a@b"), "8303614062"),
    ("simple, empty", Extension(130, b""), "8200"),
    ("simple, longest", Extension(132, bytes(255)), "84ff" + "00" * 255),
    ("short", Extension(149, b"\0", sub_type=0), "95020000"),
    ("short, no data", Extension(145, b"", sub_type=2), "910102"),
    ("short, longest", Extension(145, bytes(254), sub_type=1), "91ff01" + "00" * 254),
    ("short, critical", Extension(44, bytes.fromhex("000000006e"), sub_type=0), "2c0600000000006e"),
    (
        "long",
        Extension(36, bytes.fromhex("00000100") + bytes(16), sub_type=1),
        "2401001400000100" + "00" * 16,
    ),
    ("long, more than a simple one holds", Extension(36, bytes(256), sub_type=255), "24ff0100" + "00" * 256),
    ("vendor", Extension(38, bytes.fromhex("0000000900017f"), sub_type=0), "260000070000000900017f"),
]


@pytest.mark.rows("R-103")
@pytest.mark.parametrize(("extension", "octets"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_value_and_octets(extension: Extension, octets: str) -> None:
    assert encode(extension).hex() == octets
    assert list(walk(bytes.fromhex(octets), 0, understood=EVERYTHING)) == [extension]


@pytest.mark.rows("R-103")
@pytest.mark.parametrize("octets", [row[2] for row in TABLE], ids=[row[0] for row in TABLE])
def test_every_cut_is_truncated(octets: str) -> None:
    whole = bytes.fromhex(octets)
    for cut in range(1, len(whole)):
        with pytest.raises(Truncated):
            list(walk(whole[:cut], 0, understood=EVERYTHING))


@pytest.mark.rows("R-104")
def test_order_and_offsets_are_kept_and_padding_is_not() -> None:
    octets = b"\xaa\xbb" + bytes.fromhex("00820000008301619502000000")
    assert list(walk(octets, 2, understood=EVERYTHING)) == [
        Extension(130, b"", offset=3),
        Extension(131, b"a", offset=7),
        Extension(149, b"\0", sub_type=0, offset=10),
    ]


@pytest.mark.rows("R-104")
def test_nothing_and_only_padding_are_no_extensions() -> None:
    assert list(walk(b"", 0, understood=EVERYTHING)) == []
    assert list(walk(bytes(9), 4, understood=EVERYTHING)) == []


@pytest.mark.rows("R-102")
def test_a_skipped_short_extension_may_be_shorter_than_short_ones_are() -> None:
    assert list(walk(bytes.fromhex("9000"), 0, understood=frozenset())) == [Extension(144, b"")]
    with pytest.raises(Truncated, match="sub-type of extension 144 at octet 2"):
        list(walk(bytes.fromhex("9000"), 0, understood=frozenset({144})))


def test_a_short_extension_ends_where_its_length_says() -> None:
    # The sub-type must come from inside: with length 0 the next octet belongs to somebody else.
    with pytest.raises(Truncated):
        list(walk(bytes.fromhex("95008200"), 0, understood=frozenset({149})))


@pytest.mark.rows("R-102")
def test_critical_ones_are_refused_before_their_length_is_even_read() -> None:
    for number in range(1, 128):
        with pytest.raises(UnknownCriticalExtension):
            list(walk(bytes([number]), 0, understood=frozenset({149})))


def test_what_came_before_is_yielded_before_the_refusal() -> None:
    reader = walk(bytes.fromhex("820063"), 0, understood=frozenset())
    assert next(reader) == Extension(130, b"")
    with pytest.raises(UnknownCriticalExtension, match="extension 99 at octet 2"):
        next(reader)


def test_dynamic_home_agent_is_stepped_over_by_its_second_octet() -> None:
    # RFC 4433 draws type 139 long: the second octet is its sub-type, and the rest is then read as something else.
    drawn_long = bytes.fromhex("8b010004") + bytes.fromhex("0a000001")
    with pytest.raises(UnknownCriticalExtension, match="extension 4 at octet 3"):
        list(walk(drawn_long, 0, understood=frozenset()))


def test_long_layouts_are_critical_only() -> None:
    wide = {number for number, layout in LAYOUTS.items() if layout in (Layout.LONG, Layout.VENDOR)}
    assert wide
    assert all(number < 128 for number in wide)


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        (Extension(131, bytes(256)), "does not fit"),
        (Extension(149, bytes(255), sub_type=0), "does not fit"),
        (Extension(149, b"", sub_type=256), "does not fit"),
        (Extension(36, bytes(65536), sub_type=1), "does not fit"),
        (Extension(131, b"", sub_type=0), "has the layout"),
        (Extension(149, b""), "has the layout"),
        (Extension(0, b""), "not an extension type"),
        (Extension(256, b""), "not an extension type"),
    ],
)
def test_what_cannot_be_written(extension: Extension, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        encode(extension)
