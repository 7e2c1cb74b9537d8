# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent's tunnels, carried by whatever carries them on this machine, and attacked; then the same by sockets.

A forged packet is always followed by a genuine one from the same place, so that "nothing came" was not too early.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.packet import Raw

from homeward.model.nat_traversal import TunnelKind
from homeward.model.registration import RequestFlags
from homeward.wire.echo import Echo, decode_echo, encode_echo
from homeward.wire.ip_fragments import fragment
from homeward.wire.udp_tunnel import wrap
from tests.component.agent_modes import (
    AT_HOME,
    NAT,
    NONCE_HOME,
    Station,
    running,
)
from tests.component.agent_network import (
    AGENT,
    AGENT_OUTSIDE,
    CARE_OF,
    HOME,
    PEER,
    SECOND_CARE_OF,
    AgentNetwork,
    AgentProcess,
    Namespace,
    raw,
    udp,
)
from tests.component.agent_tunnels import (
    BY_KERNEL,
    BY_SOCKETS,
    CARRIERS,
    IP_MTU_DISCOVER,
    Peer,
    Share,
    Tunnel,
    by_kernel,
    leave_checksums_out,
    wait_for,
)

pytestmark = pytest.mark.root

ROOM = 1468


@pytest.fixture(scope="module", params=[BY_KERNEL, BY_SOCKETS])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """What carries: on its own choice, or "tun"."""
    before = os.environ.get("HOMEWARD_ENGINES")
    if request.param == BY_SOCKETS:
        os.environ["HOMEWARD_ENGINES"] = "tun"
    yield request.param
    if before is None:
        os.environ.pop("HOMEWARD_ENGINES", None)
    else:
        os.environ["HOMEWARD_ENGINES"] = before


@pytest.fixture(scope="module")
def network() -> Iterator[AgentNetwork]:
    made, station = AgentNetwork(), Namespace()
    made.add_home_link(station, "10.79.0.20", "10.79.0.1")
    for host in (made.agent, made.router):
        host.setting("ipv4/icmp_ratelimit", "0")
    yield made
    made.close()
    station.close()


@pytest.fixture(scope="module")
def agent(
    network: AgentNetwork, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentProcess]:
    with running(network, Path(tmp_path_factory.mktemp("agent"))) as process:
        yield process


@pytest.fixture(params=CARRIERS)
def tunnel(agent: AgentProcess, network: AgentNetwork, request: pytest.FixtureRequest) -> Iterator[Tunnel]:
    made = Tunnel(network, request.param)
    yield made
    made.close()


@pytest.fixture
def in_udp(agent: AgentProcess, network: AgentNetwork) -> Iterator[Tunnel]:
    made = Tunnel(network)
    yield made
    made.close()


@pytest.fixture
def peer(network: AgentNetwork) -> Iterator[Peer]:
    made = Peer(network)
    yield made
    made.opened.close()


# --- what passes ---


@pytest.mark.rows("R-201", "R-231", "R-284", "R-285")
def test_data_goes_both_ways_with_the_headers_that_it_should_have(
    agent: AgentProcess, engine: str, tunnel: Tunnel, peer: Peer
) -> None:
    share = Share(agent)
    tunnel.put(peer.inner(b"out", ttl=9))
    assert peer.hears() == (b"out", 7, 0)  # the agent, and the router: as hops of a forwarded packet
    peer.send(b"in", tos=0xB8)
    inner, ttl, tos = tunnel.take()
    assert (ttl, tos) == (63, 0xB8)  # 64, and the router
    assert (inner.src, inner.dst, inner.tos, inner.ttl) == (str(PEER), str(HOME), 0xB8, 62)
    assert bytes(inner[UDP].payload) == b"in"
    out = int(tunnel.carrier != "ip-in-ip" or agent.dump()["engine"] == "ipip")
    assert share.since() == ({"in": 1, "out": out} if by_kernel(agent, engine) else {"in": 0, "out": 0})


