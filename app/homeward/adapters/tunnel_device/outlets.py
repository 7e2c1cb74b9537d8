# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways by which packets of the home address leave, one class each: how one is sent, and whose are taken.

Each opens its own sockets, bound to the link of its path, and judges by itself what comes in: only what the far end of
this very way may send, by the link that it leads along, in the encapsulation that was agreed on. By an agent and at
home nothing comes in here: there the kernel takes packets for the home address itself, as far as the fence allows.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final, Protocol, assert_never

from homeward.adapters.tunnel_device.sockets import (
    LONGEST,
    keep_out_of_ipsec,
    link_mtu,
    open_tunnel_socket,
    receive_packet,
)
from homeward.model.access import ClearPath, Path
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import LinkError, Unavailable, WireError
from homeward.model.inputs import DatagramReceived
from homeward.model.names import MARK_REGISTRATION, MARK_TUNNEL, REGISTRATION_PORT
from homeward.model.nat_traversal import TunnelData, TunnelKind
from homeward.model.overhead import inner_mtu, layer_of
from homeward.model.plan import AtHome, Tunnelled, ViaAgent
from homeward.wire import gre, ip_in_ip, minimal_encapsulation, udp_tunnel
from homeward.wire.internet_checksum import put
from homeward.wire.link_frames import ETHERTYPE_IPV4, ethernet
from homeward.wire.socket_options import (
    IP_MTU,
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DO,
    IP_PMTUDISC_DONT,
    SO_BINDTOIFINDEX,
)

Opened = Tunnelled | ViaAgent | AtHome
"""Traffic that flows."""

_DONT_FRAGMENT: Final = 0x40  # in the seventh octet of an IPv4 header
_PLACE: Final = 0x3FFF  # More Fragments, and the offset
_UDP_HEADER: Final = 8
_SOL_RAW, _ICMP_FILTER, _UNREACHABLE = 255, 1, 3
_ARPHRD_ETHER: Final = 1


class Channel(Protocol):
    """A socket that carries a tunnel in UDP to one home agent."""

    @property
    def port(self) -> int: ...
    def send(self, octets: bytes, service: int) -> None: ...


class Datagrams(Protocol):
    """The registration sockets, whose ports tunnels in UDP have to use (RFC 3519 section 4.4)."""

    def lease(self, path: Path, home_agent: IPv4Address) -> Channel: ...
    def release(self, path: Path) -> None: ...


class Outlet(ABC):
    """One way out. `way` is the traffic that it was opened for, whatever its MTU; `device` its link's index."""

    receivers: tuple[socket.socket, ...] = ()
    """Sockets to be read with `receive` when something has come."""
    speaker: IPv4Address | None = None
    """Who tells an application that its packet was too long; None: whoever it was sent to."""
    port: int = 0
    """The near end's port of a tunnel in UDP, 0 of all others."""

    def __init__(self, traffic: Opened, device: int) -> None:
        self.way = without_mtu(traffic)
        self.device = device

    @abstractmethod
    def send(self, inner: bytes) -> None:
        """Send one packet of the home address. Raises OSError, and a WireError for what cannot go this way."""

    def receive(self, receiver: socket.socket) -> bytes:
        """The next packet that came out of the tunnel.

        Raises BlockingIOError when there is none, other OSErrors, and a WireError for one that must be refused.
        """
        raise BlockingIOError

    def unwrap(self, packet: bytes) -> bytes:
        """The packet of the home address in one of this way's own tunnel packets; a WireError for anything else."""
        raise WireError("this way has no such packets")

    @abstractmethod
    def room(self) -> int:
        """The longest packet that the way takes, by what the kernel knows of it now, in octets."""

    @abstractmethod
    def close(self) -> None:
        """Give the sockets back; their readers are gone already."""


def without_mtu(traffic: Opened) -> Opened:
    """The way alone: an MTU that turns out different does not make another way of it."""
    return replace(traffic, mtu=0)


