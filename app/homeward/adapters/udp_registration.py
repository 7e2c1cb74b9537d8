# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration sockets: one per path, so that a reply proves by which path it came.

On a clear path three locks keep a datagram out of every tunnel: the socket is bound to the link (not even a host route
into a tunnel applies), it is marked (our own rules lead unmarked traffic into the home device), and it carries an XFRM
bypass for both directions. Binding and marking alone are not enough: another VPN's IPsec policy took a bound probe
inside, and the reply named the physical link (S3).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from homeward.model.access import ClearPath, Path, VpnPath
from homeward.model.errors import AdapterError, LinkError, LocalProtocolError, NotPermitted, Unavailable
from homeward.model.inputs import DatagramReceived
from homeward.model.names import MARK_REGISTRATION, REGISTRATION_PORT
from homeward.wire.socket_options import (
    ANCILLARY_OCTETS,
    IP_PKTINFO,
    IP_XFRM_POLICY,
    SO_BINDTOIFINDEX,
    PolicyDirection,
    allow_without_ipsec,
    ingress_link,
    time_to_live,
)

_BATCH: Final = 32
_LONGEST: Final = (
    4096  # far more than a registration message may have; what is longer arrives cut and is refused
)
_SIOCGIFFLAGS: Final = 0x8913
_IFF_BROADCAST: Final = 0x2


class UdpRegistrations:
    """Registrations over UDP. `tunnel_device` names the device that carries a tunnel inner address, or says None."""

    def __init__(self, tunnel_device: Callable[[IPv4Address], str | None]) -> None:
        self._tunnel_device = tunnel_device
        self._observer: Callable[[DatagramReceived], None] | None = None
        self._sockets: dict[Path, socket.socket] = {}

    def start(self, observer: Callable[[DatagramReceived], None]) -> None:
        """Report every datagram from a registration port to `observer`, on the running event loop."""
        self._observer = observer

    def send(self, path: Path, destination: IPv4Address, octets: bytes, *, ttl: int) -> None:
        """Send one datagram to UDP port 434 of `destination` from the path's own socket, opened if need be.

        Raises LinkError when the path is not there or refuses, NotPermitted and Unavailable when what keeps a clear
        datagram out of tunnels is refused: then nothing was sent.
        """
        if self._observer is None:
            raise LocalProtocolError("send() before start()")
        sender = self._sockets.get(path)
        fresh = sender is None
        if sender is None:
            sender = self._open(path)
        try:
            _send(sender, destination, octets, ttl)
        except OSError as error:
            self._close(path)
            if fresh or error.errno not in (errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL):
                raise _refusal(f"sending a registration request from {path.source}", error) from error
            # The device was taken away and made anew under the same name: the old socket is bound to the dead one.
            self._send_anew(path, destination, octets, ttl)

    def retain(self, paths: frozenset[Path]) -> None:
        """Close the sockets of all other paths."""
        for path in [path for path in self._sockets if path not in paths]:
            self._close(path)

    def stop(self) -> None:
        """Close all sockets."""
        self.retain(frozenset())
        self._observer = None

    def _send_anew(self, path: Path, destination: IPv4Address, octets: bytes, ttl: int) -> None:
        sender = self._open(path)
        try:
            _send(sender, destination, octets, ttl)
        except OSError as error:
            self._close(path)
            raise _refusal(f"sending a registration request from {path.source}", error) from error

    def _open(self, path: Path) -> socket.socket:
        match path:
            case ClearPath():
                link = path.link_index
            case VpnPath():
                link = self._tunnel_index(path)
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_REGISTRATION)
            opened.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, link)
            opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            if isinstance(path, ClearPath):
                _keep_out_of_ipsec(opened)
            opened.bind((str(path.source), 0))
        except AdapterError:
            opened.close()
            raise
        except OSError as error:
            opened.close()
            raise _refusal(f"opening a registration socket from {path.source}", error) from error
        self._sockets[path] = opened
        asyncio.get_running_loop().add_reader(opened, self._take, path, opened)
        return opened

    def _tunnel_index(self, path: VpnPath) -> int:
        """The index of the VPN's device; Unavailable unless it is there and is a tunnel."""
        action = f"finding the tunnel that carries {path.source}"
        device = self._tunnel_device(path.source)
        if device is None:
            raise Unavailable(action, "no device has this address")
        try:
            if _is_broadcast(device):
                # An inner address on an Ethernet link would leave in clear from there.
                raise Unavailable(action, f"{device} is a broadcast link, not a tunnel")
            return socket.if_nametoindex(device)
        except OSError as error:
            raise Unavailable(action, error.errno or 0) from error

    def _take(self, path: Path, receiver: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                octets, ancillary, _, (host, port) = receiver.recvmsg(_LONGEST, ANCILLARY_OCTETS)
            except BlockingIOError:
                return
            except OSError:
                return  # an error about something sent earlier, or the link went down: nothing was received
            observer = self._observer
            if observer is None or self._sockets.get(path) is not receiver:
                return
            if port == REGISTRATION_PORT:
                observer(DatagramReceived(path, octets, IPv4Address(host), port, ingress_link(ancillary)))

    def _close(self, path: Path) -> None:
        closing = self._sockets.pop(path)
        asyncio.get_running_loop().remove_reader(closing)
        closing.close()


def _send(sender: socket.socket, destination: IPv4Address, octets: bytes, ttl: int) -> None:
    sender.sendmsg([octets], time_to_live(ttl), 0, (str(destination), REGISTRATION_PORT))


def _keep_out_of_ipsec(opened: socket.socket) -> None:
    """Bypass every IPsec policy of the machine, in and out; where the kernel refuses there is no probe and no trust."""
    action = "keeping the registration request out of IPsec"
    for direction in PolicyDirection:
        try:
            opened.setsockopt(socket.IPPROTO_IP, IP_XFRM_POLICY, allow_without_ipsec(direction))
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise NotPermitted(action, error.errno) from error
            raise Unavailable(action, error.errno or 0) from error


def _is_broadcast(device: str) -> bool:
    """Whether a device is of the Ethernet kind; raises OSError when it is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        answer = fcntl.ioctl(asker, _SIOCGIFFLAGS, struct.pack("16sh22x", device.encode(), 0))
    flags: int = struct.unpack("16sh22x", answer)[1]
    return bool(flags & _IFF_BROADCAST)


def _refusal(action: str, error: OSError) -> AdapterError:
    """The error of ours that a refused socket call means."""
    code = error.errno or 0
    return NotPermitted(action, code) if code in (errno.EPERM, errno.EACCES) else LinkError(action, code)
