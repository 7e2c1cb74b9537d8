# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole packets through Wireshark's dissectors: every field of every layer, and every complaint."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from xml.etree import ElementTree

from homeward.wire.internet_checksum import checksum, put

TSHARK = shutil.which("tshark")

MOBILE_NODE = IPv4Address("10.2.3.77")
AGENT = IPv4Address("10.1.0.1")
ALL_SYSTEMS = IPv4Address("224.0.0.1")
ALL_ROUTERS = IPv4Address("224.0.0.2")
_LINKTYPE_RAW_IP = 101


@dataclass(frozen=True)
class Dissection:
    """One packet: its layers in order, (field, value as octets) in order, and what Wireshark finds wrong."""

    layers: list[str]
    fields: list[tuple[str, str]]
    complaints: list[str]

    def values(self, name: str) -> list[str]:
        return [octets for field, octets in self.fields if field == name]


def ipv4(payload: bytes, protocol: int, *, ttl: int = 64, to: IPv4Address = AGENT) -> bytes:
    """An IPv4 packet from the mobile node to the agent, or to somebody else."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0)
    return put(header + MOBILE_NODE.packed + to.packed, 10) + payload


def udp_434(payload: bytes) -> bytes:
    """A UDP packet from port 40434 to port 434, its checksum right."""
    size = 8 + len(payload)
    pseudo = MOBILE_NODE.packed + AGENT.packed + struct.pack("!BBH", 0, 17, size)
    unsigned = struct.pack("!HHHH", 40434, 434, size, 0) + payload
    total = checksum(pseudo + unsigned) or 0xFFFF
    return ipv4(unsigned[:6] + total.to_bytes(2, "big") + unsigned[8:], 17)


def dissect(packets: list[bytes], room: Path) -> list[Dissection]:
    """What tshark sees in these IPv4 packets, checksums verified."""
    assert TSHARK is not None
    parts = [struct.pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0xFFFF, _LINKTYPE_RAW_IP)]
    for second, packet in enumerate(packets):
        parts += [struct.pack("!IIII", second, 0, len(packet), len(packet)), packet]
    file = room / "packets.pcap"
    file.write_bytes(b"".join(parts))
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", "HOME": str(room)}
    verify = ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    command = [TSHARK, "-n", *verify, "-r", str(file), "-T", "pdml"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=50, check=True)
    root = ElementTree.fromstring(done.stdout)  # noqa: S314 - written by the tool just run
    return [_read(packet) for packet in root.findall("packet")]


def _read(packet: ElementTree.Element) -> Dissection:
    protocols = [one.get("name", "") for one in packet.findall("proto")]
    fields, complaints = [], []
    for element in packet.iter():
        name = element.get("name", "")
        if name in ("_ws.expert.message", "_ws.malformed") or name.endswith("not_dissected"):
            complaints.append(f"{name}: {element.get('showname') or element.get('show')}")
        octets = element.get("unmaskedvalue") or element.get("value")
        if element.tag == "field" and octets:
            fields.append((name, octets))
    return Dissection([one for one in protocols if one not in ("geninfo", "frame")], fields, complaints)