def open_outlet(
    traffic: Opened, device: int, home_address: IPv4Address, *, datagrams: Datagrams | None
) -> Outlet:
    """The way for this traffic by the link with this index; raises LinkError when it is not there, Unavailable when it
    could end in another VPN."""
    try:
        match traffic:
            case Tunnelled(udp=True):
                return UdpOutlet(traffic, device, datagrams)
            case Tunnelled(encapsulation=Encapsulation.MINIMAL):
                return MinimalOutlet(traffic, device)
            case Tunnelled():
                return RawOutlet(traffic, device)
            case ViaAgent():
                return AgentOutlet(traffic, device, home_address)
            case AtHome():
                return HomeOutlet(traffic, device)
            case _:
                assert_never(traffic)
    except OSError as error:
        raise LinkError(f"opening the way from {traffic.path.source}", error.errno or 0) from error


class RawOutlet(Outlet):
    """IP-in-IP or GRE to the home agent: a raw socket on which the kernel builds the outer headers (R-284)."""

    def __init__(self, traffic: Tunnelled, device: int) -> None:
        super().__init__(traffic, device)
        self.speaker = self._agent = traffic.home_agent
        self._source = traffic.path.source
        self._service = 0
        self._may_fragment: bool | None = None
        self._codec = gre if traffic.encapsulation is Encapsulation.GRE else ip_in_ip
        # The kernel builds the header: so not one packet leaves with an address that the link has lost meanwhile.
        self._raw = _open_raw(traffic, device, protocol=self._codec.PROTOCOL, whole=False)
        self.receivers = (self._raw,)

    def send(self, inner: bytes) -> None:
        """Tunnel one packet, its type of service and Don't Fragment copied outside."""
        if inner[1] != self._service:
            self._raw.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, inner[1])
            self._service = inner[1]
        may_fragment = not inner[6] & _DONT_FRAGMENT
        if may_fragment is not self._may_fragment:
            discover = IP_PMTUDISC_DONT if may_fragment else IP_PMTUDISC_DO
            self._raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
            self._may_fragment = may_fragment
        self._raw.send(inner if self._codec is ip_in_ip else gre.wrap(inner))

    def receive(self, receiver: socket.socket) -> bytes:
        """From the home agent alone (R-186)."""
        outer, link = receive_packet(receiver)
        if link != self.device:
            raise WireError("by another link")
        arrived = self._codec.decapsulate(outer)
        if not arrived.is_from(self._agent):
            raise WireError(f"from {arrived.source}")
        return arrived.inner

    def unwrap(self, packet: bytes) -> bytes:
        """Only IP-in-IP can have been sent by another than this."""
        inside = ip_in_ip.decapsulate(packet)
        if (inside.source, inside.destination) != (self._source, self._agent):
            raise WireError(f"from {inside.source} to {inside.destination}")
        return inside.inner

    def room(self) -> int:
        return _path_mtu(self._raw, self._agent) - self._codec.OVERHEAD

    def close(self) -> None:
        self._raw.close()


class MinimalOutlet(Outlet):
    """Minimal encapsulation to the home agent; fragments, which have no room in it, as IP-in-IP (RFC 2004 section 3,
    R-290), in both directions."""

    def __init__(self, traffic: Tunnelled, device: int) -> None:
        super().__init__(traffic, device)
        self.speaker = self._agent = traffic.home_agent
        self._source = traffic.path.source
        self._whole = _open_raw(traffic, device, protocol=minimal_encapsulation.PROTOCOL, whole=True)
        try:
            self._fragments = RawOutlet(replace(traffic, encapsulation=Encapsulation.IP_IN_IP), device)
        except (OSError, Unavailable):
            self._whole.close()
            raise
        self.receivers = (self._whole, *self._fragments.receivers)

    def send(self, inner: bytes) -> None:
        if _is_fragment(inner):
            self._fragments.send(inner)
        else:
            self._whole.send(minimal_encapsulation.encapsulate(inner, self._source, self._agent))

    def receive(self, receiver: socket.socket) -> bytes:
        """From the home agent alone, and IP-in-IP for fragments alone."""
        if receiver is not self._whole:
            inner = self._fragments.receive(receiver)
            if not _is_fragment(inner):
                raise WireError("minimal encapsulation was agreed on")
            return inner
        outer, link = receive_packet(receiver)
        if link != self.device:
            raise WireError("by another link")
        arrived = minimal_encapsulation.decapsulate(outer)
        if not arrived.is_from(self._agent):
            raise WireError(f"from {arrived.source}")
        return arrived.inner

    def room(self) -> int:
        return _path_mtu(self._whole, self._agent) - minimal_encapsulation.OVERHEAD

    def close(self) -> None:
        self._whole.close()
        self._fragments.close()


