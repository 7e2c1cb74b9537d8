# SPDX-License-Identifier: GPL-2.0-or-later
"""The home device: a TUN that carries the home address, the queue in which its packets wait, and the ways out of it.

Applications send into the device whatever the state of the world, so they see delay and never an error (house.md,
"Held"). Where the kernel offers a shortcut, it carries plain packets past the device while the way is open; what is
unusual comes here all the same, and so does everything while packets are held.

`open_tun` and `open_tunnel_socket` also serve the home agent's forwarding.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.tunnel_device.counters import TunnelCounters
from homeward.adapters.tunnel_device.offload import read_packets, write_packet, write_packets
from homeward.adapters.tunnel_device.outlets import (
    Datagrams,
    Opened,
    Outlet,
    UdpOutlet,
    open_ears,
    open_outlet,
    without_mtu,
)
from homeward.adapters.tunnel_device.shortcut import NoShortcut, Shortcut
from homeward.adapters.tunnel_device.sockets import (
    LONGEST,
    open_tun,
    open_tunnel_socket,
    receive_packet,
    set_mtu,
)
from homeward.model.errors import AdapterError, WireError
from homeward.model.inputs import DatagramReceived
from homeward.model.names import HOME_DEVICE
from homeward.model.plan import Tunnelled
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine
from homeward.wire import ip_in_ip
from homeward.wire.icmp_errors import fragmentation_needed

__all__ = [
    "HELD_MTU",
    "LINGER",
    "QUEUE_PACKETS",
    "TunnelCounters",
    "TunnelDevice",
    "open_tun",
    "open_tunnel_socket",
    "read_packets",
    "receive_packet",
    "set_mtu",
    "write_packet",
    "write_packets",
]

QUEUE_PACKETS: Final = 512
"""How many packets wait while traffic is held; at 1400 octets each that is 0.7 MB."""
LINGER: Final = 2.0
"""Seconds for which packets still in flight on the path before are accepted after a hand-over."""
HELD_MTU: Final = 1400
"""The device's MTU before any path is known: what all paths of 1500 octets can carry."""

_BATCH = 64  # packets taken per wake-up, so that bulk traffic cannot starve the decisions on the same loop
_RETRY = 0.02  # seconds until a path that refused a packet is tried again
_IN_ORDER = 0.02  # seconds for which the shortcut waits, where younger packets come faster than they leave
_SETTLED = 0.01  # seconds until the kernel has drawn its conclusions from an ICMP message that we saw too
_LEAST_MTU = 576
_DONT_FRAGMENT = 0x40  # in the seventh octet of an IPv4 header
_TCP = 6

# The path cannot take the packet at this moment, but may again, or another path soon will: the packet waits.
_WAIT: Final = frozenset(
    {
        errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENODEV,
        errno.ENXIO, errno.EADDRNOTAVAIL, errno.EINVAL, errno.EPERM,
    }
)  # fmt: skip
_BUSY: Final = frozenset({errno.EAGAIN, errno.ENOBUFS})


