# SPDX-License-Identifier: GPL-2.0-or-later
"""The real homeward-agent between real kernels: requests by our codec, packets by scapy, everything else by Linux."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Packet, Raw

from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.secret import Secret
from homeward.wire import authenticator, registration
from homeward.wire.identification import from_time
from tests.component.agent_network import (
    AGENT,
    AGENT_OUTSIDE,
    CARE_OF,
    DEVICE,
    HOME,
    OTHER_HOME,
    PEER,
    SECOND_CARE_OF,
    UNTRUSTED,
    AgentNetwork,
    AgentProcess,
    Namespace,
    raw,
    udp,
)

pytestmark = pytest.mark.root

KEY = os.urandom(32)
OTHER_KEY = os.urandom(16)
SA = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(KEY))
OTHER_SA = MobilitySecurityAssociation(Spi(0x101), AuthenticationAlgorithm.HMAC_MD5, key=Secret(OTHER_KEY))
FORGER = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(bytes(32)))
IP_IN_IP = 4
D_T = RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL

CONFIGURATION = f"""version = 1
address = "{AGENT}"
inside_interfaces = ["inside"]
trusted_prefixes = ["10.1.0.0/16"]
home_network = "10.77.0.0/24"
[[node]]
name = "laptop"
home_address = "{HOME}"
spi = 0x100
algorithm = "hmac-sha256"
key_file = "laptop.key"
[[node]]
name = "other"
home_address = "{OTHER_HOME}"
spi = 0x101
algorithm = "hmac-md5"
key_file = "other.key"
"""


@pytest.fixture(scope="module")
def network() -> Iterator[AgentNetwork]:
    made = AgentNetwork()
    yield made
    made.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name, text in (("laptop.key", KEY.hex()), ("other.key", base64.b64encode(OTHER_KEY).decode())):
        (tmp_path / name).write_text(text + "\n")
        (tmp_path / name).chmod(0o600)
    path = tmp_path / "agent.toml"
    path.write_text(CONFIGURATION)
    path.chmod(0o644)
    return path


@pytest.fixture
def agent(network: AgentNetwork, config: Path, tmp_path: Path) -> Iterator[AgentProcess]:
    process = AgentProcess(network.agent, config, tmp_path / "agent.log")
    process.wait_for("ready ")
    yield process
    process.stop()
    assert "Traceback" not in process.text()
    for secret in (KEY, OTHER_KEY):
        for shown in (secret.hex(), base64.b64encode(secret).decode().rstrip("="), repr(secret)[2:-1]):
            assert shown not in process.text()


class Node:
    """The mobile node, as far as a test needs one."""

    def __init__(self, host: Namespace, care_of: IPv4Address = CARE_OF) -> None:
        self.care_of = care_of
        self.signalling = udp(host, care_of)
        self.tunnel = raw(host, IP_IN_IP, care_of)

    def close(self) -> None:
        self.signalling.close()
        self.tunnel.close()

    def ask(
        self,
        lifetime: int = 300,
        *,
        association: MobilitySecurityAssociation = SA,
        home: IPv4Address = HOME,
        care_of: IPv4Address | None = None,
        to: IPv4Address = AGENT,
        wait: float = 3.0,
    ) -> RegistrationReply | None:
        """Register and return the verified reply, None if there is none."""
        request = RegistrationRequest(
            lifetime,
            home,
            home_agent=AGENT,
            care_of_address=care_of or self.care_of,
            identification=from_time(time.time(), time.monotonic_ns()),
            flags=D_T,
        )
        self.signalling.sendto(registration.encode_request(request, association), (str(to), 434))
        self.signalling.settimeout(wait)
        try:
            octets, source = self.signalling.recvfrom(2048)
        except TimeoutError:
            return None
        assert source == (str(to), 434)
        decoded = registration.decode(octets)
        assert authenticator.verify(octets, decoded, association)
        assert isinstance(decoded.message, RegistrationReply)
        return decoded.message

    def take(self) -> Packet:
        """The next tunnel packet."""
        return IP(self.tunnel.recv(65535))

    def takes_nothing(self, seconds: float = 0.4) -> bool:
        self.tunnel.settimeout(seconds)
        try:
            self.tunnel.recv(65535)
        except TimeoutError:
            return True
        finally:
            self.tunnel.settimeout(3.0)
        return False

    def send(self, inner: Packet) -> None:
        """Send a packet through the reverse tunnel."""
        self.tunnel.sendto(bytes(inner), (str(AGENT), 0))


@pytest.fixture
def node(network: AgentNetwork) -> Iterator[Node]:
    made = Node(network.node)
    yield made
    made.close()


@pytest.fixture
def peer(network: AgentNetwork) -> Iterator[socket.socket]:
    made = raw(network.peer, socket.IPPROTO_ICMP, PEER)
    yield made
    made.close()


def echo(number: int, kind: str = "echo-request", size: int = 20) -> Packet:
    return ICMP(type=kind, id=0x4857, seq=number) / Raw(bytes(number % 256 for _ in range(size)))


def ping_node(peer: socket.socket, number: int, home: IPv4Address = HOME, size: int = 20) -> None:
    peer.sendto(bytes(echo(number, size=size)), (str(home), 0))


def answer_at(peer: socket.socket, kind: int) -> Packet:
    """The next ICMP message of this type that the correspondent gets."""
    while True:
        packet = IP(peer.recv(65535))
        if packet[ICMP].type == kind:
            return packet


@pytest.mark.rows("R-186", "R-199", "R-201", "R-285")
def test_registration_and_pings_both_ways(agent: AgentProcess, node: Node, peer: socket.socket) -> None:
    reply = node.ask()
    assert reply is not None
    assert (reply.code, reply.lifetime, reply.home_address, reply.home_agent) == (0, 300, HOME, AGENT)
    assert reply.trusted_networks_configured
    agent.wait_for("binding-made node=laptop home_address=10.77.0.10 care_of_address=10.1.1.50 lifetime=300")

    ping_node(peer, 1)
    outer = node.take()
    assert (outer.src, outer.dst, outer.proto) == (str(AGENT), str(CARE_OF), IP_IN_IP)
    assert outer.ttl == 63  # 64, and one router
    inner = outer[IP].payload
    assert (inner.src, inner.dst) == (str(PEER), str(HOME))
    assert inner.ttl == 62  # the router, and the agent as a router
    assert inner[ICMP].seq == 1
    node.send(IP(src=str(HOME), dst=str(PEER)) / echo(1, "echo-reply"))
    assert answer_at(peer, 0).src == str(HOME)

    node.send(IP(src=str(HOME), dst=str(PEER), ttl=64) / echo(2))
    inner = node.take()[IP].payload
    assert (inner.src, inner.dst, inner[ICMP].type, inner[ICMP].seq) == (str(PEER), str(HOME), 0, 2)
    asked = answer_at(peer, 8)
    assert (asked.src, asked.ttl) == (str(HOME), 62)

    dump = agent.dump()
    (binding,) = dump["bindings"]
    assert (binding["node"], binding["care_of_address"]) == ("laptop", str(CARE_OF))
    assert 290 <= binding["remaining"] <= 300
    assert dump["counters"]["packets-out"] >= 2
    came = dump["counters"].get("packets-in", 0) + dump["traffic"].get("in-bpf", 0)
    assert came == 2


@pytest.mark.rows("R-201")
def test_the_agent_itself_can_be_reached_through_the_tunnel(agent: AgentProcess, node: Node) -> None:
    node.ask()
    node.send(IP(src=str(HOME), dst=str(AGENT)) / echo(3))
    inner = node.take()[IP].payload
    assert (inner.src, inner[ICMP].type, inner[ICMP].seq) == (str(AGENT), 0, 3)


def test_time_exceeded_reaches_the_mobile_node(agent: AgentProcess, node: Node) -> None:
    node.ask()
    node.send(IP(src=str(HOME), dst=str(PEER), ttl=1) / echo(4))
    inner = node.take()[IP].payload
    assert (inner.dst, inner[ICMP].type) == (str(HOME), 11)


@pytest.mark.rows("R-202")
def test_a_spoofed_reverse_tunnel_is_dropped_and_counted(
    agent: AgentProcess, node: Node, network: AgentNetwork, peer: socket.socket
) -> None:
    node.ask()
    elsewhere = Node(network.node, SECOND_CARE_OF)
    elsewhere.send(IP(src=str(HOME), dst=str(PEER)) / echo(66))
    node.send(IP(src=str(OTHER_HOME), dst=str(PEER)) / echo(67))
    node.send(IP(src=str(CARE_OF), dst=str(PEER)) / echo(68))
    node.tunnel.sendto(b"\x45\x00 no packet", (str(AGENT), 0))
    node.send(IP(src=str(HOME), dst=str(PEER)) / echo(69))
    elsewhere.close()
    assert answer_at(peer, 8)[ICMP].seq == 69
    assert agent.counter("reverse-tunnel-spoofed") == 3
    assert agent.counter("malformed-packet") == 1
    line = agent.wait_for("reverse-tunnel-spoofed")
    assert f"outer_source={SECOND_CARE_OF}" in line
    assert f"inner_source={HOME}" in line


def test_tunnel_packets_from_the_outside_interface_are_dropped(
    agent: AgentProcess, node: Node, network: AgentNetwork, peer: socket.socket
) -> None:
    # The right addresses by the wrong way: what a spoofer outside would send.
    node.ask()
    network.router.ip(f"route add {AGENT}/32 via {AGENT_OUTSIDE}")
    try:
        node.send(IP(src=str(HOME), dst=str(PEER)) / echo(5))
        time.sleep(0.2)
    finally:
        network.router.ip(f"route del {AGENT}/32 via {AGENT_OUTSIDE}")
    node.send(IP(src=str(HOME), dst=str(PEER)) / echo(6))
    assert answer_at(peer, 8)[ICMP].seq == 6
    assert agent.counter("tunnel-packet-from-outside-interface") == 1


@pytest.mark.rows("R-94")
def test_requests_by_the_outside_interface_meet_silence(
    agent: AgentProcess, node: Node, network: AgentNetwork
) -> None:
    assert node.ask(to=AGENT_OUTSIDE, wait=0.5) is None
    network.router.ip(f"route add {AGENT}/32 via {AGENT_OUTSIDE}")
    try:
        assert node.ask(wait=0.5) is None
    finally:
        network.router.ip(f"route del {AGENT}/32 via {AGENT_OUTSIDE}")
    assert agent.counter("request-from-outside-interface") == 2
    assert node.ask() is not None


@pytest.mark.rows("R-61", "R-94")
def test_requests_from_an_untrusted_source_meet_silence(agent: AgentProcess, network: AgentNetwork) -> None:
    stranger = Node(network.node, UNTRUSTED)
    assert stranger.ask(wait=0.5) is None
    stranger.close()
    assert agent.counter("request-from-untrusted-source") == 1
    assert agent.dump()["bindings"] == []


@pytest.mark.rows("R-193")
def test_forged_and_relayed_requests(agent: AgentProcess, node: Node, network: AgentNetwork) -> None:
    assert node.ask(association=FORGER, wait=0.5) is None
    relay = Node(network.node, SECOND_CARE_OF)
    relayed = relay.ask(care_of=CARE_OF)
    relay.close()
    assert relayed is not None
    assert (relayed.code, relayed.trusted_networks_configured) == (129, False)
    dump = agent.dump()
    assert dump["bindings"] == []
    assert dump["counters"]["wrong-authenticator"] == 1
    assert dump["counters"]["relayed-request"] == 1


@pytest.mark.rows("R-197", "R-201")
def test_packets_follow_a_move_and_end_with_a_deregistration(
    agent: AgentProcess, node: Node, network: AgentNetwork, peer: socket.socket
) -> None:
    node.ask()
    moved = Node(network.node, SECOND_CARE_OF)
    reply = moved.ask()
    assert reply is not None
    assert reply.code == 0
    ping_node(peer, 1)
    assert moved.take().dst == str(SECOND_CARE_OF)
    assert node.takes_nothing()
    ended = moved.ask(0)
    assert ended is not None
    assert (ended.code, ended.lifetime) == (0, 0)
    ping_node(peer, 2)
    assert moved.takes_nothing()
    moved.close()
    assert agent.counter("no-binding") == 1
    for change in ("made", "moved", "removed"):
        agent.wait_for(f"binding-{change} ")


@pytest.mark.slow
@pytest.mark.rows("R-198")
def test_a_lifetime_ends_silently(agent: AgentProcess, node: Node, peer: socket.socket) -> None:
    reply = node.ask(1)
    assert reply is not None
    assert reply.lifetime == 1
    ping_node(peer, 1)
    assert node.take()[IP].payload[ICMP].seq == 1
    agent.wait_for("binding-expired ")
    ping_node(peer, 2)
    assert node.takes_nothing()
    node.signalling.settimeout(0.1)
    with pytest.raises(TimeoutError):
        node.signalling.recv(100)


def test_a_home_address_outside_the_virtual_network_has_a_route_while_it_is_bound(
    agent: AgentProcess, node: Node, network: AgentNetwork, peer: socket.socket
) -> None:
    route = f"route show {OTHER_HOME}"
    assert network.agent.ip(route) == ""
    assert node.ask(association=OTHER_SA, home=OTHER_HOME) is not None
    assert f" dev {DEVICE} " in network.agent.ip(route)
    ping_node(peer, 1, OTHER_HOME)
    assert node.take()[IP].payload.dst == str(OTHER_HOME)
    assert node.ask(0, association=OTHER_SA, home=OTHER_HOME) is not None
    assert network.agent.ip(route) == ""


@pytest.mark.rows("R-287", "R-288")
def test_too_big_is_relayed_from_within_the_tunnel(
    agent: AgentProcess, node: Node, network: AgentNetwork, peer: socket.socket
) -> None:
    node.ask()
    peer.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER: set "do not fragment" whatever is known
    network.router.ip("link set to-node mtu 1300")
    try:
        ping_node(peer, 1, size=1400)
        relayed = answer_at(peer, 3)
        assert (relayed.src, relayed[ICMP].code, relayed[ICMP].nexthopmtu) == (str(AGENT), 4, 1280)
        quoted = relayed[ICMP].payload
        assert (quoted.src, quoted.dst) == (str(PEER), str(HOME))
        # The next one is told by the agent itself, from what it remembers.
        ping_node(peer, 2, size=1400)
        assert answer_at(peer, 3)[ICMP].nexthopmtu == 1280
        ping_node(peer, 3, size=1252)
        assert node.take()[IP].payload.len == 1280
    finally:
        network.router.ip("link set to-node mtu 1500")
    counters = agent.dump()["counters"]
    assert counters["icmp-from-tunnel-3-4"] == 1
    assert counters["icmp-sent-3-4"] == 2


def test_what_may_be_cut_is_cut_before_the_tunnel(
    agent: AgentProcess, node: Node, network: AgentNetwork
) -> None:
    node.ask()
    sender = udp(network.peer, PEER)
    sender.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: may be fragmented
    sender.sendto(bytes(2900), (str(HOME), 9))
    parts = [node.take()[IP].payload for _ in range(3)]
    sender.close()
    assert all(part.len <= 1480 for part in parts)
    assert sum(part.len - 20 for part in parts) == 2908
    assert parts[0][UDP].len == 2908


def test_an_end_on_request_leaves_nothing(
    network: AgentNetwork, config: Path, tmp_path: Path, node: Node
) -> None:
    before = (network.agent.ip("link show"), network.agent.ip("route show table all"))
    settings = "cat /proc/sys/net/ipv4/conf/*/forwarding"
    forwarding = network.agent.run("sh", "-c", settings)
    process = AgentProcess(network.agent, config, tmp_path / "log")
    process.wait_for("ready ")
    node.ask(association=OTHER_SA, home=OTHER_HOME)
    assert DEVICE in network.agent.ip("link show")
    assert process.stop() == 0
    assert (network.agent.ip("link show"), network.agent.ip("route show table all")) == before
    assert network.agent.run("sh", "-c", settings) == forwarding


def test_a_second_agent_gives_way(
    agent: AgentProcess, network: AgentNetwork, config: Path, tmp_path: Path, node: Node
) -> None:
    second = AgentProcess(network.agent, config, tmp_path / "second.log")
    assert second.wait() == 1
    assert "is another home agent running here?" in second.text()
    assert "Traceback" not in second.text()
    assert node.ask() is not None
    assert DEVICE in network.agent.ip("link show")


def test_losing_the_device_is_an_error_and_not_a_hang(
    network: AgentNetwork, config: Path, tmp_path: Path
) -> None:
    process = AgentProcess(network.agent, config, tmp_path / "log")
    process.wait_for("ready ")
    network.agent.ip(f"link delete {DEVICE}")
    assert process.wait() == 1
    assert "device-lost" in process.text()
    assert "Traceback" not in process.text()


def test_an_interface_that_is_not_there(network: AgentNetwork, config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIGURATION.replace('["inside"]', '["absent"]'))
    process = AgentProcess(network.agent, config, tmp_path / "log")
    assert process.wait() == 1
    assert "absent" in process.text()
    assert "Traceback" not in process.text()
    assert DEVICE not in network.agent.ip("link show")
