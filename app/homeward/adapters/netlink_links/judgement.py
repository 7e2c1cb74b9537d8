# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of a machine's links really are access links: what the kernel says about a link, judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from homeward.model.names import HOME_DEVICE

ARPHRD_ETHER: Final = 1
_ARPHRD_RAWIP = 519
_ARPHRD_NONE = 0xFFFE
IFF_UP: Final = 0x1
_IFF_LOOPBACK = 0x8
_TUNNELS: Final = frozenset(
    {
        "tun", "wireguard", "ppp", "xfrm", "vti", "vti6", "ipip", "sit", "gre", "gretap", "erspan", "ip6tnl",
        "ip6gre", "l2tp", "vxlan", "geneve", "bareudp", "fou", "ovpn",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What the kernel says about one link; `kind` is its driver's name for virtual links, `lower` the link beneath it.

    `far_lower`: the link beneath, or the other end, is in another network namespace. `parent`: it hangs on a bus.
    """

    index: int
    name: str
    kind: str | None = None
    hardware: int = ARPHRD_ETHER
    flags: int = IFF_UP
    mtu: int = 1500
    carrier: bool = True
    carrier_changes: int = 0
    master: int | None = None
    lower: int | None = None
    far_lower: bool = False
    parent: bool = False


def judge(facts: LinkFacts, links: Mapping[int, LinkFacts], *, routed: bool, lent: bool) -> tuple[bool, str]:
    """Whether a link really is an access link, and why we think so, in words.

    `routed`: a default route leads, or led, through it. `lent`: it has an address for a limited time. When in doubt
    it is none: a probe over something that is not could be answered from inside (S3).
    """
    never = why_never(facts, links)
    if never is not None:
        return False, never
    match facts.kind:
        case None | "wwan" if facts.hardware in (_ARPHRD_RAWIP, _ARPHRD_NONE) or facts.kind == "wwan":
            return True, "a mobile broadband modem"
        case None:
            if facts.parent or routed:
                return True, "an Ethernet or Wi-Fi adapter"
            return False, "a virtual adapter without a default route"
        case "bond" | "team":
            return True, f"a {facts.kind} of adapters"
        case "veth":
            if facts.far_lower and (routed or lent):
                return True, "a cable into another namespace, with a default route or a lent address"
            return False, "a virtual cable without a default route, as containers have"
        case _:  # vlan, macvlan
            below = links.get(facts.lower) if facts.lower is not None and not facts.far_lower else None
            if below is None:
                return (
                    routed,
                    f"a {facts.kind} on a link in another namespace, {_with(routed)} a default route",
                )
            fit, why = judge(below, links, routed=True, lent=lent)
            if fit and facts.kind == "macvlan" and not routed:
                return False, "a macvlan without a default route"
            return fit, f"a {facts.kind} on {below.name}: {why}"


def _with(there: bool) -> str:
    return "with" if there else "without"


def why_never(facts: LinkFacts, links: Mapping[int, LinkFacts]) -> str | None:
    """Why a link can never be an access link, whatever its addresses and routes; None if it can."""
    if facts.flags & _IFF_LOOPBACK:
        return "the loopback"
    if facts.name == HOME_DEVICE:
        return "our own home device"
    if facts.master is not None:
        master = links.get(facts.master)
        return f"a port of {master.name if master else 'another link'}"
    if facts.kind in _TUNNELS:
        return f"a tunnel ({facts.kind})"
    if facts.kind == "bridge":
        return "a bridge: what answers there may be a container or a virtual machine"
    if facts.kind not in (None, "wwan", "bond", "team", "veth", "vlan", "macvlan"):
        return f"a virtual link ({facts.kind})"
    modem = facts.kind == "wwan" or (facts.hardware in (_ARPHRD_RAWIP, _ARPHRD_NONE) and facts.parent)
    if facts.hardware != ARPHRD_ETHER and not modem:
        return f"neither Ethernet nor mobile broadband (hardware type {facts.hardware})"
    return None
