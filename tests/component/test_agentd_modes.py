# SPDX-License-Identifier: GPL-2.0-or-later
"""The real home agent behind NATs and foreign agents, with each encapsulation, with NAI, nonces and revocation."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Packet

from homeward.agentd.control import OrderRefused
from homeward.agentd.control_client import ask
from homeward.model.nat_traversal import TunnelKind, UdpTunnelRequest
from homeward.model.registration import RequestFlags
from homeward.model.relay import ForeignToHome
from homeward.model.revocation import RevocationAcknowledgment, RevocationSupport
from homeward.wire import authenticator, gre, minimal_encapsulation, registration, relay, revocation
from homeward.wire.decoded import DecodedRequest, DecodedRevocation
from homeward.wire.echo import Echo, decode_echo, encode_echo
from homeward.wire.identification import from_time, high32, join
from homeward.wire.udp_tunnel import unwrap, wrap
from tests.component.agent_modes import (
    D_T,
    FOREIGN_AGENT,
    FOREIGN_SA,
    NARROW,
    NAT,
    NONCE_HOME,
    NONCE_SA,
    ROAMER_SA,
    SA,
    Station,
    datagram,
    from_raw,
    request,
    running,
)
from tests.component.agent_network import (
    AGENT,
    CARE_OF,
    HOME,
    PEER,
    AgentNetwork,
    AgentProcess,
    Namespace,
    raw,
    udp,
)

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def network() -> Iterator[AgentNetwork]:
    made = AgentNetwork(FOREIGN_AGENT, NARROW)
    station = Namespace()
    made.add_home_link(station, "10.79.0.20", "10.79.0.1")
    yield made
    made.close()
    station.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent")


@pytest.fixture(scope="module")
def agent(network: AgentNetwork, folder: Path) -> Iterator[AgentProcess]:
    with running(network, folder) as process:
        yield process


@pytest.fixture
def behind_nat(agent: AgentProcess, network: AgentNetwork) -> Iterator[Station]:
    made = Station(network, NAT, 4)
    yield made
    made.close()


@pytest.fixture
def node(agent: AgentProcess, network: AgentNetwork) -> Iterator[Station]:
    made = Station(network, CARE_OF, 4, 47, 55)
    yield made
    made.close()


@pytest.fixture
def peer(network: AgentNetwork) -> Iterator[socket.socket]:
    made = udp(network.peer, PEER)
    made.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: may be fragmented
    yield made
    made.close()


def to_home(peer: socket.socket, octets: bytes, home: IPv4Address = HOME) -> None:
    peer.sendto(octets, (str(home), 7001))


@pytest.mark.rows("R-48", "R-50", "R-92", "R-229", "R-231", "R-237", "R-239", "R-240", "R-241")
def test_a_tunnel_in_udp_through_a_nat(
    agent: AgentProcess, behind_nat: Station, network: AgentNetwork, peer: socket.socket
) -> None:
    # The node believes that it is at CARE_OF; its packets come from the NAT.
    reply = behind_nat.exchange(request(CARE_OF, udp_tunnel=UdpTunnelRequest())).message
    assert (reply.code, reply.lifetime, reply.trusted_networks_configured) == (0, 60, True)
    assert reply.udp_tunnel is not None
    assert (reply.udp_tunnel.will_tunnel, reply.udp_tunnel.keepalive) == (True, 30)

    to_home(peer, b"hello")
    inner = IP(unwrap(behind_nat.hear(), TunnelKind.IP_IN_IP))
    assert (inner.src, inner.dst, bytes(inner[UDP].payload)) == (str(PEER), str(HOME), b"hello")
    port = inner[UDP].sport
    answer = bytes(IP(src=str(HOME), dst=str(PEER)) / UDP(sport=7001, dport=port) / b"back")
    behind_nat.send(wrap(answer))
    assert peer.recvfrom(100) == (b"back", (str(HOME), 7001))

    echo = Echo(HOME, AGENT, 0x4857, 3, data=b"alive")
    behind_nat.send(wrap(encode_echo(echo)))
    assert decode_echo(unwrap(behind_nat.hear(), TunnelKind.IP_IN_IP)).answers(echo)

    # Cut before, so that no part of it comes without a port: three datagrams, each a whole packet.
    to_home(peer, bytes(2900))
    parts = [IP(unwrap(behind_nat.hear(), TunnelKind.IP_IN_IP)) for _ in range(3)]
    assert sum(part.len - 20 for part in parts) == 2908
    assert all(part.len <= 1468 for part in parts)

    # Another port of the same NAT, and the other kind of tunnel: nobody's.
    stranger = Station(network, NAT)
    stranger.send(wrap(answer))
    stranger.close()
    behind_nat.raw[4].sendto(answer, (str(AGENT), 0))
    behind_nat.send(wrap(answer))
    assert peer.recv(100) == b"back"
    peer.settimeout(0.2)
    with pytest.raises(TimeoutError):
        peer.recv(100)
    counters = agent.dump()["counters"]
    assert (counters["reverse-tunnel-spoofed"], counters["encapsulation-not-agreed"]) == (1, 1)
    behind_nat.raw[4].settimeout(0.05)
    with pytest.raises(TimeoutError):
        behind_nat.raw[4].recv(100)


@pytest.mark.rows("R-243")
def test_a_half_bound_tunnel(
    agent: AgentProcess, behind_nat: Station, network: AgentNetwork, peer: socket.socket
) -> None:
    # The request comes by way of the foreign agent; the data goes past it, through another port of the same NAT.
    spoofed = agent.counter("reverse-tunnel-spoofed")
    asked = request(CARE_OF, udp_tunnel=UdpTunnelRequest(through_foreign_agent=True))
    reply = behind_nat.exchange(asked).message
    assert reply.udp_tunnel is not None
    assert reply.udp_tunnel.will_tunnel
    to_home(peer, b"too early")
    while not agent.counter("tunnel-half-bound"):
        continue
    data = Station(network, NAT)
    stranger = Station(network, CARE_OF)
    echo = encode_echo(Echo(HOME, AGENT, 1, 2))
    stranger.send(wrap(echo))
    data.send(wrap(echo))
    assert decode_echo(unwrap(data.hear(), TunnelKind.IP_IN_IP)).is_reply
    to_home(peer, b"now")
    assert bytes(IP(unwrap(data.hear(), TunnelKind.IP_IN_IP))[UDP].payload) == b"now"
    agent.wait_for(f"udp={NAT}:half-bound")
    agent.wait_for("binding-completed ")
    assert agent.counter("reverse-tunnel-spoofed") == spoofed + 1
    data.close()
    stranger.close()


OPENERS = {
    47: (RequestFlags.GRE, gre.decapsulate, gre.encapsulate),
    55: (RequestFlags.MINIMAL, minimal_encapsulation.decapsulate, minimal_encapsulation.encapsulate),
}


@pytest.mark.rows("R-284", "R-290", "R-291")
@pytest.mark.parametrize("protocol", [47, 55])
def test_other_encapsulations(node: Station, peer: socket.socket, protocol: int) -> None:
    flag, opened, enclosed = OPENERS[protocol]
    assert node.ask(flags=D_T | flag).code == 0
    to_home(peer, b"hello")
    arrived = node.raw[protocol].recv(65535)
    inner = IP(opened(arrived).inner)
    assert (inner.src, inner.dst, bytes(inner[UDP].payload)) == (str(PEER), str(HOME), b"hello")
    answer = bytes(IP(src=str(HOME), dst=str(PEER)) / UDP(sport=7001, dport=inner[UDP].sport) / b"back")
    packet = enclosed(answer, CARE_OF, AGENT)
    node.raw[protocol].sendto(packet[20:], (str(AGENT), 0))
    assert peer.recv(100) == b"back"
    to_home(peer, bytes(2900))
    parts = 4 if protocol == 55 else protocol
    first = from_raw(node.raw[parts])
    assert first.proto == parts
    assert first.len <= 1500
    assert not first.flags.MF


@pytest.mark.rows("R-171", "R-195", "R-200", "R-202")
def test_a_foreign_agent(agent: AgentProcess, network: AgentNetwork, peer: socket.socket) -> None:
    station = Station(network, FOREIGN_AGENT, 4)
    asked = registration.decode(request(FOREIGN_AGENT, flags=RequestFlags.REVERSE_TUNNEL))
    assert isinstance(asked, DecodedRequest)
    part = ForeignToHome(revocation_support=RevocationSupport(5))
    reply = station.exchange(
        relay.tell_home_agent(relay.through_mobile_home(asked), part, foreign_home=FOREIGN_SA)
    )
    assert reply.message.is_success
    assert reply.message.trusted_networks_configured
    assert authenticator.verify(reply.octets, reply, FOREIGN_SA, by=relay.FOREIGN_HOME)
    assert relay.read_from_home_agent(reply).revocation_support is not None
    to_home(peer, b"hello")
    assert bytes(from_raw(station.raw[4])[IP].payload[UDP].payload) == b"hello"
    inner = datagram(source=HOME, to=PEER)
    station.raw[4].sendto(inner, (str(AGENT), 0))
    unproved = station.exchange(request(FOREIGN_AGENT, flags=RequestFlags.REVERSE_TUNNEL))
    assert unproved.message.code == 132
    station.close()


@pytest.mark.rows("R-273", "R-274")
def test_an_address_by_name(agent: AgentProcess, node: Station, peer: socket.socket) -> None:
    asked = request(CARE_OF, ROAMER_SA, home_address=IPv4Address("0.0.0.0"), nai="roamer@example.test")
    reply = node.exchange(asked, ROAMER_SA).message
    assert (reply.code, reply.nai) == (0, "roamer@example.test")
    assert reply.home_address in IPv4Network("10.77.0.64/28")
    to_home(peer, b"hello", reply.home_address)
    assert from_raw(node.raw[4])[IP].payload.dst == str(reply.home_address)


@pytest.mark.rows("R-176")
def test_nonces(agent: AgentProcess, node: Station) -> None:
    stamp = from_time(0, 5)
    first = node.exchange(
        request(CARE_OF, NONCE_SA, home_address=NONCE_HOME, identification=stamp), NONCE_SA
    ).message
    assert first.code == 133
    given = join(high32(first.identification), 77)
    second = node.exchange(
        request(CARE_OF, NONCE_SA, home_address=NONCE_HOME, identification=given), NONCE_SA
    ).message
    assert second.code == 0
    assert high32(second.identification) not in (high32(given), high32(stamp))


def test_a_binding_is_revoked_by_order(
    agent: AgentProcess, node: Station, network: AgentNetwork, folder: Path
) -> None:
    assert (folder / "control").stat().st_mode & 0o777 == 0o600
    reply = node.ask(revocation_support=RevocationSupport(1))
    assert reply.revocation_support is not None
    with network.node.entered():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind((str(CARE_OF), 434))
    ear.settimeout(3.0)
    control = folder / "control"
    assert ask(control, "revoke", address=str(HOME)) == {"ended": 1}
    for order, fields, error in (
        ("revoke", {"address": str(HOME)}, "there is no binding of"),
        ("revoke", {"address": "all"}, "is not an IPv4 address"),
        ("revoke", {}, "the order needs a text 'address'"),
        ("explode", {}, "a home agent knows no order 'explode'"),
    ):
        with pytest.raises(OrderRefused, match=error):
            ask(control, order, **fields)
    octets, source = ear.recvfrom(200)
    assert source == (str(AGENT), 434)
    decoded = revocation.decode(octets)
    assert isinstance(decoded, DecodedRevocation)
    assert authenticator.verify(octets, decoded, SA)
    assert (decoded.message.home_address, decoded.message.foreign_domain) == (HOME, CARE_OF)
    assert decoded.message.identifier > reply.revocation_support.timestamp
    answer_it = RevocationAcknowledgment(HOME, identifier=decoded.message.identifier)
    ear.sendto(revocation.encode(answer_it, SA), source)
    agent.wait_for(f"revocation-acknowledged home_address={HOME} peer={CARE_OF}")
    agent.wait_for("binding-revoked ")
    ear.close()


@pytest.mark.rows("R-239", "R-289")
def test_a_narrow_path_that_no_router_tells_of(
    agent: AgentProcess, network: AgentNetwork, peer: socket.socket
) -> None:
    # The path to NARROW is known to carry 1280 octets only, and nothing ever says so by ICMP.
    station = Station(network, NARROW, 4)
    assert station.ask().code == 0
    to_home(peer, bytes(1400))
    parts = [from_raw(station.raw[4]) for _ in range(2)]
    assert all(part.len <= 1280 for part in parts)
    icmp = raw(network.peer, socket.IPPROTO_ICMP, PEER)
    peer.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER: do not fragment, whatever is known
    to_home(peer, bytes(1400))
    told = IP(icmp.recv(2000))[ICMP]
    assert (told.type, told.code, told.nexthopmtu) == (3, 4, 1260)
    icmp.close()
    station.close()


@pytest.mark.slow
@pytest.mark.rows("R-287")
def test_an_end_that_stays_unreachable_is_told(
    agent: AgentProcess, node: Station, network: AgentNetwork
) -> None:
    assert node.ask().code == 0
    icmp = raw(network.peer, socket.IPPROTO_ICMP, PEER)
    icmp.settimeout(0.4)
    network.router.setting(
        "ipv4/icmp_ratelimit", "0"
    )  # it shares a budget with unreachable routes, and starves them
    network.router.ip(f"route add unreachable {CARE_OF}/32")
    began = time.monotonic()
    told: Packet | None = None
    try:
        sender = udp(network.peer, PEER)
        while told is None:
            assert time.monotonic() < began + 20, str(agent.dump())
            to_home(sender, b"anybody there?")
            with suppress(TimeoutError):
                told = IP(icmp.recv(2000))
    finally:
        network.router.ip(f"route del unreachable {CARE_OF}/32")
    # Patience: not while a node may just be moving.
    assert time.monotonic() - began > 3.0
    assert (told.src, told[ICMP].type, told[ICMP].code) == (str(AGENT), 3, 1)
    assert told[ICMP].payload.dst == str(HOME)
    sender.close()
    icmp.close()
