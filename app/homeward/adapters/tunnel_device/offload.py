# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP segments joined on their way into a TUN device, and cut on their way out of it.

A TUN device with offloads has a header in front of each packet (`struct virtio_net_hdr`), by which the kernel gives
many segments of one connection as one packet of up to 64 KB, and takes them so. It and the receiver's TCP then work
once for all of them, and few acknowledgements come back. What is in a tunnel stays as it was: one packet a segment.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

HEADER: Final = 10
"""Octets in front of each packet."""
IFF_VNET_HDR: Final = 0x4000
"""The flag by which a device is opened with this header."""

_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02

_FRONT: Final = struct.Struct(
    "=BBHHHH"
)  # flags, kind, header's length, segment's data, checksum's start and place
_PLAIN: Final = bytes(HEADER)
_NEEDS_CHECKSUM: Final = 1
_TCP_IN_IPV4, _KIND = 1, 0x7F

_LONGEST: Final = 0xFFFF
_MOST: Final = 64
_IP: Final = 20
_SHORTEST: Final = 40
_IP_WORDS: Final = struct.Struct("!5I")
_HEADERS: Final = {
    octets: struct.Struct(f"!2s4x4s2x12sI5sx2s2x{octets - 38}s") for octets in range(_SHORTEST, 81, 4)
}
"""Of IPv4 without options and TCP, by their length: what does not count on from segment to segment, and the sequence
number among it."""
_HALVED: Final = 736
_FOLDS: Final = tuple((bits, (1 << bits) - 1) for bits in (5888, 2944))
_TCP: Final = 6
_UDP_CHECKSUM: Final = 6
_ONLY_DONT_FRAGMENT: Final = b"\x40\x00"
_ACK, _PSH = 0x10, 0x08
_LAST_ONLY: Final = 0x09  # PSH and FIN
_FIRST_ONLY: Final = 0x80  # CWR


def set_offloads(fd: int, *, on: bool) -> None:
    """What the kernel may leave to us. Raises OSError.

    The device remembers it, and an earlier life may have set it otherwise: it is to be said at each opening.
    """
    fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 if on else 0)
    if on:
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("=i", HEADER))


# --- out of the device -----------------------------------------------------------------------------------------------


def read_packets(fd: int) -> Sequence[bytes]:
    """What comes next from the device, as the packets that a link would carry. Raises OSErrors, BlockingIOError."""
    read = os.read(fd, HEADER + _LONGEST)
    flags, kind, _, size, start, place = _FRONT.unpack_from(read)
    packet = read[HEADER:]
    if kind & _KIND == _TCP_IN_IPV4:
        return tuple(cut(packet, size))
    return (_finished(packet, start, place) if flags & _NEEDS_CHECKSUM else packet,)


def cut(packet: bytes, size: int) -> Iterator[bytes]:
    """The segments with `size` octets of data each in a TCP packet whose checksum was left to us.

    As the kernel does it: PSH and FIN stay with the last, CWR with the first, and Identification counts on. Nothing
    comes of a packet that is no such one.
    """
    start = (packet[0] & 0x0F) * 4 if packet else 0
    if start < _IP or len(packet) < start + 20 or not size:
        return
    header = (packet[start + 12] >> 4) * 4
    data = start + header
    if header < 20 or len(packet) < data:
        return
    front, middle, ports = packet[:2], packet[6:10], packet[12 : start + 4]
    ack, window, rest = (
        packet[start + 8 : start + 13],
        packet[start + 14 : start + 16],
        packet[start + 18 : data],
    )
    number = int.from_bytes(packet[4:6], "big")
    sequence = int.from_bytes(packet[start + 4 : start + 8], "big")
    flags = packet[start + 13]
    segment = struct.Struct(f"!2sHH4sH{start - 8}sI5sB2sH{header - 18}s")
    # Sums are taken modulo 65,535, where 65,536 is one: so it does not matter how many words a number has.
    of_ip = _number(front + b"\0\0\0\0" + middle + b"\0\0" + packet[12:start])
    of_tcp = _number(packet[12:20]) + _TCP + header + _number(ports[-4:]) + _number(ack)
    of_tcp += _number(window) + _number(rest)
    for at in range(data, len(packet), size):
        part = packet[at : at + size]
        length = data + len(part)
        own = flags
        if at + size < len(packet):
            own &= ~_LAST_ONLY
        if at > data:
            own &= ~_FIRST_ONLY
        ip_sum = -(of_ip + length + number) % 0xFFFF
        tcp_sum = -(of_tcp + len(part) + sequence + own + _number(part)) % 0xFFFF
        yield (
            segment.pack(
                front, length, number, middle, ip_sum, ports, sequence, ack, own, window, tcp_sum, rest
            )
            + part
        )
        number = (number + 1) & 0xFFFF
        sequence = (sequence + size) & 0xFFFFFFFF


