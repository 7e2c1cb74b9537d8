# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration messages as octets and as values, computed apart from this code base (and by openssl for the MACs)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from homeward.model.nat_traversal import UdpTunnelReply, UdpTunnelRequest
from homeward.model.registration import (
    AuthenticationAlgorithm,
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.secret import Secret

KEY = bytes(range(16))
MD5 = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.HMAC_MD5, key=Secret(KEY))
MN_FA = MobilitySecurityAssociation(
    Spi(0x101), AuthenticationAlgorithm.HMAC_MD5, key=Secret(bytes(range(16, 32)))
)
SHA1 = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.HMAC_SHA1, key=Secret(KEY))
KEYED_MD5 = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.KEYED_MD5, key=Secret(KEY))
RFC2002 = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.KEYED_MD5_RFC2002, key=Secret(KEY))
SHA256 = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(KEY))

HOME_ADDRESS = IPv4Address("10.1.0.50")
HOME_AGENT = IPv4Address("10.1.0.1")
CARE_OF_ADDRESS = IPv4Address("10.2.3.77")
INNER_ADDRESS = IPv4Address("10.9.0.5")
FOREIGN_AGENT = IPv4Address("10.3.0.2")
NAI = "mn1@example.com"
D_AND_T = RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL


@dataclass(frozen=True)
class Vector:
    """A message, what it says, and what of it only decodes (its extensions are not all ours to send)."""

    name: str
    octets: bytes
    message: RegistrationRequest | RegistrationReply
    association: MobilitySecurityAssociation
    covered: int
    sent_by_us: bool = True


_PROBE = RegistrationRequest(
    300,
    HOME_ADDRESS,
    home_agent=HOME_AGENT,
    care_of_address=CARE_OF_ADDRESS,
    identification=Identification(0xEB3221C012345678),
    flags=D_AND_T,
)
_ACCEPTED = RegistrationReply(
    0,
    120,
    home_address=HOME_ADDRESS,
    home_agent=HOME_AGENT,
    identification=_PROBE.identification,
    trusted_networks_configured=True,
)

V1_BODY = bytes.fromhex("0122012c0a0100320a0100010a02034deb3221c012345678")

