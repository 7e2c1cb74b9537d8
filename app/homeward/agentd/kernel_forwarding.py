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
from collections import Counter
from collections.abc import Callable
from typing import Final

from homeward.adapters.kernel_tunnels import agent_tunnels
from homeward.adapters.kernel_tunnels.agent_tunnels import AgentTunnels, KernelTunnel
from homeward.adapters.kernel_tunnels.entries import Carrier
from homeward.adapters.netlink_routes.forwarding import ForwardingRoutes, Prefix, RouteProgram
from homeward.adapters.netlink_routes.link_news import LinkNews
from homeward.adapters.receive_merging import ReceiveMerging
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.settings import AgentSettings
from homeward.agents.agent_events import Forward, StopForwarding
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
        capacity = 1 << (tunnels + tunnels // 4).bit_length()
        made = AgentTunnels(
            self._settings.policy.address, capacity=capacity, clamps=bool(self._settings.segment_mtu)
        )
        try:
            made.open(self._routes.device_index)
            boot = self._boot()
            described = (self._described(made, each, self._table.room(each, boot)) for each in self._table)
            made.fill(each for each in described if each is not None)
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
        if any(_is_merged(each) for each in self._table):
            self._may_merge = False
        self._look_at_links()
        if before is not None:
            before.close()

    # --- bindings --------------------------------------------------------------------------------------------------

    def follow(self, change: Forward | StopForwarding, closed: list[Forward]) -> None:
        """The table has taken a change over, and out of these tunnels nothing is taken any more."""
        kernel = self._kernel
        if kernel is None:
            return
        now = None
        if isinstance(change, Forward):
            if self._may_merge and _is_merged(change):
                self._stop_merging()
            assert self._table is not None
            now = self._described(kernel, change, self._table.room(change, self._boot()))
        if now is None or not now.leaves:
            kernel.hold(int(change.home_address))
        for each in closed:
            self._close(kernel, each, now)
        if now is not None:
            self._put(kernel, now)

    def close(self, closed: list[Forward]) -> None:
        """Out of these nothing is taken any more."""
        if self._kernel is not None:
            for each in closed:
                self._close(self._kernel, each, None)

    def fit(self, endpoint: int) -> None:
        """The way to a far end has become narrower, or wider again."""
        if self._kernel is None or self._table is None:
            return
        for each in self._table.ending_at(endpoint):
            now = self._described(self._kernel, each, self._table.room(each, self._boot()))
            if now is not None:
                self._put(self._kernel, now)

    def _close(self, kernel: AgentTunnels, former: Forward, now: KernelTunnel | None) -> None:
        before = self._described(kernel, former, 0)
        if before is None or not before.comes:
            return
        if now is not None and now.comes and _same_ends(before, now):
            return
        kernel.refuse(before)

    def _put(self, kernel: AgentTunnels, now: KernelTunnel) -> None:
        try:
            kernel.put(now)
        except AdapterError as error:
            kernel.hold(now.home_address)
            kernel.refuse(now)
            if error.cause == errno.E2BIG:
                self._grow(kernel)
            elif self._metrics.count(_REFUSED, self._boot()) is not None:
                log.warning(entry(_REFUSED, cause=error, text="its packets go through this process"))

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

    def _described(self, kernel: AgentTunnels, tunnel: Forward, room: int) -> KernelTunnel | None:
        """As the programs know it; None for one that they do not."""
        port = 0
        if tunnel.udp:
            if tunnel.port is None or tunnel.encapsulation is Encapsulation.MINIMAL:
                return None
            port = tunnel.port
            carrier = Carrier.GRE_IN_UDP if tunnel.encapsulation is Encapsulation.GRE else Carrier.UDP
        elif tunnel.encapsulation is Encapsulation.IP_IN_IP:
            carrier = Carrier.IPIP
        else:
            return None
        return KernelTunnel(
            int(tunnel.home_address),
            int(tunnel.endpoint),
            carrier,
            port=port,
            room=room,
            until=tunnel.expires,
            comes=tunnel.reverse_tunnel and kernel.takes_in(carrier),
            leaves=kernel.sends_out(carrier),
        )

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


def _is_merged(tunnel: Forward) -> bool:
    """Whether a link may merge what comes out of such a tunnel, and our sockets have to take it."""
    return tunnel.encapsulation is Encapsulation.GRE and not tunnel.udp and tunnel.reverse_tunnel


def _same_ends(one: KernelTunnel, other: KernelTunnel) -> bool:
    return (one.home_address, one.far, one.carrier, one.port) == (
        other.home_address, other.far, other.carrier, other.port,
    )  # fmt: skip
