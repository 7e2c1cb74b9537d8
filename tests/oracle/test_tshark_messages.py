# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that we can send, in whole packets: Wireshark finds nothing wrong, and reads what was meant.

Two things it does not know, so that scapy is asked in its place (tests/unit/wire): minimal encapsulation, and GRE in
a MIP UDP tunnel, where it takes whatever follows for an IPv4 header.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from homeward.model.agent import AGENT_ONLY, AdvertisedRouter, AgentAdvertisement, AgentFlags
from homeward.model.nat_traversal import UdpTunnelReply, UdpTunnelRequest
from homeward.model.registration import RegistrationReply, RegistrationRequest
from homeward.model.relay import ForeignToHome, ForeignToMobile, HomeToForeign, MobileToForeign
from homeward.model.revocation import RevocationSupport
from homeward.wire import gre, ip_in_ip, relay, revocation, udp_tunnel
from homeward.wire.agent_advertisement import encode_advertisement, encode_solicitation
from homeward.wire.decoded import DecodedReply, DecodedRequest
from homeward.wire.echo import encode_echo
from homeward.wire.internet_checksum import put
from homeward.wire.registration import decode, encode_reply, encode_request
from tests.oracle.tshark import ALL_ROUTERS, ALL_SYSTEMS, TSHARK, Dissection, dissect, ipv4, udp_434
from tests.unit.wire.test_relay import AAA, CHALLENGE, CHAP, FA_HA
from tests.unit.wire.test_revocation import ACKNOWLEDGMENT, REVOCATION
from tests.unit.wire.test_udp_tunnel import V8_ECHO
from tests.unit.wire.vectors import (
    ASSOCIATIONS,
    CARE_OF_ADDRESS,
    FOREIGN_AGENT,
    HOME_AGENT,
    MD5,
    MN_FA,
    OURS,
    V2,
    V3,
    V3R,
    V4,
)

pytestmark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed (apt install tshark)")

ADVERTISEMENT = AgentAdvertisement(
    0xFEDC,
    30,
    registration_lifetime=600,
    flags=AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL | AgentFlags.UDP_TUNNEL,
    care_of_addresses=(FOREIGN_AGENT, CARE_OF_ADDRESS),
    routers=(AdvertisedRouter(FOREIGN_AGENT, -5), AdvertisedRouter(HOME_AGENT)),
    prefix_lengths=(24, 16),
    challenge=CHALLENGE,
)
KEEPALIVE = encode_echo(V8_ECHO)


def _request() -> bytes:
    assert isinstance(V3.message, RegistrationRequest)
    full = replace(
        V3.message,
        udp_tunnel=UdpTunnelRequest(force=True, kind=4),
        revocation_support=RevocationSupport(0xA1B2C3D4),
    )
    return encode_request(full, MD5)


def _reply() -> bytes:
    assert isinstance(V3R.message, RegistrationReply)
    full = replace(
        V3R.message,
        udp_tunnel=UdpTunnelReply(64, forced=True, keepalive=75),
        revocation_support=RevocationSupport(0xA1B2C3D4, inform=True),
        message="Grüße",
    )
    return encode_reply(full, MD5)


def _for_foreign_agent() -> bytes:
    assert isinstance(V4.message, RegistrationRequest)
    part = MobileToForeign(encapsulating_delivery=True, challenge=CHALLENGE)
    return relay.tell_foreign_agent(encode_request(V4.message, MD5), part, aaa=AAA, mobile_foreign=MN_FA)


def _relayed_request() -> bytes:
    arrived = decode(_for_foreign_agent())
    assert isinstance(arrived, DecodedRequest)
    part = ForeignToHome(udp_tunnel=UdpTunnelRequest(), revocation_support=RevocationSupport(7))
    return relay.tell_home_agent(relay.through_mobile_home(arrived), part, foreign_home=FA_HA)


def _relayed_reply() -> bytes:
    arrived = decode(V2.octets)
    assert isinstance(arrived, DecodedReply)
    part = ForeignToMobile(error=78, challenge=CHALLENGE, message="later")
    return relay.relay_reply(arrived, part, mobile_foreign=MN_FA)