V1 = Vector(
    "V1 request, mode c",
    V1_BODY + bytes.fromhex("201400000100b8dcb1046f08c031191362048900d093"),
    _PROBE,
    MD5,
    covered=30,
)
V2 = Vector(
    "V2 accepted, trusted networks configured",
    bytes.fromhex(
        "030000780a0100320a010001eb3221c01234567895020000201400000100a2fd55933d39babc15881c11eddf6491"
    ),
    _ACCEPTED,
    MD5,
    covered=30,
)
V2BAD = Vector(
    "V2bad trusted networks configured behind the authenticator",
    bytes.fromhex(
        "030000780a0100320a010001eb3221c012345678201400000100dce65915f81ecc07d6b7aafcd0663b7695020000"
    ),
    replace(_ACCEPTED, trusted_networks_configured=False),
    MD5,
    covered=26,
    sent_by_us=False,
)
V3 = Vector(
    "V3 request, mode mc, NAI and UDP Tunnel Request",
    bytes.fromhex(
        "012207080a0100320a0100010a090005eb3221c49abcdef0830f6d6e31406578616d706c652e636f6d90060000000000"
        "00201400000100c6faa04c72c24f98ec52caea612ab1af"
    ),
    replace(
        _PROBE,
        lifetime=1800,
        care_of_address=INNER_ADDRESS,
        identification=Identification(0xEB3221C49ABCDEF0),
        nai=NAI,
        udp_tunnel=UdpTunnelRequest(),
    ),
    MD5,
    covered=55,
)
V3R = Vector(
    "V3r reply with NAI, UDP Tunnel Reply and trusted networks configured",
    bytes.fromhex(
        "030007080a0100320a010001eb3221c49abcdef0830f6d6e31406578616d706c652e636f6d2c0600000000006e950200"
        "00201400000100d9fb24ab407163561a3a0053d8c9fcb1"
    ),
    replace(
        _ACCEPTED,
        lifetime=1800,
        identification=Identification(0xEB3221C49ABCDEF0),
        nai=NAI,
        udp_tunnel=UdpTunnelReply(keepalive=110),
    ),
    MD5,
    covered=55,
)
V4 = Vector(
    "V4 request, mode f, delivery style and MN-FA behind the authenticator",
    bytes.fromhex(
        "010202580a0100320a0100010a030002eb3221ca00c0ffee2014000001001dde4e68f76e6f21b11e52e752e63c438200"
        "211400000101d4a08696d9000e2c30f857424a380bd7"
    ),
    replace(
        _PROBE,
        lifetime=600,
        care_of_address=FOREIGN_AGENT,
        identification=Identification(0xEB3221CA00C0FFEE),
        flags=RequestFlags.REVERSE_TUNNEL,
    ),
    MD5,
    covered=30,
    sent_by_us=False,
)
V5 = Vector(
    "V5 request, deregister all, at home",
    bytes.fromhex(
        "010000000a0100320a0100010a010032eb3221d40badcafe20140000010051e8ffec6be68f20287a49608bf4a275"
    ),
    replace(
        _PROBE,
        lifetime=0,
        care_of_address=HOME_ADDRESS,
        identification=Identification(0xEB3221D40BADCAFE),
        flags=RequestFlags(0),
    ),
    MD5,
    covered=30,
)
V6 = Vector(
    "V6 denied by code 133, the agent 100 s ahead",
    bytes.fromhex("038500000a0100320a010001eb32222412345678201400000100bc0b47eaa3acb66f8ccdd38eb0b6a9f4"),
    RegistrationReply(
        133,
        0,
        home_address=HOME_ADDRESS,
        home_agent=HOME_AGENT,
        identification=Identification(0xEB32222412345678),
    ),
    MD5,
    covered=26,
)
V7_SHA256 = Vector(
    "V7 the body of V1 under HMAC-SHA-256",
    V1_BODY + bytes.fromhex("20240000010015a2547c1286bb58c3866d8894fd721185c1a87f87255acb7dfbed9073f1cf3c"),
    _PROBE,
    SHA256,
    covered=30,
)

V7_PREFIX_SUFFIX = Vector(
    "V7-2002 the body of V1 under the keyed MD5 of RFC 2002",
    V1_BODY + bytes.fromhex("201400000100e35ad1450626b17bc006d1ae433da10d"),
    _PROBE,
    RFC2002,
    covered=30,
)
V7_PREFIX_SUFFIX_SPI = Vector(
    "V7-3344 the body of V1 under keyed MD5, the SPI covered",
    V1_BODY + bytes.fromhex("201400000100193a852e652bf1cf709daa1038fa10df"),
    _PROBE,
    KEYED_MD5,
    covered=30,
)
V7_SHA1 = Vector(
    "V7-SHA1 the body of V1 under HMAC-SHA-1",
    V1_BODY + bytes.fromhex("20180000010089c1cbbcad8029f8936082414f86262a95fea96b"),
    _PROBE,
    SHA1,
    covered=30,
)
V8_TUNNEL_DATA = bytes.fromhex("040400004500001c00010000400166ac0a0100320a0100010800e5ca12340001")

V9_ADVERTISEMENT = bytes.fromhex("090013490102001e0a03000200000000100a0029025891000a03000213011800")
V10_SOLICITATION = bytes.fromhex("0a00f5ff00000000")

_V7 = (V7_SHA256, V7_SHA1, V7_PREFIX_SUFFIX, V7_PREFIX_SUFFIX_SPI)
VECTORS = (V1, V2, V2BAD, V3, V3R, V4, V5, V6, *_V7)
ASSOCIATIONS = (MD5, SHA256, SHA1, KEYED_MD5, RFC2002)
OURS = tuple(vector for vector in VECTORS if vector.sent_by_us)
