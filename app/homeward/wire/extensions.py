# SPDX-License-Identifier: GPL-2.0-or-later
"""The extension framework of Mobile IPv4 registration messages (RFC 5944 1.8 to 1.11).

Four layouts follow each other to the end of the UDP payload, and type 0 is one octet of padding without a
length. What a reader does not understand decides by its number: 1 to 127 condemns the message, 128 to 255 is
stepped over by its second octet *as a length*, whatever its author drew (RFC 5944 1.10; RFC 4433 drew type 139
otherwise, and the parse error which that may cause drops the message).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from enum import Enum, IntEnum
from typing import Final, assert_never

from homeward.model.errors import LocalProtocolError, TrailingOctets, Truncated, UnknownCriticalExtension
from homeward.model.values import quick
from homeward.wire.cursor import Cursor


class ExtensionType(IntEnum):
    """The numbers that this program has a use for, now or as something to recognise."""

    PADDING = 0
    MOBILITY_AGENT_ADVERTISEMENT = 16
    """This one, 19 and 24 stand in router advertisements, which have a number space of their own."""
    PREFIX_LENGTHS = 19
    ADVERTISED_CHALLENGE = 24
    MOBILE_HOME_AUTHENTICATION = 32
    MOBILE_FOREIGN_AUTHENTICATION = 33
    FOREIGN_HOME_AUTHENTICATION = 34
    GENERALIZED_AUTHENTICATION = 36
    CRITICAL_VENDOR_SPECIFIC = 38
    UDP_TUNNEL_REPLY = 44
    FOREIGN_AGENT_ERROR = 45
    PROXY_MOBILE_NON_SKIPPABLE = 47
    ENCAPSULATING_DELIVERY_STYLE = 130
    MOBILE_NODE_NAI = 131
    MOBILE_FOREIGN_CHALLENGE = 132
    REVOCATION_SUPPORT = 137
    UDP_TUNNEL_REQUEST = 144
    MESSAGE_STRING = 145
    TRUSTED_NETWORKS_CONFIGURED = 149


class Layout(Enum):
    """How type, sub-type and length are arranged in front of the data."""

    SIMPLE = "type, length of data"
    SHORT = "type, length of sub-type and data, sub-type"
    LONG = "type, sub-type, two octets of length of data"
    VENDOR = "type, reserved octet, two octets of length of data"


LAYOUTS: Final[dict[int, Layout]] = {
    ExtensionType.GENERALIZED_AUTHENTICATION: Layout.LONG,
    ExtensionType.CRITICAL_VENDOR_SPECIFIC: Layout.VENDOR,
    ExtensionType.UDP_TUNNEL_REPLY: Layout.SHORT,
    ExtensionType.FOREIGN_AGENT_ERROR: Layout.SHORT,
    ExtensionType.PROXY_MOBILE_NON_SKIPPABLE: Layout.LONG,
    ExtensionType.UDP_TUNNEL_REQUEST: Layout.SHORT,
    ExtensionType.MESSAGE_STRING: Layout.SHORT,
    ExtensionType.TRUSTED_NETWORKS_CONFIGURED: Layout.SHORT,
}
"""Every type that is not here is SIMPLE."""

FIRST_SKIPPABLE: Final = 128

KNOWN_SUB_TYPES: Final[dict[int, int]] = {
    ExtensionType.GENERALIZED_AUTHENTICATION: 1,
    ExtensionType.UDP_TUNNEL_REPLY: 0,
    ExtensionType.FOREIGN_AGENT_ERROR: 0,
}
"""Of the critical types with a sub-type, the only one that is understood; another condemns the message too."""

_PADDING: Final = int(ExtensionType.PADDING)


@quick
@dataclass(frozen=True, slots=True)
class Extension:
    """One extension as it stood in, or will go into, a message.

    ``body`` is the data alone; for type 38 it starts with the vendor's number, and ``sub_type`` is the
    reserved octet (RFC 3115 2.1). ``sub_type`` is None in the simple layout, and for anything that was skipped
    without being understood. ``offset`` is where the type octet stands in the message that it was read from.
    """

    number: int
    body: bytes
    _: KW_ONLY
    sub_type: int | None = None
    offset: int = 0


def walk(octets: bytes, start: int, *, understood: frozenset[int]) -> Iterator[Extension]:
    """The extensions from ``start`` to the end, in order, without the padding.

    Types in ``understood`` are framed by their own layout, skippable others by the simple one. Raises
    UnknownCriticalExtension and Truncated as it meets them.
    """
    at, end = start, len(octets)
    while at < end:
        offset, number = at, octets[at]
        if number == _PADDING:
            at += 1
            continue
        if number in understood:
            layout = LAYOUTS.get(number, Layout.SIMPLE)
        elif number >= FIRST_SKIPPABLE:
            layout = Layout.SIMPLE
        else:
            raise UnknownCriticalExtension(f"extension {number} at octet {offset} is not understood")
        body = at + 2
        if layout is Layout.SIMPLE and body <= end and (behind := body + octets[at + 1]) <= end:
            at = behind
            yield Extension(number, octets[body:at], offset=offset)
        else:  # of a rarer layout, or cut off: the cursor says where
            cursor = Cursor(octets, at + 1)
            yield _read(cursor, number, layout, offset=offset)
            at = cursor.offset


def require_known_sub_types(extensions: Iterable[Extension]) -> None:
    """UnknownCriticalExtension for a critical extension of a sub-type that is not understood, wherever it stands."""
    for one in extensions:
        if one.sub_type != KNOWN_SUB_TYPES.get(one.number, one.sub_type):
            raise UnknownCriticalExtension(
                f"sub-type {one.sub_type} of extension {one.number} at octet {one.offset} is not understood"
            )


def encode(extension: Extension) -> bytes:
    """The octets of one extension; LocalProtocolError if it does not fit its layout."""
    layout = LAYOUTS.get(extension.number, Layout.SIMPLE)
    if not ExtensionType.PADDING < extension.number <= 0xFF:
        raise LocalProtocolError(f"{extension.number} is not an extension type with a length")
    if (extension.sub_type is None) != (layout is Layout.SIMPLE):
        raise LocalProtocolError(f"extension {extension.number} has the layout {layout.value}")
    sub_type = extension.sub_type or 0
    try:
        header = _header(layout, extension.number, sub_type=sub_type, size=len(extension.body))
    except struct.error as fault:
        raise LocalProtocolError(f"extension {extension.number} does not fit its fields: {fault}") from fault
    return header + extension.body


def exact(extension: Extension, form: struct.Struct, what: str) -> tuple[int, ...]:
    """The numbers in the body of an extension of fixed size; Truncated or TrailingOctets for any other size."""
    if len(extension.body) < form.size:
        raise Truncated(f"{what} at octet {extension.offset} ends after {len(extension.body)} octets of data")
    if len(extension.body) > form.size:
        raise TrailingOctets(f"{what} at octet {extension.offset} has {len(extension.body)} octets of data")
    return form.unpack(extension.body)


def _header(layout: Layout, number: int, *, sub_type: int, size: int) -> bytes:
    match layout:
        case Layout.SIMPLE:
            return struct.pack("!BB", number, size)
        case Layout.SHORT:
            return struct.pack("!BBB", number, 1 + size, sub_type)
        case Layout.LONG | Layout.VENDOR:
            return struct.pack("!BBH", number, sub_type, size)
        case _:
            assert_never(layout)


def _read(cursor: Cursor, number: int, layout: Layout, *, offset: int) -> Extension:
    match layout:
        case Layout.SIMPLE:
            size = cursor.number(1, f"length of extension {number}")
            return Extension(number, cursor.take(size, f"extension {number}"), offset=offset)
        case Layout.SHORT:
            size = cursor.number(1, f"length of extension {number}")
            part = cursor.part(size, f"extension {number}")
            sub_type = part.number(1, f"sub-type of extension {number}")
            return Extension(number, part.rest(), sub_type=sub_type, offset=offset)
        case Layout.LONG | Layout.VENDOR:
            sub_type = cursor.number(1, f"sub-type of extension {number}")
            size = cursor.number(2, f"length of extension {number}")
            return Extension(
                number, cursor.take(size, f"extension {number}"), sub_type=sub_type, offset=offset
            )
        case _:
            assert_never(layout)