class UdpOutlet(Outlet):
    """MIP Tunnel Data to the home agent, by the socket of the path's registrations (RFC 3519).

    What comes in is handed to us by the owner of that socket, for `open_datagram`.
    """

    def __init__(self, traffic: Tunnelled, device: int, datagrams: Datagrams | None) -> None:
        super().__init__(traffic, device)
        if datagrams is None:
            raise Unavailable("opening a tunnel in UDP", "there are no registration sockets")
        self.speaker = self._agent = traffic.home_agent
        self._path = traffic.path
        self._kind = TunnelKind(traffic.encapsulation.protocol)
        self._layer = layer_of(traffic.encapsulation, udp=True)
        self._prefix = b""
        if self._kind is TunnelKind.IP_IN_IP:
            self._prefix = udp_tunnel.encode_tunnel_data(TunnelData(self._kind, b""))
        elif self._kind is not TunnelKind.GRE:
            raise Unavailable("opening a tunnel in UDP", f"it cannot carry {traffic.encapsulation.value}")
        self._datagrams = datagrams
        self._channel = datagrams.lease(traffic.path, traffic.home_agent)

    @property
    def port(self) -> int:  # type: ignore[override]
        """That of the registrations."""
        return self._channel.port

    def send(self, inner: bytes) -> None:
        octets = self._prefix + inner if self._prefix else udp_tunnel.wrap(inner, self._kind)
        self._channel.send(octets, inner[1])

    def open_datagram(self, datagram: DatagramReceived, service: int) -> bytes:
        """The packet inside, if the datagram is of this tunnel (R-231); a WireError if not."""
        came_from = (datagram.source, datagram.source_port)
        if came_from != (self._agent, REGISTRATION_PORT) or datagram.link_index != self.device:
            raise WireError(
                f"from {datagram.source}, port {datagram.source_port}, link {datagram.link_index}"
            )
        return udp_tunnel.unwrap(datagram.octets, self._kind, outer_tos=service)

    def unwrap(self, packet: bytes) -> bytes:
        octets = ip_in_ip.open_outer(packet, socket.IPPROTO_UDP)
        ports = self.port.to_bytes(2, "big") + REGISTRATION_PORT.to_bytes(2, "big")
        if (packet[12:20], octets[:4]) != (self._path.source.packed + self._agent.packed, ports):
            raise WireError("of another tunnel")
        return udp_tunnel.unwrap(octets[_UDP_HEADER:], self._kind)

    def room(self) -> int:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                # As the socket that has heard of it: the tunnel's own mark may have another route.
                asker.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_REGISTRATION)
                asker.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, self.device)
                asker.bind((str(self._path.source), 0))
                return inner_mtu(_path_mtu(asker, self._agent), (self._layer,))
        except OSError:
            return LONGEST

    def close(self) -> None:
        self._datagrams.release(self._path)


