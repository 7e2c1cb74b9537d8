# SPDX-License-Identifier: GPL-2.0-or-later
"""Visitors' packets in and out of their tunnels: a TUN device on the kernel's side, raw sockets on the network's.

The kernel checks whose packets are whose, takes those that are to be tunnelled, counts their TTL down, cuts what is too
long or tells its sender, and delivers to visitors' stations. In between stand the rules of `VisitorTunnels`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, assert_never

from homeward.adapters.netlink_routes.rtnetlink import link_mtu
from homeward.adapters.netlink_routes.visitors import VisitorRoutes
from homeward.adapters.nftables.visitors import Station, VisitorGate
from homeward.adapters.tunnel_device import open_tun
from homeward.agentd.foreign_settings import VISITOR_DEVICE, VISITOR_GATE, VISITOR_MARK, ForeignSettings
from homeward.agentd.foreign_uplink import HomeDatagram, TooBigReported
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.noted import Noted
from homeward.agents.foreign_keepalives import Keepalive, Keepalives, TunnelLost
from homeward.agents.foreign_tunnels import ToHomeAgent, ToVisitor, VisitorDrop, VisitorTunnels
from homeward.agents.path_mtu import LEAST, read_header
from homeward.agents.visitors import Visitor
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import AdapterError
from homeward.wire.socket_options import ANCILLARY_OCTETS, IP_PKTINFO, ingress_link

log: Final = logging.getLogger("links")

_BATCH: Final = 64
_LONGEST: Final = 0xFFFF
_RECEIVE_BUFFER: Final = 1 << 20
_IP_RECVERR: Final = 11
_EXTENDED_ERROR: Final = struct.Struct("=IBBBxII")
_ORIGIN_ICMP: Final = 2
_UNREACHABLE: Final = 3
_TOO_BIG: Final = 4


class VisitorForwarding:
    """The data path of one foreign agent. Everything happens on the event loop.

    `on_lost` is called when somebody else takes the device away: the agent cannot do its work any more.
    """

    def __init__(
        self,
        settings: ForeignSettings,
        uplinks: InsideLinks,
        *,
        keepalives: Keepalives,
        metrics: Metrics,
        boot: Callable[[], float],
    ) -> None:
        self.on_lost: Callable[[], None] = lambda: None
        self._settings = settings
        self._access = InsideLinks(frozenset(link.interface for link in settings.policy.links), boot)
        self._uplinks = uplinks
        self._keepalives = keepalives
        self._metrics = metrics
        self._note = Noted(log, self._metrics, boot)
        self._boot = boot
        self._tunnels = VisitorTunnels()
        self._routes = VisitorRoutes(VISITOR_DEVICE, mark=VISITOR_MARK)
        self._gate = VisitorGate(VISITOR_GATE, mark=VISITOR_MARK)
        self._device: int | None = None
        self._holds_device = False
        self._arrivals: dict[int, socket.socket] = {}
        self._departures: socket.socket | None = None
        self._mtu = 0

    def own_addresses(self) -> frozenset[IPv4Address]:
        """All addresses of this host at this moment."""
        return self._routes.own_addresses()

    def start(self) -> None:
        """Take over or make the device, and be ready for visitors. Raises AdapterErrors, OSError."""
        policy = self._settings.policy
        loop = asyncio.get_running_loop()
        self._device = open_tun(VISITOR_DEVICE)
        self._holds_device = True
        self._gate.put_up(self._access.names, policy.care_of_addresses)
        self._mtu = self._room()
        self._routes.bring_up(mtu=self._mtu, access=self._access.names, uplinks=self._settings.uplinks)
        for encapsulation in Encapsulation:
            self._arrivals[encapsulation.protocol] = _ears(encapsulation.protocol)
        self._departures = socket.socket(
            socket.AF_INET,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.IPPROTO_RAW,
        )
        loop.add_reader(self._device, self._take_from_device)
        for ears in self._arrivals.values():
            loop.add_reader(ears, self._take_from_network, ears)
        log.info(entry("forwarding-started", device=VISITOR_DEVICE, mtu=self._mtu))

    def stop(self) -> None:
        """Remove the device, rules, routes and neighbours, and close the sockets. Raises AdapterErrors."""
        self._let_go()
        if self._holds_device:  # else it is another agent's
            self._holds_device = False
            self._gate.take_down()
            self._routes.take_down()
            log.info(entry("forwarding-stopped", device=VISITOR_DEVICE))
        self._gate.close()
        self._routes.close()

    def admit(self, visitor: Visitor) -> None:
        """Carry a visitor's packets as it says, at once. Raises AdapterErrors, and then nothing of its is carried."""
        self._tunnels.admit(visitor)
        self._keepalives.admit(visitor, self._boot())
        try:
            self._routes.admit(visitor.home_address, visitor.interface, visitor.hardware_address)
            self._gate.admit(
                Station(
                    visitor.home_address,
                    visitor.interface,
                    visitor.hardware_address,
                    captured=visitor.reverse_tunnel and not visitor.encapsulating,
                )
            )
            self._fit()
        except AdapterError:
            self._tunnels.expel(visitor)
            raise

    def expel(self, visitor: Visitor) -> None:
        """Carry nothing of a visitor's any more, at once. Raises AdapterErrors; it is not carried then either."""
        self._tunnels.expel(visitor)
        self._keepalives.expel(visitor)
        try:
            self._routes.expel(visitor.home_address)
        finally:
            self._gate.expel(visitor.home_address)

    def restore(self) -> None:
        """Put up again what others may have taken away meanwhile. Raises AdapterErrors."""
        self._gate.restore()
        self._routes.restore()
        self._fit()

    def keep_alive(self) -> list[Visitor]:
        """Send the keepalives that are due; returns the visitors whose tunnels are given up."""
        lost: list[Visitor] = []
        for due in self._keepalives.due(self._boot()):
            match due:
                case Keepalive(packet, visitor):
                    outcome = self._tunnels.own_packet(packet, visitor)
                    if isinstance(outcome, ToHomeAgent):
                        self._send(outcome, code="keepalives")
                case TunnelLost(visitor):
                    lost.append(visitor)
                case _:
                    assert_never(due)
        return lost

    def take_tunnel_data(self, datagram: HomeDatagram) -> None:
        """A MIP Tunnel Data message from an uplink."""
        outcome = self._tunnels.from_udp(
            datagram.octets,
            (datagram.source, datagram.source_port),
            datagram.destination,
            type_of_service=datagram.type_of_service,
        )
        self._deliver(outcome, datagram.source)

    def path_mtu_reported(self, report: TooBigReported) -> None:
        """News about the way of a UDP tunnel."""
        self._shrink(report.home_agent, report.mtu)

    # --- from visitors ---

    def _take_from_device(self) -> None:
        assert self._device is not None
        for _ in range(_BATCH):
            try:
                packet = os.read(self._device, _LONGEST)
            except BlockingIOError:
                return
            except OSError as error:  # EBADFD: the device was deleted
                log.error(entry("device-lost", device=VISITOR_DEVICE, cause=error.strerror))
                self._let_go()
                self.on_lost()
                return
            self._tunnel(self._tunnels.from_visitor(packet), packet)

    def _tunnel(self, outcome: ToHomeAgent | VisitorDrop, packet: bytes) -> None:
        if isinstance(outcome, VisitorDrop):
            self._note(outcome.value, direction="out", inner_source=_source(packet))
            return
        self._metrics.counts["octets-out"] += len(packet)
        self._send(outcome, code="packets-out")
        self._keepalives.used(outcome.visitor, self._boot())

    def _send(self, outcome: ToHomeAgent, *, code: str) -> None:
        assert self._departures is not None
        home_agent = outcome.visitor.home_agent
        try:
            self._departures.sendto(outcome.octets, (str(home_agent), 0))
        except OSError as error:
            self._note("send-failed", cause=error.strerror, to=home_agent)
        else:
            self._metrics.counts[code] += 1

    # --- from the network ---

    def _take_from_network(self, ears: socket.socket) -> None:
        self._take_errors(ears)
        for _ in range(_BATCH):
            try:
                packet, ancillary, _, _ = ears.recvmsg(_LONGEST, ANCILLARY_OCTETS)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an earlier packet; its details lie in the error queue
            link = ingress_link(ancillary)
            if self._uplinks.has(link):
                self._deliver(self._tunnels.from_home_agent(packet), IPv4Address(packet[12:16]))
            elif self._access.has(link):
                name = self._access.name_of(link)
                self._tunnel(self._tunnels.from_delivery(packet, name), packet)
            else:
                self._note("tunnel-packet-from-other-interface", outer_source=_source(packet), link=link)

    def _deliver(self, outcome: ToVisitor | VisitorDrop, source: IPv4Address) -> None:
        if isinstance(outcome, VisitorDrop):
            # Never answered by ICMP (RFC 5944 section 4.2.2).
            self._note(outcome.value, direction="in", outer_source=source)
            return
        if self._keepalives.is_answer(outcome.packet, outcome.visitor, self._boot()):
            self._metrics.counts["keepalives-answered"] += 1
            return
        if self._device is None:
            return
        try:
            os.write(self._device, outcome.packet)
        except OSError as error:
            self._note("device-refused", cause=error.strerror)
        else:
            self._metrics.counts["packets-in"] += 1
            self._metrics.counts["octets-in"] += len(outcome.packet)

    # --- path MTU ---

    def _take_errors(self, ears: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                quoted, ancillary, _, _ = ears.recvmsg(2048, 256, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for level, kind, data in ancillary:
                if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR):
                    self._take_error(quoted, data)

    def _take_error(self, quoted: bytes, data: bytes) -> None:
        _, origin, kind, code, info, _ = _EXTENDED_ERROR.unpack_from(data)
        if origin != _ORIGIN_ICMP:
            return
        self._metrics.counts[f"icmp-from-tunnel-{kind}-{code}"] += 1
        outer = read_header(quoted)
        if (kind, code) == (_UNREACHABLE, _TOO_BIG) and outer is not None:
            self._shrink(IPv4Address(outer.destination), info)

    def _shrink(self, home_agent: IPv4Address, mtu: int) -> None:
        self._tunnels.path_mtu_reported(home_agent, mtu, self._boot())
        try:
            self._fit()
        except AdapterError as error:
            self._note("mtu-not-set", cause=error)

    def _room(self) -> int:
        links = min(link_mtu(link) for link in self._settings.uplinks)
        return max(LEAST - 40, self._tunnels.room(links, self._boot()))

    def _fit(self) -> None:
        """Give the device the MTU that fits all tunnels, so that the kernel never hands us a packet that does not."""
        mtu = self._room()
        if mtu != self._mtu:
            self._mtu = mtu
            self._routes.set_mtu(mtu)

    # --- ends ---

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        if self._device is not None:
            loop.remove_reader(self._device)
            os.close(self._device)
            self._device = None
        for ears in self._arrivals.values():
            loop.remove_reader(ears)
            ears.close()
        self._arrivals.clear()
        if self._departures is not None:
            self._departures.close()
            self._departures = None


def _ears(protocol: int) -> socket.socket:
    """A raw socket for one encapsulation, which tells the ingress link of each packet."""
    made = socket.socket(
        socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
    )
    for option in (IP_PKTINFO, _IP_RECVERR):
        made.setsockopt(socket.IPPROTO_IP, option, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return made


def _source(packet: bytes) -> str:
    return str(IPv4Address(packet[12:16])) if len(packet) >= 20 else "?"