def _denial() -> bytes:
    assert isinstance(V2.message, RegistrationReply)
    denied = replace(V2.message, code=106, trusted_networks_configured=False)
    return relay.deny_request(denied, ForeignToMobile(challenge=CHALLENGE))


def _as_the_kernel_sends_it(packet: bytes) -> bytes:
    return put(packet[:20], 10) + packet[20:]


PACKETS: dict[str, bytes] = {
    **{vector.name: udp_434(vector.octets) for vector in OURS},
    "request with everything": udp_434(_request()),
    "reply with everything": udp_434(_reply()),
    "request for a foreign agent": udp_434(_for_foreign_agent()),
    "request under CHAP": udp_434(relay.tell_foreign_agent(V3.octets, MobileToForeign(), aaa=CHAP)),
    "relayed request": udp_434(_relayed_request()),
    "answer for a foreign agent": udp_434(
        relay.answer_foreign_agent(V2.octets, HomeToForeign(udp_tunnel=UdpTunnelReply()), foreign_home=FA_HA)
    ),
    "relayed reply": udp_434(_relayed_reply()),
    "denial": udp_434(_denial()),
    **{
        f"revocation, {one.algorithm.value}": udp_434(revocation.encode(REVOCATION, one))
        for one in ASSOCIATIONS
    },
    "revocation between agents": udp_434(revocation.encode(REVOCATION, FA_HA, by=relay.FOREIGN_HOME)),
    "acknowledgment": udp_434(revocation.encode(ACKNOWLEDGMENT, MD5)),
    "keepalive": udp_434(udp_tunnel.wrap(KEEPALIVE)),
    "keepalive answered": udp_434(udp_tunnel.wrap(encode_echo(V8_ECHO.answer()))),
    "advertisement": ipv4(encode_advertisement(ADVERTISEMENT), 1, ttl=1, to=ALL_SYSTEMS),
    "advertisement of a home agent": ipv4(
        encode_advertisement(
            AgentAdvertisement(
                0, 1800, registration_lifetime=0xFFFF, flags=AgentFlags.HOME_AGENT, code=AGENT_ONLY
            )
        ),
        1,
        ttl=1,
        to=ALL_SYSTEMS,
    ),
    "solicitation": ipv4(encode_solicitation(), 1, ttl=1, to=ALL_ROUTERS),
    "IP-in-IP": _as_the_kernel_sends_it(ip_in_ip.encapsulate(KEEPALIVE, CARE_OF_ADDRESS, HOME_AGENT)),
    "GRE": _as_the_kernel_sends_it(gre.encapsulate(KEEPALIVE, CARE_OF_ADDRESS, HOME_AGENT)),
    "GRE with checksum": _as_the_kernel_sends_it(
        gre.encapsulate(KEEPALIVE, CARE_OF_ADDRESS, HOME_AGENT, with_checksum=True)
    ),
}

