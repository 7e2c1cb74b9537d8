# SPDX-License-Identifier: GPL-2.0-or-later
"""Our reading of each field, and where it stands, against Wireshark's dissector in one run over one capture."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from xml.etree import ElementTree

import pytest

from homeward.model.registration import (
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
)
from homeward.model.reply_codes import is_from_foreign_agent, is_from_home_agent
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.identification import to_unix
from homeward.wire.registration import decode, encode_reply, encode_request
from tests.unit.wire.vectors import MD5, SHA256, V2, VECTORS

TSHARK = shutil.which("tshark")
pytestmark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed (apt install tshark)")

LINKTYPE_RAW_IP = 101
HEADERS = 28  # IPv4 and UDP
RANDOM_MESSAGES = 150


@dataclass(frozen=True)
class Field:
    name: str
    offset: int
    octets: str
    show: str
    showname: str


def capture(payloads: list[bytes]) -> bytes:
    """A capture file of bare IPv4 packets from port 434 to port 434."""
    parts = [struct.pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0xFFFF, LINKTYPE_RAW_IP)]
    for second, payload in enumerate(payloads):
        udp = struct.pack("!HHHH", 434, 434, 8 + len(payload), 0) + payload
        addresses = IPv4Address("10.2.3.77").packed + IPv4Address("10.1.0.1").packed
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), second, 0, 64, 17, 0) + addresses
        packet = ip + udp
        parts += [struct.pack("!IIII", second, 0, len(packet), len(packet)), packet]
    return b"".join(parts)


def dissect(payloads: list[bytes], room: Path) -> list[list[Field]]:
    """Every field of the Mobile IP layer of each payload, as tshark sees it; offsets count from the payload."""
    assert TSHARK is not None
    file = room / "registration.pcap"
    file.write_bytes(capture(payloads))
    # Nobody's preferences, language or time zone may colour what is seen.
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", "HOME": str(room)}
    command = [TSHARK, "-n", "-r", str(file), "-T", "pdml", "-J", "mip"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=50, check=True)
    packets = ElementTree.fromstring(done.stdout).findall("packet")  # noqa: S314 - written by the tool just run
    layers = [packet.find("proto[@name='mip']") for packet in packets]
    return [[] if layer is None else [_field(one) for one in layer.iter("field")] for layer in layers]


def _field(element: ElementTree.Element) -> Field:
    octets = element.get("unmaskedvalue") or element.get("value") or ""
    offset = int(element.get("pos", "0")) - HEADERS
    return Field(
        element.get("name", ""), offset, octets, element.get("show", ""), element.get("showname", "")
    )


def random_messages() -> list[bytes]:
    chance = random.Random("homeward and tshark")

    def address() -> IPv4Address:
        return IPv4Address(chance.getrandbits(32))

    payloads = []
    for _ in range(RANDOM_MESSAGES):
        association: MobilitySecurityAssociation = chance.choice([MD5, SHA256])
        lifetime, identification = chance.getrandbits(16), Identification(chance.getrandbits(64))
        nai = chance.choice([None, "a", "mn1@example.com", "x" * 255])
        request = RegistrationRequest(
            lifetime,
            address(),
            home_agent=address(),
            care_of_address=address(),
            identification=identification,
            flags=RequestFlags(chance.getrandbits(8) & ~0x05),
            nai=nai,
        )
        reply = RegistrationReply(
            chance.getrandbits(8),
            lifetime,
            home_address=address(),
            home_agent=address(),
            identification=identification,
            nai=nai,
            trusted_networks_configured=chance.random() < 0.5,
        )
        payloads += [encode_request(request, association), encode_reply(reply, association)]
    return payloads


def as_we_read_it(octets: bytes) -> list[tuple[str, int, str]]:
    """What tshark must show, made from our values and never from the octets themselves."""
    decoded = decode(octets)
    message = decoded.message
    common = [
        ("mip.life", 2, f"{message.lifetime:04x}"),
        ("mip.homeaddr", 4, message.home_address.packed.hex()),
        ("mip.haaddr", 8, message.home_agent.packed.hex()),
    ]
    identification = f"{message.identification:016x}"
    if isinstance(message, RegistrationRequest):
        fixed = [("mip.type", 0, "01"), ("mip.flags", 1, f"{int(message.flags):02x}"), *common]
        fixed += [("mip.coa", 12, message.care_of_address.packed.hex()), ("mip.ident", 16, identification)]
    else:
        fixed = [("mip.type", 0, "03"), ("mip.code", 1, f"{message.code:02x}"), *common]
        fixed += [("mip.ident", 12, identification)]
    return fixed + _extensions_as_we_read_them(decoded)


def _extensions_as_we_read_them(decoded: DecodedRequest | DecodedReply) -> list[tuple[str, int, str]]:
    seen = []
    for one in (*decoded.covered, *decoded.unauthenticated):
        content = one.body if one.sub_type is None else bytes([one.sub_type]) + one.body
        seen += [("mip.ext.type", one.offset, f"{one.number:02x}")]
        seen += [("mip.ext.len", one.offset + 1, f"{len(content):02x}")]
        match one.number:
            case 131:
                seen.append(("mip.nai", one.offset + 2, one.body.hex()))
            case 130 | 149:
                seen.append(("mip.extension", one.offset + 2, content.hex()))
            case 33:
                seen.append(("mip.auth.spi", one.offset + 2, one.body[:4].hex()))
                seen.append(("mip.auth.auth", one.offset + 6, one.body[4:].hex()))
    for authentication in decoded.authentications:
        offset = authentication.covered - 6
        seen += [
            ("mip.ext.type", offset, "20"),
            ("mip.ext.len", offset + 1, f"{4 + len(authentication.authenticator):02x}"),
            ("mip.auth.spi", offset + 2, f"{authentication.spi:08x}"),
            ("mip.auth.auth", offset + 6, authentication.authenticator.hex()),
        ]
    return sorted(seen, key=lambda field: field[1])


# What both sides show; the rest of tshark's tree is headings, single bits and bodies that we only step over.
COMPARED = {
    *("mip.type", "mip.flags", "mip.code", "mip.life", "mip.homeaddr", "mip.haaddr", "mip.coa", "mip.ident"),
    *("mip.ext.type", "mip.ext.len", "mip.auth.spi", "mip.auth.auth", "mip.nai", "mip.extension"),
}
LETTERS = {
    "mip.s": RequestFlags.SIMULTANEOUS,
    "mip.b": RequestFlags.BROADCAST,
    "mip.d": RequestFlags.DECAPSULATE_SELF,
    "mip.m": RequestFlags.MINIMAL,
    "mip.g": RequestFlags.GRE,
    "mip.v": RequestFlags.RESERVED_R,
    "mip.t": RequestFlags.REVERSE_TUNNEL,
    "mip.x": RequestFlags.RESERVED_X,
}


@pytest.fixture(scope="module")
def dissected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, list[Field]]]:
    payloads = [*(vector.octets for vector in VECTORS), *random_messages()]
    return list(zip(payloads, dissect(payloads, tmp_path_factory.mktemp("tshark")), strict=True))


def test_every_field_is_the_same_and_at_the_same_place(dissected: list[tuple[bytes, list[Field]]]) -> None:
    for octets, fields in dissected:
        theirs = [(one.name, one.offset, one.octets) for one in fields if one.name in COMPARED]
        assert theirs == as_we_read_it(octets), octets.hex()


def test_every_flag_has_the_same_letter(dissected: list[tuple[bytes, list[Field]]]) -> None:
    compared = 0
    for octets, fields in dissected:
        message = decode(octets).message
        if isinstance(message, RegistrationRequest):
            theirs = {one.name: one.show == "1" for one in fields if one.name in LETTERS}
            assert theirs == {name: bool(message.flags & flag) for name, flag in LETTERS.items()}
            compared += 1
    assert compared > RANDOM_MESSAGES


def test_the_identification_is_the_same_moment(dissected: list[tuple[bytes, list[Field]]]) -> None:
    # Wireshark's era ends in 2104 (its base is 1968), so that is the clock we stand near to.
    middle = datetime(2036, 2, 7, 6, 28, 16, tzinfo=UTC).timestamp()
    for octets, fields in dissected:
        (shown,) = [one.show for one in fields if one.name == "mip.ident"]
        whole, fraction = shown.removesuffix(" UTC").rsplit(".", 1)
        theirs = datetime.strptime(whole, "%b %d, %Y %H:%M:%S").replace(tzinfo=UTC).timestamp()
        ours = to_unix(decode(octets).message.identification, near=middle)
        assert ours == pytest.approx(theirs + int(fraction) / 1e9, abs=1e-6), shown


def test_every_code_is_said_by_the_same_agent(tmp_path: Path) -> None:
    codes = range(256)
    payloads = [bytes([3, code]) + V2.octets[2:] for code in codes]
    compared = 0
    for code, fields in zip(codes, dissect(payloads, tmp_path), strict=True):
        (shown,) = [one.showname for one in fields if one.name == "mip.code"]
        if "(FA)" in shown:
            assert is_from_foreign_agent(code), shown
            compared += 1
        elif "(HA)" in shown:
            assert is_from_home_agent(code), shown
            compared += 1
    assert compared > 40


def test_a_difference_would_be_seen(tmp_path: Path) -> None:
    changed = V2.octets[:3] + b"\xff" + V2.octets[4:]
    (fields,) = dissect([changed], tmp_path)
    theirs = [(one.name, one.offset, one.octets) for one in fields if one.name in COMPARED]
    assert theirs == as_we_read_it(changed)
    assert theirs != as_we_read_it(V2.octets)
