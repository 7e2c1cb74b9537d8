# SPDX-License-Identifier: GPL-2.0-or-later
"""Agent discovery: vectors V9 and V10, what is refused, and what RFC 1256 would refuse but RFC 5944 does not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.model.agent import (
    AGENT_ONLY,
    NOT_A_DEFAULT_ROUTER,
    AdvertisedRouter,
    AgentAdvertisement,
    AgentFlags,
    has_restarted,
    next_sequence,
)
from homeward.model.errors import (
    BadChecksum,
    BadExtension,
    LocalProtocolError,
    NotFromThisLink,
    TrailingOctets,
    Truncated,
    UnknownCriticalExtension,
    UnknownMessage,
    WireError,
)
from homeward.wire.agent_advertisement import (
    decode_advertisement,
    decode_solicitation,
    encode_advertisement,
    encode_solicitation,
    hear_advertisement,
)
from homeward.wire.internet_checksum import put
from tests.unit.wire.vectors import FOREIGN_AGENT, V9_ADVERTISEMENT, V10_SOLICITATION

V9 = AgentAdvertisement(
    41,
    30,
    registration_lifetime=600,
    flags=AgentFlags.REGISTRATION_REQUIRED | AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL,
    care_of_addresses=(FOREIGN_AGENT,),
    routers=(AdvertisedRouter(FOREIGN_AGENT),),
    prefix_lengths=(24,),
)
HEADER = "0900" + "0000" + "00" + "02" + "001e"
AGENT = "100a" + "0029" + "0258" + "1000" + "0a030002"


def message(text: str) -> bytes:
    return put(bytes.fromhex(text), 2)


def in_packet(octets: bytes, ttl: int = 1) -> bytes:
    header = bytes.fromhex("4500") + (20 + len(octets)).to_bytes(2, "big") + bytes(4)
    return header + bytes([ttl, 1, 0, 0]) + FOREIGN_AGENT.packed + bytes.fromhex("e0000001") + octets


@pytest.mark.rows("R-112")
def test_v9() -> None:
    assert encode_advertisement(V9) == V9_ADVERTISEMENT
    assert decode_advertisement(V9_ADVERTISEMENT) == V9


@pytest.mark.rows("R-107")
def test_v10() -> None:
    assert encode_solicitation() == V10_SOLICITATION
    decode_solicitation(V10_SOLICITATION)


@pytest.mark.rows("R-116")
@pytest.mark.parametrize("ttl", [0, 2, 64, 255])
def test_an_advertisement_from_further_away_is_not_heard(ttl: int) -> None:
    heard = hear_advertisement(in_packet(V9_ADVERTISEMENT))
    assert (heard.source, heard.advertisement) == (FOREIGN_AGENT, V9)
    with pytest.raises(NotFromThisLink):
        hear_advertisement(in_packet(V9_ADVERTISEMENT, ttl))


@pytest.mark.rows("R-113")
def test_code_16_and_no_router_are_legal() -> None:
    read = decode_advertisement(message("0910" + HEADER[4:] + AGENT))
    assert (read.code, read.routers, read.prefix_lengths) == (AGENT_ONLY, (), None)
    assert encode_advertisement(read) == message("0910" + HEADER[4:] + AGENT)
    # Any other code too: only RFC 1256 asks for 0.
    assert decode_advertisement(message("0901" + HEADER[4:] + AGENT)).code == 1


@pytest.mark.rows("R-112")
def test_reserved_flags_are_ignored() -> None:
    assert (
        decode_advertisement(message(HEADER + AGENT.replace("1000", "121f"))).flags
        == AgentFlags.FOREIGN_AGENT
    )


def test_longer_address_entries_and_preferences() -> None:
    text = "090000000203001e" + "0a030001" + "80000000" + "deadbeef" + "0a030002" + "00000007" + "cafebabe"
    read = decode_advertisement(message(text + AGENT))
    assert read.routers == (
        AdvertisedRouter(IPv4Address("10.3.0.1"), NOT_A_DEFAULT_ROUTER),
        AdvertisedRouter(IPv4Address("10.3.0.2"), 7),
    )


def test_challenge_and_several_care_of_addresses() -> None:
    full = replace(
        V9,
        care_of_addresses=tuple(IPv4Address(f"10.3.0.{n}") for n in range(1, 63)),
        challenge=bytes(range(255)),
        flags=AgentFlags(0xFDE0),
    )
    assert decode_advertisement(encode_advertisement(full)) == full
    assert full.is_busy
    assert len(encode_advertisement(full)) % 2 == 0


def test_skippable_extensions_and_padding() -> None:
    nai = "8804036140" + "62"
    assert decode_advertisement(message(HEADER + "00" + nai + AGENT + "0000")).sequence == 41


@pytest.mark.rows("R-102", "R-103", "R-112")
@pytest.mark.parametrize(
    ("error", "octets"),
    [
        (Truncated, b""),
        (Truncated, bytes.fromhex("0900")),
        (UnknownMessage, V10_SOLICITATION),
        (BadChecksum, V9_ADVERTISEMENT[:-1] + b"\x01"),
        (UnknownMessage, message(HEADER)),
        (UnknownMessage, message("090000000102001e0a03000200000000")),
        (Truncated, message("090000000001001e" + AGENT)),
        (Truncated, message("090000000102001e0a030002")),
        (Truncated, message("09000000ff02001e" + AGENT)),
        (Truncated, message(HEADER + "1005002902581000")),
        (Truncated, message(HEADER + AGENT[:-2])),
        (TrailingOctets, message(HEADER + "100b" + AGENT[4:] + "00")),
        (BadExtension, message(HEADER + AGENT + AGENT)),
        (BadExtension, message(HEADER + "1006" + "0029" + "0258" + "1000")),
        (BadExtension, message(HEADER + "1006" + "0029" + "0258" + "0100")),
        (BadExtension, message(HEADER + "1006" + "0029" + "0258" + "a000")),
        (BadExtension, message(HEADER + "1006" + "0029" + "0258" + "6000")),
        (BadExtension, message(HEADER + AGENT + "130118")),
        (BadExtension, message("090000000102001e0a03000200000000" + AGENT + "130121")),
        (BadExtension, message("090000000102001e0a03000200000000" + AGENT + "130118130118")),
        (BadExtension, message(HEADER + AGENT + "1800")),
        (BadExtension, message(HEADER + AGENT + "180461626364" * 2)),
        (UnknownCriticalExtension, message(HEADER + AGENT + "1100")),
        (UnknownCriticalExtension, message(HEADER + AGENT + "2000")),
        (Truncated, message(HEADER + AGENT + "88")),
    ],
)
def test_refused(error: type[WireError], octets: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_advertisement(octets)
    assert caught.type is error


def test_every_bit_is_under_the_checksum() -> None:
    for bit in range(8 * len(V9_ADVERTISEMENT)):
        changed = bytearray(V9_ADVERTISEMENT)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            decode_advertisement(bytes(changed))


@pytest.mark.parametrize(
    ("error", "octets"),
    [
        (Truncated, b""),
        (Truncated, b"\x0a\0\0\0"),
        (UnknownMessage, V9_ADVERTISEMENT),
        (BadChecksum, V10_SOLICITATION[:-1] + b"\x01"),
        (UnknownMessage, put(b"\x0a\x01" + bytes(6), 2)),
    ],
)
def test_refused_solicitations(error: type[WireError], octets: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_solicitation(octets)
    assert caught.type is error


@pytest.mark.rows("R-206")
def test_a_longer_solicitation_is_one() -> None:
    decode_solicitation(put(V10_SOLICITATION + b"\x01\x02", 2))


@pytest.mark.rows("R-206")
def test_sequence_numbers() -> None:
    assert [next_sequence(n) for n in (0, 254, 255, 256, 0xFFFE, 0xFFFF)] == [1, 255, 256, 257, 0xFFFF, 256]


@pytest.mark.rows("R-119")
@pytest.mark.parametrize(
    ("previous", "current", "restarted"),
    [
        (5000, 3, True),
        (5000, 255, True),
        (5000, 256, False),
        (0xFFFF, 256, False),
        (41, 42, False),
        (41, 41, False),
        (41, 40, True),
        (255, 256, False),
    ],
)
def test_restarts(previous: int, current: int, restarted: bool) -> None:
    assert has_restarted(previous, current) is restarted


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 65536},
        {"lifetime": -1},
        {"registration_lifetime": 65536},
        {"code": 256},
        {"flags": AgentFlags(0)},
        {"flags": AgentFlags(0x1001)},
        {"flags": AgentFlags(0x1200)},
        {"care_of_addresses": ()},
        {"care_of_addresses": (FOREIGN_AGENT,) * 63},
        {"flags": AgentFlags.HOME_AGENT | AgentFlags.BUSY},
        {"prefix_lengths": ()},
        {"prefix_lengths": (33,)},
        {"challenge": b""},
        {"challenge": bytes(256)},
        {"routers": (AdvertisedRouter(FOREIGN_AGENT),) * 256, "prefix_lengths": None},
    ],
)
def test_values_that_are_never_sent(change: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        replace(V9, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("preference", [-(1 << 31) - 1, 1 << 31])
def test_a_preference_that_does_not_fit(preference: int) -> None:
    with pytest.raises(LocalProtocolError):
        AdvertisedRouter(FOREIGN_AGENT, preference)
