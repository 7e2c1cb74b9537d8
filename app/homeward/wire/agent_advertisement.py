# SPDX-License-Identifier: GPL-2.0-or-later
"""Agent Advertisement and Solicitation as ICMP messages (RFC 5944 2.1, 2.2; RFC 1256 3).

What is checked in an advertisement: checksum, address entries of two words or more, that they fit, exactly one Mobility
Agent Advertisement extension (16), at most one each of Prefix-Lengths (19) and Challenge (24), and that flags and
addresses go together. A code other than 0 and no router at all are legal here, though RFC 1256 refuses them (R-113).
Reserved flags are ignored. Unknown extensions: to 127 the message is dropped, from 128 they are stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.agent import (
    ALL_AGENT_FLAGS,
    AdvertisedRouter,
    AgentAdvertisement,
    AgentFlags,
    advertisement_fault,
    prefix_fault,
)
from homeward.model.errors import (
    BadChecksum,
    BadExtension,
    NotFromThisLink,
    TrailingOctets,
    Truncated,
    UnknownMessage,
)
from homeward.wire.cursor import Cursor
from homeward.wire.decoded import only
from homeward.wire.extensions import Extension, ExtensionType, encode, walk
from homeward.wire.internet_checksum import checksum, put
from homeward.wire.ip_in_ip import open_outer

ADVERTISEMENT_TYPE: Final = 9
SOLICITATION_TYPE: Final = 10
PROTOCOL: Final = 1
"""ICMP."""
TTL: Final = 1
"""Of every message of agent discovery: it concerns one link (RFC 5944 2.1, 2.4)."""

_HEADER: Final = struct.Struct("!BBHBBH")
_ROUTER: Final = struct.Struct("!4si")
_AGENT: Final = struct.Struct("!HHH")
_SOLICITATION: Final = bytes([SOLICITATION_TYPE]) + bytes(7)
_WORD: Final = 4
_ROUTER_WORDS: Final = 2
_CHECKSUM_AT: Final = 2
_UNDERSTOOD: Final[frozenset[int]] = frozenset(
    {
        ExtensionType.MOBILITY_AGENT_ADVERTISEMENT,
        ExtensionType.PREFIX_LENGTHS,
        ExtensionType.ADVERTISED_CHALLENGE,
    }
)


@dataclass(frozen=True, slots=True)
class HeardAdvertisement:
    """An advertisement and the address it came from, which requests to this agent are sent to (RFC 5944 3.6.1.1)."""

    source: IPv4Address
    advertisement: AgentAdvertisement


def encode_advertisement(advertisement: AgentAdvertisement) -> bytes:
    """The ICMP message, padded to an even number of octets; IP header, TTL and destination are the sender's part."""
    header = _HEADER.pack(
        ADVERTISEMENT_TYPE,
        advertisement.code,
        0,
        len(advertisement.routers),
        _ROUTER_WORDS,
        advertisement.lifetime,
    )
    routers = b"".join(_ROUTER.pack(one.address.packed, one.preference) for one in advertisement.routers)
    body = _AGENT.pack(
        advertisement.sequence, advertisement.registration_lifetime, advertisement.flags
    ) + b"".join(one.packed for one in advertisement.care_of_addresses)
    extensions = [Extension(ExtensionType.MOBILITY_AGENT_ADVERTISEMENT, body)]
    if advertisement.prefix_lengths is not None:
        extensions.append(Extension(ExtensionType.PREFIX_LENGTHS, bytes(advertisement.prefix_lengths)))
    if advertisement.challenge is not None:
        extensions.append(Extension(ExtensionType.ADVERTISED_CHALLENGE, advertisement.challenge))
    octets = header + routers + b"".join(encode(one) for one in extensions)
    return put(octets + b"\0" * (len(octets) % 2), _CHECKSUM_AT)