class TunnelDevice:
    """Holds or tunnels the packets of one home address. Not thread-safe: everything happens on the event loop."""

    def __init__(
        self,
        name: str = HOME_DEVICE,
        *,
        queue_packets: int = QUEUE_PACKETS,
        datagrams: Datagrams | None = None,
        shortcut: Shortcut | None = None,
    ) -> None:
        self.name = name
        self._datagrams = datagrams
        self._shortcut: Shortcut = NoShortcut() if shortcut is None else shortcut
        self._shortcut.on_ready = self._take_shortcut
        self.counted = TunnelCounters()
        self.on_lost: Callable[[], None] = lambda: None
        """Called when somebody else deleted the device: packets are held, attach() makes it anew."""
        self.on_engine: Callable[[], None] = lambda: None
        """Called soon after something else has begun to carry packets."""
        self._engine_told: TunnelEngine | None = None
        self._fd: int | None = None
        self._home_address = b""
        self._mtu = HELD_MTU
        self._queue: deque[bytes] = deque(maxlen=queue_packets)
        self._room = queue_packets
        self._outlet: Outlet | None = None
        self._ready: Outlet | None = None
        self._before: Outlet | None = None
        self._last: Outlet | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._in_order_until = 0.0
        self._ears: socket.socket | None = None
        self._ears_of: object = None

    # --- the device ------------------------------------------------------------------------------------------------

    def attach(self, home_address: IPv4Address) -> None:
        """Make the device, or take it over from a life before; packets are held from now on. Raises as `open_tun`."""
        self._home_address = home_address.packed
        if self._fd is None:
            self._fd = open_tun(self.name, offload=True)
            self._set_mtu(HELD_MTU)
            asyncio.get_running_loop().add_reader(self._fd, self._take_from_device)
        self._shortcut.attach(socket.if_nametoindex(self.name))

    @property
    def route_program(self) -> int:
        """The descriptor of the program that routes into the device have to name, -1 where there is none."""
        return self._shortcut.program

    def detach(self) -> None:
        """Let go of the device, which stays: without a reader it lets nothing through, the deliberate block."""
        self.hold()
        self._close_all_outlets()
        self._queue.clear()
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
        self._shortcut.detach()

    def clear_away(self) -> None:
        """Have no shortcut any more, and take from links what this or an earlier life put there for it."""
        self._shortcut.clear_away()

    def refuse_shortcut(self, why: str) -> None:
        """It cannot be used on this machine; everything comes to the device."""
        self._shortcut.give_up(why)

    def _lose_device(self) -> None:
        assert self._fd is not None
        self.hold()
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = None
        self._shortcut.detach()
        self.on_lost()

    # --- hold and open ---------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """From now on packets wait; never fails, never waits."""
        self._shortcut.hold()
        if self._outlet is not None:
            self._last, self._outlet = self._outlet, None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def prepare(self, traffic: Opened, device: int) -> None:
        """Open the traffic's way by the link with this index, and tell the senders its MTU; traffic stays held.

        Raises LinkError when the path is not there, Unavailable when it could end in another VPN, PlanError.
        """
        self._set_mtu(traffic.mtu)
        self._discard_ready()
        for kept in (self._outlet, self._last):
            if kept is not None and (kept.way, kept.device) == (without_mtu(traffic), device):
                self._ready = kept
                break
        else:
            home_address = IPv4Address(self._home_address)
            outlet = open_outlet(traffic, device, home_address, datagrams=self._datagrams)
            for receiver in outlet.receivers:
                asyncio.get_running_loop().add_reader(receiver, self._take_from_path, outlet, receiver)
            self._ready = outlet
        self._prepare_shortcut(self._ready, traffic, device)

    def open(self, *, linger: bool) -> None:
        """Let packets flow along the prepared path, those that waited first.

        With `linger`, what is still in flight on the path before is accepted for LINGER seconds more.
        """
        outlet, self._ready = self._ready, None
        assert outlet is not None, "prepare() comes first"
        old = self._outlet or self._last
        self._outlet, self._last = outlet, None
        self._in_order_until = asyncio.get_running_loop().time() + _IN_ORDER
        self._shortcut.admit()
        if old is not None and old is not outlet:
            self._end_linger()
            if linger:
                self._before = old
                self._linger = asyncio.get_running_loop().call_later(LINGER, self._end_linger)
            else:
                self._close(old)
        self._flush()
        self._tell_engine()

    def counters(self) -> tuple[int, int]:
        """Packets waiting, and packets that were dropped from the queue so far."""
        return len(self._queue), self.counted.dropped

    def traffic(self) -> TrafficCounts:
        """What has left and come in so far, through this process and past it."""
        sent, sent_octets, received, received_octets = self._shortcut.counted()
        counted = self.counted
        return TrafficCounts(
            counted.sent + sent - counted.led_back,
            counted.sent_octets + sent_octets - counted.led_back_octets,
            counted.received + received,
            counted.received_octets + received_octets,
        )

    @property
    def engine(self) -> TunnelEngine | None:
        """What carries packets at this moment, None while they are held."""
        return None if self._outlet is None else self._shortcut.engine

    def _tell_engine(self) -> None:
        if self.engine is not self._engine_told:
            self._engine_told = self.engine
            asyncio.get_running_loop().call_soon(self.on_engine)

    # --- the shortcut ----------------------------------------------------------------------------------------------

    def _prepare_shortcut(self, outlet: Outlet, traffic: Opened, device: int) -> None:
        if isinstance(traffic, Tunnelled):
            self._shortcut.prepare(IPv4Address(self._home_address), traffic, link=device, port=outlet.port)
        else:
            self._shortcut.abandon()

    def follow_port(self) -> None:
        """A registration socket was made anew: the shortcut has to send from where it is now."""
        outlet = self._outlet
        if outlet is not None and isinstance(outlet.way, Tunnelled) and outlet.way.udp:
            self._prepare_shortcut(outlet, outlet.way, outlet.device)
            self._take_shortcut()

    def _take_shortcut(self) -> None:
        """Have packets go past the device from now on. What is in it already goes first, where that has an end."""
        if self._outlet is None or self._retry is not None or not self._shortcut.may_lead:
            return
        self._shortcut.admit()
        if asyncio.get_running_loop().time() < self._in_order_until:
            self._read_device()
            if self._queue:
                self._try_again_later(0.0)
                return
        if not self._listens():
            self._shortcut.abandon()
        self._shortcut.lead(self._mtu)
        self._tell_engine()
        if self._fd is not None:
            self._take_from_device()

    def _listens(self) -> bool:
        """Whether we hear it when a packet that went past us was too long for the path."""
        outlet = self._outlet
        assert outlet is not None
        if self._ears_of != (outlet.way.path, outlet.device):
            self._close_ears()
            try:
                self._ears = open_ears(outlet.way.path, outlet.device)
            except (OSError, AdapterError):
                return False
            self._ears_of = (outlet.way.path, outlet.device)
            asyncio.get_running_loop().add_reader(self._ears, self._hear)
        return True

    def _hear(self) -> None:
        """A router on the way said that something was too long for it, perhaps a packet that went past us."""
        assert self._ears is not None
        try:
            while True:
                self._ears.recv(LONGEST)
        except OSError:
            asyncio.get_running_loop().call_later(_SETTLED, self._follow_path)

    def _follow_path(self) -> None:
        if self._outlet is not None and self._shortcut.leads:
            self._shrink_to(self._outlet.room())

    def _close_ears(self) -> None:
        if self._ears is not None:
            asyncio.get_running_loop().remove_reader(self._ears)
            self._ears.close()
        self._ears = self._ears_of = None

    # --- outwards --------------------------------------------------------------------------------------------------

    def _take_from_device(self) -> None:
        if self._read_device():
            self._flush()

    def _read_device(self) -> bool:
        """Put what has come into the device behind what waits, and whether the device is there still."""
        assert self._fd is not None
        taken = 0
        while taken < _BATCH:
            try:
                packets = read_packets(self._fd)
            except BlockingIOError:
                break
            except OSError:  # EBADFD: somebody deleted the device
                self._lose_device()
                return False
            taken += len(packets) or 1
            if packets:
                self._put_behind(packets)
        return True

    def _put_behind(self, packets: Sequence[bytes]) -> None:
        """Line up what came as one packet. Segments that it was cut into have all its addresses: one is looked at."""
        if not self._is_ours(packets[0]):
            packets = [self._led_back(packet) for packet in packets]
            if not self._is_ours(packets[0]):
                self.counted.refused_out += len(packets)
                return
            self.counted.led_back += len(packets)
            self.counted.led_back_octets += sum(map(len, packets))
        self.counted.dropped += max(0, len(self._queue) + len(packets) - self._room)
        self._queue.extend(packets)

    def _led_back(self, packet: bytes) -> bytes:
        """What is in a tunnel packet of the shortcut's that found no way and came back into the device."""
        for outlet in (self._outlet, self._last, self._ready):
            if outlet is not None:
                try:
                    return outlet.unwrap(packet)
                except WireError:
                    continue
        return packet

    def _is_ours(self, packet: bytes) -> bool:
        """Whether a packet may enter the tunnel: IPv4, from the home address, not to a group (R-185 is optional)."""
        destination = ip_in_ip.inner_destination(packet)
        return (
            len(destination) == len(self._home_address)  # else it ends within its header
            and packet[0] >> 4 == 4
            and ip_in_ip.inner_source(packet) == self._home_address
            and destination < b"\xe0"
        )

    def _flush(self) -> None:
        """Send what waits, as long as the path takes it."""
        outlet, queue = self._outlet, self._queue
        if outlet is None or self._retry is not None:
            return
        for _ in range(2 * _BATCH):  # more than one reading brings, or the queue would only grow
            if not queue:
                break
            packet = queue[0]
            if len(packet) > self._mtu:  # it waited, and meanwhile the path has become another one
                self._refuse_too_long(packet, outlet)
                queue.popleft()
                continue
            try:
                outlet.send(packet)
                self.counted.sent += 1
                self.counted.sent_octets += len(packet)
            except OSError as error:
                if error.errno in _WAIT:
                    if error.errno not in _BUSY:
                        self._shortcut.hold()  # it would lose what has to wait
                    self._try_again_later(_RETRY)
                    return
                if error.errno == errno.EMSGSIZE:
                    self._shrink_to(outlet.room())
                self._refuse_too_long(packet, outlet)
            except WireError:
                self.counted.refused_out += 1
            queue.popleft()
        if not queue or asyncio.get_running_loop().time() >= self._in_order_until:
            self._take_shortcut()
        if queue and self._retry is None:
            self._try_again_later(0.0)

    def _refuse_too_long(self, packet: bytes, outlet: Outlet) -> None:
        """Drop a packet that the path cannot carry, and have TCP send it anew at once, not when its timer ends.

        Only TCP is told as a router would tell it (R-287). To a datagram socket that would be an error, and it
        learns the same from the device's MTU when it sends next.
        """
        self.counted.refused_out += 1
        if packet[9] == _TCP and packet[6] & _DONT_FRAGMENT and self._fd is not None:
            speaker = outlet.speaker or IPv4Address(ip_in_ip.inner_destination(packet))
            try:
                write_packet(self._fd, fragmentation_needed(packet, self._mtu, speaker))
            except (OSError, WireError):
                pass  # the device is down: nobody is there to be told; or it is a packet that no router would quote

    def _try_again_later(self, delay: float) -> None:
        self._retry = asyncio.get_running_loop().call_later(delay, self._again)

    def _again(self) -> None:
        self._retry = None
        self._flush()

    def _shrink_to(self, mtu: int) -> None:
        """The path is narrower than the plan knew (R-288): the device follows, and with it all later senders."""
        if _LEAST_MTU <= mtu < self._mtu:
            self._set_mtu(mtu)

    def _set_mtu(self, mtu: int) -> None:
        set_mtu(self.name, mtu)
        self._mtu = mtu
        if self._shortcut.leads:
            self._shortcut.lead(mtu)

    # --- inwards ---------------------------------------------------------------------------------------------------

    def _take_from_path(self, outlet: Outlet, receiver: socket.socket) -> None:
        arrived: list[bytes] = []
        for _ in range(_BATCH):
            try:
                arrived.append(outlet.receive(receiver))
            except WireError:
                self.counted.refused_in += 1
            except OSError:
                break  # none, an ICMP error about an earlier packet, or the link went down: nothing was received
        self._admit(outlet, arrived)

    def take_datagram(self, datagram: DatagramReceived, service: int) -> None:
        """MIP Tunnel Data arrived on a registration socket, in a packet with this type of service."""
        for outlet in (self._outlet, self._before):
            if isinstance(outlet, UdpOutlet) and outlet.way.path == datagram.path:
                break
        else:
            self.counted.refused_in += 1
            return
        try:
            self._admit(outlet, (outlet.open_datagram(datagram, service),))
        except WireError:
            self.counted.refused_in += 1

    def _admit(self, outlet: Outlet, arrived: Sequence[bytes]) -> None:
        """Pass packets that the outlet vouches for on to the applications, those that are for us."""
        held = self._outlet is None or (outlet is not self._outlet and outlet is not self._before)
        if held or self._fd is None:
            self.counted.refused_in += len(arrived)
            return
        ours = [inner for inner in arrived if ip_in_ip.inner_destination(inner) == self._home_address]
        written = write_packets(self._fd, ours)
        self.counted.refused_in += len(arrived) - written.packets
        self.counted.received += written.packets
        self.counted.received_octets += written.octets

    # --- closing ---------------------------------------------------------------------------------------------------

    def _close(self, outlet: Outlet) -> None:
        for receiver in outlet.receivers:
            asyncio.get_running_loop().remove_reader(receiver)
        outlet.close()

    def _end_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._before is not None:
            self._close(self._before)
            self._before = None

    def _discard_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None and ready is not self._outlet and ready is not self._last:
            self._close(ready)

    def _close_all_outlets(self) -> None:
        self._discard_ready()
        self._close_ears()
        self._end_linger()
        if self._last is not None:
            self._close(self._last)
            self._last = None
