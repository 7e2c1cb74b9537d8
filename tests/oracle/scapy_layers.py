# SPDX-License-Identifier: GPL-2.0-or-later
"""What scapy lacks of Mobile IPv4, drawn as scapy draws it: field lists straight from the RFCs' figures."""

from __future__ import annotations

from scapy.fields import (
    BitField,
    ByteField,
    FieldLenField,
    FieldListField,
    IntField,
    IPField,
    PacketListField,
    ShortField,
    SignedIntField,
    StrField,
    StrLenField,
    XIntField,
    XShortField,
)
from scapy.packet import Packet


class _Whole(Packet):
    """What follows is the next packet in a list, not this one's payload."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


class Authentication(_Whole):
    """RFC 5944 3.5.2 to 3.5.4."""

    fields_desc = [  # noqa: RUF012 - scapy's way
        ByteField("type", 32),
        FieldLenField("len", None, fmt="B", length_of="authenticator", adjust=lambda _, size: size + 4),
        XIntField("spi", 256),
        StrLenField("authenticator", b"", length_from=lambda read: read.len - 4),
    ]


class GeneralizedAuthentication(_Whole):
    """RFC 4721 5."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 36),
        ByteField("subtype", 1),
        FieldLenField("len", None, fmt="H", length_of="authenticator", adjust=lambda _, size: size + 4),
        XIntField("spi", 256),
        StrLenField("authenticator", b"", length_from=lambda read: read.len - 4),
    ]


class Plain(_Whole):
    """Type, length, data: 130, 131, 132."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 132),
        FieldLenField("len", None, fmt="B", length_of="data"),
        StrLenField("data", b"", length_from=lambda read: read.len),
    ]


class Short(_Whole):
    """Type, length, sub-type, data: 45, 145, 149."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 145),
        FieldLenField("len", None, fmt="B", length_of="data", adjust=lambda _, size: size + 1),
        ByteField("subtype", 0),
        StrLenField("data", b"", length_from=lambda read: read.len - 1),
    ]


class UdpTunnelRequest(_Whole):
    """RFC 3519 3.1."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 144),
        ByteField("len", 6),
        ByteField("subtype", 0),
        ByteField("reserved1", 0),
        BitField("F", 0, 1),
        BitField("R", 0, 1),
        BitField("reserved2", 0, 6),
        ByteField("encapsulation", 0),
        ShortField("reserved3", 0),
    ]


class UdpTunnelReply(_Whole):
    """RFC 3519 3.2."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 44),
        ByteField("len", 6),
        ByteField("subtype", 0),
        ByteField("code", 0),
        BitField("F", 0, 1),
        BitField("reserved", 0, 15),
        ShortField("keepalive", 0),
    ]


class RevocationSupport(_Whole):
    """RFC 3543 3.2."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 137),
        ByteField("len", 6),
        BitField("I", 0, 1),
        BitField("reserved", 0, 15),
        IntField("timestamp", 0),
    ]


class TunnelData(Packet):
    """RFC 3519 3.3."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 4),
        ByteField("nexthdr", 4),
        ShortField("reserved", 0),
        StrField("inner", b""),
    ]


class Revocation(Packet):
    """RFC 3543 3.3."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 7),
        ByteField("reserved", 0),
        BitField("A", 0, 1),
        BitField("I", 0, 1),
        BitField("reserved2", 0, 14),
        IPField("homeaddr", "0.0.0.0"),
        IPField("homedomain", "0.0.0.0"),
        IPField("foreigndomain", "0.0.0.0"),
        IntField("identifier", 0),
        PacketListField("extensions", [], Authentication),
    ]


class RevocationAcknowledgment(Packet):
    """RFC 3543 3.4."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 15),
        ByteField("reserved", 0),
        BitField("I", 0, 1),
        BitField("reserved2", 0, 15),
        IPField("homeaddr", "0.0.0.0"),
        IntField("identifier", 0),
        PacketListField("extensions", [], Authentication),
    ]


class Router(_Whole):
    """One address entry of RFC 1256 3."""

    fields_desc = [IPField("address", "0.0.0.0"), SignedIntField("preference", 0)]  # noqa: RUF012


class MobilityAgent(_Whole):
    """RFC 5944 2.1.1, with the flags of RFC 3024, 3519, 3543 and 4857."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 16),
        FieldLenField("len", None, fmt="B", count_of="coas", adjust=lambda _, count: 6 + 4 * count),
        ShortField("sequence", 0),
        ShortField("lifetime", 0),
        *(BitField(letter, 0, 1) for letter in "RBHFMGrTUXI"),
        BitField("reserved", 0, 5),
        FieldListField("coas", [], IPField("", "0.0.0.0"), length_from=lambda read: read.len - 6),
    ]


class Advertisement(Packet):
    """RFC 1256 3, up to the extensions."""

    fields_desc = [  # noqa: RUF012
        ByteField("type", 9),
        ByteField("code", 0),
        XShortField("chksum", 0),
        FieldLenField("count", None, fmt="B", count_of="routers"),
        ByteField("words", 2),
        ShortField("lifetime", 0),
        PacketListField("routers", [], Router, count_from=lambda read: read.count),
    ]