def decode_advertisement(octets: bytes) -> AgentAdvertisement:
    """Read an ICMP message. Raises only WireErrors: UnknownMessage also for a router that is no mobility agent."""
    cursor = _open(octets, ADVERTISEMENT_TYPE, least=_HEADER.size)
    _, code, _, count, words, lifetime = _HEADER.unpack(cursor.take(_HEADER.size, "advertisement"))
    if words < _ROUTER_WORDS:
        raise Truncated(f"address entries of {words} words cannot hold an address and its preference")
    routers = tuple(_read_router(cursor.part(words * _WORD, "address entry")) for _ in range(count))
    extensions = tuple(walk(octets, cursor.offset, understood=_UNDERSTOOD))
    agent = only(extensions, ExtensionType.MOBILITY_AGENT_ADVERTISEMENT)
    if agent is None:
        raise UnknownMessage("a router advertisement of a router that is no mobility agent")
    sequence, registration_lifetime, flags, care_of_addresses = _read_agent(agent)
    return AgentAdvertisement(
        sequence,
        lifetime,
        registration_lifetime=registration_lifetime,
        flags=flags,
        care_of_addresses=care_of_addresses,
        routers=routers,
        code=code,
        prefix_lengths=_read_prefix_lengths(extensions, routers=count),
        challenge=_read_challenge(extensions),
    )


def hear_advertisement(packet: bytes) -> HeardAdvertisement:
    """Read an advertisement from a whole IPv4 packet, as a raw ICMP socket gives it.

    Raises only WireErrors; NotFromThisLink for a TTL other than 1 (R-116).
    """
    octets = open_outer(packet, PROTOCOL)
    if packet[8] != TTL:
        raise NotFromThisLink(f"an advertisement with a TTL of {packet[8]}")
    return HeardAdvertisement(IPv4Address(packet[12:16]), decode_advertisement(octets))


def encode_solicitation() -> bytes:
    """The ICMP message by which a host asks the agents of its link to advertise."""
    return put(_SOLICITATION, _CHECKSUM_AT)


def decode_solicitation(octets: bytes) -> None:
    """Check that an ICMP message is a solicitation (RFC 1256 5.1); a WireError says why it is none.

    Its sender need not be a neighbour by its address (R-206), and what follows the eight octets is ignored.
    """
    cursor = _open(octets, SOLICITATION_TYPE, least=len(_SOLICITATION))
    cursor.take(1, "type")
    code = cursor.number(1, "code")
    if code:
        raise UnknownMessage(f"a solicitation with code {code}")


def _open(octets: bytes, number: int, *, least: int) -> Cursor:
    kind = Cursor(octets).number(1, "ICMP type")
    if kind != number:
        raise UnknownMessage(f"ICMP type {kind} is not {number}")
    if len(octets) < least:
        raise Truncated(
            f"an ICMP message of type {number} has {least} octets or more, these are {len(octets)}"
        )
    if checksum(octets):
        raise BadChecksum(f"the checksum of an ICMP message of type {number} is wrong")
    return Cursor(octets)


def _read_router(entry: Cursor) -> AdvertisedRouter:
    address, preference = _ROUTER.unpack(entry.take(_ROUTER.size, "router"))
    return AdvertisedRouter(IPv4Address(address), preference)


def _read_agent(extension: Extension) -> tuple[int, int, AgentFlags, tuple[IPv4Address, ...]]:
    body = Cursor(extension.body)
    fixed = body.take(_AGENT.size, "Mobility Agent Advertisement")
    sequence, registration_lifetime, flags = _AGENT.unpack(fixed)
    if body.remaining % _WORD:
        raise TrailingOctets(f"{body.remaining} octets of care-of addresses")
    addresses = tuple(body.address("care-of address") for _ in range(body.remaining // _WORD))
    known = AgentFlags(flags) & ALL_AGENT_FLAGS
    fault = advertisement_fault(known, addresses)
    if fault is not None:
        raise BadExtension(f"the advertisement contradicts itself: {fault}")
    return sequence, registration_lifetime, known, addresses


def _read_prefix_lengths(extensions: Sequence[Extension], *, routers: int) -> tuple[int, ...] | None:
    extension = only(extensions, ExtensionType.PREFIX_LENGTHS)
    if extension is None:
        return None
    lengths = tuple(extension.body)
    fault = prefix_fault(lengths, routers=routers)
    if fault is not None:
        raise BadExtension(f"the extension at octet {extension.offset} cannot be right: {fault}")
    return lengths


def _read_challenge(extensions: Sequence[Extension]) -> bytes | None:
    extension = only(extensions, ExtensionType.ADVERTISED_CHALLENGE)
    if extension is None:
        return None
    if not extension.body:
        raise BadExtension(f"the challenge at octet {extension.offset} is empty")
    return extension.body
