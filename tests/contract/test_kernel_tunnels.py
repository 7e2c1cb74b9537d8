# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's fast path passes is a part of what the slow path would pass, and it passes it as it would.

Inwards, random damage is done to right packets, and each is shown to the very program and to the codec that the
process opens packets with. Outwards, the same odd packets are sent by each engine, and must leave alike.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.packet import Packet, Raw

from homeward.adapters.kernel_tunnels import Carrier, Ends, KernelTunnels
from homeward.adapters.tunnel_device import open_tun
from homeward.model.errors import WireError
from homeward.model.nat_traversal import TunnelKind
from homeward.model.tunnel_engine import TunnelEngine
from homeward.wire import ip_in_ip, udp_tunnel
from homeward.wire.internet_checksum import checksum, put
from homeward.wire.unfinished_checksum import finished
from tests.world.bpf_runs import run_at_ingress, run_on_route
from tests.world.stations import AGENT, CARE_OF, HOME, PEER, Stations
from tests.world.ways import BY_NAME, GRE_HEADER, TUNNEL_DATA, TUNNEL_DATA_GRE, Ways

pytestmark = pytest.mark.root

PORT = 40000
ROOM = 1480
REDIRECT, NEXT_FILTER, INTO_DEVICE = 7, 0xFFFFFFFF, 0
ETHERNET = 14
SHORTEST = 34  # what the kernel lets a program be tried with
KINDS = {Carrier.IPIP: None, Carrier.UDP: TunnelKind.IP_IN_IP, Carrier.GRE_IN_UDP: TunnelKind.GRE}
each_carrier = pytest.mark.parametrize("carrier", Carrier)


@dataclass
class Bench:
    """The program at a laptop's link, which admits one tunnel of each carrier."""

    program: int
    route_program: int
    link: int
    other_link: int
    hardware: bytes

    def fast(self, frame: bytes, link: int | None = None) -> bytes | None:
        """What comes in by the TUN device; None for what is left to the slow path."""
        seen = run_at_ingress(self.program, self.link if link is None else link, frame)
        if seen.verdict == NEXT_FILTER:
            assert seen.frame == frame, "what is left to others is left as it was"
            return None
        assert seen.verdict == REDIRECT
        return seen.frame[ETHERNET:]

    def slow(self, frame: bytes, carrier: Carrier) -> bytes | None:
        """What the kernel hands to the socket of this tunnel, and the process writes into the TUN device."""
        packet = _received(frame[ETHERNET:]) if frame[:6] == self.hardware else None
        if packet is None or frame[12:14] != b"\x08\x00" or packet[16:20] != CARE_OF.packed:
            return None
        try:
            if carrier is Carrier.IPIP:
                opened = ip_in_ip.decapsulate(packet)
                inner = opened.inner if opened.source == AGENT else b""
            else:
                inner = _out_of_udp(packet, carrier)
        except WireError:
            return None
        return inner if inner[16:20] == HOME.packed else None


def _out_of_udp(packet: bytes, carrier: Carrier) -> bytes:
    kind = KINDS[carrier]
    assert kind is not None
    octets = ip_in_ip.open_outer(packet, socket.IPPROTO_UDP)
    if len(octets) < 8 or packet[12:16] != AGENT.packed:
        raise WireError("no datagram of the home agent's")
    source, destination, length, summed = struct.unpack_from("!HHHH", octets)
    if (source, destination) != (434, PORT) or not 8 <= length <= len(octets):
        raise WireError("not for our socket")
    pseudo = packet[12:20] + struct.pack("!BBH", 0, 17, length)
    if summed and checksum(pseudo + octets[:length]):
        raise WireError("a wrong sum")
    return udp_tunnel.unwrap(octets[8:length], kind, outer_tos=packet[1])


