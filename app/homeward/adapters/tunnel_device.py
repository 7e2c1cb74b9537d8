# SPDX-License-Identifier: GPL-2.0-or-later
"""The home device: a TUN that carries the home address, the queue in which its packets wait, and the IP-in-IP sockets.

Applications send into the device whatever the state of the world, so they see delay and never an error (house.md,
"Held"). `open_tun` and `open_tunnel_socket` also serve the home agent's forwarding.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.access import ClearPath, Path
from homeward.model.errors import LinkError, NotPermitted, PlanError, Unavailable, WireError
from homeward.model.names import HOME_DEVICE, MARK_TUNNEL
from homeward.model.plan import Tunnelled
from homeward.wire import ip_in_ip
from homeward.wire.icmp_errors import fragmentation_needed
from homeward.wire.socket_options import (
    ANCILLARY_OCTETS,
    IP_MTU,
    IP_PKTINFO,
    IP_XFRM_POLICY,
    SO_BINDTOIFINDEX,
    PolicyDirection,
    allow_without_ipsec,
    ingress_link,
)

QUEUE_PACKETS: Final = 512
"""How many packets wait while traffic is held; at 1400 octets each that is 0.7 MB."""
LINGER: Final = 2.0
"""Seconds for which packets still in flight on the path before are accepted after a hand-over."""
HELD_MTU: Final = 1400
"""The device's MTU before any path is known: what all paths of 1500 octets can carry."""

_BATCH = 64  # packets taken per wake-up, so that bulk traffic cannot starve the decisions on the same loop
_RETRY = 0.02  # seconds until a path that refused a packet is tried again
_LONGEST = 0xFFFF
_LEAST_MTU = 576

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_SIOCSIFMTU = 0x8922
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DONT = 0
_IP_PMTUDISC_DO = 2
_DONT_FRAGMENT = 0x40  # in the seventh octet of an IPv4 header
_TCP = 6

# The path cannot take the packet at this moment, but may again, or another path soon will: the packet waits.
_WAIT: Final = frozenset(
    {
        errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENODEV,
        errno.ENXIO, errno.EADDRNOTAVAIL, errno.EINVAL, errno.EPERM,
    }
)  # fmt: skip


def open_tun(name: str) -> int:
    """A file descriptor of the persistent TUN device of that name, made if it is not there; non-blocking, no headers.

    Raises Unavailable without a TUN driver, NotPermitted, and PlanError (EBUSY) while another program holds it.
    """
    action = f"opening the TUN device {name}"
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(action, error) from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError as error:
        os.close(fd)
        raise _refusal(action, error) from error
    return fd