@pytest.mark.rows("R-284")
@pytest.mark.parametrize("df", [True, False])
def test_dont_fragment_is_copied(
    agent: AgentProcess, network: AgentNetwork, in_udp: Tunnel, df: bool
) -> None:
    ears = raw(network.node, socket.IPPROTO_UDP, NAT)
    sender = udp(network.peer, PEER)
    sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 3 if df else 0)
    sender.sendto(b"hello", (str(HOME), 7001))
    outer = IP(ears.recv(2000))
    while bytes(outer[UDP].payload)[:1] != b"\4":
        outer = IP(ears.recv(2000))
    assert bool(outer.flags.DF) is df
    assert bool(IP(bytes(outer[UDP].payload)[4:]).flags.DF) is df
    sender.close()
    ears.close()


@pytest.mark.parametrize(
    ("inside", "outside", "after"),
    [(0, 0, 0), (2, 2, 2), (2, 0, 2), (1, 3, 3), (2, 3, 3), (3, 3, 3), (2, 1, 1), (0, 1, 0), (0, 2, 0)],
)
def test_congestion_marked_on_the_way_is_carried_on(
    agent: AgentProcess, in_udp: Tunnel, peer: Peer, inside: int, outside: int, after: int
) -> None:
    in_udp.put(peer.inner(b"data", tos=0xB8 | inside), tos=0xB8 | outside)
    assert peer.hears() == (b"data", 62, 0xB8 | after)


def test_a_mark_that_cannot_be_carried_on_costs_the_packet(
    agent: AgentProcess, tunnel: Tunnel, peer: Peer
) -> None:
    malformed = agent.counter("malformed-packet")
    tunnel.put(peer.inner(b"lost"), tos=3)
    tunnel.put(peer.inner(b"genuine"))
    assert peer.hears()[0] == b"genuine"
    assert agent.counter("malformed-packet") == malformed + 1


def test_options_and_fragments_inside_pass(agent: AgentProcess, tunnel: Tunnel, peer: Peer) -> None:
    tunnel.put(peer.inner(b"options", options=[IPOption_NOP()] * 4))
    assert peer.hears()[0] == b"options"
    for part in fragment(bytes(peer.inner(bytes(1200))), 620):
        tunnel.put(IP(part))
    assert peer.hears()[0] == bytes(1200)


def test_tunnel_packets_in_fragments_are_put_together_first(
    agent: AgentProcess, network: AgentNetwork, in_udp: Tunnel, peer: Peer
) -> None:
    payload = bytes(UDP(sport=in_udp.station.signalling.getsockname()[1], dport=434, chksum=0))[:4]
    data = wrap(bytes(peer.inner(bytes(1000))))
    payload += (8 + len(data)).to_bytes(2, "big") + b"\0\0" + data
    with network.node.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for offset, part in ((0, payload[:600]), (75, payload[600:])):
        flags = 0 if offset else "MF"
        packet = IP(src=str(NAT), dst=str(AGENT), id=77, proto=17, frag=offset, flags=flags) / Raw(part)
        sender.sendto(bytes(packet), (str(AGENT), 0))
    sender.close()
    assert peer.hears()[0] == bytes(1000)


def test_a_node_can_speak_with_the_agent_itself_and_is_kept_alive(
    agent: AgentProcess, network: AgentNetwork, in_udp: Tunnel, peer: Peer
) -> None:
    echo = Echo(HOME, AGENT, 0x4857, 3, data=b"alive")
    in_udp.put(IP(encode_echo(echo)))
    assert decode_echo(bytes(in_udp.take()[0])).answers(echo)
    service = udp(network.agent, AGENT)
    to = service.getsockname()[1]
    in_udp.put(IP(bytes(IP(src=str(HOME), dst=str(AGENT)) / UDP(sport=7001, dport=to) / b"hello")))
    assert service.recvfrom(100) == (b"hello", (str(HOME), 7001))
    service.sendto(b"back", (str(HOME), 7001))
    assert bytes(in_udp.take()[0][UDP].payload) == b"back"
    service.close()


