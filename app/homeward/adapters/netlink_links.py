# SPDX-License-Identifier: GPL-2.0-or-later
"""Links and addresses as the kernel has them. A netlink event is only a wake-up: what counts is the picture after it.

The kernel drops IPv4 routes without a word when their link or address goes, and events themselves under load; a picture
misses neither. Events are read by header only, from a socket of our own, which takes 0.01 ms each.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from homeward.model.access import Link
from homeward.model.errors import LinkError
from homeward.model.names import HOME_DEVICE

log = logging.getLogger("links")

QUIET: Final = 0.001
"""Seconds from an event to the picture: the events of one change come within that."""
FOREIGN_QUIET: Final = 0.05
"""The same for links that can never be access links: a hundred container events per second are twenty pictures."""
_AGAIN: Final = 0.005

_ARPHRD_ETHER = 1
_ARPHRD_RAWIP = 519
_ARPHRD_NONE = 0xFFFE
_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_MAIN_TABLE = 254
_UNICAST = 1
_UNIVERSE = 0
_PERMANENT = 0x80
_INTERRUPTED = 0x10
_UNRESOLVED = 0x01 | 0x20 | 0x40  # NUD_INCOMPLETE, NUD_FAILED, NUD_NOARP
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
    hardware: int = _ARPHRD_ETHER
    flags: int = _IFF_UP
    mtu: int = 1500
    carrier: bool = True
    carrier_changes: int = 0
    master: int | None = None
    lower: int | None = None
    far_lower: bool = False
    parent: bool = False


@dataclass(slots=True)
class _Picture:
    """The kernel's tables, as last read."""

    links: dict[int, LinkFacts] = field(default_factory=dict)
    addresses: dict[int, list[IPv4Interface]] = field(default_factory=dict)
    lent: set[int] = field(default_factory=set)
    """Links with an address that has an end: DHCP's."""
    routes: dict[int, tuple[int, IPv4Address | None]] = field(default_factory=dict)
    """The best default route by each link: metric and gateway."""
    stations: dict[tuple[int, IPv4Address], str] = field(default_factory=dict)


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
    if facts.hardware != _ARPHRD_ETHER and not modem:
        return f"neither Ethernet nor mobile broadband (hardware type {facts.hardware})"
    return None