def set_mtu(name: str, mtu: int) -> None:
    """Give a device this MTU, in octets; raises PlanError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            fcntl.ioctl(asker, _SIOCSIFMTU, struct.pack("16si20x", name.encode(), mtu))
        except OSError as error:
            raise PlanError(f"setting the MTU of {name} to {mtu}", error.errno or 0) from error


def open_tunnel_socket(
    source: IPv4Address | None,
    *,
    far_end: IPv4Address | None = None,
    device: int | None = None,
    mark: int = 0,
    whole: bool = True,
) -> socket.socket:
    """A raw socket for IP-in-IP, non-blocking, telling the ingress link of each packet. Raises OSError.

    With `far_end` the kernel passes only packets from there, and keeps the path MTU towards it; with `device` (an
    interface index) only packets in and out of that device. With `whole` what is sent has its outer header already
    (`ip_in_ip.encapsulate`); without, the kernel builds it, and refuses to send once `source` is no address of ours.

    On a link that merges received packets (GRO), TCP inside IP-in-IP arrives here with unfinished checksums: switch
    it off there.
    """
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, ip_in_ip.PROTOCOL)
    try:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, int(whole))
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ip_in_ip.TUNNEL_TTL)
        raw.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if mark:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if device is not None:
            raw.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, device)
        if source is not None:
            raw.bind((str(source), 0))
        if far_end is not None:
            raw.connect((str(far_end), 0))
    except OSError:
        raw.close()
        raise
    return raw


def receive_packet(raw: socket.socket) -> tuple[bytes, int]:
    """The next whole packet from a socket of `open_tunnel_socket` and the index of the link it came in on.

    Raises BlockingIOError when there is none, other OSErrors as the kernel reports them.
    """
    packet, ancillary, _, _ = raw.recvmsg(_LONGEST, ANCILLARY_OCTETS)
    return packet, ingress_link(ancillary)


@dataclass(slots=True)
class TunnelCounters:
    """Packets since the device was attached, for status and tests."""

    sent: int = 0
    received: int = 0
    dropped: int = 0
    """Waited, and were pushed out of the full queue by younger ones."""
    refused_out: int = 0
    """Not from the home address, to a group of receivers, or too long for the path."""
    refused_in: int = 0
    """Not from the home agent, not for the home address, not by the right link, malformed, or traffic was held."""


class _Outlet:
    """One path's raw socket, on which the kernel builds the outer headers (R-284)."""

    def __init__(self, traffic: Tunnelled, device: int) -> None:
        self.path: Path = traffic.path
        self.home_agent = traffic.home_agent
        self.device = device
        self._service = 0
        self._may_fragment: bool | None = None
        source, agent = traffic.path.source, traffic.home_agent
        try:
            # The kernel builds the header: so not one packet leaves with an address that the link has lost meanwhile.
            self.raw = open_tunnel_socket(source, far_end=agent, device=device, mark=MARK_TUNNEL, whole=False)
        except OSError as error:
            raise LinkError(f"opening the tunnel from {source}", error.errno or 0) from error
        if isinstance(traffic.path, ClearPath):
            self._keep_out_of_ipsec()

    def send(self, inner: bytes) -> None:
        """Tunnel one packet, its type of service and Don't Fragment copied outside. Raises OSError."""
        if inner[1] != self._service:
            self.raw.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, inner[1])
            self._service = inner[1]
        may_fragment = not inner[6] & _DONT_FRAGMENT
        if may_fragment is not self._may_fragment:
            discover = _IP_PMTUDISC_DONT if may_fragment else _IP_PMTUDISC_DO
            self.raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, discover)
            self._may_fragment = may_fragment
        self.raw.send(inner)

    def _keep_out_of_ipsec(self) -> None:
        """The clear path was proved in clear: another VPN's policy must not lead its packets elsewhere."""
        for direction in PolicyDirection:
            try:
                self.raw.setsockopt(socket.IPPROTO_IP, IP_XFRM_POLICY, allow_without_ipsec(direction))
            except OSError as error:
                self.raw.close()
                raise Unavailable("keeping the tunnel out of IPsec", error.errno or 0) from error

    def path_mtu(self) -> int:
        """What the kernel knows now of the path's MTU, in octets."""
        try:
            # The socket remembers the route of its connect(): only a new one knows what the path has told since.
            self.raw.connect((str(self.home_agent), 0))
            return self.raw.getsockopt(socket.IPPROTO_IP, IP_MTU)
        except OSError:  # the route is gone, and with it what was known
            return _LONGEST