@pytest.mark.rows("R-287", "R-289")
def test_what_does_not_fit_is_told_or_cut(
    agent: AgentProcess, network: AgentNetwork, in_udp: Tunnel, peer: Peer
) -> None:
    peer.send(bytes(ROOM - 28))
    assert in_udp.take()[0].len == ROOM
    icmp = raw(network.peer, socket.IPPROTO_ICMP, PEER)
    peer.send(bytes(ROOM - 27))
    told = IP(icmp.recv(2000))[ICMP]
    assert (told.type, told.code, told.nexthopmtu) == (3, 4, ROOM)
    icmp.close()
    peer.opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
    peer.send(bytes(ROOM - 27))
    assert sorted(in_udp.take()[0].len for _ in range(2)) == [21, ROOM]


@pytest.mark.rows("R-287", "R-288")
def test_a_narrow_hop_is_learned_of_and_told(
    agent: AgentProcess, engine: str, network: AgentNetwork, in_udp: Tunnel, peer: Peer
) -> None:
    icmp = raw(network.peer, socket.IPPROTO_ICMP, PEER)
    network.router.ip("link set to-node mtu 1300")
    share = Share(agent)
    try:
        for _ in range(2):  # first the router's word, passed on; then the agent's own
            peer.send(bytes(1400))
            told = IP(icmp.recv(2000))
            assert (told.src, told[ICMP].code, told[ICMP].nexthopmtu) == (str(AGENT), 4, 1268)
            assert told[ICMP].payload.dst == str(HOME)
        peer.send(bytes(1268 - 28))
        assert in_udp.take()[0].len == 1268
    finally:
        network.router.ip("link set to-node mtu 1500")
        for host in (network.agent, network.peer):
            host.ip("route flush cache")
        icmp.close()
    assert share.since()["out"] == (2 if by_kernel(agent, engine) else 0)
    # Whoever may be cut is cut before the tunnel, and a binding elsewhere knows nothing of it.
    peer.opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
    peer.send(bytes(1300))
    assert sorted(in_udp.take()[0].len for _ in range(2))[1] <= 1268


# --- what does not pass ---


@pytest.mark.rows("R-202", "R-231")
def test_forged_reverse_tunnels(
    agent: AgentProcess, network: AgentNetwork, tunnel: Tunnel, peer: Peer
) -> None:
    spoofed = agent.counter("reverse-tunnel-spoofed")
    # The inner source: an unbound one, one that nobody has, and addresses that a program might trust.
    for source in (NONCE_HOME, AT_HOME, PEER, AGENT, CARE_OF, IPv4Address("127.0.0.1")):
        tunnel.put(peer.inner(b"forged", source=source))
    # The right inner source, from a wrong care-of address and from a wrong port.
    elsewhere = IPv4Address("10.1.1.50") if tunnel.carrier != "ip-in-ip" else SECOND_CARE_OF
    for where in (elsewhere, tunnel.station.address):
        other = Station(network, where, 4)
        leave_checksums_out(other.signalling)
        other.send(wrap(bytes(peer.inner(b"forged")), tunnel.kind))
        if where != tunnel.station.address:
            other.raw[4].sendto(bytes(peer.inner(b"forged")), (str(AGENT), 0))
        other.close()
    tunnel.put(peer.inner(b"genuine"))
    assert peer.hears()[0] == b"genuine"
    assert agent.counter("reverse-tunnel-spoofed") == spoofed + 9


@pytest.mark.rows("R-202", "R-231")
def test_a_tunnel_of_another_kind(agent: AgentProcess, tunnel: Tunnel, peer: Peer) -> None:
    other = TunnelKind.IP_IN_IP if tunnel.kind is TunnelKind.GRE else TunnelKind.GRE
    forged = bytes(peer.inner(b"forged"))
    if tunnel.carrier != "ip-in-ip":
        tunnel.station.send(wrap(forged, other))
        tunnel.station.raw[4].sendto(forged, (str(AGENT), 0))
    tunnel.put(peer.inner(b"genuine"))
    assert peer.hears()[0] == b"genuine"