class AgentOutlet(Outlet):
    """In frames to the hardware address that the foreign agent advertised from: it is the default router, and nobody
    is asked for it by ARP (RFC 3024 section 5.1, R-181, R-217); on request inside IP-in-IP (section 5.2, R-218)."""

    def __init__(self, traffic: ViaAgent, device: int, home_address: IPv4Address) -> None:
        super().__init__(traffic, device)
        self.speaker = traffic.path.agent
        self._ends = (home_address, traffic.path.agent) if traffic.encapsulating else None
        self._number = 0
        frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._frames = frames
        try:
            frames.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_TUNNEL)
            name = socket.if_indextoname(device)
            frames.bind((name, 0))  # no protocol: it hears nothing
            _, _, _, kind, own = frames.getsockname()
            self._header = b""
            if kind == _ARPHRD_ETHER:
                if len(traffic.path.hardware_address) != len(own):
                    raise LinkError("sending to the foreign agent", "it has no hardware address")
                self._header = ethernet(traffic.path.hardware_address, own, ETHERTYPE_IPV4)
        except (OSError, LinkError):
            frames.close()
            raise
        self._by = (name, ETHERTYPE_IPV4)

    def send(self, inner: bytes) -> None:
        packet = inner if self._ends is None else self._encapsulated(inner, *self._ends)
        if self._header:
            self._frames.sendmsg([self._header, packet])
        else:
            self._frames.sendto(packet, self._by)

    def _encapsulated(self, inner: bytes, home_address: IPv4Address, agent: IPv4Address) -> bytes:
        # Past the kernel's own IP layer nobody else numbers the packet and sums its header up.
        outer = ip_in_ip.encapsulate(inner, home_address, agent)
        self._number = (self._number + 1) & 0xFFFF
        header = outer[:4] + self._number.to_bytes(2, "big") + outer[6 : ip_in_ip.OVERHEAD]
        return put(header, 10) + inner

    def room(self) -> int:
        return link_mtu(self.device) - (ip_in_ip.OVERHEAD if self._ends is not None else 0)

    def close(self) -> None:
        # Aside: the kernel takes 11 ms to close a packet socket, and this is in the middle of a hand-over.
        asyncio.get_running_loop().run_in_executor(None, self._frames.close)


class HomeOutlet(Outlet):
    """As they are onto the home link, where the kernel finds the neighbour (RFC 5944 section 4.2.1)."""

    def __init__(self, traffic: AtHome, device: int) -> None:
        super().__init__(traffic, device)
        self._raw = open_tunnel_socket(
            traffic.path.source, device=device, mark=MARK_TUNNEL, protocol=socket.IPPROTO_RAW
        )
        keep_out_of_ipsec(self._raw)

    def send(self, inner: bytes) -> None:
        self._raw.sendto(inner, (socket.inet_ntoa(ip_in_ip.inner_destination(inner)), 0))

    def room(self) -> int:
        return link_mtu(self.device)

    def close(self) -> None:
        self._raw.close()


def open_ears(path: Path, device: int) -> socket.socket:
    """A socket that hears what routers on this path say of packets that they could not pass on; raises as
    `open_outlet`. What they say is the kernel's to judge: this is no more than a wake-up."""
    ears = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
    try:
        ears.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << _UNREACHABLE)))
        ears.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, device)
    except OSError:
        ears.close()
        raise
    if isinstance(path, ClearPath):
        keep_out_of_ipsec(ears)
    return ears


def _open_raw(traffic: Tunnelled, device: int, *, protocol: int, whole: bool) -> socket.socket:
    """A raw socket for a tunnel along this path, and out of IPsec where the path is a clear one."""
    raw = open_tunnel_socket(
        traffic.path.source,
        far_end=traffic.home_agent,
        device=device,
        mark=MARK_TUNNEL,
        whole=whole,
        protocol=protocol,
    )
    if isinstance(traffic.path, ClearPath):
        keep_out_of_ipsec(raw)
    return raw


def _path_mtu(opened: socket.socket, far_end: IPv4Address) -> int:
    """What the kernel knows now of the path's MTU, in octets."""
    try:
        # The socket remembers the route of its connect(): only a new one knows what the path has told since.
        opened.connect((str(far_end), REGISTRATION_PORT))
        return opened.getsockopt(socket.IPPROTO_IP, IP_MTU)
    except OSError:  # the route is gone, and with it what was known
        return LONGEST


def _is_fragment(packet: bytes) -> bool:
    return bool(int.from_bytes(packet[6:8], "big") & _PLACE)
