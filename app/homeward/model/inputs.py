# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts that flow into the core; names in the past tense."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from homeward.model.access import Link, Path
from homeward.model.vpn import VpnReport


@dataclass(frozen=True, slots=True)
class LinksObserved:
    """All links as they are now; a whole picture each time, never a difference."""

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """A datagram arrived on the registration socket of `path`.

    `link_index` is the ingress link that the kernel reported (IP_PKTINFO): for a clear path it must be the path's own.
    """

    path: Path
    octets: bytes
    source: IPv4Address
    source_port: int
    link_index: int


@dataclass(frozen=True, slots=True)
class AgentAdvertised:
    """An ICMP Router Advertisement came in by this link; `packet` is the whole IPv4 packet.

    `hardware_address` is the link-layer source, empty on links without such addresses.
    """

    link_index: int
    packet: bytes
    hardware_address: bytes


@dataclass(frozen=True, slots=True)
class VpnReported:
    """The IKE engine said something about the VPN."""

    report: VpnReport


@dataclass(frozen=True, slots=True)
class GatewayResolved:
    """The gateway's name was looked up over an access link; empty `addresses` when that failed, with `cause`."""

    name: str
    addresses: tuple[IPv4Address, ...]
    cause: str = ""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The moment that `next_deadline()` named has come."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The machine woke up, or the wall clock jumped: nothing proved before is still proved."""


@dataclass(frozen=True, slots=True)
class ReconnectRequested:
    """The user pressed Reconnect: forget the verdict, probe again, rebuild the VPN."""


@dataclass(frozen=True, slots=True)
class PlanApplied:
    """The kernel is in the state of the plan with this number."""

    number: int


@dataclass(frozen=True, slots=True)
class EffectFailed:
    """An effect could not be carried out; `code` is a health code, `cause` in words."""

    code: str
    cause: str


Input = (
    LinksObserved
    | DatagramReceived
    | AgentAdvertised
    | VpnReported
    | GatewayResolved
    | DeadlinePassed
    | Resumed
    | ReconnectRequested
    | PlanApplied
    | EffectFailed
)
