# SPDX-License-Identifier: GPL-2.0-or-later
"""A laptop's fast path: the kernel carries the one tunnel of its home address, as long as nothing speaks against it.

What speaks against it: an encapsulation that the programs do not know, another VPN's IPsec policies on a path in clear,
no way to the home agent by the path's link, the care-of address gone. Then everything goes by the slow path, which has
its own answer to each, and this looks again when the kernel tells of a change.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.kernel_tunnels import KernelTunnels, ipsec_policies
from homeward.adapters.kernel_tunnels.entries import Carrier, Ends
from homeward.adapters.kernel_tunnels.route_news import NEWS, News, read
from homeward.adapters.kernel_tunnels.tunnel_route import Hop, TunnelRoutes
from homeward.model.access import ClearPath
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import AdapterError, Unavailable
from homeward.model.names import MARK_REGISTRATION, MARK_TUNNEL, REGISTRATION_PORT
from homeward.model.plan import Tunnelled
from homeward.model.tunnel_engine import TunnelEngine

log: Final = logging.getLogger("plan")

_LEFT_AFTER: Final = 1.0
"""Seconds after which a link that is not used any more is given back; a hand-over has better to do."""
_XFRM: Final = "xfrm"


@dataclass(frozen=True, slots=True)
class _Way:
    """The tunnel that is to be carried."""

    home_address: IPv4Address
    ends: Ends
    in_clear: bool
    ipsec: bool


class Shortcut:
    """One tunnel at a time: prepare, admit, lead. Nothing here raises or waits; all of it is on the event loop."""

    def __init__(self, *, allowed: frozenset[TunnelEngine] | None = None) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        """Called when the tunnel that was prepared can be carried again, after a time when it could not."""
        self._kernel = KernelTunnels(allowed=allowed)
        self._device = 0
        self._routes: TunnelRoutes | None = None
        self._watches: list[socket.socket] = []
        self._way: _Way | None = None
        self._is_ready = self._is_admitted = self._leads = False
        self._links: set[int] = set()
        self._leaving: asyncio.TimerHandle | None = None
        self._counted = [0, 0, 0, 0]
        self._standing: tuple[IPv4Address, Hop] | None = None
        self._behind: IPv4Address | None = None
        self._is_led_astray = False
        self._why_not = ""
        self._is_refused = False

    # --- the TUN device --------------------------------------------------------------------------------------------

    @property
    def program(self) -> int:
        """The descriptor of the program that the routes into the TUN device have to name, -1 where there is none."""
        return self._kernel.route_program

    def attach(self, device: int) -> None:
        """Make ready for the TUN device with this index, once."""
        if device == self._device or self._is_refused:
            return
        self.detach()
        self._device = device
        try:
            self._kernel.open(device)
            self._routes = TunnelRoutes()
            self._watch(socket.NETLINK_ROUTE, NEWS)
            if ipsec_policies.exist():
                self._watch(ipsec_policies.NETLINK_XFRM, ipsec_policies.NEWS)
                self._is_led_astray = ipsec_policies.lead_astray()
        except (AdapterError, OSError) as error:
            log.info("packets of the tunnel are carried by this process: %s", error)
            self._close()

    def detach(self) -> None:
        """Let go of it; nothing is carried any more, and what stands in the kernel carries nothing without us."""
        self.hold()
        self._way, self._is_ready = None, False
        self._close()
        self._device = 0

    def give_up(self, why: str) -> None:
        """It turned out that this machine cannot: everything goes into the device from now on."""
        log.warning("packets of the tunnel are carried by this process: %s", why)
        self._is_refused = True
        self.detach()

    def clear_away(self) -> None:
        """Take from links what this or an earlier life put there. Routes and rules are the plan's."""
        self.detach()
        self._kernel.remove()

    def _close(self) -> None:
        for watch in self._watches:
            asyncio.get_running_loop().remove_reader(watch)
            watch.close()
        self._watches.clear()
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self._routes is not None:
            self._routes.close()
            self._routes = None
        self._links.clear()
        self._standing = self._behind = None
        self._kernel.close()

    def _watch(self, family: int, groups: int) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        watch = socket.socket(socket.AF_NETLINK, kind, family)
        self._watches.append(watch)
        watch.bind((0, groups))
        asyncio.get_running_loop().add_reader(watch, self._hear, watch)

    # --- one tunnel ------------------------------------------------------------------------------------------------

    def prepare(self, home_address: IPv4Address, traffic: Tunnelled, *, link: int, port: int) -> None:
        """Have everything in place for this tunnel, by the link with this index and from this port of ours (0 where it
        is not in UDP), but for what lets packets pass."""
        self.hold()
        ends = _ends(traffic, link, port)
        if ends is None or self._kernel.engine_for(ends.carrier) is TunnelEngine.TUN:
            self.abandon()
            return
        in_clear = isinstance(traffic.path, ClearPath)
        ipsec = not in_clear and self._kind_of(link) == _XFRM
        self._way = _Way(home_address, ends, in_clear, ipsec)
        if self._standing is not None and self._standing[0] != ends.far:
            self._drop_routes()
        self._why_not = ""
        self._is_ready = self._find_way(self._way)

    def abandon(self) -> None:
        """What is prepared next is nothing that could be carried here."""
        self.hold()
        self._drop_routes()
        self._way, self._is_ready = None, False
        self._leave_links_soon()

    def hold(self) -> None:
        """From the next packet on none passes, outwards or inwards."""
        if not self._is_admitted and not self._leads:
            return
        self._kernel.rest()
        if self._way is not None:
            self._collect(self._way)
            self._kernel.hold(self._way.home_address)
            self._kernel.refuse(self._way.home_address, self._way.ends)
        self._is_admitted = self._leads = False

    def admit(self) -> None:
        """Take what comes out of the tunnel that was prepared."""
        way = self._way
        if way is None or not self._is_ready or self._is_admitted:
            return
        try:
            self._put_route_behind(way.ends.far)
            self._kernel.admit(way.home_address, way.ends, ipsec=way.ipsec)
        except AdapterError as error:
            self._stop(error)
        else:
            self._is_admitted = True

    @property
    def may_lead(self) -> bool:
        """Whether it could carry packets, and does not."""
        return self._is_ready and not self._leads

    def lead(self, room: int) -> None:
        """Have packets of up to this many octets leave by the tunnel that was prepared, past the TUN device."""
        way = self._way
        if way is None or not self._is_ready:
            return
        self._collect(way, comes=False)
        try:
            self._kernel.lead(way.home_address, way.ends, room=room, mark=MARK_TUNNEL)
        except AdapterError as error:
            self._stop(error)
        else:
            self._leads = True
            self._leave_links_soon()

    @property
    def leads(self) -> bool:
        """Whether packets leave past the TUN device."""
        return self._leads

    @property
    def engine(self) -> TunnelEngine:
        """What carries the packets now."""
        if self._way is None or not self._leads:
            return TunnelEngine.TUN
        return self._kernel.engine_for(self._way.ends.carrier)

    def counted(self) -> tuple[int, int, int, int]:
        """Packets and octets that have left past the TUN device since it was made, and that came in past it."""
        if self._way is None:
            left, left_octets, came, came_octets = self._counted
            return left, left_octets, came, came_octets
        out, came_in = self._kernel.counted(self._way.home_address, self._way.ends)
        left, left_octets, came, came_octets = self._counted
        return left + out[0], left_octets + out[1], came + came_in[0], came_octets + came_in[1]

    # --- how -------------------------------------------------------------------------------------------------------

    def _collect(self, way: _Way, *, comes: bool = True) -> None:
        """Remember what an entry has counted, before it goes."""
        out, came_in = self._kernel.counted(way.home_address, way.ends)
        for at, more in enumerate((*out, *(came_in if comes else (0, 0)))):
            self._counted[at] += more

    def _kind_of(self, link: int) -> str:
        try:
            return self._kernel.kind_of(link)
        except AdapterError:
            return ""

    def _find_way(self, way: _Way) -> bool:
        """Attach to the link and write the route, and whether both are as they should be."""
        assert self._routes is not None
        try:
            if way.in_clear and self._is_led_astray:
                raise Unavailable("carrying the tunnel past IPsec", "another VPN's policies stand")
            ends = way.ends
            self._links.add(ends.link)
            self._kernel.watch(ends.link)
            hop = self._routes.ask(ends.far, ends.near, link=ends.link, mark=MARK_REGISTRATION)
            if self._standing != (ends.far, hop):
                self._routes.put(ends.far, hop)
                self._standing = (ends.far, hop)
        except AdapterError as error:
            if str(error) != self._why_not:
                self._why_not = str(error)
                log.info("packets of the tunnel are carried by this process: %s", error)
            self._drop_routes()
            return False
        return True

    def _put_route_behind(self, far: IPv4Address) -> None:
        assert self._routes is not None
        if self._behind != far:
            self._routes.put_behind(far, self._device)
            self._behind = far

    def _drop_routes(self) -> None:
        standing, self._standing, self._behind = self._standing, None, None
        if self._routes is None or standing is None:
            return
        try:
            self._routes.drop(*standing, device=self._device)
        except AdapterError as error:
            log.warning("%s", error)

    def _stop(self, error: AdapterError) -> None:
        log.warning("packets of the tunnel are carried by this process: %s", error)
        self.hold()
        self._is_ready = False

    def _leave_links_soon(self) -> None:
        if self._leaving is None and self._links:
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_later(_LEFT_AFTER, self._leave_links)

    def _leave_links(self) -> None:
        """Those that no entry names."""
        self._leaving = None
        for link in self._links - ({self._way.ends.link} if self._way is not None else set()):
            self._kernel.leave(link)
            self._links.discard(link)

    # --- news ------------------------------------------------------------------------------------------------------

    def _hear(self, watch: socket.socket) -> None:
        changed = False
        while True:
            try:
                octets = watch.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more happened than fits
                self._standing = self._behind = None
                changed = True
                continue
            if watch.proto != socket.NETLINK_ROUTE:
                changed = True
            elif self._way is not None:
                news = read(octets, self._way.ends.near)
                changed |= news is not News.NONE
                if news is News.TAKEN_AWAY:
                    self._standing = self._behind = None
        if changed:
            self._look_again(policies=watch.proto != socket.NETLINK_ROUTE)

    def _look_again(self, *, policies: bool) -> None:
        """Something about the way has changed: follow, or leave it to the slow path until it is there again."""
        if policies:
            self._is_led_astray = _are_led_astray()
        way = self._way
        if way is None:
            return
        was_ready, self._is_ready = self._is_ready, self._find_way(way)
        if was_ready and not self._is_ready:
            self.hold()
        elif self._is_ready and not was_ready:
            self.on_ready()
        elif self._is_admitted and self._behind is None:
            self._put_back_behind(way.ends.far)

    def _put_back_behind(self, far: IPv4Address) -> None:
        try:
            self._put_route_behind(far)
        except AdapterError as error:
            self._stop(error)


def _are_led_astray() -> bool:
    try:
        return ipsec_policies.lead_astray()
    except AdapterError as error:  # better too slow than led anywhere
        log.warning("%s", error)
        return True


def _ends(traffic: Tunnelled, link: int, port: int) -> Ends | None:
    """The tunnel as the programs know it; None for one that they do not."""
    far, near = traffic.home_agent, traffic.path.source
    match traffic.udp, traffic.encapsulation:
        case True, _ if not port:
            return None
        case True, Encapsulation.IP_IN_IP:
            carrier = Carrier.UDP
        case True, Encapsulation.GRE:
            carrier = Carrier.GRE_IN_UDP
        case False, Encapsulation.IP_IN_IP:
            return Ends(far, near, Carrier.IPIP, link=link)
        case _:
            return None
    return Ends(far, near, carrier, far_port=REGISTRATION_PORT, near_port=port, link=link)