def _finished(packet: bytes, start: int, place: int) -> bytes:
    """The packet with its transport's checksum, where the kernel has left the pseudo-header's part."""
    at = start + place
    if len(packet) < at + 2:
        return packet
    whole = -_number(packet[start:]) % 0xFFFF
    if not whole and place == _UDP_CHECKSUM:
        whole = 0xFFFF  # in UDP, zero says that there is none
    return packet[:at] + whole.to_bytes(2, "big") + packet[at + 2 :]


# --- into the device -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Written:
    """How many packets the device took, how many octets they had, how many it refused, and why the last of these."""

    packets: int = 0
    octets: int = 0
    refused: int = 0
    error: OSError | None = None


def write_packet(fd: int, packet: bytes) -> None:
    """Give the device one packet. Raises OSError."""
    os.writev(fd, (_PLAIN, packet))


def write_packets(fd: int, packets: Sequence[bytes]) -> Written:
    """Give the device these packets in their order, and segments that follow each other in one."""
    written = Written()
    for run in runs(packets):
        try:
            os.writev(fd, joined(run) if len(run) > 1 else (_PLAIN, run[0]))
        except OSError as error:
            written.refused += len(run)
            written.error = error
        else:
            written.packets += len(run)
            written.octets += sum(map(len, run))
    return written


def runs(packets: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Neighbours that `joined` may make one packet of: TCP of one connection whose octets follow each other.

    Nothing but data and acknowledgement, no options of IP, no fragments, all headers alike but for what counts on,
    all checksums right (the kernel would make right what is joined). With Don't Fragment alone, since only then the
    Identification says nothing (RFC 6864 section 4.1).
    """
    run: list[bytes] = []
    alike: tuple[bytes, ...] = ()
    following, size, octets = -1, 0, 0
    for packet in packets:
        header = _joinable(packet)
        if not header:
            if run:
                yield run
                run = []
            yield [packet]
            continue
        service, place, ends, sequence, acknowledged, window, rest = _HEADERS[header].unpack_from(packet)
        own = service, place, ends, acknowledged, window, rest
        length = len(packet) - header
        if (
            run
            and sequence == following
            and own == alike
            and length <= size
            and octets + length <= _LONGEST
            and len(run) < _MOST
        ):
            run.append(packet)
            octets += length
        else:
            if run:
                yield run
            run = [packet]
            alike, size, octets = own, length, len(packet)
        following = (sequence + length) & 0xFFFFFFFF
        if length < size or packet[33] & _PSH:  # both only the last one may have
            yield run
            run = []
    if run:
        yield run


def joined(run: Sequence[bytes]) -> list[bytes]:
    """What is to be written for segments of one of `runs`, header included."""
    first = run[0]
    header = _IP + (first[32] >> 4) * 4
    length = len(first) + sum(map(len, run[1:])) - header * (len(run) - 1)
    size = len(first) - header
    front = first[:2] + length.to_bytes(2, "big") + first[4:10] + b"\0\0" + first[12:20]
    ip_sum = -_number(front) % 0xFFFF
    # What is left to the kernel has the pseudo-header's sum in its place.
    tcp_sum = (_number(first[12:20]) + _TCP + length - _IP) % 0xFFFF
    return [
        _FRONT.pack(_NEEDS_CHECKSUM, _TCP_IN_IPV4, header, size, _IP, 16),
        b"".join(
            (
                front[:10], ip_sum.to_bytes(2, "big"), first[12:33], run[-1][33:34], first[34:36],
                tcp_sum.to_bytes(2, "big"), first[38:],
            )
        ),
        *(each[header:] for each in run[1:]),
    ]  # fmt: skip


def _joinable(packet: bytes) -> int:
    """The length of both headers if this packet may have others joined to it, otherwise 0."""
    if len(packet) <= _SHORTEST or packet[0] != 0x45 or packet[9] != _TCP or packet[33] & ~_PSH != _ACK:
        return 0
    header = _IP + (packet[32] >> 4) * 4
    if packet[6:8] != _ONLY_DONT_FRAGMENT or not _SHORTEST <= header < len(packet):
        return 0
    if packet[2] << 8 | packet[3] != len(packet):
        return 0
    if sum(_IP_WORDS.unpack_from(packet)) % 0xFFFF:
        return 0
    # A right IP header adds nothing: with the addresses, the protocol and the length the rest is what TCP's checksum
    # is made of. But a wrong one could make up for what is wrong behind it, so it was asked for by itself.
    whole = _number(packet) + int.from_bytes(packet[12:20], "big") + _TCP + len(packet) - _IP
    return header if whole % 0xFFFF == 0 else 0


def _number(octets: bytes) -> int:
    """A number that is, modulo 65,535, the sum of these octets' 16-bit words (RFC 1071)."""
    number = int.from_bytes(octets, "big")
    if len(octets) > _HALVED:  # laying it upon itself is sooner done than dividing it
        for bits, mask in _FOLDS:
            number = (number >> bits) + (number & mask)
    return number << 8 if len(octets) & 1 else number
