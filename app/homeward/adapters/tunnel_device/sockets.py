# SPDX-License-Identifier: GPL-2.0-or-later
"""A TUN device, and the sockets by which its packets leave: what the kernel has to be told about each."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.tunnel_device.offload import IFF_VNET_HDR, set_offloads
from homeward.model.errors import NotPermitted, PlanError, Unavailable
from homeward.wire import ip_in_ip
from homeward.wire.socket_options import (
    ANCILLARY_OCTETS,
    IP_PKTINFO,
    IP_XFRM_POLICY,
    SO_BINDTOIFINDEX,
    SO_RCVBUFFORCE,
    PolicyDirection,
    allow_without_ipsec,
    ingress_link,
)

LONGEST: Final = 0xFFFF
"""Octets that an IPv4 packet can have."""

_RECEIVE_BUFFER: Final = 4 << 20  # some thousand packets: TCP would take the loss of them for a narrow path

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_SIOCGIFMTU = 0x8921
_SIOCSIFMTU = 0x8922


def open_tun(name: str, *, offload: bool = False) -> int:
    """A file descriptor of the persistent TUN device of that name, made if it is not there; non-blocking.

    With `offload` each packet has the header that `offload` knows; without, none. How an earlier life had opened the
    device does not matter: the kernel takes both, the header and what it may leave to us, from who opens it last.

    Raises Unavailable without a TUN driver, NotPermitted, and PlanError (EBUSY) while another program holds it.
    """
    action = f"opening the TUN device {name}"
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(action, error) from error
    try:
        flags = _IFF_TUN | _IFF_NO_PI | (IFF_VNET_HDR if offload else 0)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        set_offloads(fd, on=offload)
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


def link_mtu(index: int) -> int:
    """The MTU of the link with this index, LONGEST when it is gone."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            request = struct.pack("16si20x", socket.if_indextoname(index).encode(), 0)
            return int(struct.unpack("16si20x", fcntl.ioctl(asker, _SIOCGIFMTU, request))[1])
    except OSError:
        return LONGEST


def open_tunnel_socket(
    source: IPv4Address | None,
    *,
    far_end: IPv4Address | None = None,
    device: int | None = None,
    mark: int = 0,
    whole: bool = True,
    protocol: int = ip_in_ip.PROTOCOL,
) -> socket.socket:
    """A raw socket for a tunnel, non-blocking, telling the ingress link of each packet. Raises OSError.

    With `far_end` the kernel passes only packets from there, and keeps the path MTU towards it; with `device` (an
    interface index) only packets in and out of that device. With `whole` what is sent has its outer header already
    (`ip_in_ip.encapsulate`); without, the kernel builds it. Either way it refuses to send once `source` is no address
    of ours.

    On a link that merges received packets (GRO), TCP inside IP-in-IP arrives here with unfinished checksums: switch
    it off there.
    """
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, int(whole))
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ip_in_ip.TUNNEL_TTL)
        raw.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        _enlarge(raw)
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


def _enlarge(raw: socket.socket) -> None:
    """Have room for what comes while the process is busy, past the machine's limit where we may."""
    try:
        raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


def receive_packet(raw: socket.socket) -> tuple[bytes, int]:
    """The next whole packet from a socket of `open_tunnel_socket` and the index of the link it came in on.

    Raises BlockingIOError when there is none, other OSErrors as the kernel reports them.
    """
    packet, ancillary, _, _ = raw.recvmsg(LONGEST, ANCILLARY_OCTETS)
    return packet, ingress_link(ancillary)


def keep_out_of_ipsec(opened: socket.socket) -> None:
    """A path that was proved in clear: another VPN's policy must not lead its packets elsewhere. Raises Unavailable,
    with the socket closed."""
    for direction in PolicyDirection:
        try:
            opened.setsockopt(socket.IPPROTO_IP, IP_XFRM_POLICY, allow_without_ipsec(direction))
        except OSError as error:
            opened.close()
            raise Unavailable("keeping the tunnel out of IPsec", error.errno or 0) from error


def _refusal(action: str, error: OSError) -> PlanError | NotPermitted | Unavailable:
    """The error of ours that a refused device means."""
    code = error.errno or 0
    if code in (errno.EPERM, errno.EACCES):
        return NotPermitted(action, code)
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return Unavailable(action, code)
    return PlanError(action, code)
