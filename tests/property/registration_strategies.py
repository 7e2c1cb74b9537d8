# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages and associations of every kind that we may send, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from homeward.model.nat_traversal import UdpTunnelReply, UdpTunnelRequest
from homeward.model.registration import (
    AuthenticationAlgorithm,
    Identification,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
    nai_fault,
)
from homeward.model.revocation import RevocationSupport
from homeward.model.secret import Secret
from homeward.model.shown_text import shown_text
from homeward.wire.registration import encode_reply, encode_request

Message = RegistrationRequest | RegistrationReply

addresses = st.ip_addresses(v=4)
lifetimes = st.integers(0, 0xFFFF)
identifications = st.integers(0, (1 << 64) - 1).map(Identification)
flags = st.integers(0, 0xFF).map(lambda octet: RequestFlags(octet & ~0x05))
nais = st.none() | st.text(min_size=1, max_size=80).filter(lambda text: nai_fault(text) is None)

octet = st.integers(0, 0xFF)
udp_tunnel_requests = st.builds(
    UdpTunnelRequest, force=st.booleans(), through_foreign_agent=st.booleans(), kind=octet
)
udp_tunnel_replies = st.builds(UdpTunnelReply, octet, forced=st.booleans(), keepalive=st.integers(0, 0xFFFF))
revocation_supports = st.builds(RevocationSupport, st.integers(0, 0xFFFFFFFF), inform=st.booleans())
texts = st.text(max_size=80).map(lambda text: shown_text(text.encode("utf-8", errors="replace")))


def _request(co_located: bool, flag: RequestFlags) -> st.SearchStrategy[RegistrationRequest]:
    # Only a co-located care-of address may ask for UDP tunnels or revocation.
    d = RequestFlags.DECAPSULATE_SELF
    return st.builds(
        RegistrationRequest,
        lifetimes,
        addresses,
        home_agent=addresses,
        care_of_address=addresses,
        identification=identifications,
        flags=st.just(flag | d if co_located else flag & ~d),
        nai=nais,
        udp_tunnel=st.none() | udp_tunnel_requests if co_located else st.none(),
        revocation_support=st.none() | revocation_supports if co_located else st.none(),
    )


requests = st.tuples(st.booleans(), flags).flatmap(lambda drawn: _request(*drawn))
replies = st.builds(
    RegistrationReply,
    octet,
    lifetimes,
    home_address=addresses,
    home_agent=addresses,
    identification=identifications,
    nai=nais,
    trusted_networks_configured=st.booleans(),
    udp_tunnel=st.none() | udp_tunnel_replies,
    revocation_support=st.none() | revocation_supports,
    message=texts,
)
messages: st.SearchStrategy[Message] = requests | replies

associations = st.builds(
    MobilitySecurityAssociation,
    st.integers(256, 0xFFFFFFFF).map(Spi),
    st.sampled_from(AuthenticationAlgorithm),
    key=st.binary(min_size=16, max_size=80).map(Secret),
)


def encode(message: Message, association: MobilitySecurityAssociation) -> bytes:
    """Either kind of message, as it leaves."""
    if isinstance(message, RegistrationRequest):
        return encode_request(message, association)
    return encode_reply(message, association)
