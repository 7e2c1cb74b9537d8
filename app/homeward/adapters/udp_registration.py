# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration sockets: one per path, so that a reply proves by which path it came.

On every path but the VPN's three locks keep a datagram out of every tunnel: the socket is bound to the link (not even a
host route into a tunnel applies), it is marked (our own rules lead unmarked traffic into the home device), and it
carries an XFRM bypass for both directions. Binding and marking alone are not enough: another VPN's IPsec policy took a
bound probe inside, and the reply named the physical link (S3).

To a foreign agent the request leaves as a frame of our own making: exactly to the hardware address that advertised,
with no ARP, no route and no address selection of the kernel's (R-134), which would not send from 0.0.0.0, nor to
224.0.0.11 in a frame for one. A permanent neighbour entry would do only a part of that, would bend what others send to
the same address, and would have to be removed again by a later life. It costs more, too: 0.37 ms here for the entry,
against 0.02 ms for making and sending the frame.

A tunnel in UDP is carried by the same socket as the registrations of its path, so that it has their port (R-230).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.access import AgentPath, ClearPath, Path, VpnPath
from homeward.model.errors import (
    AdapterError,
    LinkError,
    LocalProtocolError,
    NotPermitted,
    Unavailable,
    WireError,
)
from homeward.model.inputs import DatagramReceived
from homeward.model.names import MARK_REGISTRATION, MARK_TUNNEL, REGISTRATION_PORT
from homeward.wire import gre
from homeward.wire.echo import decode_echo
from homeward.wire.link_frames import ARPHRD_ETHER, ETHERTYPE_IPV4, ethernet, udp
from homeward.wire.revocation import REVOCATION_TYPE
from homeward.wire.socket_options import (
    ANCILLARY_OCTETS,
    IP_MTU_DISCOVER,
    IP_PKTINFO,
    IP_PMTUDISC_DO,
    IP_RECVTOS,
    IP_XFRM_POLICY,
    SO_BINDTOIFINDEX,
    PolicyDirection,
    allow_without_ipsec,
    ingress_link,
    marked,
    time_to_live,
    type_of_service,
)
from homeward.wire.udp_tunnel import TUNNEL_DATA_TYPE, decode_tunnel_data

log: Final = logging.getLogger("mip")

_BATCH: Final = 32
_LONGEST: Final = 4096  # far more than a registration message may have; what is longer is none
_LONGEST_DATA: Final = 0xFFFF
_QUEUE: Final = 1 << 20
_ICMP: Final = b"\1"
_PROTOCOL_AT: Final = 9
_SIOCGIFFLAGS: Final = 0x8913
_IFF_BROADCAST: Final = 0x2
_GONE: Final = (errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL)


@dataclass(slots=True)
class _Opened:
    """The sockets of one path: requests to a foreign agent leave by `frames`, to `by`, behind a frame's `header`."""

    receiver: socket.socket | None = None
    ears: socket.socket | None = None
    """Hears revocations, which come to port 434 and not to that of our requests (RFC 3543 section 3.3)."""
    frames: socket.socket | None = None
    by: tuple[str, int] = ("", 0)
    header: bytes = b""
    is_retained: bool = True
    leases: int = 0


class Channel:
    """One path's socket as a tunnel in UDP uses it, to one home agent; it follows when the socket is made anew."""

    def __init__(self, opened: _Opened, home_agent: IPv4Address) -> None:
        self._opened = opened
        self._far_end = (str(home_agent), REGISTRATION_PORT)
        self._service = -1
        self._ancillary: list[tuple[int, int, bytes]] = []

    @property
    def port(self) -> int:
        """Where the tunnel begins, 0 while its path is gone."""
        receiver = self._opened.receiver
        return 0 if receiver is None else int(receiver.getsockname()[1])

    def send(self, octets: bytes, service: int) -> None:
        """Send a MIP Tunnel Data message with this type of service, never in fragments. Raises OSError."""
        receiver = self._opened.receiver
        if receiver is None:
            raise OSError(errno.ENODEV, "the path is gone")
        if service != self._service:
            # Not with the mark of registrations: those the fence lets pass while traffic is held.
            self._ancillary = marked(MARK_TUNNEL, service)
            self._service = service
        receiver.sendmsg([octets], self._ancillary, 0, self._far_end)


