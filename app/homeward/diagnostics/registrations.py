# SPDX-License-Identifier: GPL-2.0-only
"""Registration messages in a capture, read without the client's own codec: by scapy, and a walk over extensions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ

from homeward.diagnostics.captures import PROTOCOL_UDP, REGISTRATION_PORT, REPLY, REQUEST, Packet

D_BIT: Final = 0x20
T_BIT: Final = 0x02
UDP_TUNNEL_REQUEST: Final = 144
TRUSTED_NETWORKS_CONFIGURED: Final = 149
MN_HA: Final = 32
IDENTIFICATION_MISMATCH: Final = 133

_REQUEST_OCTETS, _REPLY_OCTETS = 24, 20
_LONG_FORM: Final = 36


@dataclass(frozen=True, slots=True)
class Message:
    """A registration message, and the packet that it came in. `flags` is a request's, `code` a reply's; else 0.

    `care_of` is empty in a reply. `extensions` are the types, in their order, as far as the packet was captured.
    """

    packet: Packet
    is_request: bool
    flags: int
    code: int
    lifetime: int
    home_address: str
    home_agent: str
    care_of: str
    identification: int
    extensions: tuple[int, ...]

    @property
    def at(self) -> float:
        """When it was seen."""
        return self.packet.at

    @property
    def accepts(self) -> bool:
        """Whether it is a reply that says yes (codes 0 and 1, RFC 5944 section 3.4)."""
        return not self.is_request and self.code in (0, 1)

    @property
    def vouches(self) -> bool:
        """Whether the home agent says that this network is trusted, before its authenticator."""
        found = self.extensions
        if TRUSTED_NETWORKS_CONFIGURED not in found or MN_HA not in found:
            return False
        return found.index(TRUSTED_NETWORKS_CONFIGURED) < found.index(MN_HA)


def messages(packets: Iterable[Packet]) -> Iterator[Message]:
    """The registration requests and replies among them; what cannot be read as one is left out."""
    for packet in packets:
        message = read_message(packet)
        if message is not None:
            yield message


def read_message(packet: Packet) -> Message | None:
    """The request or reply in this packet, or None."""
    if packet.protocol != PROTOCOL_UDP or packet.fragment or REGISTRATION_PORT not in packet.ports:
        return None
    octets = packet.udp_payload
    if octets[:1] == bytes((REQUEST,)) and len(octets) >= _REQUEST_OCTETS:
        request = MobileIP(octets)[MobileIPRRQ]
        return Message(
            packet,
            True,
            octets[1],
            0,
            request.lifetime,
            request.homeaddr,
            request.haaddr,
            request.coaddr,
            request.id,
            tuple(_extensions(octets[_REQUEST_OCTETS:])),
        )
    if octets[:1] == bytes((REPLY,)) and len(octets) >= _REPLY_OCTETS:
        reply = MobileIP(octets)[MobileIPRRP]
        return Message(
            packet,
            False,
            0,
            reply.code,
            reply.lifetime,
            reply.homeaddr,
            reply.haaddr,
            "",
            reply.id,
            tuple(_extensions(octets[_REPLY_OCTETS:])),
        )
    return None


def _extensions(octets: bytes) -> Iterator[int]:
    """The types of the extensions that stand here (RFC 5944 sections 1.9 to 1.11)."""
    at = 0
    while at + 2 <= len(octets):
        kind = octets[at]
        yield kind
        if kind == 0:  # one octet of padding
            at += 1
        elif kind == _LONG_FORM:
            at += 4 + int.from_bytes(octets[at + 2 : at + 4], "big")
        else:
            at += 2 + octets[at + 1]
