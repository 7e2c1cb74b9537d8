# SPDX-License-Identifier: GPL-2.0-or-later
"""What flows into a home agent's decisions and what flows out of them."""

from dataclasses import KW_ONLY, dataclass
from enum import Enum
from ipaddress import IPv4Address

from homeward.agents.bindings import Binding
from homeward.model.encapsulation import Encapsulation
from homeward.model.inputs import DeadlinePassed
from homeward.model.registration import ReplyCode


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A datagram arrived on UDP port 434 through `interface`.

    `unicast` says that `destination` is one of this host's own addresses; otherwise it was broadcast or multicast.
    """

    octets: bytes
    source: IPv4Address
    _: KW_ONLY
    source_port: int
    destination: IPv4Address
    interface: str
    unicast: bool = True


AgentInput = RequestArrived | DeadlinePassed


@dataclass(frozen=True, slots=True)
class SendReply:
    """Send a Registration Reply from port 434 of `source` to where the request came from.

    `interface`, where it is named, is the way to go whatever the routes say: a node that has come home is answered
    on its home link, although its binding may still lead its packets into a tunnel (RFC 5944 section 3.8.3.1).
    """

    octets: bytes
    destination: IPv4Address
    _: KW_ONLY
    port: int
    source: IPv4Address
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """From now on tunnel packets for `home_address` to `endpoint`, and take them out of its tunnel if `reverse_tunnel`.

    Replaces whatever was said about this home address before.
    """

    home_address: IPv4Address
    endpoint: IPv4Address
    _: KW_ONLY
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    reverse_tunnel: bool


@dataclass(frozen=True, slots=True)
class StopForwarding:
    """From now on leave packets from and for `home_address` alone."""

    home_address: IPv4Address


class Change(Enum):
    """What became of a binding."""

    MADE = "made"
    MOVED = "moved"
    RENEWED = "renewed"
    REMOVED = "removed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class BindingChanged:
    """For the log: `binding` is the new one, or the one that is gone."""

    change: Change
    binding: Binding


class Finding(Enum):
    """Why a request was dropped or denied; the values are codes for logs and counters, and stay as they are."""

    WRONG_INTERFACE = "request-from-outside-interface"
    WRONG_SOURCE = "request-from-untrusted-source"
    MALFORMED = "malformed"
    NOT_A_REQUEST = "not-a-request"
    FOREIGN_AGENT_AUTHENTICATION = "foreign-agent-without-association"
    NO_AUTHENTICATION = "no-authentication"
    UNKNOWN_ASSOCIATION = "unknown-association"
    WRONG_AUTHENTICATOR = "wrong-authenticator"
    STALE = "identification-mismatch"
    WRONG_HOME_AGENT = "wrong-home-agent-address"
    RESERVED_BITS = "reserved-bits"
    BAD_CARE_OF_ADDRESS = "bad-care-of-address"
    LOOPING_CARE_OF_ADDRESS = "looping-care-of-address"
    RELAYED = "relayed-request"
    NAT_UNSUPPORTED = "nat-without-udp-tunnelling"
    ENCAPSULATION = "encapsulation-unavailable"


@dataclass(frozen=True, slots=True)
class Refused:
    """A request was not granted: for the log and the counters, which the process limits in rate.

    `code` is what the sender was told, None when it was told nothing. `home_address` is None as long as nobody knows
    whose the request was; before the authenticator is checked it is only what the request claims.
    """

    finding: Finding
    text: str
    _: KW_ONLY
    source: IPv4Address
    code: ReplyCode | None = None
    home_address: IPv4Address | None = None


AgentEffect = SendReply | Forward | StopForwarding | BindingChanged | Refused