class NetlinkLinks:
    """The links of this network namespace."""

    def __init__(self) -> None:
        self.on_failed: Callable[[BaseException], None] = lambda error: None
        """Called when the watch ended of an error of ours: from then on no move is noticed."""
        self._observer: Callable[[tuple[Link, ...]], None] | None = None
        self._ip: AsyncIPRoute | None = None
        self._wake_up: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._picture = _Picture()
        self._foreign: frozenset[int] = frozenset()
        self._were_routed: set[int] = set()
        self._last: tuple[Link, ...] | None = None
        self._stale: set[str] = set()
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, observer: Callable[[tuple[Link, ...]], None]) -> None:
        """Call `observer` with the whole picture now and after every change, QUIET seconds after the first event of it.

        Changes of nothing but links that can never be access links may be told FOREIGN_QUIET later. Raises LinkError.
        """
        self._observer = observer
        self._last = None
        try:
            self._wake_up = _open_wake_up()
            self._ip = AsyncIPRoute(strict_check=True)
            self._stale = set(_TABLES)
            await self._read(self._ip)
        except (OSError, NetlinkError) as error:
            await self.stop()
            raise LinkError("reading the links", getattr(error, "errno", 0) or str(error)) from error
        asyncio.get_running_loop().add_reader(self._wake_up, self._wake)
        self._tell()
        self._task = asyncio.get_running_loop().create_task(self._watch(self._ip))
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Stop watching."""
        self._observer = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._wake_up is not None:
            asyncio.get_running_loop().remove_reader(self._wake_up)
            self._wake_up.close()
            self._wake_up = None
        if self._ip is not None:
            self._ip.close()
            self._ip = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_failed(error)

    async def _watch(self, ip: AsyncIPRoute) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._read(ip)
            except (OSError, NetlinkError) as error:
                # The tables changed under the reader (EBUSY, EINTR), or memory is short: the picture is still due.
                log.warning("the links could not be read: %s", error)
                self._stale = set(_TABLES)
                self._call_in(_AGAIN)
                continue
            self._tell()

    def _wake(self) -> None:
        """Take note of which tables changed; never look at what the event says happened."""
        assert self._wake_up is not None
        quiet = None
        while True:
            try:
                octets = self._wake_up.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: events were lost, so anything may have changed
                self._stale, quiet = set(_TABLES), QUIET
                continue
            touched, relevant = _tables_touched(octets, self._foreign)
            if touched:
                self._stale |= touched
                quiet = QUIET if relevant or quiet == QUIET else FOREIGN_QUIET
        if quiet is not None:
            self._call_in(quiet)

    def _call_in(self, quiet: float) -> None:
        """Take the picture after this many seconds, or earlier if that was promised already."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + quiet:
                return
            self._timer.cancel()
        self._timer = loop.call_later(quiet, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._due.set()

    async def _read(self, ip: AsyncIPRoute) -> None:
        """Read the tables that changed since they were last read."""
        stale, self._stale = self._stale, set()
        picture = self._picture
        if "links" in stale:
            messages = await self._dump(ip.get_links(ext_mask=_NO_STATISTICS))
            picture.links = {facts.index: facts for facts in map(_facts, messages)}
            self._foreign = frozenset(
                index for index, facts in picture.links.items() if why_never(facts, picture.links) is not None
            )
        if "addresses" in stale:
            picture.addresses, picture.lent = _read_addresses(
                await self._dump(ip.get_addr(family=socket.AF_INET))
            )
        if "routes" in stale:
            picture.routes = _default_routes(
                await self._dump(ip.get_routes(family=socket.AF_INET, table=_MAIN_TABLE))
            )
        if "neighbours" in stale:
            await self._learn_stations(ip)

    async def _dump(self, request: Awaitable[AsyncIterable[Any]]) -> list[Any]:
        messages = [message async for message in await request]
        if any(message["header"]["flags"] & _INTERRUPTED for message in messages):
            raise InterruptedError("the table changed while it was read")
        return messages

    async def _learn_stations(self, ip: AsyncIPRoute) -> None:
        """Remember each router's hardware address until another takes its place: a forgotten entry is no move.

        Only routers are asked about. Whoever is on a link can fill the kernel's table with neighbours.
        """
        for index, (_, router) in self._picture.routes.items():
            if router is None:
                continue
            try:
                messages = await ip.neigh("get", dst=str(router), ifindex=index)
            except NetlinkError:
                continue  # nobody has spoken with it yet, or the link is gone
            for message in messages:
                station = message.get("lladdr")
                if station and not message["state"] & _UNRESOLVED:
                    self._picture.stations[index, router] = station

    def _tell(self) -> None:
        """Report the picture if it differs from the last one."""
        picture = self._picture
        for index, router in list(picture.stations):
            if not self._has_carrier(index) or picture.routes.get(index, (0, None))[1] != router:
                del picture.stations[index, router]
        # A link that was an access link does not stop being one while its cable is out.
        self._were_routed = (self._were_routed | picture.routes.keys()) & picture.links.keys()
        links = tuple(self._link(facts) for _, facts in sorted(picture.links.items()))
        if links != self._last and self._observer is not None:
            self._last = links
            self._observer(links)

    def _has_carrier(self, index: int) -> bool:
        facts = self._picture.links.get(index)
        return facts is not None and facts.carrier

    def _link(self, facts: LinkFacts) -> Link:
        picture = self._picture
        metric, gateway = picture.routes.get(facts.index, (None, None))
        access, why = judge(
            facts, picture.links, routed=facts.index in self._were_routed, lent=facts.index in picture.lent
        )
        return Link(
            facts.index,
            facts.name,
            access,
            why,
            facts.carrier,
            mtu=facts.mtu,
            addresses=tuple(picture.addresses.get(facts.index, ())),
            gateway=gateway,
            metric=metric,
            carrier_changes=facts.carrier_changes,
            station=picture.stations.get((facts.index, gateway), "") if gateway is not None else "",
        )


_TABLES: Final = frozenset({"links", "addresses", "routes", "neighbours"})
_NO_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40  # link, neigh, ipv4-ifaddr, ipv4-route
_HEADER = struct.Struct("=IHHII")


def _open_wake_up() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    opened.bind((0, _GROUPS))
    return opened


def _tables_touched(octets: bytes, foreign: frozenset[int]) -> tuple[set[str], bool]:
    """Which tables the events of one datagram touch, and whether a link that may be an access link is among them.

    In link, address and neighbour messages the interface index stands at octet 4 of the body; in route messages octet
    1 is the prefix length and octet 4 the table.
    """
    touched: set[str] = set()
    relevant = False
    at = 0
    while at + _HEADER.size + 8 <= len(octets):
        length, kind, *_ = _HEADER.unpack_from(octets, at)
        if length < _HEADER.size:
            break
        body = at + _HEADER.size
        (index,) = struct.unpack_from("=i", octets, body + 4)
        match kind:
            case 16 | 17:  # a link came, changed or went; its routes go with it without a word
                touched |= {"links", "addresses", "routes"}
                relevant |= index not in foreign
            case 20 | 21:
                touched |= {"addresses", "routes"}
                relevant |= index not in foreign
            case 24 | 25 if octets[body + 4] == _MAIN_TABLE:
                is_default = octets[body + 1] == 0
                touched |= {"routes", "neighbours"} if is_default else {"routes"}
                relevant |= is_default
            case 28 | 29 if octets[body] == socket.AF_INET:
                touched.add(
                    "neighbours"
                )  # never in a hurry: whoever is on the link can send any number of these
        at += (length + 3) & ~3
    return touched, relevant


def _facts(message: Any) -> LinkFacts:
    """One link's facts from an RTM_NEWLINK message."""
    return LinkFacts(
        message["index"],
        message.get("ifname"),
        message.get(("linkinfo", "kind")),
        message["ifi_type"],
        message["flags"],
        message.get("mtu") or 0,
        bool(message["flags"] & _IFF_UP and message.get("carrier")),
        message.get("carrier_changes") or 0,
        message.get("master"),
        message.get("link"),
        message.get("link_netnsid") is not None,
        message.get("parent_dev_name") is not None,
    )


def _read_addresses(messages: list[Any]) -> tuple[dict[int, list[IPv4Interface]], set[int]]:
    addresses: dict[int, list[IPv4Interface]] = {}
    lent = set()
    for message in messages:
        if message["scope"] != _UNIVERSE:
            continue
        interface = IPv4Interface(f"{message.get('local') or message.get('address')}/{message['prefixlen']}")
        addresses.setdefault(message["index"], []).append(interface)
        if not (message.get("flags") or 0) & _PERMANENT:
            lent.add(message["index"])
    return addresses, lent


def _default_routes(messages: list[Any]) -> dict[int, tuple[int, IPv4Address | None]]:
    """The best default route of the main table by each link."""
    best: dict[int, tuple[int, IPv4Address | None]] = {}
    for message in messages:
        if message["dst_len"] or message["type"] != _UNICAST or (message.get("table") or 0) != _MAIN_TABLE:
            continue
        metric = message.get("priority") or 0
        hops = message.get("multipath") or [message]
        for hop in hops:
            index, gateway = hop.get("oif"), hop.get("gateway")
            if hop is not message:
                index = hop["oif"]
            if index is not None and (index not in best or metric < best[index][0]):
                best[index] = (metric, IPv4Address(gateway) if gateway else None)
    return best
