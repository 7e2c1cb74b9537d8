# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a home agent drops or denies something; the values are codes for logs and counters, and stay as they are."""

from enum import Enum


class Finding(Enum):
    """What was wrong, told apart as finely as an administrator may want to count it."""

    WRONG_INTERFACE = "request-from-outside-interface"
    WRONG_SOURCE = "request-from-untrusted-source"
    MALFORMED = "malformed"
    NOT_A_REQUEST = "not-a-request"
    FOREIGN_AGENT_AUTHENTICATION = "foreign-agent-without-association"
    NO_AUTHENTICATION = "no-authentication"
    UNKNOWN_ASSOCIATION = "unknown-association"
    WRONG_AUTHENTICATOR = "wrong-authenticator"
    FOREIGN_AGENT_FAILED = "foreign-agent-failed-authentication"
    STALE = "identification-mismatch"
    WRONG_HOME_AGENT = "wrong-home-agent-address"
    WRONG_HOME_ADDRESS = "wrong-home-address"
    WRONG_NAI = "wrong-nai"
    NO_HOME_ADDRESS_LEFT = "no-home-address-left"
    RESERVED_BITS = "reserved-bits"
    BAD_CARE_OF_ADDRESS = "bad-care-of-address"
    LOOPING_CARE_OF_ADDRESS = "looping-care-of-address"
    UNTRUSTED_CARE_OF_ADDRESS = "untrusted-care-of-address"
    RELAYED = "relayed-request"
    NAT_UNSUPPORTED = "nat-without-udp-tunnelling"
    MISPLACED_UDP_REQUEST = "misplaced-udp-tunnel-request"
    FORCED_UDP = "forced-udp-tunnelling"
    UDP_ENCAPSULATION = "udp-encapsulation-unavailable"
    ENCAPSULATION = "encapsulation-unavailable"
    REVERSE_TUNNEL_MANDATORY = "reverse-tunnel-mandatory"
    REVERSE_TUNNEL_REFUSED = "reverse-tunnel-refused"
    STRAY_KEEPALIVE = "stray-keepalive"
    REVOCATION = "revocation-refused"
    STRAY_ACKNOWLEDGMENT = "stray-revocation-acknowledgment"
