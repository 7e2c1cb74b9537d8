# SPDX-License-Identifier: GPL-2.0-or-later
"""The real foreign and home agents between real kernels, and mobile nodes made by hand."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from homeward.model.agent import AgentFlags
from homeward.model.registration import RegistrationReply, RequestFlags
from homeward.model.relay import HomeToForeign, MobileToForeign
from homeward.wire import authenticator, ip_in_ip, registration, relay
from homeward.wire.echo import decode_echo
from homeward.wire.internet_checksum import put
from homeward.wire.link_frames import udp
from tests.component.agent_network import AgentProcess
from tests.component.foreign_network import (
    FOREIGN,
    FOREIGN_HOME,
    FOREIGN_MAC,
    HOME,
    HOME_AGENT,
    NODE_MAC,
    OTHER_HOME,
    OTHER_SA,
    PEER,
    SA,
    ForeignNetwork,
    ForeignProcess,
    MobileNode,
    T,
    both_agents,
    ping_packet,
)

pytestmark = pytest.mark.root

Agents = tuple[AgentProcess, ForeignProcess]
G, M = RequestFlags.GRE, RequestFlags.MINIMAL
ENCAPSULATING = MobileToForeign(encapsulating_delivery=True)


@pytest.fixture(scope="module")
def network() -> Iterator[ForeignNetwork]:
    made = ForeignNetwork()
    yield made
    made.close()


@pytest.fixture(scope="module")
def agents(network: ForeignNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with both_agents(network, tmp_path_factory.mktemp("agents")) as processes:
        yield processes


@pytest.fixture
def node(network: ForeignNetwork) -> Iterator[MobileNode]:
    made = MobileNode(network.node)
    yield made
    made.close()


@pytest.fixture
def visitor(agents: Agents, node: MobileNode) -> Iterator[MobileNode]:
    """The mobile node while it is a visitor; it leaves when the test is over."""
    yield node
    time.sleep(0.6)  # so that no test finds the bucket of the one before empty
    node.register(0)
    assert agents[1].dump()["visitors"] == []


def ping(network: ForeignNetwork) -> None:
    """From both ends."""
    network.peer.run("ping", "-c2", "-i0.05", "-W1", str(HOME))
    network.node.run("ping", "-c2", "-i0.05", "-W1", "-I", str(HOME), str(PEER))


class Ear:
    """Hears what comes to a host on one of its links."""

    def __init__(self, network_host: object, link: str) -> None:
        with network_host.entered():  # type: ignore[attr-defined]
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.bind((link, 3))
        self._socket.setblocking(False)

    def frames(self, wait: float = 0.2) -> list[bytes]:
        """All frames that came in until then."""
        time.sleep(wait)
        found = []
        while True:
            try:
                frame, sender = self._socket.recvfrom(4096)
            except BlockingIOError:
                return found
            if sender[2] != socket.PACKET_OUTGOING:
                found.append(frame)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def peer_ear(network: ForeignNetwork) -> Iterator[Ear]:
    ear = Ear(network.peer, "lan")
    yield ear
    ear.close()


def from_home(frames: list[bytes]) -> list[bytes]:
    """The packets in these frames whose source is the home address."""
    return [frame[14:] for frame in frames if frame[12:14] == b"\x08\x00" and frame[26:30] == HOME.packed]


# --- registering and data ---------------------------------------------------------------------------------------------


@pytest.mark.rows("R-206", "R-208", "R-209", "R-210", "R-211", "R-171")
def test_discovery_registration_and_data_both_ways(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode
) -> None:
    _, foreign = agents
    visitor.drain()
    visitor.solicit()
    found = visitor.advertisement(to=HOME)
    assert found is not None
    assert AgentFlags.FOREIGN_AGENT | AgentFlags.REVERSE_TUNNEL in found.flags
    assert found.care_of_addresses == (FOREIGN,)
    assert found.prefix_lengths == (24,)
    visitor.ask(visitor.octets(visitor.request()))
    reply = visitor.answer()
    assert reply is not None
    assert authenticator.verify(reply.octets, reply, SA)
    assert reply.unauthenticated == (), "what was between the agents stays there"
    told = reply.message
    assert (told.code, told.lifetime, told.trusted_networks_configured) == (0, 300, True)
    (entry,) = foreign.dump()["visitors"]
    assert (entry["home_address"], entry["hardware_address"]) == (str(HOME), "02:00:00:00:00:10")
    ping(network)
    assert foreign.counter("packets-out") >= 4
    assert foreign.counter("packets-in") >= 4


@pytest.mark.rows("R-206")
def test_advertisements_to_everybody_come_by_themselves(agents: Agents, node: MobileNode) -> None:
    node.drain()
    heard = [node.advertisement(to=IPv4Address("224.0.0.1"), wait=2.0) for _ in range(2)]
    assert all(heard)
    first, second = heard
    assert first is not None
    assert second is not None
    assert second.sequence == first.sequence + 1
    assert first.lifetime == 3


@pytest.mark.parametrize("flags", [T | G, T | M], ids=["gre", "minimal"])
def test_other_encapsulations(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode, flags: RequestFlags
) -> None:
    core = Ear(network.home, "inside")
    try:
        assert visitor.register(flags=flags).code == 0
        core.frames(0)
        ping(network)
        protocols = {frame[23] for frame in core.frames(0) if frame[26:30] == FOREIGN.packed}
    finally:
        core.close()
    assert protocols - {17} == ({47} if flags & G else {55})


@pytest.mark.rows("R-211")
def test_what_a_visitor_sends_without_a_reverse_tunnel_is_routed_like_anybodys(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode
) -> None:
    assert visitor.register(flags=RequestFlags(0)).code == 0
    before = agents[1].counter("packets-out")
    network.node.run("ping", "-c2", "-i0.05", "-W1", "-I", str(HOME), str(PEER))
    assert agents[1].counter("packets-out") == before


@pytest.mark.rows("R-218")
def test_encapsulating_delivery(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode, peer_ear: Ear
) -> None:
    assert visitor.register(300, ENCAPSULATING).code == 0
    before = agents[1].counter("packets-out")
    inner = ping_packet(HOME, PEER, 7)
    visitor.drain()
    visitor.send(whole(ip_in_ip.encapsulate(inner, HOME, FOREIGN)))
    assert [decode_echo(each).sequence for each in from_home(peer_ear.frames())] == [7]
    assert agents[1].counter("packets-out") == before + 1
    assert visitor.heard(lambda _, packet: True if packet[12:20] == PEER.packed + HOME.packed else None), (
        "answered"
    )
    # Bare packets of such a visitor are routed, never tunnelled; and nobody is believed who says he is another.
    visitor.send(ping_packet(HOME, PEER, 8))
    visitor.send(whole(ip_in_ip.encapsulate(ping_packet(PEER, PEER, 9), HOME, FOREIGN)))
    assert [decode_echo(each).sequence for each in from_home(peer_ear.frames())] == [8]
    assert agents[1].counter("packets-out") == before + 1
    assert agents[1].counter("visitor-spoofed") >= 1


def whole(packet: bytes) -> bytes:
    """With the header checksum that the kernel would have filled in."""
    return put(packet[:20], 10) + packet[20:]


def test_a_packet_too_long_for_the_tunnel_is_told_its_sender_at_its_own_station(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode
) -> None:
    assert visitor.register().code == 0
    network.node.ip("route flush cache")
    delivered = agents[1].counter("packets-in")
    command = network.node.command("ping", "-c1", "-W1", "-Mdo", "-s1472", "-I", str(HOME), str(PEER))
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "mtu = 1480" in told.stdout + told.stderr or "mtu=1480" in told.stdout + told.stderr
    assert agents[1].counter("packets-in") == delivered, "told straight, not by way of the home agent"
    network.node.run("ping", "-c1", "-W1", "-Mdo", f"-s{1480 - 28}", "-I", str(HOME), str(PEER))
    network.node.run("ping", "-c1", "-W1", "-Mdont", "-s3000", "-I", str(HOME), str(PEER))


def test_a_visitor_ends_with_its_lifetime(network: ForeignNetwork, agents: Agents, node: MobileNode) -> None:
    _, foreign = agents
    seen = foreign.text().count("visitor-expired")
    assert node.register(1).code == 0
    foreign.wait_for("visitor-expired", times=seen + 1)
    assert foreign.dump()["visitors"] == []
    assert str(HOME) not in network.foreign.run("nft", "list", "table", "inet", "homeward-fa")
    assert str(HOME) not in network.foreign.ip("neighbour show")
    assert str(HOME) not in network.foreign.ip("route show table 436")


@pytest.mark.rows("R-207")
def test_denials_reach_the_mobile_node(agents: Agents, node: MobileNode) -> None:
    for n, (code, changes) in enumerate(
        (
            (69, {"lifetime": 5000}),
            (77, {"care_of_address": IPv4Address("10.1.9.9")}),
            (194, {"home_agent": FOREIGN}),
        )
    ):
        node.drain()
        lifetime = int(changes.pop("lifetime", 300))  # type: ignore[arg-type]
        station = NODE_MAC[:5] + bytes([0x30 + n])
        node.ask(node.octets(node.request(lifetime, **changes)), station=station)
        reply = node.answer()
        assert reply is not None
        assert reply.message.code == code
    assert agents[1].dump()["visitors"] == []


@pytest.mark.rows("R-207")
def test_a_request_from_behind_a_router_is_too_distant(agents: Agents, node: MobileNode) -> None:
    node.drain()
    node.ask(node.octets(node.request()), ttl=254, station=NODE_MAC[:5] + b"\x40")
    reply = node.answer()
    assert reply is not None
    assert reply.message.code == 76


# --- attacks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def attacker(network: ForeignNetwork) -> Iterator[MobileNode]:
    """Another host of the same link, which can put anything into a frame."""
    made = MobileNode(network.other, hardware_address=bytes.fromhex("020000000066"))
    yield made
    made.close()


@pytest.mark.rows("R-211")
def test_nobody_sends_in_a_visitors_name_from_another_station(
    agents: Agents, visitor: MobileNode, attacker: MobileNode, peer_ear: Ear
) -> None:
    assert visitor.register().code == 0
    peer_ear.frames(0)
    attacker.send(ping_packet(HOME, PEER, 66))
    attacker.send(whole(ip_in_ip.encapsulate(ping_packet(HOME, PEER, 67), HOME, FOREIGN)))
    visitor.send(ping_packet(HOME, PEER, 1))
    assert [decode_echo(each).sequence for each in from_home(peer_ear.frames())] == [1]


def test_a_visitors_station_is_no_licence_for_another_home_address(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode, attacker: MobileNode, peer_ear: Ear
) -> None:
    """With the visitor's hardware address the attacker can send as the visitor's host, but not as other visitors."""
    other = MobileNode(network.other, OTHER_HOME, OTHER_SA, hardware_address=bytes.fromhex("020000000011"))
    try:
        assert other.register().code == 0
        assert visitor.register().code == 0
        peer_ear.frames(0)
        attacker.send(ping_packet(other.home, PEER, 66), source=NODE_MAC)
        attacker.send(ping_packet(HOME, PEER, 67), source=other.hardware_address)
        frames = peer_ear.frames()
        assert not [each for each in frames if each[26:30] in (HOME.packed, other.home.packed)]
    finally:
        other.register(0)
        other.close()


@pytest.mark.rows("R-209")
def test_a_reply_forged_on_the_access_link_makes_no_visitor(
    network: ForeignNetwork, agents: Agents, attacker: MobileNode
) -> None:
    """The attacker knows everything but the keys, and is faster than the home agent, which would not answer it."""
    message = attacker.request(home_agent=HOME_AGENT)
    forged = RegistrationReply(
        0, 300, home_address=HOME, home_agent=HOME_AGENT, identification=message.identification
    )
    signed = relay.answer_foreign_agent(
        registration.encode_reply(forged, SA), HomeToForeign(), foreign_home=FOREIGN_HOME
    )
    _, foreign = agents
    before = foreign.counter("not-a-request")
    bad = authenticator.authenticate(registration.encode_request(message, SA)[:24], FOREIGN_HOME)
    attacker.ask(bad)
    attacker.send(udp((HOME_AGENT, 434), (FOREIGN, 434), signed, ttl=64))
    time.sleep(0.2)
    assert foreign.dump()["visitors"] == []
    assert foreign.counter("not-a-request") == before + 1


@pytest.mark.rows("R-211")
def test_tunnel_packets_from_anybody_but_the_home_agent_go_nowhere(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode, attacker: MobileNode
) -> None:
    assert visitor.register().code == 0
    _, foreign = agents
    delivered = foreign.counter("packets-in")
    visitor.drain()
    with network.peer.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)
    raw.sendto(ping_packet(PEER, HOME, 66), (str(FOREIGN), 0))
    attacker.send(whole(ip_in_ip.encapsulate(ping_packet(PEER, HOME, 67), HOME_AGENT, FOREIGN)))
    with network.home.entered():
        home = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)
    home.sendto(ping_packet(PEER, IPv4Address("10.77.0.99"), 68), (str(FOREIGN), 0))
    home.sendto(ping_packet(HOME_AGENT, PEER, 69), (str(FOREIGN), 0))
    home.sendto(ping_packet(PEER, HOME, 1), (str(FOREIGN), 0))

    def echo_for_us(station: bytes, packet: bytes) -> int | None:
        if packet[9] != 1 or packet[16:20] != HOME.packed or station != FOREIGN_MAC:
            return None
        return decode_echo(packet).sequence

    assert visitor.heard(echo_for_us) == 1
    for each in (raw, home):
        each.close()
    assert foreign.counter("packets-in") == delivered + 1
    assert foreign.counter("tunnel-packet-not-from-the-home-agent") >= 1
    assert foreign.counter("no-visitor") >= 3


@pytest.mark.rows("R-211")
def test_nobody_is_asked_by_arp_for_a_visitor(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode
) -> None:
    ear = Ear(network.other, "wlan")
    try:
        assert visitor.register().code == 0
        ping(network)
        frames = ear.frames()
    finally:
        ear.close()
    assert not [each for each in frames if each[12:14] == b"\x08\x06" and HOME.packed in each]


def test_a_flood_of_requests_keeps_no_visitor_out(
    network: ForeignNetwork, agents: Agents, visitor: MobileNode, attacker: MobileNode
) -> None:
    assert visitor.register().code == 0
    attacker.association = FOREIGN_HOME  # which is not the mobile node's
    payload = attacker.octets(attacker.request()) + bytes(1200)
    relayed = agents[1].counter("relayed")
    for n in range(3000):
        attacker.ask(payload, station=(0x020000200000 + n).to_bytes(6, "big"))
    time.sleep(0.4)
    assert visitor.register().code == 0
    ping(network)
    assert agents[1].counter("requests-too-often") >= 1
    assert agents[1].counter("relayed") - relayed < 150, "of 3000"


# --- both agents' words about an end ----------------------------------------------------------------------------------


@pytest.mark.rows("R-209")
def test_a_home_agent_that_is_not_running_is_said_to_be_so(
    network: ForeignNetwork, agents: Agents, node: MobileNode
) -> None:
    node.drain()
    nobody = node.request(home_agent=PEER)
    node.ask(node.octets(nobody), station=NODE_MAC[:5] + b"\x50")
    reply = node.answer()
    assert reply is not None
    assert reply.message.code == 82
