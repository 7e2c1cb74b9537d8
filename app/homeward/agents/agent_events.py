# SPDX-License-Identifier: GPL-2.0-or-later
"""What flows into a home agent's decisions and what flows out of them."""

from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from homeward.agents.bindings import Binding
from homeward.agents.bindings import Change as Change
from homeward.agents.findings import Finding as Finding
from homeward.model.agent_memory import Memory
from homeward.model.encapsulation import Encapsulation
from homeward.model.inputs import DeadlinePassed
from homeward.model.memory_records import MemoryRecord
from homeward.model.registration import ReplyCode
from homeward.model.values import quick


@quick
@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A datagram arrived on UDP port 434 through `interface`: a request, or something about revocation.

    Of MIP Tunnel Data only what may complete a half-bound tunnel comes here (RFC 3519 section 4.6). `unicast` says that
    `destination` is one of this host's own addresses; otherwise it was broadcast or multicast.
    """

    octets: bytes
    source: IPv4Address
    _: KW_ONLY
    source_port: int
    destination: IPv4Address
    interface: str
    unicast: bool = True


@dataclass(frozen=True, slots=True)
class RevokeBinding:
    """The administrator ends the binding of a home address before its time (RFC 3543 section 4.2.2)."""

    home_address: IPv4Address


@dataclass(frozen=True, slots=True)
class RevokeNode:
    """The administrator trusts a node no more, as after a theft: its bindings end, its associations are forgotten.

    They stay forgotten until a policy is adopted that has them; what was accepted of it is still remembered then.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Drain:
    """From now on make no new binding (code 130), until `on` is false. Those that stand are still renewed and moved."""

    on: bool


AgentInput = RequestArrived | RevokeBinding | RevokeNode | Drain | DeadlinePassed


@quick
@dataclass(frozen=True, slots=True)
class Remember:
    """Write this down before any effect that follows is carried out: after a crash it must still be known."""

    memory: Memory


@quick
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
class SendRevocation:
    """Send a Registration Revocation from port 434 of `source`: nobody asked for it, so it is no reply."""

    octets: bytes
    destination: IPv4Address
    _: KW_ONLY
    port: int
    source: IPv4Address


@quick
@dataclass(frozen=True, slots=True)
class Forward:
    """From now on tunnel packets for `home_address` to `endpoint`, and take them out of its tunnel if `reverse_tunnel`.

    With `udp` all of them are MIP Tunnel Data to and from `port` of the endpoint (RFC 3519 section 4.7); None is the
    port of a half-bound tunnel, which nothing can be sent into yet. It ends by itself at the boot time `expires`, None
    for never. Replaces whatever was said about this home address before.
    """

    home_address: IPv4Address
    endpoint: IPv4Address
    _: KW_ONLY
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    reverse_tunnel: bool
    udp: bool = False
    port: int | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class StopForwarding:
    """From now on leave packets from and for `home_address` alone."""

    home_address: IPv4Address


@dataclass(frozen=True, slots=True)
class ProxyHomeAddress:
    """Answer ARP for `home_address` on the home link from now on, and say so to everybody there (R-203)."""

    home_address: IPv4Address


@dataclass(frozen=True, slots=True)
class ReleaseHomeAddress:
    """Answer ARP for `home_address` no more.

    `asked` are the octets of the request by which the mobile node came back to the home link: the frame that brought
    them says its hardware address, which everybody there is then told. None where it is not there.
    """

    home_address: IPv4Address
    asked: bytes | None = None


@quick
@dataclass(frozen=True, slots=True)
class BindingChanged:
    """For the log: `binding` is the new one, or the one that is gone."""

    change: Change
    binding: Binding


@dataclass(frozen=True, slots=True)
class RevocationEnded:
    """For the log: a revocation is not sent again, since `peer` acknowledged it or never did."""

    home_address: IPv4Address
    peer: IPv4Address
    acknowledged: bool


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


class PlainGrant(NamedTuple):
    """All that follows from a plain request that is granted, in octets: requests come by the thousand a second.

    It says the same as a Remember of `memory`, and behind that what `grants.consequences` spells out. `binding` is as
    BindingTable has it, `tunnel` as tunnel_records does.
    """

    home_address: int
    change: Change
    binding: bytes
    memory: MemoryRecord
    tunnel: bytes
    reply: bytes
    arrived: RequestArrived


AgentEffect = (
    PlainGrant
    | Remember
    | SendReply
    | SendRevocation
    | Forward
    | StopForwarding
    | ProxyHomeAddress
    | ReleaseHomeAddress
    | BindingChanged
    | RevocationEnded
    | Refused
)
