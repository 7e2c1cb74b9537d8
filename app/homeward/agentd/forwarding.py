# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets in and out of the tunnels: a TUN device on the kernel's side, raw IP-in-IP sockets on the network's.

The kernel cuts packets to the device's MTU, or refuses them with ICMP where they may not be cut, so that an outer
packet always fits the links of the agent itself. Where the way to a care-of address is narrower, routers say so by
ICMP; that is relayed to the sender (R-287) and remembered (R-288). "Host unreachable" from within a tunnel is counted
and not relayed, against the SHOULD of RFC 2003 section 4.1: while a mobile node moves it is the rule, and an
application is to see delay, not an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Final, assert_never

from homeward.adapters.netlink_forwarding import ForwardingRoutes, link_mtu
from homeward.adapters.nft_tunnel_errors import TunnelErrors
from homeward.adapters.tunnel_device import open_tun, open_tunnel_socket, receive_packet
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.settings import AGENT_DEVICE, AGENT_TABLE
from homeward.agents.agent_events import Forward, StopForwarding
from homeward.agents.path_mtu import LEAST
from homeward.agents.tunnels import Dropped, TooBig, TunnelPacket, TunnelTable
from homeward.model.errors import AdapterError
from homeward.wire.ip_in_ip import OVERHEAD

log: Final = logging.getLogger("links")

_BATCH: Final = (
    64  # packets per wake-up, so that bulk traffic cannot starve the registrations on the same loop
)
_LONGEST: Final = 0xFFFF
_ETHERNET_MTU: Final = 1500
_ICMP_PER_SECOND: Final = 100.0
_IP_RECVERR: Final = 11
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
_EXTENDED_ERROR: Final = struct.Struct("=IBBBxII")
_ORIGIN_ICMP: Final = 2
_ICMP_UNREACHABLE: Final = 3
_ICMP_TOO_BIG: Final = 4
_OUTSIDE: Final = "tunnel-packet-from-outside-interface"


