# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine `ipip` rests on: a kernel's `ipip` device to which each packet brings its ends along.

The other end is the kernel's `ipip` device as an administrator makes it, with fixed ends: it decides what is in order.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from homeward.adapters.kernel_tunnels import Carrier, Ends, KernelTunnels
from homeward.adapters.kernel_tunnels.netlink import CREATE, NESTED, REPLACE, Netlink, attribute, number, text
from homeward.adapters.tunnel_device import open_tun, set_mtu
from homeward.model.names import HOME_DEVICE, MARK_TUNNEL
from homeward.model.tunnel_engine import TunnelEngine
from homeward.wire.socket_options import IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_DONT
from tests.kernel.inside.cable import Cable
from tests.world.namespaces import cable
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, Stations, eventually

MTU = 1480
FORWARDED = IPv4Address("10.9.9.9")
STRANGER = IPv4Address("10.1.1.66")
PORT = 9
IP_FREEBIND = 15
TUN, NO_PACKET_INFORMATION, VIRTUAL_HEADER = 0x0001, 0x1000, 0x4000
SET_INTERFACE, SET_OFFLOAD, CHECKSUM_AND_SEGMENTS = 0x400454CA, 0x400454D0, 0x01 | 0x02
COUNTERS = f"""
    table inet count {{
        chain output {{
            type filter hook output priority 0
            ip protocol 4 counter
            ip protocol 4 meta mark {MARK_TUNNEL} counter
        }}
        chain postrouting {{
            type filter hook postrouting priority 0
            ip protocol 4 counter
            ip protocol 4 meta mark {MARK_TUNNEL} oifname eth0 counter
        }}
    }}
    table netdev count {{
        chain egress {{
            type filter hook egress device eth0 priority 0
            ip protocol 4 counter
            ip protocol 4 meta mark {MARK_TUNNEL} counter
        }}
    }}
"""


@pytest.fixture
def stations() -> Iterator[Stations]:
    with Stations() as made:
        made.agent.batch(
            f"link add tunnel type ipip local {AGENT} remote {CARE_OF}",
            "link set tunnel up",
            f"route add {HOME}/32 dev tunnel src {PEER}",
        )
        yield made


@pytest.fixture
def device(stations: Stations) -> Iterator[int]:
    """A TUN device with the home address; what nobody reads from it is lost."""
    made = open_tun(HOME_DEVICE)
    set_mtu(HOME_DEVICE, MTU)
    stations.laptop.batch(f"addr add {HOME}/32 dev {HOME_DEVICE}", f"link set {HOME_DEVICE} up")
    stations.laptop.sysctl(f"ipv6/conf/{HOME_DEVICE}/disable_ipv6", "1")
    yield made
    os.close(made)


@pytest.fixture
async def tunnels(stations: Stations, device: int) -> AsyncIterator[KernelTunnels]:
    """The fast path of that device, open to the home agent."""
    index = socket.if_nametoindex(HOME_DEVICE)
    made = KernelTunnels()
    made.open(index)
    lead_into(PEER, index, made.route_program)
    made.watch(stations.link)
    made.lead(HOME, ends(stations), room=MTU, mark=MARK_TUNNEL)
    made.admit(HOME, ends(stations))
    yield made
    made.remove()


def ends(stations: Stations) -> Ends:
    return Ends(AGENT, CARE_OF, Carrier.IPIP, link=stations.link)


def lead_into(destination: IPv4Address, device: int, program: int) -> None:
    """A route through the program (`ip route replace ... encap bpf xmit`, include/uapi/linux/lwtunnel.h)."""
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 254, 4, 253, 1, 0)
    body += attribute(1, destination.packed) + number(4, device) + attribute(7, HOME.packed)
    transmit = attribute(3 | NESTED, number(1, program) + text(2, "test"))
    body += attribute(22 | NESTED, transmit) + attribute(21, struct.pack("=H", 6))
    netlink = Netlink()
    netlink.ask("putting a route", 24, body, flags=CREATE | REPLACE)
    netlink.close()


@pytest.fixture
def application(stations: Stations) -> Iterator[socket.socket]:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    made.bind((str(HOME), PORT))
    yield made
    made.close()


@pytest.fixture
def peer(stations: Stations) -> Iterator[socket.socket]:
    made = stations.udp(PEER, PORT)
    yield made
    made.close()


def came(receiver: socket.socket) -> bytes | None:
    try:
        return receiver.recv(0xFFFF)
    except BlockingIOError:
        return None


def seen(stations: Stations) -> list[int]:
    """What the counters say, in their order."""
    listed = stations.laptop.run("nft", "list", "ruleset")
    return [int(line.split("packets")[1].split()[0]) for line in listed.splitlines() if "packets" in line]


