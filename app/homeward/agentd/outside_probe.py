# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody outside, without any secret, gets out of a home agent's address (RFC 5265 section 4.3, R-61, R-94)."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.model.errors import LinkError, WireError
from homeward.model.names import REGISTRATION_PORT
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.secret import Secret
from homeward.wire import registration
from homeward.wire.identification import from_time

NOBODY: Final = IPv4Address("192.0.2.1")
"""Of a block for documentation (RFC 5737)."""
REQUESTS: Final = 3

_IP_RECVERR: Final = 11
_MSG_ERRQUEUE: Final = 0x2000
_IP_IN_IP: Final = 4
_LOCAL, _ICMP = 1, 2  # SO_EE_ORIGIN_
_EXTENDED: Final = struct.Struct("=IBBBxII")
_NO_WAY: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN)


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that came back. `what` is "reply" or "icmp"; `code` a reply's, or that of the ICMP `kind`."""

    what: str
    sender: str
    about: str
    code: int | None = None
    kind: int | None = None
    vouches: bool = False


@dataclass(frozen=True, slots=True)
class Probed:
    """What was sent and what came back for it."""

    sent: int
    tunnel_packets: int
    source: str
    heard: tuple[Heard, ...]


def probe(address: IPv4Address, *, home_address: IPv4Address = NOBODY, seconds: float) -> Probed:
    """Ask and listen. LinkError where nothing could be sent: then nothing is proved."""
    heard: list[Heard] = []
    requests = _open(socket.SOCK_DGRAM, 0, address)
    try:
        packets = _open(socket.SOCK_RAW, _IP_IN_IP, address)
    except PermissionError:
        packets = None
    try:
        source = requests.getsockname()[0]
        end = time.monotonic() + seconds
        sent = tunnelled = 0
        for number in range(REQUESTS):
            sent += _send(requests, _request(address, IPv4Address(source), home_address), address)
            if packets is not None:
                tunnelled += _send(packets, _inner_packet(), address)
            share = end - (REQUESTS - 1 - number) * seconds / REQUESTS
            _listen([each for each in (requests, packets) if each is not None], share, heard)
        return Probed(sent, tunnelled, source, tuple(dict.fromkeys(heard)))
    finally:
        requests.close()
        if packets is not None:
            packets.close()


def _open(kind: int, protocol: int, address: IPv4Address) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        made.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        made.connect((str(address), REGISTRATION_PORT if kind == socket.SOCK_DGRAM else 0))
    except OSError as error:
        made.close()
        if error.errno in _NO_WAY:
            raise LinkError(f"finding a way to {address}", error.errno or 0) from error
        raise
    return made


def _send(made: socket.socket, octets: bytes, address: IPv4Address) -> int:
    for _ in range(2):  # an error that is waiting is reported once, by the next call
        try:
            made.send(octets)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOBUFS):
                raise LinkError(f"sending to {address}", error.errno or 0) from error
        else:
            return 1
    return 0


def _listen(sockets: list[socket.socket], until: float, heard: list[Heard]) -> None:
    poll = select.poll()
    for each in sockets:
        poll.register(each, select.POLLIN)  # POLLERR comes by itself
    while (left := until - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            for each in sockets:
                if each.fileno() == number:
                    _take(each, heard)


def _take(made: socket.socket, heard: list[Heard]) -> None:
    about = "UDP 434" if made.type == socket.SOCK_DGRAM else "IP-in-IP"
    try:
        _, ancillary, _, _ = made.recvmsg(2048, 512, _MSG_ERRQUEUE)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR):
                _note_error(data, about, heard)
    except OSError:
        pass
    try:
        octets, sender = made.recvfrom(2048)
    except OSError:
        return
    heard.append(_reply(octets, sender[0], about))


def _note_error(data: bytes, about: str, heard: list[Heard]) -> None:
    _, origin, kind, code, _, _ = _EXTENDED.unpack_from(data)
    offender = str(IPv4Address(data[_EXTENDED.size + 4 : _EXTENDED.size + 8]))
    if origin == _ICMP:
        heard.append(Heard("icmp", offender, about, code, kind))
    elif origin == _LOCAL:
        heard.append(Heard("icmp", "this host", about, code, kind))


def _reply(octets: bytes, sender: str, about: str) -> Heard:
    try:
        message = registration.decode(octets).message
    except WireError:
        return Heard("reply", sender, about)
    if isinstance(message, RegistrationReply):
        return Heard("reply", sender, about, int(message.code), vouches=message.trusted_networks_configured)
    return Heard("reply", sender, about)


def _request(address: IPv4Address, source: IPv4Address, home_address: IPv4Address) -> bytes:
    """Well-formed in every way, under a key that nobody has."""
    nobodys = MobilitySecurityAssociation(
        Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(os.urandom(32))
    )
    asked = RegistrationRequest(
        60,
        home_address,
        home_agent=address,
        care_of_address=source,
        identification=from_time(time.time(), int.from_bytes(os.urandom(4), "big")),
        flags=RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL,
    )
    return registration.encode_request(asked, nobodys)


def _inner_packet() -> bytes:
    """A UDP packet between addresses that are nobody's: whoever takes it out of the tunnel has nobody to give it to."""
    payload = struct.pack("!HHHH", 9, 9, 8, 0)
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0, 64, 17, 0, NOBODY.packed, (NOBODY + 1).packed
    )
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:] + payload