class Forwarding:
    """The data path of one home agent. Everything happens on the event loop.

    `on_lost` is called when somebody else takes the device away: the agent cannot do its work any more.
    """

    def __init__(
        self,
        address: IPv4Address,
        inside: InsideLinks,
        *,
        home_network: IPv4Network | None,
        metrics: Metrics,
        boot: Callable[[], float],
    ) -> None:
        self.on_lost: Callable[[], None] = lambda: None
        self._address = address
        self._inside = inside
        self._home_network = home_network
        self._metrics = metrics
        self._boot = boot
        self._table = TunnelTable(address)
        self._routes = ForwardingRoutes(AGENT_DEVICE)
        self._errors = TunnelErrors(AGENT_TABLE)
        self._device: int | None = None
        self._holds_device = False
        self._arrivals: socket.socket | None = None
        self._departures: socket.socket | None = None
        self._icmp: socket.socket | None = None
        self._icmp_credit = (_ICMP_PER_SECOND, 0.0)

    def start(self) -> None:
        """Take over or make the device, and begin to forward. Raises AdapterErrors, OSError."""
        loop = asyncio.get_running_loop()
        mtu = (
            max(LEAST, min((link_mtu(link) for link in self._inside.names), default=_ETHERNET_MTU)) - OVERHEAD
        )
        self._device = open_tun(AGENT_DEVICE)
        self._holds_device = True
        self._routes.bring_up(mtu=mtu, forward_from=self._inside.names)
        if self._home_network is not None:
            self._routes.add(self._home_network)
        self._silence_errors()
        self._arrivals = open_tunnel_socket(self._address)
        self._arrivals.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        # A socket of its own to send by: errors about earlier packets are reported on the other one, never here.
        self._departures = _raw_socket(socket.IPPROTO_RAW, self._address)
        self._icmp = _raw_socket(socket.IPPROTO_ICMP, self._address)
        self._icmp.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF))  # it only sends
        loop.add_reader(self._device, self._take_from_device)
        loop.add_reader(self._arrivals, self._take_from_network)
        log.info(entry("forwarding-started", device=AGENT_DEVICE, mtu=mtu, home_network=self._home_network))

    def stop(self) -> None:
        """Remove the device with its routes, and close the sockets. Raises AdapterErrors."""
        self._let_go()
        if self._holds_device:  # else it is another agent's
            self._holds_device = False
            self._routes.take_down()
            self._speak_again()
            log.info(entry("forwarding-stopped", device=AGENT_DEVICE))
        self._routes.close()

    def apply(self, change: Forward | StopForwarding) -> None:
        """Change where a home address's packets go; at once. Raises AdapterErrors, and then nothing is tunnelled."""
        prefix = IPv4Network(change.home_address)
        routed = self._home_network is not None and change.home_address in self._home_network
        match change:
            case Forward():
                if not routed:
                    self._routes.add(prefix)
                self._table.apply(change)
            case StopForwarding():
                self._table.apply(change)
                if not routed:
                    self._routes.remove(prefix)
            case _:
                assert_never(change)

    # --- to mobile nodes ---

    def _take_from_device(self) -> None:
        assert self._device is not None
        for _ in range(_BATCH):
            try:
                packet = os.read(self._device, _LONGEST)
            except BlockingIOError:
                return
            except OSError as error:  # EBADFD: the device was deleted
                log.error(entry("device-lost", device=AGENT_DEVICE, cause=error.strerror))
                self._let_go()
                self.on_lost()
                return
            self._send_to_node(packet)

    def _send_to_node(self, packet: bytes) -> None:
        outcome = self._table.outbound(packet, self._boot())
        match outcome:
            case TunnelPacket(octets, endpoint):
                assert self._departures is not None
                try:
                    self._departures.sendto(octets, (str(endpoint), 0))
                except OSError as error:
                    self._note("send-failed", cause=error.strerror, to=endpoint)
                else:
                    self._metrics.counts["packets-out"] += 1
            case TooBig():
                self._tell_sender(outcome)
            case Dropped():
                self._note(outcome.value, direction="out")
            case _:
                assert_never(outcome)

    # --- from mobile nodes ---

    def _take_from_network(self) -> None:
        assert self._arrivals is not None
        self._take_errors()
        for _ in range(_BATCH):
            try:
                packet, link = receive_packet(self._arrivals)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an earlier packet; its details lie in the error queue
            self._give_to_kernel(packet, link)

    def _give_to_kernel(self, packet: bytes, link: int) -> None:
        assert self._device is not None
        if not self._inside.has(link):
            self._note(_OUTSIDE, link=link)
            return
        inner = self._table.inbound(packet)
        if isinstance(inner, Dropped):
            self._note(
                inner.value, direction="in", outer_source=_source(packet), inner_source=_source(packet[20:])
            )
            return
        try:
            os.write(self._device, inner)
        except OSError as error:
            self._note("device-refused", cause=error.strerror)
        else:
            self._metrics.counts["packets-in"] += 1

    # --- ICMP from within the tunnels ---

    def _take_errors(self) -> None:
        assert self._arrivals is not None
        for _ in range(_BATCH):
            try:
                quoted, ancillary, _, _ = self._arrivals.recvmsg(2048, 256, socket.MSG_ERRQUEUE)
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
        if (kind, code) == (_ICMP_UNREACHABLE, _ICMP_TOO_BIG):
            relayed = self._table.path_mtu_reported(quoted, info, self._boot())
            if relayed is not None:
                self._tell_sender(relayed)

    def _tell_sender(self, too_big: TooBig) -> None:
        """Send "fragmentation needed" to whoever sent the packet, not faster than a router may (RFC 1812 4.3.2.8)."""
        assert self._icmp is not None
        if too_big.icmp is None:
            return
        credit, since = self._icmp_credit
        now = self._boot()
        credit = min(_ICMP_PER_SECOND, credit + (now - since) * _ICMP_PER_SECOND)
        self._icmp_credit = (max(credit - 1, 0.0), now)
        if credit < 1:
            self._metrics.counts["icmp-suppressed"] += 1
            return
        try:
            self._icmp.sendto(too_big.icmp, (str(too_big.sender), 0))
        except OSError as error:
            self._note("send-failed", cause=error.strerror, to=too_big.sender)
        else:
            self._metrics.counts["icmp-too-big-sent"] += 1

    # --- ends ---

    def _silence_errors(self) -> None:
        """Have the kernel not contradict us. Without that everything still works, only less quietly."""
        try:
            self._errors.silence(self._address)
        except AdapterError as error:
            log.warning(entry("tunnel-errors-not-silenced", cause=error))

    def _speak_again(self) -> None:
        try:
            self._errors.restore()
        except AdapterError as error:
            log.debug(entry("tunnel-errors-not-restored", cause=error))

    def _note(self, code: str, **fields: object) -> None:
        unlogged = self._metrics.count(code, self._boot())
        if unlogged is not None:
            log.warning(entry(code, **fields, unlogged=unlogged or None))

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        if self._device is not None:
            loop.remove_reader(self._device)
            os.close(self._device)
            self._device = None
        if self._arrivals is not None:
            loop.remove_reader(self._arrivals)
        for each in (self._arrivals, self._departures, self._icmp):
            if each is not None:
                each.close()
        self._arrivals = self._departures = self._icmp = None


def _raw_socket(protocol: int, source: IPv4Address) -> socket.socket:
    made = socket.socket(
        socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
    )
    made.bind((str(source), 0))
    return made


def _source(packet: bytes) -> str:
    return str(IPv4Address(packet[12:16])) if len(packet) >= 20 else "?"
