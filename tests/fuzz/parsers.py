# SPDX-License-Identifier: GPL-2.0-or-later
"""Every parser of the wire format, as something to be fed octets: it may raise WireErrors and nothing else.

Each goes on to everything that a receiver does with what was read, and holds it to what must be true then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from homeward.agents.tunnel_errors import read_report
from homeward.model.errors import UnknownMessage, WireError
from homeward.model.nat_traversal import TunnelKind
from homeward.wire import (
    agent_advertisement,
    arp,
    datagram,
    echo,
    gre,
    ip_fragments,
    ip_in_ip,
    link_frames,
    minimal_encapsulation,
    port_434,
    registration,
    relay,
    revocation,
    segment_size,
    udp_tunnel,
)
from homeward.wire.authenticator import verify
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.internet_checksum import put
from tests.unit.wire.vectors import ASSOCIATIONS, MN_FA, V1, V2, V9_ADVERTISEMENT, V10_SOLICITATION, VECTORS

KNOWN = {(one.association.spi, one.octets[: one.covered]) for one in VECTORS}
SOMEWHERE = IPv4Address("198.51.100.7")
ELSEWHERE = IPv4Address("10.0.0.2")


@dataclass(frozen=True)
class Parser:
    """A parser, and octets that lead past its first checks."""

    parse: Callable[[bytes], object]
    beginnings: tuple[bytes, ...] = ()


def _registration(octets: bytes) -> None:
    decoded = registration.decode(octets)
    for association in ASSOCIATIONS:
        if verify(octets, decoded, association):
            assert decoded.authentication is not None
            # Nobody can make up an authenticator: only what the key's holder has said before is believed.
            assert (association.spi, octets[: decoded.authentication.covered]) in KNOWN
    verify(octets, decoded, MN_FA, by=relay.MOBILE_FOREIGN)
    verify(octets, decoded, MN_FA, by=relay.FOREIGN_HOME)
    readers: tuple[Callable[..., object], ...]
    if isinstance(decoded, DecodedRequest):
        readers = (relay.read_for_foreign_agent, relay.read_for_home_agent, relay.server_spi)
    else:
        assert isinstance(decoded, DecodedReply)
        readers = (relay.read_from_foreign_agent, relay.read_from_home_agent)
    for reader in (*readers, relay.through_mobile_home):
        try:
            reader(decoded)
        except WireError:
            continue


def _revocation(octets: bytes) -> None:
    decoded = revocation.decode(octets)
    for association in ASSOCIATIONS:
        assert not verify(octets, decoded, association)
        assert not verify(octets, decoded, association, by=relay.FOREIGN_HOME)


def _tunnel(octets: bytes) -> None:
    kind = TunnelKind.GRE if octets[1:2] == b"\x2f" else TunnelKind.IP_IN_IP
    inner = udp_tunnel.unwrap(octets, kind)
    assert udp_tunnel.unwrap(udp_tunnel.wrap(inner, kind), kind) == inner


def _advertisement(octets: bytes) -> None:
    # A fuzzer does not find checksums, and whether they are checked is tested elsewhere: they are put right.
    read = agent_advertisement.decode_advertisement(put(octets, 2) if len(octets) >= 4 else octets)
    again = agent_advertisement.decode_advertisement(agent_advertisement.encode_advertisement(read))
    assert again == read


def _solicitation(octets: bytes) -> None:
    agent_advertisement.decode_solicitation(put(octets, 2) if len(octets) >= 4 else octets)


def _packet(octets: bytes) -> None:
    for opener in (ip_in_ip.decapsulate, gre.decapsulate, minimal_encapsulation.decapsulate):
        try:
            opened = opener(octets)
        except WireError:
            continue
        ip_in_ip.check_ipv4(opened.inner)
    for reader in (echo.decode_echo, agent_advertisement.hear_advertisement):
        try:
            reader(octets)
        except WireError:
            continue
    for encapsulate in (ip_in_ip.encapsulate, gre.encapsulate, minimal_encapsulation.encapsulate):
        try:
            whole = encapsulate(octets, SOMEWHERE, ELSEWHERE)
        except WireError:
            continue
        ip_in_ip.check_ipv4(whole)


def _datagram(octets: bytes) -> None:
    # The header's checksum is put right, and the datagram's passed over, for the same reason.
    size = (octets[0] & 0x0F) * 4 if octets else 0
    whole = put(octets[:size], 10) + octets[size:] if 20 <= size <= len(octets) else octets
    read = datagram.read_udp_packet(whole, checksummed=False)
    ends = (read.source, read.source_port), (read.destination, read.destination_port)
    assert datagram.read_udp_packet(link_frames.udp(*ends, read.payload, ttl=read.ttl)) == read


def _arp(octets: bytes) -> None:
    message = arp.decode(octets)
    assert arp.decode(arp.encode(message)) == message


def _tunnel_error(octets: bytes) -> None:
    # It says of what it cannot read that there is nothing to report. Checksums are put right here as well.
    report = read_report(put(octets, 2) if len(octets) >= 4 else octets, ELSEWHERE.packed)
    if report is None:
        raise UnknownMessage("no error about a tunnel of ours")


def _cut(octets: bytes) -> None:
    ip_in_ip.check_ipv4(octets)
    clamped = segment_size.clamp(octets, 536)
    assert len(clamped) == len(octets)
    assert segment_size.clamp(clamped, 536) == clamped
    for part in ip_fragments.fragment(octets, 68):
        ip_in_ip.check_ipv4(part)


_IPV4 = bytes.fromhex("45000000000000004000000000000000000000000000")

PARSERS: dict[str, Parser] = {
    "port_434": Parser(port_434.decode, tuple(bytes([n]) for n in (1, 3, 4, 7, 15))),
    "registration": Parser(_registration, (V1.octets[:24], V2.octets[:20], V1.octets, V2.octets)),
    "revocation": Parser(_revocation, (b"\x07" + bytes(19), b"\x0f" + bytes(11))),
    "tunnel": Parser(_tunnel, (b"\x04\x04\0\0", b"\x04\x2f\0\0\0\0\x08\0", b"\x04\x2f\0\0\x80\0\x08\0")),
    "advertisement": Parser(_advertisement, (V9_ADVERTISEMENT, V9_ADVERTISEMENT[:28], V9_ADVERTISEMENT[:8])),
    "solicitation": Parser(_solicitation, (V10_SOLICITATION,)),
    "packet": Parser(_packet, (_IPV4[:20],)),
    "datagram": Parser(
        _datagram, (_IPV4[:2] + b"\0\x1c" + _IPV4[4:9] + b"\x11" + _IPV4[10:20] + b"\1\xb2\1\xb2",)
    ),
    "arp": Parser(_arp, (bytes.fromhex("0001080006040001"),)),
    "tunnel_error": Parser(_tunnel_error, (b"\x03\x04\0\0\0\0\x05\xaa\x45", b"\x0b\0\0\0\0\0\0\0\x45")),
    "cut": Parser(_cut, (_IPV4[:20],)),
    "gre": Parser(gre.unwrap, (b"\0\0\x08\0", b"\x80\0\x08\0")),
}
