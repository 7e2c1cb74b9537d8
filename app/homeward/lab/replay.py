# SPDX-License-Identifier: GPL-2.0-or-later
"""Registration Requests as somebody inside recorded them at the home agent, and sends them again."""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from homeward.lab.host import Host, program
from homeward.lab.state import LabState
from homeward.lab.topology import AGENT, AGENT_ADDRESS

_RECORDER: Final = "inside"
_FROM: Final = "trust2"
_ETHERNET: Final = 14
_UDP: Final = 17
_PORT: Final = 434
_REQUEST: Final = 1
_REPLY: Final = 3


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request: when it came by (Unix time), and the whole IP packet; or one reply, with its code."""

    at: float
    packet: bytes
    mark: bytes
    """The low half of its Identification, by which a reply names its request (RFC 5944 section 5.7.1)."""
    code: int | None = None


def recorded_requests(state: LabState) -> list[Recorded]:
    """All requests to the home agent that the running capture at its inside link has seen whole."""
    return [each for each in _recorded(state) if each.code is None]


def recorded_replies(state: LabState, since: float) -> list[Recorded]:
    """All of the home agent's replies there since that moment (Unix time)."""
    return [each for each in _recorded(state) if each.code is not None and each.at >= since]


def _recorded(state: LabState) -> list[Recorded]:
    capture = state.run(AGENT) / "capture" / f"{_RECORDER}.pcap"
    return list(_messages(capture.read_bytes())) if capture.exists() else []


def _messages(octets: bytes) -> Iterator[Recorded]:
    """Of a capture in tcpdump's own form, microseconds and this machine's order of octets; its end may be cut off."""
    offset = 24
    while offset + 16 <= len(octets):
        seconds, micros, kept, length = struct.unpack_from("=IIII", octets, offset)
        frame = octets[offset + 16 : offset + 16 + kept]
        offset += 16 + kept
        packet = frame[_ETHERNET:]
        if kept < length or len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != _UDP:
            continue
        (total,) = struct.unpack_from("!H", packet, 2)
        header = (packet[0] & 0xF) * 4
        message, at = packet[header + 8 : total], seconds + micros / 1e6
        source_port, port = struct.unpack_from("!HH", packet, header)
        if packet[16:20] == AGENT_ADDRESS.packed and port == _PORT and message[:1] == bytes((_REQUEST,)):
            yield Recorded(at, packet[:total], message[20:24])
        elif (
            packet[12:16] == AGENT_ADDRESS.packed and source_port == _PORT and message[:1] == bytes((_REPLY,))
        ):
            yield Recorded(at, packet[:total], message[16:20], message[1])


def play_again(state: LabState, requests: Sequence[Recorded]) -> None:
    """Send each once more, octet by octet as it was, its sender's address included, from another host inside."""
    lines = json.dumps([each.packet.hex() for each in requests])
    Host(state, _FROM).run(*program("send_packets.py"), text=lines)
