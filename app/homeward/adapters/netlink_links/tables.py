# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's tables of links, addresses, default routes and routers' stations, kept up with its news.

Links and addresses are taken from the news themselves, which carry them whole and in order. Routes are asked for anew
whenever anything happened to them, to a link or to an address: the kernel drops routes without a word. That is the one
table that a hand-over reads. When news were lost, all are.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from homeward.adapters.netlink_links import messages
from homeward.adapters.netlink_links.judgement import IFF_UP, LinkFacts, why_never
from homeward.adapters.netlink_links.messages import Questions, attributes, number, text

_UNICAST = 1
_UNIVERSE = 0
_PERMANENT = 0x80
_SECONDARY = 0x01
_UNRESOLVED = 0x01 | 0x20 | 0x40  # NUD_INCOMPLETE, NUD_FAILED, NUD_NOARP
_MOST_NEWS: Final = 256
"""Changed addresses that may wait for the next picture; with more of them all are asked for instead."""

TABLES: Final = frozenset({"links", "addresses", "routes", "neighbours"})


@dataclass(slots=True)
class News:
    """What the kernel has told since the last picture. `stale` are tables to be asked for, `named` links to look at.

    Of a link only the last word counts: its message, None when it is gone.
    """

    stale: set[str] = field(default_factory=set)
    links: dict[int, bytes | None] = field(default_factory=dict)
    addresses: list[tuple[int, bytes]] = field(default_factory=list)
    named: set[int] = field(default_factory=set)

    def lost(self) -> None:
        """Some could not be taken in: anything may have changed."""
        self.stale |= TABLES

    def hear(self, octets: bytes, foreign: frozenset[int]) -> tuple[bool, bool]:
        """Take a datagram in: whether it changes the picture, and whether a link that is not foreign is touched."""
        touched = relevant = False
        for kind, _, body in messages.messages(octets):
            if len(body) < 8:
                continue
            heard, own = self._hear(kind, body, foreign)
            touched |= heard
            relevant |= own
        return touched, relevant

    def _hear(self, kind: int, body: bytes, foreign: frozenset[int]) -> tuple[bool, bool]:
        (index,) = struct.unpack_from("=i", body, 4)  # of the link, in all but routes
        match kind:
            case messages.NEW_LINK | messages.DELETED_LINK if body[0] == socket.AF_UNSPEC:
                self.links[index] = body if kind == messages.NEW_LINK else None
                self.stale.add("routes")
                return True, index not in foreign
            case messages.NEW_ADDRESS | messages.DELETED_ADDRESS:
                self.addresses.append((kind, body))
                if len(self.addresses) > _MOST_NEWS:
                    self.addresses.clear()
                    self.stale.add("addresses")
                self.stale.add("routes")
                if index not in foreign:
                    self.named.add(index)
                return True, index not in foreign
            case messages.NEW_ROUTE | messages.DELETED_ROUTE if body[4] == messages.MAIN_TABLE:
                is_default = body[1] == 0
                self.stale |= {"routes", "neighbours"} if is_default else {"routes"}
                return True, is_default
            case messages.NEW_NEIGHBOUR | messages.DELETED_NEIGHBOUR if body[0] == socket.AF_INET:
                # Never in a hurry: whoever is on the link can send any number of these.
                self.stale.add("neighbours")
                return True, False
        return False, False