async def test_the_kernels_own_tunnel_understands_us_and_we_it(
    tunnels: KernelTunnels, application: socket.socket, peer: socket.socket
) -> None:
    assert tunnels.engine_for(Carrier.IPIP) is TunnelEngine.IPIP
    application.sendto(b"out", (str(PEER), PORT))
    assert await eventually(lambda: came(peer)) == b"out"
    peer.sendto(b"in", (str(HOME), PORT))
    assert await eventually(lambda: came(application)) == b"in"
    outgoing = Cable()
    for discover, flags in ((IP_PMTUDISC_DO, "DF"), (IP_PMTUDISC_DONT, "")):
        application.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
        application.sendto(b"out", (str(PEER), PORT))
        assert await eventually(lambda: came(peer)) == b"out"
        (outer,) = [packet for packet in outgoing.left() if packet.proto == socket.IPPROTO_IPIP]
        assert str(outer.flags) == str(outer.payload.flags) == flags
    outgoing.close()


async def test_every_hook_of_the_firewall_sees_the_outer_packet_with_our_mark(
    stations: Stations, tunnels: KernelTunnels, application: socket.socket, peer: socket.socket
) -> None:
    stations.laptop.run("nft", "-f", "-", stdin=COUNTERS)
    application.sendto(b"out", (str(PEER), PORT))
    await eventually(lambda: came(peer))
    assert seen(stations) == [1] * 6


@pytest.mark.parametrize("hook", ["inet output", "inet postrouting", "netdev egress"])
async def test_what_the_firewall_drops_is_no_error_for_the_application(
    stations: Stations, tunnels: KernelTunnels, application: socket.socket, peer: socket.socket, hook: str
) -> None:
    family, name = hook.split()
    where = 'device "eth0"' if family == "netdev" else ""
    chain = f"chain c {{ type filter hook {name} {where} priority 0; ip protocol 4 drop; }}"
    stations.laptop.run("nft", "-f", "-", stdin=f"table {family} t {{\n{chain}\n}}")
    outgoing = Cable()
    for _ in range(3):
        application.sendto(b"out", (str(PEER), PORT))
    stations.laptop.run("nft", "delete", "table", family, "t")
    application.sendto(b"last", (str(PEER), PORT))
    assert await eventually(lambda: came(peer)) == b"last"
    outgoing.close()


async def test_the_outer_packet_takes_the_route_of_our_mark(
    stations: Stations, tunnels: KernelTunnels, application: socket.socket, peer: socket.socket
) -> None:
    cable(stations.laptop, "eth1", stations.agent, "lan1")
    stations.laptop.batch(
        "addr add 10.1.2.10/24 dev eth1",
        f"rule add fwmark {MARK_TUNNEL} lookup 77 pref 100",
        f"route add {AGENT} via 10.1.2.1 dev eth1 table 77",
    )
    stations.agent.ip("addr add 10.1.2.1/24 dev lan1")
    first, second = Cable("eth0"), Cable("eth1")
    application.sendto(b"out", (str(PEER), PORT))
    assert await eventually(lambda: came(peer)) == b"out"
    (packet,) = [packet for packet in second.left() if packet.proto == socket.IPPROTO_IPIP]
    assert (packet.src, packet.dst) == (str(CARE_OF), str(AGENT))
    assert not [packet for packet in first.left() if packet.proto == socket.IPPROTO_IPIP]
    first.close()
    second.close()


# --- what nobody agreed on ---


def forged(source: IPv4Address, word: bytes) -> bytes:
    inner = IP(src=str(PEER), dst=str(HOME)) / UDP(sport=PORT, dport=PORT) / Raw(word)
    return bytes(IP(src=str(source), dst=str(CARE_OF), proto=4) / inner)


def send_forged(stations: Stations, source: IPv4Address, word: bytes) -> None:
    with stations.agent:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        raw.sendto(forged(source, word), (str(CARE_OF), 0))


async def test_the_bare_device_takes_from_anybody(
    stations: Stations, device: int, application: socket.socket
) -> None:
    """The attack works, where nobody shuts the device."""
    stations.laptop.batch("link add bare type ipip external", "link set bare up")
    send_forged(stations, STRANGER, b"forged")
    assert await eventually(lambda: came(application)) == b"forged"


async def test_nothing_comes_in_by_the_device(
    stations: Stations, tunnels: KernelTunnels, application: socket.socket, peer: socket.socket
) -> None:
    send_forged(stations, STRANGER, b"forged")
    peer.sendto(b"in", (str(HOME), PORT))
    assert await eventually(lambda: came(application)) == b"in"
    assert came(application) is None


