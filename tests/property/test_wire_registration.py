# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every message, not only for the vectors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.model.errors import Truncated, WireError
from homeward.model.registration import MobilitySecurityAssociation, Spi
from homeward.model.secret import Secret
from homeward.wire.authenticator import AUTHENTICATOR_OCTETS, authenticate, verify
from homeward.wire.extensions import LAYOUTS, Extension, Layout, walk
from homeward.wire.extensions import encode as encode_extension
from homeward.wire.registration import decode
from tests.property.registration_strategies import Message, associations, encode, messages

skippable = st.integers(128, 255)
tails = st.lists(
    st.just(b"\0")
    # One octet or more, since some of these types have a sub-type.
    | st.builds(
        lambda number, body: bytes([number, len(body)]) + body, skippable, st.binary(min_size=1, max_size=40)
    ),
    min_size=1,
    max_size=4,
)


def authentic(octets: bytes, association: MobilitySecurityAssociation) -> bool:
    """As a receiver judges it: what cannot be read is not authentic."""
    try:
        decoded = decode(octets)
    except WireError:
        return False
    return verify(octets, decoded, association)


@given(messages, associations)
def test_round_trip(message: Message, association: MobilitySecurityAssociation) -> None:
    octets = encode(message, association)
    decoded = decode(octets)
    assert decoded.message == message
    assert decoded.unauthenticated == ()
    assert verify(octets, decoded, association)
    assert decoded.authentication is not None
    assert decoded.authentication.covered + AUTHENTICATOR_OCTETS[association.algorithm] == len(octets)


@given(messages, associations)
def test_a_cut_message_is_truncated_or_has_lost_its_authenticator(
    message: Message, association: MobilitySecurityAssociation
) -> None:
    octets = encode(message, association)
    whole = decode(octets)
    assert whole.authentication is not None
    borders = {one.offset for one in whole.covered} | {whole.authentication.covered - 6}
    for cut in range(len(octets)):
        if cut in borders:
            decoded = decode(octets[:cut])
            assert decoded.authentications == ()
            assert not verify(octets[:cut], decoded, association)
        else:
            with pytest.raises(Truncated):
                decode(octets[:cut])


@settings(max_examples=40)
@given(messages, associations, st.integers(1, 255))
def test_any_changed_octet_up_to_the_authenticators_end_breaks_it(
    message: Message, association: MobilitySecurityAssociation, change: int
) -> None:
    octets = encode(message, association)
    assert authentic(octets, association)
    for at in range(len(octets)):
        changed = bytearray(octets)
        changed[at] ^= change
        assert not authentic(bytes(changed), association), f"octet {at} xor {change:#04x}"


@given(messages, associations, tails, st.data())
def test_nothing_behind_the_authenticator_changes_what_is_said(
    message: Message, association: MobilitySecurityAssociation, tail: list[bytes], data: st.DataObject
) -> None:
    octets = encode(message, association)
    longer = octets + b"".join(tail)
    decoded = decode(longer)
    assert decoded.message == message
    assert verify(longer, decoded, association)
    assert len(decoded.unauthenticated) == sum(one != b"\0" for one in tail)

    at = data.draw(st.integers(len(octets), len(longer) - 1))
    changed = bytearray(longer)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode(bytes(changed))
    except WireError:
        return
    if decoded.authentication is None:
        # The change made a second MN-HA extension: then nothing but the fixed part is said, and that unproved.
        assert len(decoded.authentications) == 2
        assert not verify(bytes(changed), decoded, association)
        return
    assert decoded.message == message
    assert verify(bytes(changed), decoded, association)


@given(messages, associations, associations)
def test_a_second_authenticator_proves_nothing(
    message: Message, association: MobilitySecurityAssociation, other: MobilitySecurityAssociation
) -> None:
    octets = authenticate(encode(message, association), other)
    assert not authentic(octets, association)
    assert not authentic(octets, other)


@given(messages, associations, st.binary(min_size=16, max_size=80), st.integers(256, 0xFFFFFFFF))
def test_only_the_association_that_made_it_accepts_it(
    message: Message, association: MobilitySecurityAssociation, key: bytes, spi: int
) -> None:
    octets = encode(message, association)
    # HMAC pads a key with zeros up to the block of 64 octets: such keys are one and the same.
    if key.rstrip(b"\0") != association.key.reveal().rstrip(b"\0"):
        assert not authentic(octets, replace(association, key=Secret(key)))
    if spi != association.spi:
        assert not authentic(octets, replace(association, spi=Spi(spi)))


@settings(max_examples=500)
@given(
    st.binary(max_size=200)
    | st.builds(
        bytes.__add__,
        st.builds(bytes.__add__, st.sampled_from([b"\x01", b"\x03"]), st.binary(min_size=23, max_size=23)),
        st.binary(max_size=120),
    ),
    associations,
)
def test_no_octets_raise_anything_but_wire_errors_or_prove_anything(
    octets: bytes, association: MobilitySecurityAssociation
) -> None:
    assert not authentic(octets, association)


@given(
    st.lists(
        st.integers(1, 255).flatmap(
            lambda number: st.builds(
                Extension,
                st.just(number),
                st.binary(max_size=254),
                sub_type=st.integers(0, 255)
                if LAYOUTS.get(number, Layout.SIMPLE) is not Layout.SIMPLE
                else st.none(),
            )
        ),
        max_size=6,
    ),
    st.integers(0, 3),
)
def test_extensions_round_trip_with_padding_between(extensions: list[Extension], padding: int) -> None:
    octets, expected = b"\xee" * 20, []
    for extension in extensions:
        expected.append(replace(extension, offset=len(octets)))
        octets += encode_extension(extension) + bytes(padding)
    assert list(walk(octets, 20, understood=frozenset(range(1, 256)))) == expected