def _received(packet: bytes) -> bytes | None:
    """A packet as the kernel takes it in, cut to the length that it says; None for one that it drops."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    if header < 20 or total < header or len(packet) < total or checksum(packet[:header]):
        return None
    return packet[:total]


@pytest.fixture(scope="module")
def stations() -> AsyncIterator[Stations]:
    with Stations() as made:
        yield made


@pytest.fixture
async def bench(stations: Stations) -> AsyncIterator[Bench]:
    device = open_tun("hw0")
    stations.laptop.ip("link set hw0 up")
    kernel = KernelTunnels()
    kernel.open(socket.if_nametoindex("hw0"))
    for carrier in Carrier:
        ports = {} if carrier is Carrier.IPIP else {"far_port": 434, "near_port": PORT}
        kernel.admit(HOME, Ends(AGENT, CARE_OF, carrier, link=stations.link, **ports))
    kernel.lead(HOME, Ends(AGENT, CARE_OF, Carrier.IPIP, link=stations.link), room=ROOM)
    hardware = bytes.fromhex(stations.laptop.ip("-br link show eth0").split()[2].replace(":", ""))
    programs = (kernel._ingress_program, kernel.route_program)
    yield Bench(*programs, stations.link, socket.if_nametoindex("lo"), hardware)
    kernel.close()
    socket.close(device)


def right(bench: Bench, carrier: Carrier, inner: Packet | None = None, **outer: object) -> bytes:
    """A frame with a packet of this tunnel's; `outer` changes its outer header."""
    inside = bytes(
        IP(src=str(PEER), dst=str(HOME)) / UDP(sport=9, dport=9) / Raw(b"data!") if inner is None else inner
    )
    ends = {"src": str(AGENT), "dst": str(CARE_OF), **outer}
    if carrier is Carrier.IPIP:
        packet = IP(**{"proto": 4, **ends}) / Raw(inside)
    else:
        prefix = TUNNEL_DATA if carrier is Carrier.UDP else TUNNEL_DATA_GRE + GRE_HEADER
        packet = IP(**ends) / UDP(sport=434, dport=PORT, chksum=0) / Raw(prefix + inside)
    return bench.hardware + b"\x02\0\0\0\0\x63\x08\0" + bytes(packet)


@each_carrier
async def test_what_is_right_is_taken(bench: Bench, carrier: Carrier) -> None:
    frame = right(bench, carrier)
    assert bench.fast(frame) == bench.slow(frame, carrier) is not None


@each_carrier
async def test_what_is_unusual_is_left_to_the_process(bench: Bench, carrier: Carrier) -> None:
    from_agent = IP(src=str(AGENT), dst=str(HOME)) / ICMP(type=0)
    frames = {
        "options": right(bench, carrier, options=[IPOption_NOP()] * 4),
        "the beginning of one": right(bench, carrier, flags="MF"),
        "the end of one": right(bench, carrier, frag=1),
        "congestion, and nobody who could be told": right(bench, carrier, tos=3),
        "a keepalive's answer": right(bench, carrier, from_agent),
        "another station": bytes(6) + right(bench, carrier)[6:],
        "another protocol in the frame": right(bench, carrier)[:12]
        + b"\x88\xb5"
        + right(bench, carrier)[14:],
        "another protocol outside": right(bench, carrier, proto=99),
        "to all": b"\xff" * 6 + right(bench, carrier)[6:],
        "another home address": right(bench, carrier, IP(src=str(PEER), dst="10.77.0.11") / Raw(b"x")),
        "another source": right(bench, carrier, src="10.0.0.3"),
        "another destination": right(bench, carrier, dst="10.1.1.11"),
        "a wrong sum": right(bench, carrier, chksum=1),
        "no packet inside": right(bench, carrier, Raw(bytes(20))),
    }
    for name, frame in frames.items():
        assert bench.fast(frame) is None, name
    # To that link's own hardware address, or the program would not come to ask which link it is.
    assert bench.fast(bytes(6) + right(bench, carrier)[6:], bench.other_link) is None
    if carrier is not Carrier.IPIP:
        packet = right(bench, carrier)
        for at, octets in {
            34: b"\x01\xb3",
            36: b"\x9c\x41",
            38: b"\0\x20",
            40: b"\x12\x34",
            44: b"\0\1",
        }.items():
            assert bench.fast(packet[:at] + octets + packet[at + 2 :]) is None, at