@pytest.mark.rows("R-202")
def test_a_reverse_tunnel_that_was_not_granted(
    agent: AgentProcess, network: AgentNetwork, peer: Peer
) -> None:
    tunnel = Tunnel(network, "ip-in-ip", flags=RequestFlags.DECAPSULATE_SELF)
    tunnel.put(peer.inner(b"refused"))
    wait_for(agent, "reverse-tunnel-not-granted", 1)
    peer.send(b"hello")
    assert bytes(tunnel.take()[0][UDP].payload) == b"hello"
    tunnel.register()
    tunnel.put(peer.inner(b"granted"))
    assert peer.hears()[0] == b"granted"
    tunnel.register(flags=RequestFlags.DECAPSULATE_SELF)
    tunnel.put(peer.inner(b"refused"))
    wait_for(agent, "reverse-tunnel-not-granted", 2)
    tunnel.register()
    tunnel.put(peer.inner(b"granted again"))
    assert peer.hears()[0] == b"granted again"
    assert agent.counter("reverse-tunnel-not-granted") == 2
    tunnel.close()


def test_the_right_addresses_by_the_outside_interface(
    agent: AgentProcess, network: AgentNetwork, tunnel: Tunnel, peer: Peer
) -> None:
    outside = "tunnel-packet-from-outside-interface"
    before = agent.counter(outside)
    network.router.ip(f"route add {AGENT}/32 via {AGENT_OUTSIDE}")
    try:
        tunnel.put(peer.inner(b"from outside"))
        wait_for(agent, outside, before + 1)
    finally:
        network.router.ip(f"route del {AGENT}/32 via {AGENT_OUTSIDE}")
    tunnel.put(peer.inner(b"genuine"))
    assert peer.hears()[0] == b"genuine"


@pytest.mark.rows("R-286")
def test_packets_from_the_tunnels_own_exit(
    agent: AgentProcess, network: AgentNetwork, tunnel: Tunnel
) -> None:
    loops = agent.counter("tunnel-loop")
    with network.router.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    packet = IP(src=str(tunnel.station.address), dst=str(HOME)) / UDP(sport=1, dport=2) / b"loop"
    sender.sendto(bytes(packet), (str(HOME), 0))
    sender.close()
    assert tunnel.takes_nothing()
    assert agent.counter("tunnel-loop") == loops + 1


@pytest.mark.rows("R-202")
def test_where_a_node_was_is_believed_for_two_seconds_and_no_longer(
    agent: AgentProcess, network: AgentNetwork, in_udp: Tunnel, peer: Peer
) -> None:
    elsewhere = Station(network, CARE_OF, 4)
    assert elsewhere.ask().code == 0
    moved = time.monotonic()
    in_udp.put(peer.inner(b"under way"))
    assert peer.hears()[0] == b"under way"
    peer.send(b"to the new place")
    assert bytes(IP(elsewhere.raw[4].recv(2000))[IP].payload[UDP].payload) == b"to the new place"
    assert in_udp.takes_nothing(0.05)
    time.sleep(max(0.0, moved + 2.4 - time.monotonic()))
    in_udp.put(peer.inner(b"too late"))
    elsewhere.raw[4].sendto(bytes(peer.inner(b"genuine")), (str(AGENT), 0))
    assert peer.hears()[0] == b"genuine"
    elsewhere.ask(lifetime=0)
    elsewhere.close()


@pytest.mark.rows("R-202")
def test_nothing_passes_when_the_binding_has_ended(
    agent: AgentProcess, network: AgentNetwork, peer: Peer
) -> None:
    spoofed = agent.counter("reverse-tunnel-spoofed")
    for carrier in CARRIERS:
        tunnel = Tunnel(network, carrier)
        tunnel.put(peer.inner(b"bound"))
        assert peer.hears()[0] == b"bound"
        elsewhere = Station(network, SECOND_CARE_OF if carrier == "ip-in-ip" else CARE_OF)
        elsewhere.ask()  # its former tunnel lingers, and has to end with the binding all the same
        elsewhere.ask(lifetime=0)
        tunnel.put(peer.inner(b"not bound"))
        peer.send(b"not bound")
        assert tunnel.takes_nothing(0.05)
        elsewhere.close()
        tunnel.station.close()
    with pytest.raises(TimeoutError):
        peer.hears(0.1)
    assert agent.counter("reverse-tunnel-spoofed") == spoofed + 3
