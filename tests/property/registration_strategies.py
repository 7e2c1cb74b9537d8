# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages and associations of every kind that we may send, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

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
from homeward.model.secret import Secret
from homeward.wire.registration import encode_reply, encode_request

Message = RegistrationRequest | RegistrationReply

addresses = st.ip_addresses(v=4)
lifetimes = st.integers(0, 0xFFFF)
identifications = st.integers(0, (1 << 64) - 1).map(Identification)
flags = st.integers(0, 0xFF).map(lambda octet: RequestFlags(octet & ~0x05))
nais = st.none() | st.text(min_size=1, max_size=80).filter(lambda text: nai_fault(text) is None)

requests = st.builds(
    RegistrationRequest,
    lifetimes,
    addresses,
    home_agent=addresses,
    care_of_address=addresses,
    identification=identifications,
    flags=flags,
    nai=nais,
)
replies = st.builds(
    RegistrationReply,
    st.integers(0, 0xFF),
    lifetimes,
    home_address=addresses,
    home_agent=addresses,
    identification=identifications,
    nai=nais,
    trusted_networks_configured=st.booleans(),
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