async def test_a_mark_outside_says_nothing_of_what_is_inside(bench: Bench) -> None:
    """Or others' rules for a mark would hold for whatever a stranger put into the tunnel."""
    taken = run_at_ingress(bench.program, bench.link, right(bench, Carrier.UDP), mark=77)
    assert (taken.verdict, taken.mark) == (REDIRECT, 0)
    left = run_at_ingress(bench.program, bench.link, right(bench, Carrier.UDP, src="10.0.0.3"), mark=77)
    assert (left.verdict, left.mark) == (NEXT_FILTER, 77)


@pytest.mark.parametrize(
    ("inside", "outside"), [(0, 0), (1, 0), (2, 3), (1, 1), (2, 1), (1, 2), (3, 3), (3, 2)]
)
@each_carrier
async def test_congestion_is_carried_on_as_the_process_would(
    bench: Bench, carrier: Carrier, inside: int, outside: int
) -> None:
    inner = IP(src=str(PEER), dst=str(HOME), tos=inside) / UDP() / Raw(b"x")
    frame = right(bench, carrier, inner, tos=outside)
    fast = bench.fast(frame)
    assert fast is None or fast == bench.slow(frame, carrier)
    assert fast is not None or outside in (1, 2)


damages = st.lists(
    st.one_of(
        st.tuples(st.just("octet"), st.integers(0, 90), st.integers(0, 255)),
        st.tuples(st.just("bit"), st.integers(0, 90), st.integers(0, 7)),
        st.tuples(st.just("cut"), st.integers(1, 80), st.just(0)),
        st.tuples(st.just("more"), st.integers(1, 60), st.integers(0, 255)),
    ),
    max_size=4,
)


def damaged(frame: bytes, damage: list[tuple[str, int, int]], sums: tuple[bool, bool]) -> bytes:
    """`sums`: whether whoever did it also put right the sum of the outer header, and that of the inner."""
    octets = bytearray(frame)
    for what, where, value in damage:
        if what == "cut":
            del octets[len(octets) - min(where, len(octets) - SHORTEST) :]
        elif what == "more":
            octets += bytes([value]) * where
        elif where < len(octets):
            octets[where] = value if what == "octet" else octets[where] ^ 1 << value
    made = bytes(octets)
    if sums[1]:
        at = made.find(PEER.packed + HOME.packed) - 12
        made = made[:at] + put(made[at : at + 20], 10) + made[at + 20 :] if at >= ETHERNET + 20 else made
    if sums[0] and len(made) >= ETHERNET + 20:
        header = ETHERNET + max(20, (made[ETHERNET] & 15) * 4)
        made = made[:ETHERNET] + put(made[ETHERNET:header], 10) + made[header:]
    return made


@each_carrier
async def test_whatever_is_damaged_it_takes_nothing_that_the_process_would_not(
    bench: Bench, carrier: Carrier
) -> None:
    taken = left = 0

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damages, st.tuples(st.booleans(), st.booleans()))
    def look(damage: list[tuple[str, int, int]], sums: tuple[bool, bool]) -> None:
        nonlocal taken, left
        frame = damaged(right(bench, carrier), damage, sums)
        fast = bench.fast(frame)
        if fast is None:
            left += 1
            return
        taken += 1
        by_process = bench.slow(frame, carrier)
        admitted = _received(fast)
        assert admitted is None or (by_process is not None and finished(admitted) == _received(by_process))

    look()
    assert taken > 10
    assert left > 10


# --- outwards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]])
async def test_segments_fit_with_their_headers_or_are_left_to_the_process(
    bench: Bench, options: list[tuple[str, object]]
) -> None:
    packet = IP(src=str(HOME), dst=str(PEER)) / TCP(flags="A", options=options) / Raw(bytes(2900))
    most = ROOM - (len(packet) - 2900)
    for segment, verdict in ((most, REDIRECT), (most + 1, INTO_DEVICE)):
        assert run_on_route(bench.route_program, bytes(packet), segment=segment).verdict == verdict


