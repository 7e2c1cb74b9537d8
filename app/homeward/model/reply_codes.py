# SPDX-License-Identifier: GPL-2.0-or-later
"""The codes of a Registration Reply: IANA's names, who speaks, and a sentence for people (RFC 5944 3.4, 6.4)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Self


class ReplyCode(IntEnum):
    """Why a registration was accepted or denied. A foreign agent's denials carry its name as prefix.

    Each member is its number on the wire; ``sentence`` says it for people.
    """

    sentence: str

    def __new__(cls, number: int, sentence: str = "") -> Self:
        code = int.__new__(cls, number)
        code._value_ = number
        code.sentence = sentence
        return code

    ACCEPTED = (0, "The home agent accepted the registration.")
    ACCEPTED_WITHOUT_SIMULTANEOUS_BINDINGS = (
        1,
        "The home agent accepted the registration, with one care-of address only.",
    )
    CONCURRENT_REGISTRATION = (2, "The registration was accepted in advance, while another one is going on.")

    FOREIGN_AGENT_REASON_UNSPECIFIED = (64, "The foreign agent denied the registration without a reason.")
    FOREIGN_AGENT_ADMINISTRATIVELY_PROHIBITED = (
        65,
        "The foreign agent's administrator forbids the registration.",
    )
    FOREIGN_AGENT_INSUFFICIENT_RESOURCES = (66, "The foreign agent has no room for another registration.")
    FOREIGN_AGENT_MOBILE_NODE_FAILED_AUTHENTICATION = (
        67,
        "The foreign agent could not authenticate this computer.",
    )
    FOREIGN_AGENT_HOME_AGENT_FAILED_AUTHENTICATION = (
        68,
        "The foreign agent could not authenticate the home agent.",
    )
    FOREIGN_AGENT_LIFETIME_TOO_LONG = (69, "The foreign agent allows only a shorter lifetime.")
    FOREIGN_AGENT_POORLY_FORMED_REQUEST = (70, "The foreign agent found the request malformed.")
    FOREIGN_AGENT_POORLY_FORMED_REPLY = (71, "The foreign agent found the home agent's reply malformed.")
    FOREIGN_AGENT_ENCAPSULATION_UNAVAILABLE = (
        72,
        "The foreign agent does not offer the encapsulation that was asked for.",
    )
    FOREIGN_AGENT_HEADER_COMPRESSION_UNAVAILABLE = (
        73,
        "The foreign agent does not offer header compression.",
    )
    FOREIGN_AGENT_REVERSE_TUNNEL_UNAVAILABLE = (74, "The foreign agent does not offer reverse tunnelling.")
    FOREIGN_AGENT_REVERSE_TUNNEL_MANDATORY = (75, "The foreign agent insists on reverse tunnelling.")
    FOREIGN_AGENT_MOBILE_NODE_TOO_DISTANT = (76, "The foreign agent says this computer is not on its link.")
    FOREIGN_AGENT_INVALID_CARE_OF_ADDRESS = (77, "The foreign agent does not offer this care-of address.")
    FOREIGN_AGENT_REGISTRATION_TIMEOUT = (78, "The home agent did not answer the foreign agent in time.")
    FOREIGN_AGENT_DELIVERY_STYLE_NOT_SUPPORTED = (
        79,
        "The foreign agent does not offer the delivery style that was asked for.",
    )
    FOREIGN_AGENT_HOME_NETWORK_UNREACHABLE = (80, "The foreign agent cannot reach the home network.")
    FOREIGN_AGENT_HOME_AGENT_HOST_UNREACHABLE = (81, "The foreign agent cannot reach the home agent's host.")
    FOREIGN_AGENT_HOME_AGENT_PORT_UNREACHABLE = (
        82,
        "The foreign agent found no home agent running at the home agent's address.",
    )
    FOREIGN_AGENT_HOME_AGENT_UNREACHABLE = (88, "The foreign agent cannot reach the home agent.")
    FOREIGN_AGENT_VENDOR_SPECIFIC_REASON = (
        89,
        "The foreign agent denied the registration for a vendor's reason.",
    )
    FOREIGN_AGENT_NON_ZERO_HOME_AGENT_REQUIRED = (
        90,
        "The foreign agent needs the home agent's address in the request.",
    )
    FOREIGN_AGENT_NON_ZERO_HOME_ADDRESS_REQUIRED = (
        96,
        "The foreign agent needs the home address in the request.",
    )
    FOREIGN_AGENT_MISSING_NAI = (97, "The home agent's reply lacked the user's network identifier.")
    FOREIGN_AGENT_MISSING_HOME_AGENT = (98, "The home agent's reply lacked the home agent's address.")
    FOREIGN_AGENT_MISSING_HOME_ADDRESS = (99, "The home agent's reply lacked the home address.")
    FOREIGN_AGENT_VENDOR_EXTENSION_FROM_MOBILE_NODE = (
        100,
        "The foreign agent cannot read a vendor's extension in our request.",
    )
    FOREIGN_AGENT_VENDOR_EXTENSION_FROM_HOME_AGENT = (
        101,
        "The foreign agent cannot read a vendor's extension in the home agent's reply.",
    )
    FOREIGN_AGENT_UNKNOWN_CHALLENGE = (
        104,
        "The foreign agent does not know the challenge that was answered.",
    )
    FOREIGN_AGENT_MISSING_CHALLENGE = (105, "The foreign agent wants its challenge answered.")
    FOREIGN_AGENT_STALE_CHALLENGE = (106, "The foreign agent's challenge had been used before.")
    FOREIGN_AGENT_MISSING_KEY_REPLY = (107, "The foreign agent received no key material for this computer.")
    FOREIGN_AGENT_MOBILE_NODE_AAA_FAILED = (
        108,
        "The foreign agent's authentication service refused this computer.",
    )
    FOREIGN_AGENT_WRONG_CHALLENGE_FROM_HOME_AGENT = (
        109,
        "The home agent returned the wrong challenge to the foreign agent.",
    )
    FOREIGN_AGENT_REPLAY_STYLE_UNAVAILABLE = (110, "The foreign agent does not offer this replay protection.")
    FOREIGN_AGENT_ZERO_CARE_OF_ADDRESS_NOT_SUPPORTED = (
        111,
        "The foreign agent does not assign care-of addresses.",
    )
    FOREIGN_AGENT_EXPERIMENTAL = (127, "The foreign agent denied the registration with an experimental code.")

    REASON_UNSPECIFIED = (128, "The home agent denied the registration without a reason.")
    ADMINISTRATIVELY_PROHIBITED = (129, "The home agent's administrator forbids the registration.")
    INSUFFICIENT_RESOURCES = (130, "The home agent has no room for another registration.")
    MOBILE_NODE_FAILED_AUTHENTICATION = (
        131,
        "The home agent could not authenticate this computer; the key or its number may be wrong.",
    )
    FOREIGN_AGENT_FAILED_AUTHENTICATION = (132, "The home agent could not authenticate the foreign agent.")
    IDENTIFICATION_MISMATCH = (
        133,
        "The home agent did not accept the time stamp; the next request follows its clock.",
    )
    POORLY_FORMED_REQUEST = (134, "The home agent found the request malformed.")
    TOO_MANY_SIMULTANEOUS_BINDINGS = (135, "The home agent keeps no further care-of address.")
    UNKNOWN_HOME_AGENT_ADDRESS = (136, "The home agent does not serve at the address that was asked for.")
    REVERSE_TUNNEL_UNAVAILABLE = (137, "The home agent does not offer reverse tunnelling.")
    REVERSE_TUNNEL_MANDATORY = (138, "The home agent insists on reverse tunnelling.")
    ENCAPSULATION_UNAVAILABLE = (139, "The home agent does not offer the encapsulation that was asked for.")
    VENDOR_EXTENSION_FROM_MOBILE_NODE = (
        140,
        "The home agent cannot read a vendor's extension in our request.",
    )
    VENDOR_EXTENSION_FROM_FOREIGN_AGENT = (
        141,
        "The home agent cannot read a vendor's extension that the foreign agent added.",
    )
    UDP_TUNNEL_ENCAPSULATION_UNAVAILABLE = (
        142,
        "The home agent does not offer the encapsulation that was asked for inside UDP.",
    )
    REDIRECTED_HOME_AGENT = (
        143,
        "The home agent points to another home agent, which this program does not follow.",
    )
    MOBILE_NODE_AAA_FAILED = (144, "The home agent's authentication service refused this computer.")
    ZERO_CARE_OF_ADDRESS_NOT_SUPPORTED = (145, "The home agent wants a care-of address in the request.")
    DYNAMIC_REGIONAL_AGENT_NOT_SUPPORTED = (
        146,
        "The home agent does not support a gateway foreign agent that is assigned on the way.",
    )
    MOBILE_NETWORK_ERROR = (147, "The home agent refused one of the mobile networks behind this computer.")
    MOBILE_ROUTER_NOT_PERMITTED = (148, "The home agent does not let this computer act as a mobile router.")
    PROXY_REGISTRATION_UNSUPPORTED = (149, "The home agent does not support registration by proxy.")
    PROXY_REGISTRATION_DISALLOWED = (150, "The home agent does not allow registration by proxy here.")
    SERVICE_AUTHORIZATION_FAILED = (151, "The home agent does not grant the service that was asked for.")
    EXPERIMENTAL = (192, "The home agent denied the registration with an experimental code.")

    INVALID_HOME_AGENT_ADDRESS = (
        194,
        "The home agent's address belongs to a foreign agent that does not serve as a home agent.",
    )
    """Sent by a foreign agent that owns the address but serves nobody there, in spite of its number."""

    @property
    def is_success(self) -> bool:
        """Whether the registration stands: 0 and 1 only."""
        return self in (ReplyCode.ACCEPTED, ReplyCode.ACCEPTED_WITHOUT_SIMULTANEOUS_BINDINGS)

    @property
    def by_home_agent(self) -> bool:
        """Whether the home agent says so; its word counts only with a valid MN-HA authenticator."""
        return is_from_home_agent(self)

    @property
    def by_foreign_agent(self) -> bool:
        """Whether a foreign agent says so."""
        return is_from_foreign_agent(self)


_LAST_SUCCESS: Final = 8
_GATEWAY_FOREIGN_AGENT: Final = range(193, 201)
_FOREIGN_AGENT: Final = range(64, 128)


def is_from_foreign_agent(code: int) -> bool:
    """Whether the number is a foreign agent's: 64 to 127, 194, and the range of gateway foreign agents."""
    return code in _FOREIGN_AGENT or code in _GATEWAY_FOREIGN_AGENT


def is_from_home_agent(code: int) -> bool:
    """Whether the number is a home agent's: 0 to 8, and everything above 127 that is no foreign agent's.

    Unassigned high numbers count as the home agent's, which is the strict side: they then need its authenticator.
    """
    return code <= _LAST_SUCCESS or (code > _FOREIGN_AGENT[-1] and code not in _GATEWAY_FOREIGN_AGENT)


def sentence_for(code: int) -> str:
    """A sentence for any code, named or not."""
    try:
        return ReplyCode(code).sentence
    except ValueError:
        pass
    if is_from_foreign_agent(code):
        return f"The foreign agent answered with code {code}, which has no known meaning."
    return f"The answer carries code {code}, which has no known meaning."
