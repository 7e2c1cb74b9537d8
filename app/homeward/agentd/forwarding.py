# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets in and out of the tunnels: a TUN device on the kernel's side, raw sockets and UDP 434 on the network's.

The device takes packets as long as our links do. What is too long for its tunnel is cut before it, or refused with
ICMP where it may not be cut, in one place (agents/tunnels.py), so that no tunnel packet is ever fragmented. Where the
way to a care-of address is narrower, routers say so by ICMP; that is passed on to the sender (R-287) and remembered
(R-288), and what else they say is judged in agents/tunnel_errors.py.

That is the way of every packet where the kernel has no programs for tunnels (agentd/kernel_forwarding.py), and of all
that these leave to us.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final, assert_never

from homeward.adapters.netlink_routes.forwarding import ForwardingRoutes, Prefix
from homeward.adapters.netlink_routes.rtnetlink import link_mtu
from homeward.adapters.nftables.tunnel_errors import TunnelErrors
from homeward.adapters.tunnel_device import open_tun, read_packets, write_packets
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.kernel_forwarding import KernelForwarding, Traffic
from homeward.agentd.listener import TunnelDatagram
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.noted import Noted
from homeward.agentd.settings import AGENT_DEVICE, AGENT_TABLE, AgentSettings
from homeward.agentd.tunnel_sockets import Arrived, TunnelSockets
from homeward.agents.agent_events import Forward, StopForwarding
from homeward.agents.path_mtu import AGE, LEAST
from homeward.agents.tunnel_records import Record
from homeward.agents.tunnels import SLICE, Dropped, TellSender, TunnelPacket, TunnelTable
from homeward.model.errors import AdapterError

log: Final = logging.getLogger("links")

_BATCH: Final = 64
_ETHERNET_MTU: Final = 1500
_ICMP_PER_SECOND: Final = 100.0
_OUTSIDE: Final = "tunnel-packet-from-outside-interface"
_SWEEP: Final = 0.05
"""Seconds between two looks at which former tunnels are over: the kernel takes packets out of them that much longer."""
_HOST: Final = 32
_LOOPBACK: Final = "lo"