class UdpRegistrations:
    """Registrations over UDP. `tunnel_device` names the device that carries a tunnel inner address, or says None."""

    def __init__(self, tunnel_device: Callable[[IPv4Address], str | None]) -> None:
        self.on_tunnel_data: Callable[[DatagramReceived, int], None] = lambda datagram, service: None
        """Called with each MIP Tunnel Data message that came in, and the type of service of its packet."""
        self.on_new_port: Callable[[], None] = lambda: None
        """Called when a socket that a tunnel uses was made anew, and has another port."""
        self._tunnel_device = tunnel_device
        self._observer: Callable[[DatagramReceived], None] | None = None
        self._sockets: dict[Path, _Opened] = {}

    def start(self, observer: Callable[[DatagramReceived], None]) -> None:
        """Report every datagram from a registration port to `observer`, on the running event loop.

        Tunnel data is not, but for the home agent's answers to keepalives (RFC 3519 section 4.9).
        """
        self._observer = observer

    def send(self, path: Path, destination: IPv4Address, octets: bytes, *, ttl: int) -> None:
        """Send one datagram to UDP port 434 of `destination` from the path's own socket, opened if need be.

        Raises LinkError when the path is not there or refuses, NotPermitted and Unavailable when what keeps a clear
        datagram out of tunnels is refused: then nothing was sent.
        """
        if self._observer is None:
            raise LocalProtocolError("send() before start()")
        opened = self._sockets.setdefault(path, _Opened())
        opened.is_retained = True
        fresh = opened.receiver is None
        try:
            if fresh:
                self._open(path, opened)
            try:
                _send(path, opened, destination, octets=octets, ttl=ttl)
            except OSError as error:
                if fresh or error.errno not in _GONE:
                    raise
                # The device was taken away and made anew under the same name: the socket is bound to the dead one.
                self._shut(opened)
                self._open(path, opened)
                _send(path, opened, destination, octets=octets, ttl=ttl)
        except (AdapterError, OSError) as error:
            if opened.receiver is None or fresh or (isinstance(error, OSError) and error.errno in _GONE):
                self._shut(opened)
                self._close_unused(path)
            if isinstance(error, AdapterError):
                raise
            raise _refusal(f"sending a registration request from {path.source}", error) from error

    def retain(self, paths: frozenset[Path]) -> None:
        """Close the sockets of all other paths, as soon as no tunnel needs them any more."""
        for path, opened in list(self._sockets.items()):
            opened.is_retained = path in paths
            self._close_unused(path)

    def stop(self) -> None:
        """Close all sockets."""
        for opened in self._sockets.values():
            self._shut(opened)
        self._sockets.clear()
        self._observer = None

    # --- for a tunnel in UDP -----------------------------------------------------------------------------------------

    def lease(self, path: Path, home_agent: IPv4Address) -> Channel:
        """The socket of this path's registrations, kept open until it is released; LinkError if there is none."""
        opened = self._sockets.get(path)
        if opened is None or opened.receiver is None:
            raise LinkError(
                f"opening a tunnel in UDP from {path.source}", "no registration was sent from there"
            )
        opened.leases += 1
        return Channel(opened, home_agent)

    def release(self, path: Path) -> None:
        """The tunnel needs the socket no more."""
        opened = self._sockets.get(path)
        if opened is not None and opened.leases > 0:
            opened.leases -= 1
            self._close_unused(path)

    # --- opening and closing -----------------------------------------------------------------------------------------

    def _open(self, path: Path, opened: _Opened) -> None:
        loop = asyncio.get_running_loop()
        action = f"opening a registration socket from {path.source}"
        link = self._tunnel_index(path) if isinstance(path, VpnPath) else path.link_index
        try:
            receiver = _open_locked(path, link, port=0)
            try:
                receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
                if isinstance(path, AgentPath):
                    _open_frames(path, opened)
            except OSError:
                receiver.close()
                raise
        except OSError as error:
            raise _refusal(action, error) from error
        opened.receiver = receiver
        loop.add_reader(receiver, self._take, path, receiver)
        if opened.leases:
            self.on_new_port()
        if isinstance(path, ClearPath | VpnPath):
            # The request is not to wait for it.
            loop.call_soon(self._prick_ears, path, opened, link)

    def _prick_ears(self, path: ClearPath | VpnPath, opened: _Opened, link: int) -> None:
        if opened.receiver is None or opened.ears is not None:
            return
        try:
            opened.ears = _open_locked(path, link, port=REGISTRATION_PORT)
        except (OSError, AdapterError) as error:
            log.warning("revocations cannot be heard at %s: %s", path.source, error)
            return
        asyncio.get_running_loop().add_reader(opened.ears, self._hear, path, opened.ears)

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

    def _close_unused(self, path: Path) -> None:
        """Forget a path that nobody needs, or whose sockets could not be opened and no tunnel waits for."""
        opened = self._sockets[path]
        if not opened.leases and not (opened.is_retained and opened.receiver is not None):
            self._shut(opened)
            del self._sockets[path]

    def _shut(self, opened: _Opened) -> None:
        if opened.receiver is not None:
            asyncio.get_running_loop().remove_reader(opened.receiver)
            opened.receiver.close()
            opened.receiver = None
        if opened.ears is not None:
            asyncio.get_running_loop().remove_reader(opened.ears)
            opened.ears.close()
            opened.ears = None
        if opened.frames is not None:
            # Aside: the kernel takes 11 ms to close a packet socket.
            asyncio.get_running_loop().run_in_executor(None, opened.frames.close)
            opened.frames = None

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _take(self, path: Path, receiver: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                octets, ancillary, _, (host, port) = receiver.recvmsg(_LONGEST_DATA, ANCILLARY_OCTETS)
            except BlockingIOError:
                return
            except OSError:
                return  # an error about something sent earlier, or the link went down: nothing was received
            opened = self._sockets.get(path)
            if self._observer is None or opened is None or opened.receiver is not receiver:
                return
            if port != REGISTRATION_PORT:
                continue
            datagram = DatagramReceived(path, octets, IPv4Address(host), port, ingress_link(ancillary))
            if octets[:1] == _TUNNEL_DATA:
                self.on_tunnel_data(datagram, type_of_service(ancillary))
                if not _answers_keepalive(datagram):
                    continue
            if len(octets) <= _LONGEST:
                self._observer(datagram)

    def _hear(self, path: Path, ears: socket.socket) -> None:
        """Revocations alone: a reply counts only where its request was sent from."""
        for _ in range(_BATCH):
            try:
                octets, ancillary, _, (host, port) = ears.recvmsg(_LONGEST, ANCILLARY_OCTETS)
            except OSError:
                return
            if self._observer is not None and port == REGISTRATION_PORT and octets[:1] == _REVOCATION:
                self._observer(
                    DatagramReceived(path, octets, IPv4Address(host), port, ingress_link(ancillary))
                )


_REVOCATION: Final = bytes([REVOCATION_TYPE])
_TUNNEL_DATA: Final = bytes([TUNNEL_DATA_TYPE])


def _answers_keepalive(datagram: DatagramReceived) -> bool:
    """Whether tunnel data is an echo reply from the tunnel's other end. Whether it was asked for the core knows.

    An application's own ping to the home agent is answered the same way, so the tunnel gets these too.
    """
    try:
        data = decode_tunnel_data(datagram.octets)
        inner = gre.unwrap(data.payload) if data.kind == gre.PROTOCOL else data.payload
        if inner[_PROTOCOL_AT : _PROTOCOL_AT + 1] != _ICMP:
            return False
        echo = decode_echo(inner)
    except WireError:
        return False
    return echo.is_reply and echo.source == datagram.source


def _send(path: Path, opened: _Opened, destination: IPv4Address, *, octets: bytes, ttl: int) -> None:
    assert opened.receiver is not None
    if opened.frames is None:
        opened.receiver.sendmsg([octets], time_to_live(ttl), 0, (str(destination), REGISTRATION_PORT))
        return
    port = opened.receiver.getsockname()[1]
    packet = udp((path.source, port), (destination, REGISTRATION_PORT), octets, ttl=ttl)
    opened.frames.sendto(opened.header + packet, opened.by)


def _open_locked(path: Path, link: int, *, port: int) -> socket.socket:
    """A socket that only the path's own datagrams pass, out and in. Raises OSError, NotPermitted, Unavailable."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_REGISTRATION)
        made.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, link)
        made.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        made.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        # What is too long for the path is refused, and fragmented before it is tunnelled.
        made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        if not isinstance(path, VpnPath):
            _keep_out_of_ipsec(made)
        made.bind((str(path.source), port))
    except (OSError, AdapterError):
        made.close()
        raise
    return made


def _open_frames(path: AgentPath, opened: _Opened) -> None:
    """A socket that sends frames by the path's link, and hears nothing; and the header of those to the agent."""
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        frames.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_REGISTRATION)
        name = socket.if_indextoname(path.link_index)
        frames.bind((name, 0))
        _, _, _, kind, own = frames.getsockname()
        if kind == ARPHRD_ETHER:
            if len(path.hardware_address) != len(own):
                raise OSError(errno.EDESTADDRREQ, "the agent has no hardware address")
            opened.header = ethernet(path.hardware_address, own, ETHERTYPE_IPV4)
    except OSError:
        frames.close()
        raise
    opened.frames, opened.by = frames, (name, ETHERTYPE_IPV4)


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