class TunnelDevice:
    """Holds or tunnels the packets of one home address. Not thread-safe: everything happens on the event loop."""

    def __init__(self, name: str = HOME_DEVICE, *, queue_packets: int = QUEUE_PACKETS) -> None:
        self.name = name
        self.counted = TunnelCounters()
        self.on_lost: Callable[[], None] = lambda: None
        """Called when somebody else deleted the device: packets are held, attach() makes it anew."""
        self._fd: int | None = None
        self._home_address = b""
        self._mtu = HELD_MTU
        self._queue: deque[bytes] = deque(maxlen=queue_packets)
        self._outlet: _Outlet | None = None
        self._ready: _Outlet | None = None
        self._before: _Outlet | None = None
        self._last: _Outlet | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None

    # --- the device ------------------------------------------------------------------------------------------------

    def attach(self, home_address: IPv4Address) -> None:
        """Make the device, or take it over from a life before; packets are held from now on. Raises as `open_tun`."""
        self._home_address = home_address.packed
        if self._fd is None:
            self._fd = open_tun(self.name)
            self._set_mtu(HELD_MTU)
            asyncio.get_running_loop().add_reader(self._fd, self._take_from_device)

    def detach(self) -> None:
        """Let go of the device, which stays: without a reader it lets nothing through, the deliberate block."""
        self.hold()
        self._close_all_outlets()
        self._queue.clear()
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _lose_device(self) -> None:
        assert self._fd is not None
        self.hold()
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = None
        self.on_lost()

    # --- hold and open ---------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """From now on packets wait; never fails, never waits."""
        if self._outlet is not None:
            self._last = self._outlet
            self._outlet = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def prepare(self, traffic: Tunnelled, device: int) -> None:
        """Open the path's socket on the link with this index, and tell the senders its MTU; traffic stays held.

        Raises LinkError when the path is not there, Unavailable when it could end in another VPN, PlanError.
        """
        self._set_mtu(traffic.mtu)
        self._discard_ready()
        for kept in (self._outlet, self._last):
            if kept is not None and (kept.path, kept.home_agent, kept.device) == (
                traffic.path,
                traffic.home_agent,
                device,
            ):
                self._ready = kept
                return
        outlet = _Outlet(traffic, device)
        asyncio.get_running_loop().add_reader(outlet.raw, self._take_from_path, outlet)
        self._ready = outlet

    def open(self, *, linger: bool) -> None:
        """Let packets flow along the prepared path, those that waited first.

        With `linger`, what is still in flight on the path before is accepted for LINGER seconds more.
        """
        outlet, self._ready = self._ready, None
        assert outlet is not None, "prepare() comes first"
        old = self._outlet or self._last
        self._outlet, self._last = outlet, None
        if old is not None and old is not outlet:
            self._end_linger()
            if linger:
                self._before = old
                self._linger = asyncio.get_running_loop().call_later(LINGER, self._end_linger)
            else:
                self._close(old)
        self._flush()

    def counters(self) -> tuple[int, int]:
        """Packets waiting, and packets that were dropped from the queue so far."""
        return len(self._queue), self.counted.dropped

    # --- outwards --------------------------------------------------------------------------------------------------

    def _take_from_device(self) -> None:
        assert self._fd is not None
        for _ in range(_BATCH):
            try:
                packet = os.read(self._fd, _LONGEST)
            except BlockingIOError:
                break
            except OSError:  # EBADFD: somebody deleted the device
                self._lose_device()
                return
            if not self._is_ours(packet):
                self.counted.refused_out += 1
                continue
            if len(self._queue) == self._queue.maxlen:
                self.counted.dropped += 1
            self._queue.append(packet)
        self._flush()

    def _is_ours(self, packet: bytes) -> bool:
        """Whether a packet may enter the tunnel: IPv4, from the home address, not to a group (R-185 is optional)."""
        to_group = ip_in_ip.inner_destination(packet)[:1] >= b"\xe0"
        return packet[0] >> 4 == 4 and ip_in_ip.inner_source(packet) == self._home_address and not to_group

    def _flush(self) -> None:
        """Send what waits, as long as the path takes it."""
        outlet, queue = self._outlet, self._queue
        if outlet is None or self._retry is not None:
            return
        for _ in range(_BATCH):
            if not queue:
                return
            packet = queue[0]
            if len(packet) > self._mtu:  # it waited, and meanwhile the path has become another one
                self._refuse_too_long(packet, outlet.home_agent)
                queue.popleft()
                continue
            try:
                outlet.send(packet)
                self.counted.sent += 1
            except OSError as error:
                if error.errno in _WAIT:
                    self._try_again_later(_RETRY)
                    return
                if error.errno == errno.EMSGSIZE:
                    self._shrink_to(outlet.path_mtu() - ip_in_ip.OVERHEAD)
                self._refuse_too_long(packet, outlet.home_agent)
            queue.popleft()
        self._try_again_later(0.0)

    def _refuse_too_long(self, packet: bytes, home_agent: IPv4Address) -> None:
        """Drop a packet that the path cannot carry, and have TCP send it anew at once, not when its timer ends.

        Only TCP is told as a router would tell it (R-287). To a datagram socket that would be an error, and it
        learns the same from the device's MTU when it sends next.
        """
        self.counted.refused_out += 1
        if packet[9] == _TCP and packet[6] & _DONT_FRAGMENT and self._fd is not None:
            try:
                os.write(self._fd, fragmentation_needed(packet, self._mtu, home_agent))
            except OSError:
                pass  # the device is down: nobody is there to be told

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

    # --- inwards ---------------------------------------------------------------------------------------------------

    def _take_from_path(self, outlet: _Outlet) -> None:
        for _ in range(_BATCH):
            try:
                packet, link = receive_packet(outlet.raw)
            except BlockingIOError:
                return
            except OSError:
                return  # an ICMP error about an earlier packet, or the link went down: nothing was received
            self._admit(outlet, packet, link)

    def _admit(self, outlet: _Outlet, packet: bytes, link: int) -> None:
        """Pass a packet on to the applications if it came from the home agent, by the right link, for us (R-186)."""
        held = self._outlet is None or (outlet is not self._outlet and outlet is not self._before)
        if held or self._fd is None or link != outlet.device:
            self.counted.refused_in += 1
            return
        try:
            arrived = ip_in_ip.decapsulate(packet)
            for_us = ip_in_ip.inner_destination(arrived.inner) == self._home_address
            if not for_us or arrived.source != outlet.home_agent:
                self.counted.refused_in += 1
                return
            os.write(self._fd, arrived.inner)
        except (WireError, OSError):
            self.counted.refused_in += 1
        else:
            self.counted.received += 1

    # --- closing ---------------------------------------------------------------------------------------------------

    def _close(self, outlet: _Outlet) -> None:
        asyncio.get_running_loop().remove_reader(outlet.raw)
        outlet.raw.close()

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
        self._end_linger()
        if self._last is not None:
            self._close(self._last)
            self._last = None


def _refusal(action: str, error: OSError) -> PlanError | NotPermitted | Unavailable:
    """The error of ours that a refused device means."""
    code = error.errno or 0
    if code in (errno.EPERM, errno.EACCES):
        return NotPermitted(action, code)
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return Unavailable(action, code)
    return PlanError(action, code)
