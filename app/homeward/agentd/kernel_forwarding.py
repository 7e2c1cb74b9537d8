# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of a home agent's tunnels the kernel carries by itself, and how that follows the bindings.

What it cannot carry, or refuses, goes by our sockets, where every rule stands: so nothing here fails towards whoever
asks. An entry is written for plain IP-in-IP, and for tunnels in UDP whose port is known; it says how long a packet may
be, and when its binding ends. What has no reverse tunnel has no entry inwards.

Receive merging (GRO) joins TCP segments inside IP-in-IP and GRE. The programs take such packets; our sockets would get
them too long and with unfinished checksums. So a link merges only while nothing of the kind is left to the sockets.
"""

from __future__ import annotations

import errno
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from homeward.adapters.kernel_tunnels import agent_tunnels
from homeward.adapters.kernel_tunnels.agent_tunnels import AgentTunnels, Leaving
from homeward.adapters.kernel_tunnels.entries import Carrier
from homeward.adapters.netlink_routes.forwarding import ForwardingRoutes, Prefix, RouteProgram
from homeward.adapters.netlink_routes.link_news import LinkNews
from homeward.adapters.receive_merging import ReceiveMerging
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.settings import AgentSettings
from homeward.agents.tunnel_records import FAR, KIND, KINDS, PORT, Kind, Record, end_of
from homeward.agents.tunnels import TunnelTable
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import AdapterError
from homeward.model.tunnel_engine import TunnelEngine

log: Final = logging.getLogger("links")

Traffic = dict[tuple[str, str], tuple[int, int]]

_LEAST: Final = 1024
_REFUSED: Final = "kernel-tunnel-refused"


class KernelForwarding:
    """The fast path beside a TunnelTable. Everything happens on the event loop; only `lead` raises, AdapterErrors."""

    def __init__(
        self,
        settings: AgentSettings,
        inside: InsideLinks,
        routes: ForwardingRoutes,
        *,
        metrics: Metrics,
        boot: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._inside = inside
        self._routes = routes
        self._metrics = metrics
        self._boot = boot
        self._table: TunnelTable | None = None
        self._ways: dict[int, _Way] = {}
        self._kernel: AgentTunnels | None = None
        self._merging = ReceiveMerging()
        self._may_merge = False
        self._news = LinkNews(self._look_at_links)
        self._watched: set[int] = set()
        self._carried: Counter[tuple[str, TunnelEngine]] = Counter()
        self._carried_octets: Counter[tuple[str, TunnelEngine]] = Counter()
        self._is_refused = False

    @property
    def engine(self) -> TunnelEngine:
        """The best that carries tunnels here."""
        return TunnelEngine.TUN if self._kernel is None else self._kernel.engine

    def traffic(self) -> Traffic:
        """Packets and octets that went by the kernel alone, by direction ("in", "out") and engine."""
        found = Counter(self._carried), Counter(self._carried_octets)
        for kind, (packets, octets) in self._counted().items():
            found[0][kind] += packets
            found[1][kind] += octets
        return {
            (way, engine.value): (found[0][way, engine], found[1][way, engine]) for way, engine in found[0]
        }

    # --- lives -----------------------------------------------------------------------------------------------------

    def start(self, table: TunnelTable, prefixes: set[Prefix], settings: AgentSettings) -> None:
        """Carry what is in the table, lead these prefixes into the device and nothing else, without a gap for what an
        earlier life, or this one by earlier settings, carried already. Raises AdapterErrors when routes cannot be."""
        self._table, self._settings = table, settings
        made = self._open(max(_LEAST, len(settings.policy.nodes), len(table)))
        self._routes.lead(prefixes, _program(made))
        self._replace_by(made)
        self._news.stop()
        self._news.start()

    def stop(self, *, keep: bool) -> None:
        """Let go of it, and unless it is to be kept for the next life, leave nothing. Raises AdapterErrors."""
        self._news.stop()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        self._watched.clear()
        if not keep:
            self._merging.restore()
            agent_tunnels.remove_all()

    def _open(self, tunnels: int) -> AgentTunnels | None:
        """Maps with room for these and more, filled, that nothing passes yet; None where there is no fast path."""
        assert self._table is not None
        if self._is_refused:
            return None
        # Twice: each node has the tunnel that it left for LINGER seconds. What is not used takes hardly any memory.
        capacity = 1 << (2 * tunnels).bit_length()
        made = AgentTunnels(
            self._settings.policy.address, capacity=capacity, clamps=bool(self._settings.segment_mtu)
        )
        try:
            made.open(self._routes.device_index)
            made.fill(self._arriving(made), self._leaving(made))
        except (AdapterError, OSError) as error:
            log.warning(
                entry("kernel-carries-no-tunnels", cause=error, text="packets go through this process")
            )
            self._is_refused = True
            made.close()
            return None
        return made

    def _replace_by(self, made: AgentTunnels | None) -> None:
        """Have links pass these programs, and those before be no more."""
        for kind, (packets, octets) in self._counted().items():
            self._carried[kind] += packets
            self._carried_octets[kind] += octets
        before, self._kernel = self._kernel, made
        self._watched.clear()
        self._may_merge = made is not None and made.takes_in(Carrier.IPIP)
        assert self._table is not None
        self._ways = {} if made is None else _ways(made)
        if any(_is_merged(record) for _, record in self._table.items()):
            self._may_merge = False
        self._look_at_links()
        if before is not None:
            before.close()

    # --- bindings --------------------------------------------------------------------------------------------------

    def follow(
        self, home_address: int, record: Record | None, closed: list[tuple[int, Record]], boot: float
    ) -> None:
        """The table has another tunnel for this home address, or none; out of those nothing is taken any more."""
        kernel = self._kernel
        if kernel is None:
            return
        if closed:
            self.close(closed)
        if record is None:
            kernel.hold(home_address.to_bytes(4, "big"))
            return
        if self._may_merge and _is_merged(record):
            self._stop_merging()
        self._put(kernel, home_address, record, boot)

    def follow_all(
        self,
        moves: Sequence[tuple[int, Record | None, Record]],
        closed: list[tuple[int, Record]],
        boot: float,
    ) -> None:
        """As `follow`, of many home addresses with their tunnels before and now, plain IP-in-IP, in few calls."""
        kernel, table, ways = self._kernel, self._table, self._ways
        if kernel is None or table is None:
            return
        self.close(closed)
        arriving: dict[bytes, float] = {}
        leaving: dict[bytes, Leaving] = {}
        for home_address, before, record in moves:
            way = ways.get(record[KIND])
            home = home_address.to_bytes(4, "big")
            if way is not None and way.comes:
                arriving[kernel.key(home, way.carrier, record[FAR], record[PORT])] = end_of(record)
            if way is not None and way.leaves:
                leaving[home] = _leaving(way, home, record, table, boot)
            elif before is not None and _leaves(ways, before):
                kernel.hold(home)
        try:
            kernel.fill(arriving.items(), leaving.values())
        except AdapterError:  # which of them is too many, or refused, is found out one by one
            for home_address in {each for each, _, _ in moves}:
                now, current = table.record(home_address), self._kernel  # which may have grown
                if now is not None and current is not None:
                    self._put(current, home_address, now, boot)

    def close(self, closed: list[tuple[int, Record]]) -> None:
        """Out of these nothing is taken any more, but for what is the present tunnel of its home address."""
        kernel, table = self._kernel, self._table
        if kernel is None or table is None:
            return
        refused = []
        for home_address, record in closed:
            key = _key(kernel, self._ways, home_address, record)
            if key is not None:
                now = table.record(home_address)
                if now is None or _key(kernel, self._ways, home_address, now) != key:
                    refused.append(key)
        if refused:
            kernel.refuse(*refused)

    def fit(self, endpoint: int) -> None:
        """The way to a far end has become narrower, or wider again."""
        if self._kernel is not None and self._table is not None:
            for home_address, record in self._table.ending_at(endpoint):
                self._put(self._kernel, home_address, record, self._boot())

    def _put(self, kernel: AgentTunnels, home_address: int, record: Record, boot: float) -> None:
        assert self._table is not None
        home = home_address.to_bytes(4, "big")
        key = _key(kernel, self._ways, home_address, record)
        try:
            if key is not None:
                kernel.admit(key, end_of(record))
            way = self._ways.get(record[KIND])
            if way is None or not way.leaves:
                kernel.hold(home)
            else:
                kernel.lead(_leaving(way, home, record, self._table, boot))
        except AdapterError as error:
            kernel.hold(home)
            if key is not None:
                kernel.refuse(key)
            if error.cause == errno.E2BIG:
                self._make_room(kernel, home_address, record, boot)
            elif self._metrics.count(_REFUSED, self._boot()) is not None:
                log.warning(entry(_REFUSED, cause=error, text="its packets go through this process"))

    def _make_room(self, kernel: AgentTunnels, home_address: int, record: Record, boot: float) -> None:
        """There are too many tunnels. Those that nodes have left first go first: larger maps take longer to make."""
        assert self._table is not None
        former = self._table.pop_closed(math.inf)
        if former:
            self.close(former)
            self._put(kernel, home_address, record, boot)
        else:
            self._grow(kernel)

    def _grow(self, kernel: AgentTunnels) -> None:
        """More tunnels than there is room for: larger maps, filled anew, take the place of these."""
        assert self._table is not None
        made = self._open(max(len(self._table), kernel.capacity))
        if made is None:
            return
        try:
            self._routes.use(_program(made))
        except AdapterError as error:
            log.error(entry(_REFUSED, cause=error))
            made.close()
        else:
            log.info(entry("kernel-tunnels-grown", capacity=made.capacity))
            self._replace_by(made)

    def _arriving(self, kernel: AgentTunnels) -> Iterator[tuple[bytes, float]]:
        assert self._table is not None
        ways = _ways(kernel)
        for home_address, record in self._table.items():
            key = _key(kernel, ways, home_address, record)
            if key is not None:
                yield key, end_of(record)

    def _leaving(self, kernel: AgentTunnels) -> Iterator[Leaving]:
        assert self._table is not None
        ways, boot = _ways(kernel), self._boot()
        for home_address, record in self._table.items():
            way = ways.get(record[KIND])
            if way is not None and way.leaves:
                yield _leaving(way, home_address.to_bytes(4, "big"), record, self._table, boot)

    # --- links -----------------------------------------------------------------------------------------------------

    def _look_at_links(self) -> None:
        """Watch the inside links as they are now, and no others: links come and go, and change their names."""
        links = self._inside.indexes()
        if links != self._watched:
            agent_tunnels.detach_from_others(links if self._kernel is not None else ())
        for link in links - self._watched:
            watched = self._attach(link)
            if not watched or not self._may_merge:
                self._merging.switch_off(self._inside.name_of(link))
        self._watched = links

    def _attach(self, link: int) -> bool:
        if self._kernel is None:
            return False
        try:
            self._kernel.attach(link)
        except AdapterError as error:
            log.warning(entry("link-not-watched", cause=error, text="its packets go through this process"))
            return False
        return True

    def _stop_merging(self) -> None:
        self._may_merge = False
        for name in sorted(self._inside.names):
            self._merging.switch_off(name)

    def _counted(self) -> dict[tuple[str, TunnelEngine], tuple[int, int]]:
        return {} if self._kernel is None else self._kernel.counted()


def _program(made: AgentTunnels | None) -> RouteProgram | None:
    return None if made is None else RouteProgram(made.route_program, made.route_name)


@dataclass(frozen=True, slots=True)
class _Way:
    """How the kernel carries tunnels of one kind: by what, and whether out of them and into them."""

    carrier: Carrier
    comes: bool
    leaves: bool


def _ways(kernel: AgentTunnels) -> dict[int, _Way]:
    """By the number of a kind, for those of which the programs know something."""
    found = {}
    for number, kind in KINDS.items():
        carrier = _carrier(kind)
        if carrier is not None:
            comes = kind.reverse_tunnel and kernel.takes_in(carrier)
            found[number] = _Way(carrier, comes, kernel.sends_out(carrier))
    return found


def _carrier(kind: Kind) -> Carrier | None:
    if kind.udp:
        if kind.is_half_bound or kind.encapsulation is Encapsulation.MINIMAL:
            return None
        return Carrier.GRE_IN_UDP if kind.encapsulation is Encapsulation.GRE else Carrier.UDP
    return Carrier.IPIP if kind.encapsulation is Encapsulation.IP_IN_IP else None


def _key(kernel: AgentTunnels, ways: dict[int, _Way], home_address: int, record: Record) -> bytes | None:
    """Under what the kernel takes packets out of a tunnel; None where it does not."""
    way = ways.get(record[KIND])
    if way is None or not way.comes:
        return None
    return kernel.key(home_address.to_bytes(4, "big"), way.carrier, record[FAR], record[PORT])


def _leaving(way: _Way, home: bytes, record: Record, table: TunnelTable, boot: float) -> Leaving:
    """What the kernel puts packets into."""
    room, until = table.room(record, boot), end_of(record)
    return Leaving(home, way.carrier, record[FAR], record[PORT], room=room, until=until)


def _leaves(ways: dict[int, _Way], record: Record) -> bool:
    """Whether there is an entry for what goes into such a tunnel."""
    way = ways.get(record[KIND])
    return way is not None and way.leaves


def _is_merged(record: Record) -> bool:
    """Whether a link may merge what comes out of such a tunnel, and our sockets have to take it."""
    kind = KINDS[record[KIND]]
    return kind.encapsulation is Encapsulation.GRE and not kind.udp and kind.reverse_tunnel