# Name of the message -> field of Wireshark -> all its values in order, in hexadecimal, written by hand.
MEANT: dict[str, dict[str, list[str]]] = {
    "request with everything": {
        "mip.ext.type": ["83", "90", "89", "20"],
        "mip.ext.utrq.subtype": ["00"],
        "mip.ext.utrq.flags": ["80"],
        "mip.ext.utrq.encaptype": ["04"],
        "mip.ext.utrq.reserved3": ["0000"],
        "mip.ext.rev.flags": ["0000"],
        "mip.ext.rev.tstamp": ["a1b2c3d4"],
    },
    "reply with everything": {
        "mip.ext.type": ["83", "2c", "95", "89", "91", "20"],
        "mip.ext.utrp.subtype": ["00"],
        "mip.ext.utrp.code": ["40"],
        "mip.ext.utrp.flags": ["8000"],
        "mip.ext.utrp.keepalive": ["004b"],
        "mip.ext.rev.flags": ["8000"],
        "mip.ext.msgstr.subtype": ["01"],
        "mip.ext.msgstr.text": ["Grüße".encode().hex()],
    },
    "request for a foreign agent": {
        "mip.ext.type": ["20", "82", "84", "24", "21"],
        "mip.ext.len": ["14", "00", "08", "0014", "14"],
        "mip.ext.auth.subtype": ["01"],
        "mip.auth.spi": ["00000100", "00000103", "00000101"],
        "mip.extension": [CHALLENGE.hex()],
    },
    "request under CHAP": {"mip.auth.spi": ["00000100", "00000002"]},
    "relayed request": {
        "mip.ext.type": ["20", "90", "89", "22"],
        "mip.auth.spi": ["00000100", "00000102"],
    },
    "answer for a foreign agent": {"mip.ext.type": ["95", "20", "2c", "22"]},
    "relayed reply": {
        "mip.code": ["00"],
        "mip.ext.type": ["95", "20", "2d", "84", "91", "21"],
        "mip.extension": ["0000", "004e", CHALLENGE.hex()],
        "mip.ext.msgstr.subtype": ["02"],
    },
    "denial": {"mip.code": ["6a"], "mip.ext.type": ["84"]},
    "revocation, hmac-md5": {
        "mip.type": ["07"],
        "mip.flags2": ["c000"],
        "mip.homeaddr": ["0a010032"],
        "mip.rev.hda": ["0a010001"],
        "mip.rev.fda": ["0a02034d"],
        "mip.revid": ["eb3221c0"],
        "mip.ext.type": ["20"],
    },
    "revocation between agents": {"mip.ext.type": ["22"], "mip.auth.spi": ["00000102"]},
    "acknowledgment": {
        "mip.type": ["0f"],
        "mip.flags2": ["8000"],
        "mip.homeaddr": ["0a010032"],
        "mip.revid": ["eb3221c0"],
    },
    "keepalive": {"mip.type": ["04"], "mip.nattt.nexthdr": ["04"]},
    "advertisement": {
        "icmp.type": ["09"],
        "icmp.code": ["00"],
        "icmp.num_addrs": ["02"],
        "icmp.lifetime": ["001e"],
        "icmp.router_address": ["0a030002", "0a010001"],
        "icmp.pref_level": ["fffffffb", "00000000"],
        "icmp.mip.type": ["10", "13", "18"],
        "icmp.mip.seq": ["fedc"],
        "icmp.mip.life": ["0258"],
        "icmp.mip.flags": ["1180"],
        "icmp.mip.coa": ["0a030002", "0a02034d"],
        "icmp.mip.prefixlength": ["18", "10"],
        "icmp.mip.challenge": [CHALLENGE.hex()],
    },
    "advertisement of a home agent": {
        "icmp.code": ["10"],
        "icmp.num_addrs": ["00"],
        "icmp.mip.flags": ["2000"],
    },
    "solicitation": {"icmp.type": ["0a"], "icmp.code": ["00"]},
    "GRE": {"gre.flags_and_version": ["0000"], "gre.proto": ["0800"], "icmp.ident": ["1234"]},
    "GRE with checksum": {"gre.flags_and_version": ["8000"], "icmp.ident": ["1234"]},
}


@pytest.fixture(scope="module")
def dissected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dissection]:
    found = dissect(list(PACKETS.values()), tmp_path_factory.mktemp("tshark"))
    return dict(zip(PACKETS, found, strict=True))


@pytest.mark.rows("R-105", "R-107", "R-145", "R-167", "R-200", "R-236", "R-291")
@pytest.mark.parametrize("name", PACKETS)
def test_nothing_is_wrong_with_it(dissected: dict[str, Dissection], name: str) -> None:
    assert dissected[name].complaints == []
    assert {"mip", "icmp"} & set(dissected[name].layers)


@pytest.mark.rows("R-82", "R-112", "R-222", "R-228", "R-275", "R-279", "R-280")
@pytest.mark.parametrize("name", MEANT)
def test_it_is_read_as_it_was_meant(dissected: dict[str, Dissection], name: str) -> None:
    seen = {field: dissected[name].values(field) for field in MEANT[name]}
    assert seen == MEANT[name]


def test_a_fault_would_be_seen(tmp_path: Path) -> None:
    wrong_checksum = bytearray(PACKETS["advertisement"])
    wrong_checksum[-1] ^= 1
    cut = udp_434(V2.octets[:19])
    unsummed = bytearray(PACKETS["denial"])
    unsummed[26] ^= 1
    for one in dissect([bytes(wrong_checksum), cut, bytes(unsummed)], tmp_path):
        assert one.complaints