class Forwarding:
    """The data path of one home agent. Everything happens on the event loop.

    `on_lost` is called when somebody else takes the device away: the agent cannot do its work any more.
    """

    def __init__(
        self,
        settings: AgentSettings,
        inside: InsideLinks,
        *,
        metrics: Metrics,
        boot: Callable[[], float],
    ) -> None:
        self.on_lost: Callable[[], None] = lambda: None
        self._settings = settings
        self._address = settings.policy.address
        self._inside = inside
        network = settings.home_network
        self._home_mask = int(network.netmask) if network is not None else 0
        self._home_network = int(network.network_address) if network is not None else -1
        self._metrics = metrics
        self._note = Noted(log, self._metrics, boot)
        self._boot = boot
        self._table = self._new_table(_ETHERNET_MTU)
        self.routes = ForwardingRoutes(AGENT_DEVICE)
        self._errors = TunnelErrors(AGENT_TABLE)
        self._sockets = TunnelSockets(
            self._address, on_packets=self._take_packets, on_errors=self._take_errors
        )
        self._device: int | None = None
        self._holds_device = False
        self._kernel = KernelForwarding(settings, inside, self.routes, metrics=metrics, boot=boot)
        self._sweeping: asyncio.TimerHandle | None = None
        self._refits: dict[int, asyncio.TimerHandle] = {}
        self._icmp_credit = (_ICMP_PER_SECOND, 0.0)

    @property
    def engine(self) -> str:
        """The best that carries tunnels here, for the status: "ipip", "bpf" or "tun"."""
        return self._kernel.engine.value

    def traffic(self) -> Traffic:
        """Packets and octets that the kernel carried past us, by direction ("in", "out") and engine."""
        return self._kernel.traffic()

    def start(self) -> None:
        """Take over or make the device. Raises AdapterErrors, OSError.

        What a former life has left standing goes on until `restore`, which has to follow before anything is forwarded.
        """
        narrowest = max(LEAST, min((link_mtu(link) for link in self._inside.names), default=_ETHERNET_MTU))
        self._table = self._new_table(narrowest)
        self._device = open_tun(AGENT_DEVICE, offload=True)
        self._holds_device = True
        self.routes.bring_up(mtu=narrowest, forward_from=self._inside.names)
        self._silence_errors()
        self._sockets.open(each.protocol for each in self._settings.policy.encapsulations)
        asyncio.get_running_loop().add_reader(self._device, self._take_from_device)
        log.info(
            entry(
                "forwarding-started",
                device=AGENT_DEVICE,
                mtu=narrowest,
                home_network=self._settings.home_network,
            )
        )

    def restore(self, changes: Iterable[Forward]) -> None:
        """Forward these and nothing else, without a gap for what the life before forwarded. Raises AdapterErrors."""
        boot = self._boot()
        for change in changes:
            self._table.apply(change, boot)
        self._kernel.start(self._table, self._prefixes(), self._settings)
        log.info(entry("engine", engine=self.engine, bindings=len(self._table)))

    def adopt(self, settings: AgentSettings) -> None:
        """Go by these from now on, as far as a running agent can. Raises AdapterErrors."""
        self._settings = settings
        self._table.configure(path_mtus=settings.path_mtus, segment_mtu=settings.segment_mtu)
        self._kernel.start(self._table, self._prefixes(), settings)

    def stop(self, *, keep: bool = False) -> None:
        """Close the sockets, and unless the next life is to `keep` them remove the device, its routes and programs.

        Raises AdapterErrors.
        """
        self._let_go()
        if self._holds_device:  # else it is another agent's
            self._holds_device = False
            self._kernel.stop(keep=keep)
            if not keep:
                self.routes.take_down()
                self._speak_again()
            log.info(entry("forwarding-stopped", device=AGENT_DEVICE, kept="yes" if keep else None))
        self.routes.close()

    def apply(self, change: Forward | StopForwarding) -> None:
        """Change where a home address's packets go; at once. Raises AdapterErrors, and then nothing is tunnelled."""
        address, boot = int(change.home_address), self._boot()
        routed = self.is_routed(address)
        if not routed and isinstance(change, Forward):
            self.routes.add((address, _HOST))
        closed = self._table.apply(change, boot)
        self._kernel.follow(address, self._table.record(address), closed, boot)
        if not routed and isinstance(change, StopForwarding):
            self.routes.remove((address, _HOST))
        if self._sweeping is None and self._table.is_lingering:
            self._sweep_soon()

    def lead(self, tunnels: Sequence[tuple[int, Record]]) -> None:
        """As `apply`, of IP-in-IP tunnels of home addresses that are routed here, all at once; never fails."""
        table, boot = self._table, self._boot()
        moves: list[tuple[int, Record | None, Record]] = []
        closed: list[tuple[int, Record]] = []
        for address, record in tunnels:
            moves.append((address, table.record(address), record))
            closed += table.lead(address, record, boot)
        self._kernel.follow_all(moves, closed, boot)
        if self._sweeping is None and table.is_lingering:
            self._sweep_soon()

    def is_routed(self, address: int) -> bool:
        """Whether a home address is in the network that is led here anyway."""
        return address & self._home_mask == self._home_network

    def _prefixes(self) -> set[Prefix]:
        """What has to be led into the device."""
        network = self._settings.home_network
        found = set() if network is None else {(int(network.network_address), network.prefixlen)}
        return found.union(
            (address, _HOST) for address, _ in self._table.items() if not self.is_routed(address)
        )

    def take_datagram(self, arrived: TunnelDatagram) -> bool:
        """Take MIP Tunnel Data; False where its tunnel is half bound, which the home agent may complete."""
        if self._device is None:  # lost, and the end is near
            return True
        if not self._inside.has(arrived.link):
            self._note(_OUTSIDE, outer_source=arrived.source, link=arrived.link)
            return True
        outcome = self._table.inbound_udp(
            arrived.octets, arrived.source, arrived.port, tos=arrived.tos, boot=self._boot()
        )
        match outcome:
            case Dropped.HALF_BOUND:
                return False
            case Dropped():
                self._note(outcome.value, direction="in", outer_source=arrived.source)
            case TunnelPacket():
                self._metrics.counts["keepalives-answered"] += 1
                self._send((outcome,))
            case bytes():
                self._give_to_kernel((outcome,))
            case _:
                assert_never(outcome)
        return True

    # --- to mobile nodes ---

    def _take_from_device(self) -> None:
        taken = 0
        while taken < _BATCH and self._device is not None:
            try:
                packets = read_packets(self._device)
            except BlockingIOError:
                return
            except OSError as error:  # EBADFD: the device was deleted
                log.error(entry("device-lost", device=AGENT_DEVICE, cause=error.strerror))
                self._let_go()
                self.on_lost()
                return
            taken += len(packets) or 1
            if packets:
                self._send_to_node(packets)

    def _send_to_node(self, packets: Sequence[bytes]) -> None:
        """One packet, or the segments that one was cut into."""
        for packet, outcome in zip(
            packets, self._table.outbound_segments(packets, self._boot()), strict=True
        ):
            match outcome:
                case tuple():
                    self._metrics.counts["octets-out"] += len(packet)
                    self._send(outcome)
                case TellSender():
                    self._tell_sender(outcome)
                case Dropped():
                    self._note(outcome.value, direction="out")
                case _:
                    assert_never(outcome)

    def _send(self, packets: tuple[TunnelPacket, ...]) -> None:
        for packet in packets:
            try:
                self._sockets.send(packet)
            except OSError as error:
                self._note("send-failed", cause=error.strerror, to=packet.endpoint)
            else:
                self._metrics.counts["packets-out"] += 1

    # --- from mobile nodes ---

    def _take_packets(self, packets: Sequence[Arrived]) -> None:
        inside, from_inside = 0, []
        for packet, link in packets:
            if link != inside or not inside:
                if not self._inside.has(link):
                    self._note(_OUTSIDE, outer_source=_source(packet), link=link)
                    continue
                inside = link
            from_inside.append(packet)
        taken_out: list[bytes] = []
        for packet, inner in zip(
            from_inside, self._table.inbound_all(from_inside, self._boot()), strict=True
        ):
            if isinstance(inner, Dropped):
                outer_source, inner_source = _source(packet), _source(packet[20:])
                self._note(inner.value, direction="in", outer_source=outer_source, inner_source=inner_source)
            else:
                taken_out.append(inner)
        self._give_to_kernel(taken_out)

    def _give_to_kernel(self, inner: Sequence[bytes]) -> None:
        assert self._device is not None
        written = write_packets(self._device, inner)
        if written.error is not None:
            self._note("device-refused", cause=written.error.strerror)
        self._metrics.counts["packets-in"] += written.packets
        self._metrics.counts["octets-in"] += written.octets

    # --- ICMP from within the tunnels ---

    def _take_errors(self, packets: Sequence[Arrived]) -> None:
        for packet, link in packets:
            self._take_error(packet, link)

    def _take_error(self, packet: bytes, link: int) -> None:
        message = packet[(packet[0] & 0x0F) * 4 :]
        if not (self._inside.has(link) or self._is_our_own(packet, link)) or len(message) < 8:
            return
        self._metrics.counts[f"icmp-from-tunnel-{message[0]}-{message[1]}"] += 1
        told = self._table.error_reported(message, self._boot())
        for endpoint in self._table.pop_changed():
            self._refit(endpoint)
        if told is not None:
            self._tell_sender(told)

    def _is_our_own(self, packet: bytes, link: int) -> bool:
        """Whether our own kernel says it: what it has learned of a path, and goes by, may be older than we are."""
        return packet[12:16] == self._address.packed and self._inside.name_of(link) == _LOOPBACK

    def _tell_sender(self, told: TellSender) -> None:
        """Send ICMP to whoever sent the packet, not faster than a router may (RFC 1812 4.3.2.8)."""
        if told.icmp is None:
            return
        credit, since = self._icmp_credit
        now = self._boot()
        credit = min(_ICMP_PER_SECOND, credit + (now - since) * _ICMP_PER_SECOND)
        self._icmp_credit = (max(credit - 1, 0.0), now)
        if credit < 1:
            self._metrics.counts["icmp-suppressed"] += 1
            return
        try:
            self._sockets.tell(told.sender, told.icmp)
        except OSError as error:
            self._note("send-failed", cause=error.strerror, to=told.sender)
        else:
            self._metrics.counts[f"icmp-sent-{told.icmp[0]}-{told.icmp[1]}"] += 1

    # --- what time brings ---

    def _sweep_soon(self, pause: float = _SWEEP) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(pause, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        closed = self._table.pop_closed(self._boot())
        self._kernel.close(closed)
        if self._table.is_lingering:
            self._sweep_soon(0.0 if len(closed) == SLICE else _SWEEP)

    def _refit(self, endpoint: int) -> None:
        """Now, and when what was reported of the way there is forgotten."""
        pending = self._refits.pop(endpoint, None)
        if pending is not None:
            pending.cancel()
        self._kernel.fit(endpoint)
        self._refits[endpoint] = asyncio.get_running_loop().call_later(AGE + 1, self._refit_again, endpoint)

    def _refit_again(self, endpoint: int) -> None:
        del self._refits[endpoint]
        self._kernel.fit(endpoint)

    # --- ends ---

    def _new_table(self, narrowest: int) -> TunnelTable:
        settings = self._settings
        return TunnelTable(
            self._address,
            link_mtu=narrowest,
            path_mtus=settings.path_mtus,
            segment_mtu=settings.segment_mtu,
        )

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

    def _let_go(self) -> None:
        for timer in (self._sweeping, *self._refits.values()):
            if timer is not None:
                timer.cancel()
        self._sweeping = None
        self._refits.clear()
        if self._device is not None:
            asyncio.get_running_loop().remove_reader(self._device)
            os.close(self._device)
            self._device = None
        self._sockets.close()


def _source(packet: bytes) -> str:
    return str(IPv4Address(packet[12:16])) if len(packet) >= 20 else "?"
