# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows the MN-HA extension: appended in the order of RFC 5944 3.6.1.3, 3.7.2.2, 3.7.3.2 and 3.8.3.3, and read.

Each writer takes a message up to its MN-HA extension and never touches those octets. Each reader looks only at what
stands behind MN-HA (at all extensions where there is none: a foreign agent's own denial) and before the first
authentication extension of its own pair, MN-FA or FA-HA: no other octets can be proved by
``authenticator.verify(..., by=...)``. Where the pair shares no association, what is read is a hint.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

from homeward.model.errors import BadExtension, LocalProtocolError
from homeward.model.registration import (
    LIFETIME_DEREGISTER,
    MobilitySecurityAssociation,
    RegistrationReply,
    RequestFlags,
    Spi,
)
from homeward.model.relay import (
    CHAP_SPI,
    AaaAssociation,
    ForeignToHome,
    ForeignToMobile,
    HomeToForeign,
    MobileToForeign,
)
from homeward.wire import message_string, revocation_support, udp_tunnel
from homeward.wire.authenticator import authenticate
from homeward.wire.decoded import Decoded, DecodedReply, DecodedRequest, only, read_authentication
from homeward.wire.extensions import Extension, ExtensionType, encode, exact
from homeward.wire.registration import encode_fixed_reply

MOBILE_FOREIGN: Final = ExtensionType.MOBILE_FOREIGN_AUTHENTICATION
FOREIGN_HOME: Final = ExtensionType.FOREIGN_HOME_AUTHENTICATION

_ERROR: Final = struct.Struct("!B")
_AAA_HEADER: Final = struct.Struct("!BBHI")
_AAA_AUTHENTICATOR: Final = 16
_AAA_SUB_TYPE: Final = 1
_CHAP_CHALLENGE_MOST: Final = 237
_NOTHING_FOR_HOME: Final = ForeignToHome()
_NO_CHALLENGE: Final = b"\0"  # RFC 4721 3.5: with a co-located care-of address, "the Challenge value 0"


def through_mobile_home(decoded: Decoded) -> bytes:
    """The octets up to and including the single MN-HA extension: what a relay passes on (R-208, R-210).

    BadExtension if there is not exactly one.
    """
    authentication = decoded.authentication
    if authentication is None:
        raise BadExtension(f"{len(decoded.authentications)} mobile-home authenticators cannot be relayed")
    return decoded.octets[: authentication.covered + len(authentication.authenticator)]


def tell_foreign_agent(
    octets: bytes,
    part: MobileToForeign,
    *,
    aaa: AaaAssociation | None = None,
    mobile_foreign: MobilitySecurityAssociation | None = None,
) -> bytes:
    """A request that ends with MN-HA, and behind it what its foreign agent is to know: 130, 132, MN-AAA, MN-FA (R-145).

    LocalProtocolError for encapsulating delivery without reverse tunnelling (R-219), and for a challenge that nobody
    could hold us to (R-275).
    """
    if part.encapsulating_delivery and not octets[1] & RequestFlags.REVERSE_TUNNEL:
        raise LocalProtocolError("a delivery style is asked for with reverse tunnelling only")
    if part.challenge is not None and aaa is None and mobile_foreign is None:
        raise LocalProtocolError("a challenge is answered under MN-AAA or MN-FA only")
    if part.encapsulating_delivery:
        octets += encode(Extension(ExtensionType.ENCAPSULATING_DELIVERY_STYLE, b""))
    octets += _encode_challenge(part.challenge)
    if aaa is not None:
        octets = authenticate_to_server(octets, aaa, challenge=part.challenge)
    return octets if mobile_foreign is None else authenticate(octets, mobile_foreign, by=MOBILE_FOREIGN)


def read_for_foreign_agent(request: DecodedRequest) -> MobileToForeign:
    """What the mobile node tells the foreign agent; WireError where it is not well formed."""
    part = _behind_mobile_home(request, before=MOBILE_FOREIGN)
    delivery = only(part, ExtensionType.ENCAPSULATING_DELIVERY_STYLE)
    if delivery is not None:
        exact(delivery, struct.Struct(""), "Encapsulating Delivery Style")
    return MobileToForeign(encapsulating_delivery=delivery is not None, challenge=_read_challenge(part))


def tell_home_agent(
    octets: bytes, part: ForeignToHome, *, foreign_home: MobilitySecurityAssociation | None = None
) -> bytes:
    """What a foreign agent keeps of a request, through MN-HA at least, and behind it its own part, FA-HA last (R-208).

    LocalProtocolError for FA-HA on a deregistration (R-171).
    """
    if foreign_home is not None and int.from_bytes(octets[2:4], "big") == LIFETIME_DEREGISTER:
        raise LocalProtocolError("FA-HA authentication is not added to a deregistration")
    octets += udp_tunnel.encode_request(part.udp_tunnel)
    octets += revocation_support.encode_support(part.revocation_support)
    return octets if foreign_home is None else authenticate(octets, foreign_home, by=FOREIGN_HOME)


def read_for_home_agent(request: DecodedRequest) -> ForeignToHome:
    """What the foreign agent added for the home agent; WireError where it is not well formed."""
    part = _behind_mobile_home(request, before=FOREIGN_HOME)
    if not part:
        return _NOTHING_FOR_HOME
    return ForeignToHome(
        udp_tunnel=udp_tunnel.read_request(part), revocation_support=revocation_support.read_support(part)
    )


def answer_foreign_agent(
    octets: bytes, part: HomeToForeign, *, foreign_home: MobilitySecurityAssociation | None = None
) -> bytes:
    """A reply that ends with MN-HA, and behind it what its foreign agent is to know, FA-HA last (R-200)."""
    octets += udp_tunnel.encode_reply(part.udp_tunnel)
    octets += revocation_support.encode_support(part.revocation_support)
    return octets if foreign_home is None else authenticate(octets, foreign_home, by=FOREIGN_HOME)


def read_from_home_agent(reply: DecodedReply) -> HomeToForeign:
    """What the home agent tells the foreign agent; WireError where it is not well formed."""
    part = _behind_mobile_home(reply, before=FOREIGN_HOME)
    return HomeToForeign(
        udp_tunnel=udp_tunnel.read_reply(part), revocation_support=revocation_support.read_support(part)
    )


def relay_reply(
    reply: DecodedReply, part: ForeignToMobile, *, mobile_foreign: MobilitySecurityAssociation | None = None
) -> bytes:
    """The reply as the foreign agent passes it on: unchanged through MN-HA, its own part, MN-FA (R-210).

    Its own verdict on a reply that somebody else signed goes into ``part.error``, never into the code (RFC 4636).
    """
    return _tell_mobile_node(through_mobile_home(reply), part, mobile_foreign)


def deny_request(
    reply: RegistrationReply,
    part: ForeignToMobile,
    *,
    mobile_foreign: MobilitySecurityAssociation | None = None,
) -> bytes:
    """A foreign agent's own denial, which has no MN-HA; LocalProtocolError for a code that is not its to give."""
    if not reply.by_foreign_agent:
        raise LocalProtocolError(f"code {reply.code} is not a foreign agent's")
    return _tell_mobile_node(encode_fixed_reply(reply), part, mobile_foreign)


def read_from_foreign_agent(reply: DecodedReply) -> ForeignToMobile:
    """What the foreign agent tells the mobile node; WireError where it is not well formed.

    An error means that the care-of address is not to be used, whether or not it is proved (R-160): denying itself
    service is all that a forger achieves, and dropping the reply would achieve the same.
    """
    part = _behind_mobile_home(reply, before=MOBILE_FOREIGN)
    error = only(part, ExtensionType.FOREIGN_AGENT_ERROR)
    return ForeignToMobile(
        error=None if error is None else exact(error, _ERROR, "FA Error")[0],
        challenge=_read_challenge(part),
        message=message_string.read_text(part, by=message_string.Author.FOREIGN_AGENT),
    )


def authenticate_to_server(octets: bytes, association: AaaAssociation, *, challenge: bytes | None) -> bytes:
    """The request with an MN-AAA extension (36/1) appended, covering all before and its own header (RFC 4721 6, 8)."""
    covered = octets + _AAA_HEADER.pack(
        ExtensionType.GENERALIZED_AUTHENTICATION,
        _AAA_SUB_TYPE,
        4 + _AAA_AUTHENTICATOR,
        association.spi,
    )
    return covered + _server_digest(covered, association, challenge)


def verify_for_server(octets: bytes, request: DecodedRequest, association: AaaAssociation) -> bool:
    """Whether the holder of this key made the request up to its MN-AAA extension, challenge included.

    False unless there is exactly one such extension, behind MN-HA as RFC 4721 6 wants it.
    """
    number = ExtensionType.GENERALIZED_AUTHENTICATION
    found = [one for one in (*request.covered, *request.unauthenticated) if one.number == number]
    if len(found) != 1 or found[0] not in request.unauthenticated or request.octets != octets:
        return False
    if len(found[0].body) != 4 + _AAA_AUTHENTICATOR:
        return False
    claimed = read_authentication(found[0])
    covered = octets[: found[0].offset + _AAA_HEADER.size]
    answered = [one.body for one in request.unauthenticated if _is_challenge_before(one, found[0])]
    if claimed.spi != association.spi or len(answered) > 1:
        return False
    expected = _server_digest(covered, association, answered[0] if answered else None)
    return hmac.compare_digest(expected, claimed.authenticator)


def server_spi(request: DecodedRequest) -> Spi | None:
    """The index under which the request wants to be checked by a server, if it wants to."""
    for one in request.unauthenticated:
        if one.number == ExtensionType.GENERALIZED_AUTHENTICATION and len(one.body) > 4:
            return read_authentication(one).spi
    return None


def _server_digest(covered: bytes, association: AaaAssociation, challenge: bytes | None) -> bytes:
    key = association.key.reveal()
    if association.spi != CHAP_SPI:
        return hmac.digest(key, covered, "md5")
    asked = _NO_CHALLENGE if challenge is None else challenge
    return _md5(asked[:1] + key + _md5(covered) + asked[-_CHAP_CHALLENGE_MOST:])


def _md5(octets: bytes) -> bytes:
    return hashlib.md5(octets).digest()  # noqa: S324 - RFC 4721 section 8


def _is_challenge_before(one: Extension, authentication: Extension) -> bool:
    return one.number == ExtensionType.MOBILE_FOREIGN_CHALLENGE and one.offset < authentication.offset


def _tell_mobile_node(
    octets: bytes, part: ForeignToMobile, mobile_foreign: MobilitySecurityAssociation | None
) -> bytes:
    if part.error is not None:
        octets += encode(Extension(ExtensionType.FOREIGN_AGENT_ERROR, _ERROR.pack(part.error), sub_type=0))
    octets += _encode_challenge(part.challenge)
    octets += message_string.encode_text(part.message, by=message_string.Author.FOREIGN_AGENT)
    return octets if mobile_foreign is None else authenticate(octets, mobile_foreign, by=MOBILE_FOREIGN)


def _behind_mobile_home(decoded: Decoded, *, before: ExtensionType) -> tuple[Extension, ...]:
    part = decoded.unauthenticated
    for at, one in enumerate(part):
        if one.number == before:
            return part[:at]
    return part


def _encode_challenge(challenge: bytes | None) -> bytes:
    if challenge is None:
        return b""
    return encode(Extension(ExtensionType.MOBILE_FOREIGN_CHALLENGE, challenge))


def _read_challenge(part: tuple[Extension, ...]) -> bytes | None:
    extension = only(part, ExtensionType.MOBILE_FOREIGN_CHALLENGE)
    if extension is None:
        return None
    if not extension.body:
        raise BadExtension(f"the challenge at octet {extension.offset} is empty")
    return extension.body