@dataclass(slots=True)
class Tables:
    """The kernel's tables, as last known."""

    links: dict[int, LinkFacts] = field(default_factory=dict)
    _addresses: dict[int, dict[IPv4Interface, int]] = field(default_factory=dict)
    """By link, with their flags."""
    routes: dict[int, tuple[int, IPv4Address | None]] = field(default_factory=dict)
    """The best default route by each link: metric and gateway."""
    stations: dict[tuple[int, IPv4Address], str] = field(default_factory=dict)
    """Each router's hardware address, remembered until another takes its place: a forgotten entry is no move."""

    def foreign(self) -> frozenset[int]:
        """The links that can never be access links."""
        return frozenset(
            index for index, facts in self.links.items() if why_never(facts, self.links) is not None
        )

    def addresses(self, index: int) -> tuple[IPv4Interface, ...]:
        """A link's addresses in the kernel's order, which is by age, and what came second in a network last."""
        known = self._addresses.get(index, {})
        return tuple(sorted(known, key=lambda address: bool(known[address] & _SECONDARY)))

    def lent(self, index: int) -> bool:
        """Whether a link has an address that has an end: DHCP's."""
        return any(not flags & _PERMANENT for flags in self._addresses.get(index, {}).values())

    def bring_up_to_date(self, news: News, questions: Questions) -> None:
        """Take the news in, and ask for what they do not say. Raises OSError; then all must be asked for."""
        if "links" in news.stale:
            self.links = {
                facts.index: facts for facts in map(link_facts, questions.links()) if facts is not None
            }
        else:
            self._change_links(news, questions)
        if "addresses" in news.stale:
            self._addresses = {}
            for body in questions.addresses():
                self._change_address(messages.NEW_ADDRESS, body)
        else:
            for kind, body in news.addresses:
                self._change_address(kind, body)
        if "routes" in news.stale:
            self.routes = default_routes(questions.routes())
        if "neighbours" in news.stale:
            self._learn_stations(questions)

    def _change_links(self, news: News, questions: Questions) -> None:
        told: dict[int, bytes | None] = dict(news.links)
        # News of a carrier may be up to a second late, and news of an address are early: look at that one link.
        for index in news.named - {index for index, body in told.items() if body is None}:
            told[index] = questions.link(index)
        for index, body in told.items():
            facts = None if body is None else link_facts(body)
            if body is not None and facts is None:
                # Some drivers' news of a link say only what is new about it.
                whole = questions.link(index)
                facts = None if whole is None else link_facts(whole)
            if facts is None:
                self.links.pop(index, None)
                self._addresses.pop(index, None)
            else:
                self.links[index] = facts

    def _change_address(self, kind: int, body: bytes) -> None:
        family, prefix, flags, scope, index = struct.unpack_from("=BBBBI", body)
        about = attributes(body, messages.ADDRESS_OCTETS)
        octets = about.get(2) or about.get(1)  # IFA_LOCAL, IFA_ADDRESS
        if family != socket.AF_INET or octets is None or len(octets) != 4 or scope != _UNIVERSE:
            return
        interface = IPv4Interface((octets, prefix))
        if kind == messages.NEW_ADDRESS:
            self._addresses.setdefault(index, {})[interface] = number(about.get(8)) or flags  # IFA_FLAGS
        else:
            self._addresses.get(index, {}).pop(interface, None)

    def _learn_stations(self, questions: Questions) -> None:
        """Only routers are asked about. Whoever is on a link can fill the kernel's table with neighbours."""
        for index, (_, router) in self.routes.items():
            body = None if router is None else questions.neighbour(index, router)
            if router is None or body is None:
                continue
            (state,) = struct.unpack_from("=H", body, 8)
            station = attributes(body, messages.NEIGHBOUR_OCTETS).get(2)  # NDA_LLADDR
            if station and not state & _UNRESOLVED:
                self.stations[index, router] = station.hex(":")

    def forget_stations(self) -> None:
        """Of links without carrier, and of routers that are none any more."""
        for index, router in list(self.stations):
            facts = self.links.get(index)
            carrier = facts is not None and facts.carrier
            if not carrier or self.routes.get(index, (0, None))[1] != router:
                del self.stations[index, router]


def link_facts(body: bytes) -> LinkFacts | None:
    """One link's facts; None where the message does not say all of them."""
    if len(body) < messages.LINK_OCTETS:
        return None
    hardware, index, flags = struct.unpack_from("=2xHiI", body)
    about = attributes(body, messages.LINK_OCTETS)
    name, carrier = text(about.get(3)), number(about.get(33))  # IFLA_IFNAME, IFLA_CARRIER
    if name is None or carrier is None:
        return None
    return LinkFacts(
        index,
        name,
        text(attributes(about.get(18, b"")).get(1)),  # IFLA_LINKINFO, IFLA_INFO_KIND
        hardware,
        flags,
        number(about.get(4)) or 0,  # IFLA_MTU
        bool(flags & IFF_UP and carrier),
        number(about.get(35)) or 0,  # IFLA_CARRIER_CHANGES
        number(about.get(10)),  # IFLA_MASTER
        number(about.get(5)),  # IFLA_LINK
        about.get(37) is not None,  # IFLA_LINK_NETNSID
        about.get(56) is not None,  # IFLA_PARENT_DEV_NAME
    )


def default_routes(bodies: list[bytes]) -> dict[int, tuple[int, IPv4Address | None]]:
    """The best default route of the main table by each link."""
    best: dict[int, tuple[int, IPv4Address | None]] = {}
    for body in bodies:
        _, length, _, _, short_table, _, _, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
        about = attributes(body, messages.ROUTE_OCTETS)
        table = number(about.get(15)) or short_table  # RTA_TABLE
        if length or kind != _UNICAST or table != messages.MAIN_TABLE:
            continue
        metric = number(about.get(6)) or 0  # RTA_PRIORITY
        for index, gateway in _hops(about):
            if index not in best or metric < best[index][0]:
                best[index] = (metric, gateway)
    return best


def _hops(about: dict[int, bytes]) -> list[tuple[int, IPv4Address | None]]:
    """Link and gateway of each way that a route may take."""
    index = number(about.get(4))  # RTA_OIF
    if index is not None:
        return [(index, _gateway(about))]
    hops, several, at = [], about.get(9, b""), 0  # RTA_MULTIPATH
    while at + 8 <= len(several):
        length, _, _, hop = struct.unpack_from("=HBBi", several, at)
        if length < 8:
            break
        hops.append((hop, _gateway(attributes(several[: at + length], at + 8))))
        at += (length + 3) & ~3
    return hops


def _gateway(about: dict[int, bytes]) -> IPv4Address | None:
    octets = about.get(5)  # RTA_GATEWAY
    return IPv4Address(octets) if octets is not None and len(octets) == 4 else None