async def test_nothing_comes_in_by_the_device_from_the_home_agent_either_while_packets_are_held(
    stations: Stations, tunnels: KernelTunnels, application: socket.socket, peer: socket.socket
) -> None:
    tunnels.refuse(HOME, ends(stations))
    peer.sendto(b"held", (str(HOME), PORT))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as plain:
        plain.bind((str(CARE_OF), PORT + 1))
        peer.sendto(b"behind it", (str(CARE_OF), PORT + 1))
        assert await eventually(lambda: came(plain)) == b"behind it"
    assert came(application) is None
    tunnels.admit(HOME, ends(stations))
    peer.sendto(b"again", (str(HOME), PORT))
    assert await eventually(lambda: came(application)) == b"again"


async def test_there_is_one_such_device_and_another_programs_is_left_alone(
    stations: Stations, device: int
) -> None:
    stations.laptop.ip("link add theirs type ipip external")
    tunnels = KernelTunnels()
    tunnels.open(socket.if_nametoindex(HOME_DEVICE))
    assert tunnels.engine_for(Carrier.IPIP) is TunnelEngine.TUN
    assert tunnels.engine_for(Carrier.UDP) is TunnelEngine.BPF
    tunnels.remove()
    assert "theirs" in stations.laptop.ip("link show type ipip")


# --- long packets ---


class Gateway:
    """A TUN device whose packets the laptop forwards; it can give the kernel many segments as one."""

    def __init__(self, stations: Stations) -> None:
        self._descriptor = os.open("/dev/net/tun", os.O_RDWR)
        flags = TUN | NO_PACKET_INFORMATION | VIRTUAL_HEADER
        fcntl.ioctl(self._descriptor, SET_INTERFACE, struct.pack("16sH22x", b"lan", flags))
        fcntl.ioctl(self._descriptor, SET_OFFLOAD, CHECKSUM_AND_SEGMENTS)
        stations.laptop.batch("link set lan mtu 65535 up", "addr add 10.9.9.1/24 dev lan")
        stations.laptop.sysctl("ipv4/ip_forward", "1")

    def send(self, total: int, segment: int) -> None:
        """So many octets of IPv4 as one, of which each segment has so many of data."""
        packet = IP(src=str(FORWARDED), dst=str(PEER), flags="DF") / TCP(sport=1, dport=2, flags="A", seq=1)
        octets = bytearray(bytes(packet / Raw(bytes(total - 40))))
        # The checksum so far is that of the pseudo header; the kernel completes it in every segment.
        pseudo = struct.pack("!4s4sBBH", octets[12:16], octets[16:20], 0, 6, total - 20)
        words = sum(struct.unpack("!6H", pseudo))
        octets[36:38] = ((words & 0xFFFF) + (words >> 16)).to_bytes(2, "big")
        os.write(self._descriptor, struct.pack("=BBHHHH", 1, 1, 40, segment, 20, 16) + octets)

    def close(self) -> None:
        os.close(self._descriptor)


def data_in(packet: bytes) -> int:
    """Octets of data of a segment that was forwarded, 0 for others."""
    found = IP(packet)
    return found.len - 40 if found.src == str(FORWARDED) else 0


@pytest.mark.parametrize("total", [30_000, 65_499])
async def test_merged_segments_pass(stations: Stations, tunnels: KernelTunnels, total: int) -> None:
    with stations.agent:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        heard = socket.socket(socket.AF_PACKET, kind, socket.htons(0x0800))
        heard.bind(("tunnel", 0x0800))
    tunnels.lead(FORWARDED, ends(stations), room=MTU, mark=MARK_TUNNEL)
    gateway = Gateway(stations)
    gateway.send(total, 1400)
    assert data_in(await eventually(lambda: came(heard))) == total - 40
    gateway.close()
    heard.close()


async def test_those_that_are_too_long_with_our_header_go_the_slow_path(
    stations: Stations, tunnels: KernelTunnels, device: int
) -> None:
    tunnels.lead(FORWARDED, ends(stations), room=MTU, mark=MARK_TUNNEL)
    gateway = Gateway(stations)
    gateway.send(65_535, 1400)
    read = 0
    while read < 65_535 - 40:
        read += data_in(await eventually(lambda: taken(device)))
    assert read == 65_535 - 40
    gateway.close()


def taken(device: int) -> bytes | None:
    """The next IPv4 packet that came out of the TUN device."""
    try:
        packet = os.read(device, 0xFFFF)
    except BlockingIOError:
        return None
    return packet if packet[0] >> 4 == 4 else taken(device)
