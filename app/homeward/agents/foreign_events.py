# SPDX-License-Identifier: GPL-2.0-or-later
"""What flows into a foreign agent's decisions and what flows out of them."""

from dataclasses import KW_ONLY, dataclass
from enum import Enum
from ipaddress import IPv4Address

from homeward.agents.visitors import Visitor
from homeward.model.inputs import DeadlinePassed
from homeward.model.registration import ReplyCode


@dataclass(frozen=True, slots=True)
class MobileNodeSpoke:
    """A datagram for UDP port 434 came in on an access link, in a frame from `hardware_address`.

    Whoever hands it in has checked the UDP checksum, and that the frame was not for another station.
    """

    octets: bytes
    source: IPv4Address
    _: KW_ONLY
    source_port: int
    destination: IPv4Address
    ttl: int
    hardware_address: bytes
    interface: str


@dataclass(frozen=True, slots=True)
class HomeAgentSpoke:
    """A datagram for UDP port 434 of a care-of address came in on a link towards home agents, never an access link."""

    octets: bytes
    source: IPv4Address
    _: KW_ONLY
    source_port: int
    destination: IPv4Address


@dataclass(frozen=True, slots=True)
class RelayFailed:
    """An ICMP error came back for what we sent to a home agent; or the kernel itself knew no way.

    `code` is that of Destination Unreachable; `quoted` is as much of our message as came back, perhaps nothing.
    """

    home_agent: IPv4Address
    code: int
    quoted: bytes = b""


ForeignInput = MobileNodeSpoke | HomeAgentSpoke | RelayFailed | DeadlinePassed


@dataclass(frozen=True, slots=True)
class SendToMobileNode:
    """Send a UDP datagram from port 434 of `source`, in a frame to `hardware_address`: nobody is asked by ARP."""

    octets: bytes
    destination: IPv4Address
    _: KW_ONLY
    port: int
    source: IPv4Address
    hardware_address: bytes
    interface: str


@dataclass(frozen=True, slots=True)
class SendToHomeAgent:
    """Send a UDP datagram from port 434 of the care-of address `source`."""

    octets: bytes
    destination: IPv4Address
    _: KW_ONLY
    source: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class Admit:
    """From now on carry this visitor's packets as it says; replaces what was said about its home address before."""

    visitor: Visitor


@dataclass(frozen=True, slots=True)
class Expel:
    """From now on carry no packet for this visitor."""

    visitor: Visitor


@dataclass(frozen=True, slots=True)
class TellLostVisitor:
    """Tell a visitor, by an advertisement to it alone, that its registration is gone (RFC 3543 4.1)."""

    visitor: Visitor


class VisitorChange(Enum):
    """What became of a visitor; the values are parts of codes for logs and counters."""

    ADMITTED = "admitted"
    RENEWED = "renewed"
    CHANGED = "changed"
    LEFT = "left"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class VisitorChanged:
    """For the log: `visitor` is the new entry, or the one that is gone."""

    change: VisitorChange
    visitor: Visitor


class ForeignFinding(Enum):
    """Why something was dropped or denied; the values are codes for logs and counters, and stay as they are."""

    MALFORMED = "malformed"
    NOT_A_REQUEST = "not-a-request"
    NOT_A_REPLY = "not-a-reply"
    WRONG_SOURCE = "request-from-wrong-source"
    TOO_OFTEN = "requests-too-often"
    COPIED = "copied-request"
    WRONG_AUTHENTICATOR = "mobile-foreign-authentication-failed"
    POORLY_FORMED = "poorly-formed-request"
    WRONG_HOME_AGENT = "wrong-home-agent-address"
    WRONG_HOME_ADDRESS = "wrong-home-address"
    TOO_DISTANT = "mobile-node-too-distant"
    WRONG_CARE_OF_ADDRESS = "care-of-address-not-offered"
    ENCAPSULATION = "encapsulation-unavailable"
    DELIVERY_STYLE = "delivery-style-unavailable"
    REVERSE_TUNNEL = "reverse-tunnel"
    LIFETIME = "lifetime-too-long"
    CHALLENGE = "challenge"
    CHALLENGE_UNPROVED = "challenge-without-authentication"
    SERVER_AUTHENTICATION = "server-authentication-failed"
    NO_ROOM = "no-room"
    REVOCATION_BY_MOBILE_NODE = "revocation-support-from-mobile-node"
    UNMATCHED_REPLY = "unmatched-reply"
    FORGED_REPLY = "foreign-home-authentication-failed"
    POOR_REPLY = "poorly-formed-reply"
    INCOMPLETE_REPLY = "incomplete-reply"
    HOME_AGENT_CHALLENGE = "home-agent-returned-wrong-challenge"
    TIMEOUT = "registration-timeout"
    UNREACHABLE = "home-agent-unreachable"
    BAD_REVOCATION = "bad-revocation"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something was not granted, or not believed: for the log and the counters, which the process limits in rate.

    `code` is what the mobile node was told, None when it was told nothing.
    """

    finding: ForeignFinding
    text: str
    _: KW_ONLY
    source: IPv4Address
    hardware_address: bytes | None = None
    code: ReplyCode | None = None
    home_address: IPv4Address | None = None


ForeignEffect = (
    SendToMobileNode | SendToHomeAgent | Admit | Expel | TellLostVisitor | VisitorChanged | Rejected
)