async def test_the_end_of_a_fragmented_segment_has_no_header_to_be_looked_at(bench: Bench) -> None:
    ends = {"src": str(HOME), "dst": str(PEER), "proto": 6}
    for packet, verdict in (
        (IP(**ends, frag=8) / Raw(bytes(8)), REDIRECT),
        (IP(**ends, flags="MF") / Raw(bytes(8)), INTO_DEVICE),
    ):
        assert run_on_route(bench.route_program, bytes(packet)).verdict == verdict


def odd_packets() -> list[Packet]:
    """What a program with the right to do so may send from the home address, or in its place."""
    home, peer = {"src": str(HOME)}, {"dst": str(PEER)}
    data = UDP(sport=9, dport=9) / Raw(b"data")
    return [
        IP(**home, **peer, id=1) / data,
        IP(**home, **peer, id=2, tos=0xB9) / data,
        IP(**home, **peer, id=3, flags="DF", ttl=1) / data,
        IP(**home, **peer, id=4, options=[IPOption_NOP()] * 4) / data,
        IP(**home, **peer, id=5, flags="MF", proto=17) / Raw(bytes(64)),
        IP(**home, **peer, id=5, frag=8, proto=17) / Raw(bytes(9)),
        IP(**home, **peer, id=6) / TCP(sport=9, dport=9, flags="S", options=[("MSS", 1460)]),
        IP(**home, **peer, id=7) / TCP(sport=9, dport=9, flags="A") / Raw(bytes(1428)),
        IP(**home, **peer, id=8) / ICMP(),
        IP(**home, **peer, id=9, proto=132) / Raw(bytes(33)),
        IP(**home, dst=str(AGENT), id=10) / data,
        IP(**home, dst=str(AGENT), id=11) / ICMP(),
        IP(**home, dst="255.255.255.255", id=12) / data,
        IP(**home, dst="224.0.0.251", id=13) / data,
        IP(src="10.77.0.11", **peer, id=14) / data,
        IP(src=str(CARE_OF), **peer, id=15) / data,
        IP(src=str(AGENT), **peer, id=16) / data,
        IP(**home, **peer, id=17) / UDP(sport=9, dport=9) / Raw(bytes(1440)),
        IP(**home, **peer, id=18, proto=4) / IP(**home, **peer) / data,
    ]


async def leave(ways: Ways, name: str, packets: list[Packet]) -> list[tuple[object, ...]]:
    """What the cable, or the VPN, sees of them, in their order."""
    way = BY_NAME[name]
    await ways.apply(way.traffic(ways))
    ways.forget()
    found: list[tuple[object, ...]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, HOME.packed)
        for packet in packets:
            try:
                raw.sendto(bytes(packet), (packet.dst, 0))
            except OSError as error:
                found.append((error.errno, packet.id))
            await asyncio.sleep(0.01)
            ways.look()
            for frame in ways.frames:
                if IP in frame and (frame[IP].dst == str(AGENT) or HOME.packed in bytes(frame)):
                    outer = frame[IP]
                    inner = bytes(outer.payload)[len(outer.payload) - len(packet) :]
                    found.append(
                        (outer.src, outer.dst, outer.tos, outer.ttl, str(outer.flags), outer.len, inner)
                    )
            ways.frames.clear()
    return found


@pytest.mark.parametrize("name", ["udp", "gre-in-udp", "vpn-udp"])
async def test_odd_packets_leave_alike_whatever_carries_them(tmp_path: Path, name: str) -> None:
    packets = odd_packets()
    seen, past = {}, {}
    for engine in (TunnelEngine.TUN, TunnelEngine.BPF):
        with Stations() as stations:
            ways = Ways(stations, tmp_path / engine.value, engine)
            seen[engine] = await leave(ways, name, packets)
            past[engine] = ways.shortcut.counted()[0]
            await ways.shut()
    assert seen[TunnelEngine.BPF] == seen[TunnelEngine.TUN]
    assert len(seen[TunnelEngine.TUN]) > 10
    assert past[TunnelEngine.TUN] == 0 < past[TunnelEngine.BPF] < len(seen[TunnelEngine.BPF])
    homes = {IPv4Address(inner[12:16]) for *_, inner in seen[TunnelEngine.BPF] if isinstance(inner, bytes)}
    assert homes == {HOME}
