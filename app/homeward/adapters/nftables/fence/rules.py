# SPDX-License-Identifier: GPL-2.0-or-later
"""The fence as text: nftables commands that put up exactly what a setting asks for, whatever stood before.

The first line stands in inet input, forward and postrouting and judges by mark, so that it holds for links that nobody
has seen yet. The second line is netdev egress on the known access links: it also stops raw packet sockets, which
the first never sees. Frames of our own, to a foreign agent and for ARP at home, pass there and nowhere else.

A tunnel in clear is let through by the elements of three sets, not by rules: between trusted networks nothing else
changes, and elements are exchanged in a fraction of the time (`elements`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final, TypeGuard, assert_never

from homeward.model.access import AgentPath, ClearPath, Path, VpnPath
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import PlanError
from homeward.model.names import (
    FENCE_TABLE,
    HOME_DEVICE,
    IPIP_DEVICE,
    MARK_IKE,
    MARK_NAME_QUERY,
    MARK_REGISTRATION,
    MARK_TUNNEL,
    REGISTRATION_PORT,
)
from homeward.model.plan import AtHome, Fence, Held, Traffic, Tunnelled, ViaAgent

LINGER: Final = 2
"""Seconds for which the traffic before a hand-over may still come in."""

_FILTER = -5  # before the system's own filters (0): a verdict of ours does not depend on theirs
_PLAIN_NAME = re.compile(r"[!#-)+-\[\]-~]{1,15}")  # printable, without space, quote, star and backslash
_AFTER_NAT = 300  # source NAT stands at 100: what leaves here is what really leaves
_MOBILE_AGENTS = "224.0.0.11"


@dataclass(frozen=True, slots=True)
class FenceSetting:
    """All that the rules depend on.

    `home_address` is None while there is none. `vpn_device` carries `fence.vpn_inner_address`; `kernel_esp` says that
    it is an XFRM interface. `lingering` is the traffic before, of which packets still in flight come in for LINGER
    seconds. `egress_links` are those of the fence's access links that exist.
    """

    fence: Fence
    home_address: IPv4Address | None
    vpn_device: str | None = None
    kernel_esp: bool = False
    lingering: Traffic | None = None
    egress_links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ends:
    """The packets of a tunnel in one direction, as an element of a set: device, outer addresses, outer protocol."""

    device: str
    source: IPv4Address
    destination: IPv4Address
    protocol: int


@dataclass(frozen=True, slots=True)
class Elements:
    """What the fence's three sets hold: which tunnel's packets come in, leave, and come in still for LINGER seconds."""

    arriving: tuple[Ends, ...] = ()
    leaving: tuple[Ends, ...] = ()
    lingering: tuple[Ends, ...] = ()


def elements(setting: FenceSetting) -> Elements:
    """The part of a fence that is in its sets."""
    traffic, before = setting.fence.traffic, setting.lingering
    return Elements(
        _inwards(traffic) if _in_sets(traffic) else (),
        _outwards(traffic) if _in_sets(traffic) else (),
        _inwards(before) if _in_sets(before) else (),
    )


def standing(setting: FenceSetting) -> FenceSetting:
    """The part of a fence that is in its rules: settings of which this is equal differ in elements only."""
    fence = setting.fence
    return replace(
        setting,
        fence=replace(fence, traffic=Held()) if _in_sets(fence.traffic) else fence,
        lingering=None if _in_sets(setting.lingering) else setting.lingering,
    )


def _in_sets(traffic: Traffic | None) -> TypeGuard[Tunnelled]:
    """Whether elements let a traffic through: a tunnel in clear, and not in UDP."""
    return isinstance(traffic, Tunnelled) and isinstance(traffic.path, ClearPath) and not traffic.udp


def _inwards(traffic: Tunnelled) -> tuple[Ends, ...]:
    device = traffic.path.link_name if isinstance(traffic.path, ClearPath) else ""
    return tuple(
        Ends(device, traffic.home_agent, traffic.path.source, number) for number in _protocols(traffic)
    )


def _outwards(traffic: Tunnelled) -> tuple[Ends, ...]:
    return tuple(
        Ends(each.device, each.destination, each.source, each.protocol) for each in _inwards(traffic)
    )


def render(setting: FenceSetting) -> str:
    """The nftables commands that put up exactly this fence, whatever stood before."""
    held = elements(setting)
    lines = [*_cleared("inet"), *_cleared("netdev"), f"table inet {FENCE_TABLE} {{"]
    lines += _set("arriving", "iifname", held.arriving)
    lines += _set("leaving", "oifname", held.leaving)
    lines += _set("lingering", "iifname", held.lingering, seconds=LINGER)
    lines += _lingering_set(setting)
    lines += _chain("input", f"hook input priority {_FILTER}", _input(setting))
    lines += _chain("forward", f"hook forward priority {_FILTER}", [])
    # What the fast path hands to the kernel's device comes by here with the home device's name, and as a tunnel packet.
    leaving = [f'oifname "{HOME_DEVICE}" accept', f'oifname "{IPIP_DEVICE}" drop']
    leaving += [*_tunnel(setting), 'oifname "lo" accept', *_being_wrapped(setting), *_output(setting)]
    lines += _chain("postrouting", f"hook postrouting priority {_AFTER_NAT}", leaving)
    lines.append("}")
    if setting.egress_links:
        devices = ", ".join(_quoted(name) for name in setting.egress_links)
        hook = f"hook egress devices = {{ {devices} }} priority 0"
        lines.append(f"table netdev {FENCE_TABLE} {{")
        lines += [*_set("leaving", "oifname", held.leaving), *_chain("egress", hook, _egress(setting)), "}"]
    return "\n".join(lines) + "\n"


def render_nothing() -> str:
    """The commands that take the fence down, whether or not one stands."""
    return "\n".join([*_cleared("inet"), *_cleared("netdev")]) + "\n"


def can_be_named(link: str) -> bool:
    """Whether nft reads this interface name as that name and nothing else."""
    return bool(_PLAIN_NAME.fullmatch(link))


def _cleared(family: str) -> list[str]:
    # Adding what may be there and then deleting it is the way that needs no `destroy`, which Debian 12 does not know.
    return [f"add table {family} {FENCE_TABLE}", f"delete table {family} {FENCE_TABLE}"]


def _set(name: str, link: str, held: tuple[Ends, ...], *, seconds: int | None = None) -> list[str]:
    flags = [] if seconds is None else ["\t\tflags timeout"]
    end = "" if seconds is None else f" timeout {seconds}s"
    told = ", ".join(
        f"{_quoted(each.device)} . {each.source} . {each.destination} . {each.protocol}{end}" for each in held
    )
    content = [f"\t\telements = {{ {told} }}"] if held else []
    return [f"\tset {name} {{", f"\t\ttypeof {_ends(link)}", *flags, *content, "\t}"]


def _ends(link: str) -> str:
    return f"{link} . ip saddr . ip daddr . ip protocol"


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    body = [f"\t\ttype filter {hook}; policy drop;", *(f"\t\t{rule}" for rule in rules)]
    return [f"\tchain {name} {{", *body, "\t}"]


# --- what comes in --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """Where packets of the home address come from: `fields` with their `values`, and what else must be true."""

    fields: tuple[str, ...]
    values: tuple[str, ...]
    also: str = ""

    def rule(self) -> str:
        each = " ".join(f"{name} {value}" for name, value in zip(self.fields, self.values, strict=True))
        return " ".join([each, *([self.also] if self.also else []), "accept"])


def _arriving(setting: FenceSetting, traffic: Traffic | None) -> _Source | None:
    """How packets of this traffic come in; None where no rule of their own lets them.

    A tunnel in clear is in the sets, and one in UDP comes to the socket of its path's registrations.
    """
    if traffic is None or isinstance(traffic, Held) or _in_sets(traffic):
        return None
    device = _device(setting, traffic.path)
    if device is None:
        return None
    link = ("iifname", _quoted(device))
    match traffic:
        case Tunnelled(udp=True):
            return None
        case Tunnelled(path, agent):
            ends = (("ip saddr", str(agent)), ("ip daddr", str(path.source)))
            return _source(link, *ends, also=_protocol(traffic))
        case ViaAgent(path):
            return _source(link, *_hardware("ether saddr", path), ("ip daddr", str(setting.home_address)))
        case AtHome(path):
            return _source(link, ("ip daddr", str(setting.home_address)))
        case _:
            assert_never(traffic)


def _source(*matches: tuple[str, str], also: str = "") -> _Source:
    return _Source(tuple(name for name, _ in matches), tuple(value for _, value in matches), also)


def _lingering_set(setting: FenceSetting) -> list[str]:
    source = _arriving(setting, setting.lingering)
    if source is None:
        return []
    return [
        "\tset lingering_otherwise {",
        f"\t\ttypeof {' . '.join(source.fields)}",
        "\t\tflags timeout",
        f"\t\telements = {{ {' . '.join(source.values)} timeout {LINGER}s }}",
        "\t}",
    ]


def _input(setting: FenceSetting) -> list[str]:
    fence = setting.fence
    rules = [
        f'iifname "{HOME_DEVICE}" accept',
        f'iifname "{IPIP_DEVICE}" drop',  # it takes from anybody; ours are taken before it
        'iifname "lo" accept',
        "meta nfproto ipv6 drop",
        f"{_ends('iifname')} @arriving accept",
        f"{_ends('iifname')} @lingering accept",
    ]
    arriving, lingering = _arriving(setting, fence.traffic), _arriving(setting, setting.lingering)
    if arriving is not None:
        rules.append(arriving.rule())
    if lingering is not None:
        rules.append(f"{lingering.also} {' . '.join(lingering.fields)} @lingering_otherwise accept".lstrip())
    replies = f"socket mark {MARK_REGISTRATION:#x} ip saddr {{}} udp sport {REGISTRATION_PORT} accept"
    rules.append(replies.format(fence.home_agent))
    if fence.foreign_agent is not None:
        frames = [("iifname", _quoted(fence.foreign_agent.link_name))]
        frames += _hardware("ether saddr", fence.foreign_agent)
        from_agent = " ".join(f"{name} {value}" for name, value in frames)
        rules.append(f"{from_agent} {replies.format(fence.foreign_agent.agent)}")
    if setting.vpn_device is not None:
        rules.append(f"iifname {_quoted(setting.vpn_device)} drop")
    rules.append("udp sport 67 udp dport 68 accept")
    if fence.gateways:
        rules.append(
            f"socket mark {MARK_IKE:#x} ip saddr {_addresses(fence.gateways)} udp sport {{ 500, 4500 }} accept"
        )
    return [
        *rules,
        f"socket mark {MARK_NAME_QUERY:#x} udp sport 53 accept",
        "icmp type router-advertisement accept",
        "icmp type destination-unreachable icmp code frag-needed accept",
    ]


# --- what leaves ----------------------------------------------------------------------------------------------------


def _being_wrapped(setting: FenceSetting) -> list[str]:
    """The VPN's packets on their second way through: between XFRM interface and ESP, already bound for the link.

    `ipsec out` asks what the kernel is about to wrap the packet in, so what this lets pass cannot leave in clear.
    """
    fence, traffic = setting.fence, setting.fence.traffic
    if not (setting.kernel_esp and isinstance(traffic, Tunnelled) and fence.gateways):
        return []
    if not isinstance(traffic.path, VpnPath):
        return []
    return [f"ipsec out ip daddr {_addresses(fence.gateways)} {_tunnel_out(traffic)} accept"]


def _tunnel_out(traffic: Tunnelled) -> str:
    ends = f"ip saddr {traffic.path.source} ip daddr {traffic.home_agent}"
    kind = f"udp dport {REGISTRATION_PORT}" if traffic.udp else _protocol(traffic)
    return f"meta mark {MARK_TUNNEL:#x} {ends} {kind}"


def _tunnel(setting: FenceSetting) -> list[str]:
    """The user's traffic, as it may leave by a link that is not our own; the same in both lines, and first in each.

    The mark is asked for before anything that takes longer to find out.
    """
    traffic, rules = setting.fence.traffic, []
    match traffic:
        case Tunnelled(path) if not _in_sets(traffic):
            if (device := _device(setting, path)) is not None:
                rules.append(f"{_tunnel_out(traffic)} oifname {_quoted(device)} accept")
        case AtHome(path):
            from_home = f"meta mark {MARK_TUNNEL:#x} ip saddr {setting.home_address}"
            rules.append(f"{from_home} oifname {_quoted(path.link_name)} accept")
    return [*rules, f"meta mark {MARK_TUNNEL:#x} {_ends('oifname')} @leaving accept"]


def _output(setting: FenceSetting) -> list[str]:
    """What else may leave by a link that is not our own; the same in both lines."""
    fence = setting.fence
    rules = _registrations(setting)
    if setting.vpn_device is not None:
        rules.append(f"oifname {_quoted(setting.vpn_device)} drop")
    rules.append("meta nfproto ipv4 udp sport 68 udp dport 67 accept")
    if fence.gateways:
        gateways = _addresses(fence.gateways)
        rules.append(f"meta mark {MARK_IKE:#x} ip daddr {gateways} udp dport {{ 500, 4500 }} accept")
    rules.append(f"meta mark {MARK_NAME_QUERY:#x} meta nfproto ipv4 udp dport 53 accept")
    groups = f"{{ 224.0.0.2, {_MOBILE_AGENTS}, 255.255.255.255 }}"
    rules.append(f"ip daddr {groups} icmp type router-solicitation accept")
    return rules


def _registrations(setting: FenceSetting) -> list[str]:
    """To the home agent from any address but the home address, which may be seen on the home link alone."""
    fence, home = setting.fence, setting.home_address
    away = "" if home is None else f"ip saddr != {home} "
    ask = f"ip daddr {fence.home_agent} udp dport {REGISTRATION_PORT} accept"
    rules = [f"meta mark {MARK_REGISTRATION:#x} {away}{ask}"]
    if fence.home_link is not None:
        link = _quoted(fence.home_link.link_name)
        own = f"ip saddr {fence.home_link.source}"
        rules.append(f"oifname {link} meta mark {MARK_REGISTRATION:#x} {own} {ask}")
    return rules


def _egress(setting: FenceSetting) -> list[str]:
    """The second line sees frames: ARP, and the later fragments of a datagram, pass here and not above."""
    fence = setting.fence
    rules = [
        *_tunnel(setting),
        *_arp(setting),
        # ARP, and what 802.1X, its pre-authentication and Wi-Fi's direct links say before there is a network.
        "meta protocol { arp, 0x888e, 0x88c7, 0x890d } accept",
        "meta protocol != ip drop",
        *_frames_to_agent(setting),
    ]
    if fence.gateways:
        gateways = _addresses(fence.gateways)
        rules.append(f"meta mark {MARK_IKE:#x} ip daddr {gateways} ip frag-off & 0x1fff != 0 accept")
    # In this family `meta nfproto` is of no use, and only IPv4 is left.
    return rules + [rule.replace("meta nfproto ipv4 ", "") for rule in _output(setting)]


def _arp(setting: FenceSetting) -> list[str]:
    """Away from home nobody may hear the home address in ARP (R-183, R-191), and at home only from our own answers."""
    home, link = setting.home_address, setting.fence.home_link
    if home is None:
        return []
    rules = [f"arp saddr ip {home} drop", f"arp daddr ip {home} drop"]
    if link is not None:
        ours = f"oifname {_quoted(link.link_name)} meta mark {MARK_REGISTRATION:#x}"
        rules.insert(0, f"{ours} arp saddr ip {home} accept")
    return rules


def _frames_to_agent(setting: FenceSetting) -> list[str]:
    """Frames that never pass the first line, to the one neighbour that they are meant for."""
    fence, rules = setting.fence, []
    if isinstance(fence.traffic, ViaAgent):
        path = fence.traffic.path
        packets = f"ip saddr {setting.home_address} "
        if fence.traffic.encapsulating:
            packets += f"ip daddr {path.agent} ip protocol {Encapsulation.IP_IN_IP.protocol} "
        rules.append(f"{_frame(path)} {packets}meta mark {MARK_TUNNEL:#x} accept")
    if fence.foreign_agent is not None:
        path = fence.foreign_agent
        ends = f"ip saddr {path.source} ip daddr {{ {path.agent}, {_MOBILE_AGENTS} }}"
        asked = f"{ends} udp dport {REGISTRATION_PORT} meta mark {MARK_REGISTRATION:#x}"
        rules.append(f"{_frame(path)} {asked} accept")
    return rules


def _frame(path: AgentPath) -> str:
    matches = [("oifname", _quoted(path.link_name)), *_hardware("ether daddr", path)]
    return " ".join(f"{name} {value}" for name, value in matches)


# --- words ----------------------------------------------------------------------------------------------------------


def _hardware(field: str, path: AgentPath) -> list[tuple[str, str]]:
    """The agent's hardware address; nothing on a link without such addresses, where there is one neighbour only."""
    return [(field, path.hardware_address.hex(":"))] if path.hardware_address else []


def _protocol(traffic: Tunnelled) -> str:
    numbers = _protocols(traffic)
    several = "{ " + ", ".join(map(str, numbers)) + " }"
    return f"ip protocol {several if len(numbers) > 1 else numbers[0]}"


def _protocols(traffic: Tunnelled) -> tuple[int, ...]:
    # Fragments have no room in minimal encapsulation and travel as IP-in-IP (R-290).
    also = (Encapsulation.IP_IN_IP.protocol,) if traffic.encapsulation is Encapsulation.MINIMAL else ()
    return (*also, traffic.encapsulation.protocol)


def _device(setting: FenceSetting, path: Path) -> str | None:
    """The device that a path's packets pass."""
    return setting.vpn_device if isinstance(path, VpnPath) else path.link_name


def _addresses(addresses: tuple[IPv4Address, ...]) -> str:
    return "{ " + ", ".join(str(address) for address in sorted(set(addresses))) + " }"


def _quoted(name: str) -> str:
    """An interface name as nft reads it. The kernel also allows names that would mean something else in a rule."""
    if not can_be_named(name):
        raise PlanError(
            "naming a link in the fence", f"the interface name {name!r} cannot be written in a rule"
        )
    return f'"{name}"'
